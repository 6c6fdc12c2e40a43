//! Who answers for an address on a wire, read from a capture: ARP (requests and replies that tell a binding) and
//! Neighbor Advertisements. The checker says whether ever two machines answered for one address.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{Result, capture::Captured, require};

/// Somebody said that an address is at a MAC address.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Since 1970.
    pub at: Duration,
    /// The address.
    pub address: IpAddr,
    /// Who has it.
    pub mac: String,
    /// Whether anybody had asked.
    pub kind: Kind,
}

/// What it was said for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Unasked: a gratuitous ARP packet, or an unsolicited Neighbor Advertisement.
    Announcement,
    /// Somebody had asked, or was asked something else.
    Answer,
}

/// An old holder that speaks up within this time after a new one did is a second holder, and not one that got the
/// address back.
const AFTER: Duration = Duration::from_secs(1);

const FIELDS: [&str; 8] = [
    "frame.time_epoch",
    "arp.src.proto_ipv4",
    "arp.dst.proto_ipv4",
    "arp.src.hw_mac",
    "icmpv6.nd.na.target_address",
    "icmpv6.nd.na.flag.s",
    "icmpv6.opt.linkaddr",
    "eth.src",
];

/// What was said of these addresses, in its order.
///
/// # Errors
/// When the capture cannot be read.
pub fn of(captured: &Captured, addresses: &[IpAddr]) -> Result<Vec<Answer>> {
    let lines = captured.packets("arp || icmpv6.type == 136", &FIELDS)?;
    let answers = lines.iter().filter_map(|line| parse(line));
    Ok(answers.filter(|answer| addresses.contains(&answer.address)).collect())
}

fn parse(line: &str) -> Option<Answer> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [at, v4, v4_target, v4_mac, v6, is_solicited, v6_mac, source] = fields.as_slice() else {
        return None;
    };
    let at = Duration::try_from_secs_f64(at.parse().ok()?).ok()?;
    let (address, mac, is_unasked) = match (v4.parse::<IpAddr>(), v6.parse::<IpAddr>()) {
        (Ok(address), _) => (address, v4_mac, v4 == v4_target),
        // Newer versions of tshark write a flag as a word, older ones as a number.
        (_, Ok(address)) => {
            (address, if v6_mac.is_empty() { source } else { v6_mac }, matches!(*is_solicited, "0" | "False"))
        }
        _ => return None,
    };
    let kind = if is_unasked { Kind::Announcement } else { Kind::Answer };
    Some(Answer { at, address, mac: (*mac).to_owned(), kind })
}

/// Who had each address, in order.
pub fn holders(answers: &[Answer]) -> BTreeMap<IpAddr, Vec<String>> {
    let mut holders: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for answer in answers {
        let of_address = holders.entry(answer.address).or_default();
        if of_address.last() != Some(&answer.mac) {
            of_address.push(answer.mac.clone());
        }
    }
    holders
}

/// Whether at every time at most one machine answered for each address. Once another one has spoken up, the one before
/// keeps silent; it may get the address back later, which it then announces before the other one speaks again.
///
/// # Errors
/// The first time that two did.
pub fn check_never_two(answers: &[Answer]) -> Result<()> {
    let mut of_address: BTreeMap<IpAddr, Vec<&Answer>> = BTreeMap::new();
    for answer in answers {
        of_address.entry(answer.address).or_default().push(answer);
    }
    of_address.values().try_for_each(|answers| check_address(answers))
}

fn check_address(answers: &[&Answer]) -> Result<()> {
    let mut holder = answers.first().map_or("", |answer| answer.mac.as_str());
    // Who had it before, and what was said by the one that came next.
    let mut former: BTreeMap<&str, &Answer> = BTreeMap::new();
    for (number, answer) in answers.iter().enumerate() {
        if answer.mac == holder {
            continue;
        }
        if let Some(next) = former.remove(answer.mac.as_str()) {
            let elapsed = answer.at.saturating_sub(next.at);
            let own = answers.iter().skip(number).take_while(|later| later.mac == answer.mac);
            require!(
                elapsed > AFTER && own.into_iter().any(|own| own.kind == Kind::Announcement),
                "{} speaks for {} ({:?}), {elapsed:?} after {} did: two at once",
                answer.mac,
                answer.address,
                answer.kind,
                next.mac
            );
        }
        former.insert(holder, answer);
        holder = &answer.mac;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: Kind, at_ms: u64, address: &str, mac: &str) -> Answer {
        Answer {
            at: Duration::from_millis(at_ms),
            address: address.parse().unwrap(),
            mac: mac.to_owned(),
            kind,
        }
    }

    fn answer(at_ms: u64, address: &str, mac: &str) -> Answer {
        said(Kind::Answer, at_ms, address, mac)
    }

    fn announcement(at_ms: u64, address: &str, mac: &str) -> Answer {
        said(Kind::Announcement, at_ms, address, mac)
    }

    #[test]
    fn an_address_may_move_and_after_a_while_move_back() {
        let answers = [
            answer(0, "192.0.2.1", "a"),
            answer(10, "192.0.2.2", "b"),
            answer(500, "192.0.2.1", "a"),
            answer(600, "192.0.2.1", "b"),
            answer(9_000, "192.0.2.1", "a"),
            announcement(9_001, "192.0.2.1", "a"),
        ];
        check_never_two(&answers).unwrap();
        assert_eq!(holders(&answers)[&answers[0].address], ["a", "b", "a"]);
    }

    #[test]
    fn two_that_answer_by_turns_are_found() {
        let answers =
            [answer(0, "192.0.2.1", "a"), answer(1, "192.0.2.1", "b"), announcement(40, "192.0.2.1", "a")];
        assert!(check_never_two(&answers).unwrap_err().to_string().contains("two at once"));
        check_never_two(&answers[..2]).unwrap();
    }

    #[test]
    fn one_that_wakes_up_late_and_answers_as_if_nothing_had_happened_is_found() {
        let address = "192.0.2.1";
        let mut answers = vec![
            answer(0, address, "a"),
            answer(600, address, "b"),
            answer(700, address, "c"),
            answer(5_000, address, "a"),
        ];
        answers.push(answer(5_001, address, "c"));
        let error = check_never_two(&answers).unwrap_err().to_string();
        assert!(error.starts_with("a speaks for 192.0.2.1 (Answer), 4.4s after b did"), "{error}");
        // Announcing it when the other has answered again is too late.
        answers.push(announcement(5_002, address, "a"));
        assert!(check_never_two(&answers).is_err());
    }

    #[test]
    fn lines_of_a_capture_are_read_in_both_families() {
        let arp = "12.5\t172.30.1.100\t172.30.1.251\t02:00:00:00:00:01\t\t\t\t02:00:00:00:00:01";
        assert_eq!(parse(arp), Some(answer(12_500, "172.30.1.100", "02:00:00:00:00:01")));
        let gratuitous = arp.replace(".251", ".100");
        assert_eq!(parse(&gratuitous), Some(announcement(12_500, "172.30.1.100", "02:00:00:00:00:01")));
        let solicited = "12.5\t\t\t\tfd00::1\t1\t02:00:00:00:00:02\t02:00:00:00:00:02";
        assert_eq!(parse(solicited), Some(answer(12_500, "fd00::1", "02:00:00:00:00:02")));
        for flag in ["0", "False"] {
            let unsolicited = solicited.replace("\t1\t", &format!("\t{flag}\t"));
            assert_eq!(parse(&unsolicited), Some(announcement(12_500, "fd00::1", "02:00:00:00:00:02")));
        }
        assert_eq!(parse(""), None);
    }
}

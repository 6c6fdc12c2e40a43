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
}

/// An old holder that speaks up within this time after a new one did is a second holder, and not one that got the
/// address back.
const AFTER: Duration = Duration::from_secs(1);

const FIELDS: [&str; 6] = [
    "frame.time_epoch",
    "arp.src.proto_ipv4",
    "arp.src.hw_mac",
    "icmpv6.nd.na.target_address",
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
    let [at, v4, v4_mac, v6, v6_mac, source] = fields.as_slice() else { return None };
    let at = Duration::try_from_secs_f64(at.parse().ok()?).ok()?;
    let (address, mac) = match (v4.parse::<IpAddr>(), v6.parse::<IpAddr>()) {
        (Ok(address), _) => (address, v4_mac),
        (_, Ok(address)) => (address, if v6_mac.is_empty() { source } else { v6_mac }),
        _ => return None,
    };
    Some(Answer { at, address, mac: (*mac).to_owned() })
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

/// Whether at every time at most one machine answered for each address: once somebody else has, the one before keeps
/// silent.
///
/// # Errors
/// The first time that two did.
pub fn check_never_two(answers: &[Answer]) -> Result<()> {
    // Of each address who has it, since when, and who had it before.
    let mut now: BTreeMap<IpAddr, (&Answer, Option<&str>)> = BTreeMap::new();
    for answer in answers {
        let (since, former) = *now.entry(answer.address).or_insert((answer, None));
        if answer.mac == since.mac {
            continue;
        }
        let elapsed = answer.at.saturating_sub(since.at);
        require!(
            former != Some(&answer.mac) || elapsed > AFTER,
            "{} answers for {}, {elapsed:?} after {} did: two at once",
            answer.mac,
            answer.address,
            since.mac
        );
        now.insert(answer.address, (answer, Some(&since.mac)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(at_ms: u64, address: &str, mac: &str) -> Answer {
        Answer { at: Duration::from_millis(at_ms), address: address.parse().unwrap(), mac: mac.to_owned() }
    }

    #[test]
    fn an_address_may_move_and_after_a_while_move_back() {
        let answers = [
            answer(0, "192.0.2.1", "a"),
            answer(10, "192.0.2.2", "b"),
            answer(500, "192.0.2.1", "a"),
            answer(600, "192.0.2.1", "b"),
            answer(9_000, "192.0.2.1", "a"),
        ];
        check_never_two(&answers).unwrap();
        assert_eq!(holders(&answers)[&answers[0].address], ["a", "b", "a"]);
    }

    #[test]
    fn two_that_answer_by_turns_are_found() {
        let answers =
            [answer(0, "192.0.2.1", "a"), answer(1, "192.0.2.1", "b"), answer(40, "192.0.2.1", "a")];
        assert!(check_never_two(&answers).unwrap_err().to_string().contains("two at once"));
        check_never_two(&answers[..2]).unwrap();
    }

    #[test]
    fn lines_of_a_capture_are_read_in_both_families() {
        let arp = "12.5\t172.30.1.100\t02:00:00:00:00:01\t\t\t02:00:00:00:00:01";
        assert_eq!(parse(arp), Some(answer(12_500, "172.30.1.100", "02:00:00:00:00:01")));
        let advertisement = "12.5\t\t\tfd00::1\t02:00:00:00:00:02\t02:00:00:00:00:02";
        assert_eq!(parse(advertisement), Some(answer(12_500, "fd00::1", "02:00:00:00:00:02")));
        assert_eq!(parse(""), None);
    }
}

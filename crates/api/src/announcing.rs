//! The annotations `purelb.io/announcing-IPv4` and `purelb.io/announcing-IPv6`: who announces which address of
//! a local pool, on which interface.
//!
//! One address in the family: `node1,enp1s0`. Several: `node1,enp1s0,192.0.2.10 node2,eth1,192.0.3.10`. Both
//! forms are accepted when read, whatever the number of addresses.

use std::net::IpAddr;

use crate::{address::IpFamily, names::annotation};

/// Who announces an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Announcer {
    /// Name of the node.
    pub node: String,
    /// Interface on that node.
    pub interface: String,
    /// The address; absent in the short form, which is used where the family has one address only.
    pub address: Option<IpAddr>,
}

/// Name of the annotation for a family.
pub const fn annotation(family: IpFamily) -> &'static str {
    match family {
        IpFamily::IPv4 => annotation::ANNOUNCING_IPV4,
        IpFamily::IPv6 => annotation::ANNOUNCING_IPV6,
    }
}

/// Why an announcing annotation cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an announcer: expected node,interface or node,interface,address")]
pub struct AnnouncingError(String);

/// Reads either form. An empty text is an empty list.
pub fn parse(text: &str) -> Result<Vec<Announcer>, AnnouncingError> {
    text.split_whitespace().map(parse_one).collect()
}

fn parse_one(text: &str) -> Result<Announcer, AnnouncingError> {
    let refuse = || AnnouncingError(text.to_owned());
    let mut parts = text.split(',');
    let (Some(node), Some(interface)) = (parts.next(), parts.next()) else { return Err(refuse()) };
    let address = parts.next().map(|address| address.parse().map_err(|_| refuse())).transpose()?;
    if node.is_empty() || interface.is_empty() || parts.next().is_some() {
        return Err(refuse());
    }
    Ok(Announcer { node: node.to_owned(), interface: interface.to_owned(), address })
}

/// Writes the announcers of a family's addresses, sorted by address: the short form where the Service has one
/// address in the family, else the long form. `None`: nobody announces, so the annotation is to be removed.
pub fn format(announcers: &[Announcer], addresses_in_family: usize) -> Option<String> {
    let mut sorted: Vec<&Announcer> = announcers.iter().collect();
    sorted.sort_by(|a, b| (a.address, a).cmp(&(b.address, b)));
    let entries = sorted.iter().map(|announcer| match announcer.address {
        Some(address) if addresses_in_family > 1 => {
            format!("{},{},{address}", announcer.node, announcer.interface)
        }
        _ => format!("{},{}", announcer.node, announcer.interface),
    });
    let text = entries.collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcer(node: &str, interface: &str, address: Option<&str>) -> Announcer {
        Announcer {
            node: node.to_owned(),
            interface: interface.to_owned(),
            address: address.map(|a| a.parse().unwrap()),
        }
    }

    #[test]
    fn both_forms_are_read() {
        assert_eq!(parse("node1,enp1s0").unwrap(), [announcer("node1", "enp1s0", None)]);
        assert_eq!(
            parse("node1,enp1s0,192.0.2.10 node2,eth1,192.0.3.10").unwrap(),
            [
                announcer("node1", "enp1s0", Some("192.0.2.10")),
                announcer("node2", "eth1", Some("192.0.3.10"))
            ]
        );
        assert_eq!(parse(" ").unwrap(), []);
    }

    #[test]
    fn what_names_no_announcer_is_refused() {
        for text in ["node1", "node1,", ",eth0", "node1,eth0,banana", "node1,eth0,192.0.2.1,x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_address_gets_the_short_form_and_several_the_long_one_sorted() {
        let one = [announcer("node1", "enp1s0", Some("192.0.2.10"))];
        assert_eq!(format(&one, 1).as_deref(), Some("node1,enp1s0"));
        let two = [
            announcer("node2", "eth1", Some("192.0.3.10")),
            announcer("node1", "enp1s0", Some("192.0.2.10")),
        ];
        assert_eq!(format(&two, 2).as_deref(), Some("node1,enp1s0,192.0.2.10 node2,eth1,192.0.3.10"));
        assert_eq!(format(&[], 1), None);
    }
}

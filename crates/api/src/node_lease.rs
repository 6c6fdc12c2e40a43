//! What a node agent's Lease says beside that the node lives: the annotations `purelb.io/subnets`,
//! `purelb.io/heartbeat`, `purelb.io/link-layer-addresses` and `purelb.io/address-conflicts`.
//!
//! Subnets: CIDRs, comma-separated, `192.0.2.0/24,fd00:1::/64`. Heartbeat: where the node hears heartbeats, one
//! `ADDRESS:PORT` a subnet, comma-separated, `192.0.2.7:7473,[fd00:1::7]:7473`. Link-layer addresses: those of the
//! node's interfaces, comma-separated, `02:00:5e:10:00:01,02:00:5e:10:00:02`. Conflicts: entries
//! `ADDRESS,LINK-LAYER-ADDRESS`, separated by blanks, `192.0.2.10,02:00:5e:10:00:01 fd00:1::5,02:00:5e:10:00:02`. All
//! are written sorted, so that equal meaning is equal text.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use ipnet::IpNet;

use crate::names::NODE_LEASE_PREFIX;

/// The name of a node's Lease.
pub fn name_of(node: &str) -> String {
    format!("{NODE_LEASE_PREFIX}{node}")
}

/// The node that a Lease of this name is of.
pub fn node_of(lease: &str) -> Option<&str> {
    lease.strip_prefix(NODE_LEASE_PREFIX).filter(|node| !node.is_empty())
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkLayerAddress(pub [u8; 6]);

impl fmt::Display for LinkLayerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for LinkLayerAddress {
    type Err = LeaseError;

    fn from_str(text: &str) -> Result<LinkLayerAddress, LeaseError> {
        let refuse = || LeaseError::LinkLayerAddress(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refuse)?;
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() { Err(refuse()) } else { Ok(LinkLayerAddress(octets)) }
    }
}

/// An address of ours for which a stranger answers on a node's wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressConflict {
    /// The address.
    pub address: IpAddr,
    /// Who answers for it.
    pub link_layer_address: LinkLayerAddress,
}

impl fmt::Display for AddressConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.address, self.link_layer_address)
    }
}

impl FromStr for AddressConflict {
    type Err = LeaseError;

    fn from_str(text: &str) -> Result<AddressConflict, LeaseError> {
        let refuse = || LeaseError::Conflict(text.to_owned());
        let (address, link_layer_address) = text.split_once(',').ok_or_else(refuse)?;
        Ok(AddressConflict {
            address: address.parse().map_err(|_| refuse())?,
            link_layer_address: link_layer_address.parse()?,
        })
    }
}

/// Why an annotation of a Lease cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// No CIDR.
    #[error("{0:?} is not a subnet: expected a CIDR as 192.0.2.0/24")]
    Subnet(String),
    /// No address with port.
    #[error(
        "{0:?} is not where heartbeats are heard: expected ADDRESS:PORT as 192.0.2.7:7473 or [fd00:1::7]:7473"
    )]
    Heartbeat(String),
    /// No pair.
    #[error("{0:?} is not an address conflict: expected ADDRESS,LINK-LAYER-ADDRESS")]
    Conflict(String),
    /// No Ethernet address.
    #[error("{0:?} is not a link-layer address: expected one as 02:00:5e:10:00:01")]
    LinkLayerAddress(String),
}

/// Reads `purelb.io/subnets`. An empty text is an empty set; bits behind a prefix are dropped.
///
/// # Errors
///
/// The first entry that is no CIDR.
pub fn parse_subnets(text: &str) -> Result<BTreeSet<IpNet>, LeaseError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            part.parse::<IpNet>()
                .map(|subnet| subnet.trunc())
                .map_err(|_| LeaseError::Subnet(part.to_owned()))
        })
        .collect()
}

/// Writes `purelb.io/subnets`.
pub fn format_subnets(subnets: &BTreeSet<IpNet>) -> String {
    join(subnets, ",")
}

/// Reads `purelb.io/heartbeat`. An empty text is an empty set.
///
/// # Errors
///
/// The first entry that is no address with port.
pub fn parse_heartbeats(text: &str) -> Result<BTreeSet<SocketAddr>, LeaseError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().map_err(|_| LeaseError::Heartbeat(part.to_owned()))).collect()
}

/// Writes `purelb.io/heartbeat`; `None`: there is none, so the annotation is to be removed.
pub fn format_heartbeats(addresses: &BTreeSet<SocketAddr>) -> Option<String> {
    (!addresses.is_empty()).then(|| join(addresses, ","))
}

/// Reads `purelb.io/link-layer-addresses`. An empty text is an empty set.
///
/// # Errors
///
/// The first entry that is no Ethernet address.
pub fn parse_link_layer_addresses(text: &str) -> Result<BTreeSet<LinkLayerAddress>, LeaseError> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
}

/// Writes `purelb.io/link-layer-addresses`; `None`: there is none, so the annotation is to be removed.
pub fn format_link_layer_addresses(addresses: &BTreeSet<LinkLayerAddress>) -> Option<String> {
    (!addresses.is_empty()).then(|| join(addresses, ","))
}

/// Reads `purelb.io/address-conflicts`. An empty text is an empty set.
///
/// # Errors
///
/// The first entry that is no conflict.
pub fn parse_conflicts(text: &str) -> Result<BTreeSet<AddressConflict>, LeaseError> {
    text.split_whitespace().map(str::parse).collect()
}

/// Writes `purelb.io/address-conflicts`; `None`: there is none, so the annotation is to be removed.
pub fn format_conflicts(conflicts: &BTreeSet<AddressConflict>) -> Option<String> {
    (!conflicts.is_empty()).then(|| join(conflicts, " "))
}

fn join<T: ToString>(items: &BTreeSet<T>, separator: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_called_after_its_node() {
        assert_eq!(name_of("n1.example"), "purelb-n1.example");
        assert_eq!(node_of("purelb-n1.example"), Some("n1.example"));
        assert_eq!((node_of("purelb-"), node_of("n1")), (None, None));
    }

    #[test]
    fn subnets_are_written_sorted_and_read_leniently() {
        let subnets = parse_subnets(" fd00:1::/64, 192.0.2.1/24 ,10.0.0.0/8,").unwrap();
        assert_eq!(format_subnets(&subnets), "10.0.0.0/8,192.0.2.0/24,fd00:1::/64");
        assert_eq!(parse_subnets(&format_subnets(&subnets)), Ok(subnets));
        assert_eq!(
            (parse_subnets(""), format_subnets(&BTreeSet::new())),
            (Ok(BTreeSet::new()), String::new())
        );
        for text in ["banana", "192.0.2.1", "192.0.2.0/24 10.0.0.0/8", "192.0.2.0/33"] {
            assert!(matches!(parse_subnets(text), Err(LeaseError::Subnet(_))), "{text}");
        }
    }

    #[test]
    fn heartbeat_addresses_are_read_as_they_are_written() {
        let text = "192.0.2.7:7473,[fd00:1::7]:7473";
        let addresses = parse_heartbeats(" [fd00:1::7]:7473, 192.0.2.7:7473,").unwrap();
        assert_eq!(format_heartbeats(&addresses).as_deref(), Some(text));
        assert_eq!(parse_heartbeats(text), Ok(addresses));
        assert_eq!((parse_heartbeats(""), format_heartbeats(&BTreeSet::new())), (Ok(BTreeSet::new()), None));
        for text in ["192.0.2.7", "fd00:1::7:7473x", "192.0.2.7:7473 192.0.2.8:7473", "banana:1"] {
            assert!(matches!(parse_heartbeats(text), Err(LeaseError::Heartbeat(_))), "{text}");
        }
    }

    #[test]
    fn link_layer_addresses_are_read_as_they_are_written() {
        let addresses = parse_link_layer_addresses(" 02:00:5E:10:00:0a,02:00:5e:10:00:01,").unwrap();
        let text = "02:00:5e:10:00:01,02:00:5e:10:00:0a";
        assert_eq!(format_link_layer_addresses(&addresses).as_deref(), Some(text));
        assert_eq!(format_link_layer_addresses(&BTreeSet::new()), None);
        assert!(parse_link_layer_addresses("02:00:5e:10:00:01 02:00:5e:10:00:02").is_err());
    }

    #[test]
    fn conflicts_are_read_as_they_are_written() {
        let text = "192.0.2.10,02:00:5e:10:00:01 fd00:1::5,02:00:5e:10:00:0a";
        let conflicts =
            parse_conflicts(" fd00:1::5,02:00:5E:10:00:0A\n192.0.2.10,02:00:5e:10:00:01 ").unwrap();
        assert_eq!(format_conflicts(&conflicts).as_deref(), Some(text));
        assert_eq!(parse_conflicts(text), Ok(conflicts));
        assert_eq!((parse_conflicts(""), format_conflicts(&BTreeSet::new())), (Ok(BTreeSet::new()), None));
    }

    #[test]
    fn what_is_no_conflict_is_refused_with_what_would_do() {
        for (text, part) in [
            ("192.0.2.10", "expected ADDRESS,LINK-LAYER-ADDRESS"),
            ("banana,02:00:5e:10:00:01", "expected ADDRESS,LINK-LAYER-ADDRESS"),
            ("192.0.2.10,02:00:5e:10:00", "expected one as"),
            ("192.0.2.10,02:00:5e:10:00:01:02", "expected one as"),
            ("192.0.2.10,02:00:5e:10:00:+1", "expected one as"),
            ("192.0.2.10,2:0:5e:10:0:1", "expected one as"),
            ("192.0.2.10,02:00:5e:10:00:01,x", "expected one as"),
        ] {
            let error = parse_conflicts(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

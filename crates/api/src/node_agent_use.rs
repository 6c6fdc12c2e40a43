//! What a node makes of an LBNodeAgent: the annotation `purelb.io/node-agent` on the node's Lease.
//!
//! The name of the LBNodeAgent, then, each after a blank, what keeps interfaces that it selects from having addresses of
//! local pools: `INTERFACE:REASON`, `default eth1:port eth7:absent`; where no interface is to be named, `:REASON`. Written
//! sorted, so that equal meaning is equal text. A reason that is not known is left out: a newer agent says more.

use std::{collections::BTreeSet, fmt};

/// Why an interface that an LBNodeAgent selects has no addresses of local pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unfit {
    /// There is none of this name.
    Absent,
    /// It is a port of a bridge, a bond or a VRF.
    Port,
    /// Neighbours are not resolved on it (`IFF_NOARP`).
    NoArp,
    /// It is the loopback interface.
    Loopback,
    /// It is the interface of remote addresses.
    Dummy,
    /// It has no Ethernet address.
    NoEthernet,
    /// It is down, or nothing is plugged in.
    NoCarrier,
    /// The node has no address on it that has a subnet around it.
    NoSubnet,
    /// No interface matches `localInterface`.
    NoMatch,
    /// `localInterface` is `default`, and there is no default route.
    NoDefaultRoute,
}

impl Unfit {
    const ALL: [(Unfit, &str, &str); 10] = [
        (Unfit::Absent, "absent", "does not exist"),
        (
            Unfit::Port,
            "port",
            "is a port of a bridge, a bond or a VRF: select that one instead, which has the addresses",
        ),
        (Unfit::NoArp, "noarp", "does not resolve neighbours (NOARP), so nobody there could find an address"),
        (Unfit::Loopback, "loopback", "is the loopback interface"),
        (Unfit::Dummy, "dummy", "is the interface of remote addresses (dummyInterface)"),
        (Unfit::NoEthernet, "no-ethernet", "has no Ethernet address"),
        (Unfit::NoCarrier, "no-carrier", "is down or has no carrier"),
        (Unfit::NoSubnet, "no-subnet", "has no address of the node's own with a subnet around it"),
        (Unfit::NoMatch, "no-match", "no interface matches localInterface"),
        (
            Unfit::NoDefaultRoute,
            "no-default-route",
            "localInterface is default, and there is no default route",
        ),
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        Unfit::ALL.iter().find(|(unfit, ..)| *unfit == self).map_or("", |(_, word, _)| word)
    }

    fn of_word(text: &str) -> Option<Unfit> {
        Unfit::ALL.iter().find(|(_, word, _)| *word == text).map(|(unfit, ..)| *unfit)
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Unfit::ALL.iter().find(|(unfit, ..)| unfit == self).map_or("", |(.., text)| text))
    }
}

/// An interface, or none in particular, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnfitInterface {
    /// Its name; empty where none is to be named.
    pub interface: String,
    /// What is wrong.
    pub why: Unfit,
}

impl fmt::Display for UnfitInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.interface.is_empty() {
            write!(f, "{} ", self.interface)?;
        }
        write!(f, "{}", self.why)
    }
}

/// What a node makes of an LBNodeAgent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAgentUse {
    /// The LBNodeAgent.
    pub name: String,
    /// What it selects there and cannot be used.
    pub unfit: BTreeSet<UnfitInterface>,
}

impl NodeAgentUse {
    /// Reads the annotation; `None` for an empty text.
    pub fn parse(text: &str) -> Option<NodeAgentUse> {
        let mut words = text.split_whitespace();
        let name = words.next()?.to_owned();
        let unfit = words.filter_map(|word| {
            let (interface, why) = word.split_once(':')?;
            Some(UnfitInterface { interface: interface.to_owned(), why: Unfit::of_word(why)? })
        });
        Some(NodeAgentUse { name, unfit: unfit.collect() })
    }
}

/// As the annotation has it.
impl fmt::Display for NodeAgentUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.unfit.iter().try_for_each(|it| write!(f, " {}:{}", it.interface, it.why.word()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_unknown_reasons_are_left_out() {
        let unfit = Unfit::ALL.map(|(why, ..)| UnfitInterface { interface: "eth1".to_owned(), why });
        let all = NodeAgentUse { name: "default".to_owned(), unfit: unfit.into() };
        assert_eq!(NodeAgentUse::parse(&all.to_string()), Some(all));
        let read = NodeAgentUse::parse("racks  :no-match eth7:absent eth1:haunted x").unwrap();
        assert_eq!(read.to_string(), "racks :no-match eth7:absent");
        assert_eq!(NodeAgentUse::parse(" "), None);
    }

    #[test]
    fn what_is_wrong_is_said_of_the_interface_where_there_is_one() {
        let text = |interface: &str, why| UnfitInterface { interface: interface.to_owned(), why }.to_string();
        assert_eq!(text("eth7", Unfit::Absent), "eth7 does not exist");
        assert_eq!(text("", Unfit::NoMatch), "no interface matches localInterface");
    }
}

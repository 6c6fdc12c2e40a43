//! Two namespaces with one veth pair between them: the speaker under test on one side, the receiver on the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use lab::{Namespace, Run};

use super::{Family, Messages};

/// One end of the pair, or a further address on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The speaker under test.
    Speaker,
    /// The receiver.
    Sink,
    /// On the receiver's side: whoever loads a daemon's table.
    Feeder,
}

impl End {
    /// Its address.
    pub(crate) fn address(self, family: Family) -> IpAddr {
        let host = self as u8 + 1;
        match family {
            Family::Ipv4 => Ipv4Addr::new(172, 31, 9, host).into(),
            Family::Ipv6 => Ipv6Addr::new(0xfd00, 0x31, 9, 0, 0, 0, 0, u16::from(host)).into(),
        }
    }

    /// Its BGP Identifier.
    pub(crate) fn router_id(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 31, 9, self as u8 + 1)
    }

    /// Its messages.
    pub(crate) fn messages(self) -> Messages {
        Messages { local_as: self.asn(), router_id: self.router_id() }
    }

    /// Its AS: all sessions are eBGP.
    pub(crate) fn asn(self) -> u32 {
        64_601 + self as u32
    }
}

/// The pair; it goes with its run.
#[derive(Debug)]
pub(crate) struct Pair {
    /// Where speakers run.
    pub(crate) speaker: Namespace,
    /// Where the receiver runs.
    pub(crate) sink: Namespace,
    /// Owns both.
    pub(crate) run: Run,
}

impl Pair {
    /// Builds it.
    pub(crate) fn build() -> Result<Self> {
        let run = Run::start()?;
        let (speaker, sink) = (run.namespace("speaker")?, run.namespace("sink")?);
        speaker.ip(&format!("link add eth0 type veth peer name eth0 netns {}", sink.name()))?;
        let sides = [(&speaker, &[End::Speaker][..]), (&sink, &[End::Sink, End::Feeder])];
        for (namespace, ends) in sides {
            for end in ends {
                namespace.ip(&format!(
                    "address add {}/24 dev eth0\naddress add {}/64 dev eth0 nodad",
                    end.address(Family::Ipv4),
                    end.address(Family::Ipv6)
                ))?;
            }
            namespace.ip("link set eth0 up")?;
        }
        Ok(Self { speaker, sink, run })
    }
}

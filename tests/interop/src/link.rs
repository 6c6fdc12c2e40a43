//! The wire of a cell: the speaker's namespace and the router's, joined by one veth pair, or by two with a
//! forwarding namespace between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::types::Family;
use lab::{Addresses, Host, Namespace, Result, Run, command};

/// The interface of both ends.
const INTERFACE: &str = "eth0";
/// The last octet of the forwarder's addresses.
const FORWARDER: u8 = 254;

/// Where a segment begins with a KEEPALIVE: the octet behind marker and length (RFC 4271 §4.1) is its type.
const IS_KEEPALIVE: &str = "@ih,144,8 4";

/// What [`Link::mute`] holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Muted {
    /// Every message: TCP connections come up, and nothing is said on them.
    All,
    /// KEEPALIVEs, and all that follows one: OPENs are exchanged, and no session is established.
    Keepalives,
}

/// The two ends.
#[derive(Debug)]
pub struct Link {
    /// Where the speaker runs.
    pub speaker: Host,
    /// Where the router runs.
    pub router: Host,
}

impl Link {
    /// Builds it, with the ends on one subnet, or `far` from each other: two hops.
    ///
    /// # Errors
    /// When the kernel refuses something.
    pub fn build(run: &Run, far: bool) -> Result<Self> {
        let speaker = host(run, "speaker", addresses(7, 1))?;
        let router = host(run, "router", addresses(if far { 8 } else { 7 }, 2))?;
        if far {
            let middle = run.namespace("middle")?;
            middle.sysctl("net.ipv4.ip_forward", "1")?;
            middle.sysctl("net.ipv6.conf.all.forwarding", "1")?;
            for (end, network) in [(&speaker, 7), (&router, 8)] {
                let gateway = addresses(network, FORWARDER);
                join(end, &middle, &end.name)?;
                assign(&middle, &end.name, gateway)?;
                end.namespace.ip(&format!(
                    "route add default via {}\nroute add default via {}",
                    gateway.v4, gateway.v6
                ))?;
            }
        } else {
            join(&speaker, &router.namespace, INTERFACE)?;
            assign(&router.namespace, INTERFACE, router.addresses)?;
        }
        Ok(Self { speaker, router })
    }

    /// A third namespace behind the router, which forwards, with routes both ways.
    ///
    /// # Errors
    /// When the kernel refuses something.
    pub fn client(&self, run: &Run) -> Result<Host> {
        let client = host(run, "client", addresses(9, 1))?;
        let router = &self.router.namespace;
        router.sysctl("net.ipv4.ip_forward", "1")?;
        router.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        join(&client, router, &client.name)?;
        let gateway = addresses(9, FORWARDER);
        assign(router, &client.name, gateway)?;
        client
            .namespace
            .ip(&format!("route add default via {}\nroute add default via {}", gateway.v4, gateway.v6))?;
        Ok(client)
    }

    /// What is captured on.
    pub const fn interface(&self) -> &'static str {
        INTERFACE
    }

    /// Holds back BGP messages, until [`Link::unmute`] or another choice of them.
    ///
    /// They get lost where they arrive. Where they leave, the kernel would notice: it keeps what it could not send and
    /// puts the next message into the same segment, so that a KEEPALIVE would slip through behind an OPEN.
    ///
    /// # Errors
    /// When the kernel refuses the filter.
    pub fn mute(&self, messages: Muted) -> Result<()> {
        let which = match messages {
            Muted::All => "",
            Muted::Keepalives => IS_KEEPALIVE,
        };
        // In one transaction: nothing slips through between the old filter and the new.
        let filter = format!(
            "table inet mute {{ }}
             delete table inet mute
             table inet mute {{
                 chain input {{
                     type filter hook input priority 0
                     tcp flags & psh == psh {which} drop
                 }}
             }}"
        );
        for end in [&self.speaker, &self.router] {
            // Nor must a message slip through at the end of one that is sent again.
            end.namespace.sysctl("net.ipv4.tcp_retrans_collapse", "0")?;
            command::run_with_input(end.namespace.command("nft").args(["-f", "-"]), &filter)?;
        }
        Ok(())
    }

    /// Ends [`Link::mute`]; what was held back is sent again by TCP.
    ///
    /// # Errors
    /// When it was not muted.
    pub fn unmute(&self) -> Result<()> {
        for end in [&self.speaker, &self.router] {
            command::run(end.namespace.command("nft").args(["delete", "table", "inet", "mute"]))?;
        }
        Ok(())
    }

    /// Nothing gets through any more, and nobody is told, until [`Link::heal`].
    ///
    /// # Errors
    /// When the kernel refuses the filter.
    pub fn cut(&self) -> Result<()> {
        let chain =
            |hook: &str| format!("chain {hook} {{ type filter hook {hook} priority 0; policy drop; }}");
        let filter = format!("table inet cut {{ {}\n{}\n}}\n", chain("input"), chain("output"));
        command::run_with_input(self.speaker.namespace.command("nft").args(["-f", "-"]), &filter).map(drop)
    }

    /// Ends [`Link::cut`].
    ///
    /// # Errors
    /// When it was not cut.
    pub fn heal(&self) -> Result<()> {
        command::run(self.speaker.namespace.command("nft").args(["delete", "table", "inet", "cut"])).map(drop)
    }

    /// How many BGP connections there are at the speaker: those it opened, and those that were opened to it.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn connections(&self) -> Result<(usize, usize)> {
        let count = |filter: &str| {
            let words = ["-Htn", "state", "established", filter];
            let shown = command::run(self.speaker.namespace.command("ss").args(words))?;
            Ok::<_, lab::Error>(shown.lines().count())
        };
        Ok((count("dport = :179")?, count("sport = :179")?))
    }
}

/// The address of one family.
pub(crate) fn address_of(host: &Host, family: Family) -> IpAddr {
    match family {
        Family::Ipv4Unicast => host.addresses.v4.into(),
        Family::Ipv6Unicast => host.addresses.v6.into(),
    }
}

const fn addresses(network: u8, host: u8) -> Addresses {
    Addresses {
        v4: Ipv4Addr::new(172, 31, network, host),
        v6: Ipv6Addr::new(0xfd00, 0x31, network as u16, 0, 0, 0, 0, host as u16),
        link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host as u16),
    }
}

fn host(run: &Run, name: &str, addresses: Addresses) -> Result<Host> {
    Ok(Host { name: name.to_owned(), namespace: run.namespace(name)?, addresses })
}

/// A veth pair from an end to another namespace.
fn join(end: &Host, other: &Namespace, interface: &str) -> Result<()> {
    end.namespace
        .ip(&format!("link add {INTERFACE} type veth peer name {interface} netns {}", other.name()))?;
    assign(&end.namespace, INTERFACE, end.addresses)
}

fn assign(namespace: &Namespace, interface: &str, Addresses { v4, v6, link_local }: Addresses) -> Result<()> {
    namespace.ip(&format!(
        "link set {interface} addrgenmode none\naddress add {v4}/24 dev {interface}\naddress add {v6}/64 dev \
         {interface} nodad\naddress add {link_local}/64 dev {interface} nodad\nlink set {interface} up"
    ))
}

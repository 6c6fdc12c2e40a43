//! Real routers: FRR, BIRD and GoBGP from their packages, started in a machine's namespace with their configuration,
//! sockets and logs in the run's folder. No system service is touched.
//!
//! What a router knows is asked from the router itself: from its daemon's table ([`Router::next_hops`]) and from
//! its kernel ([`kernel_next_hops`]), which is what forwards.

mod bird;
mod frr;
mod gobgp;

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Command,
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;

use crate::{Addresses, Error, Host, Process, Result, Run, command, topology::NODES_CIDRS, until};

/// Whose router runs on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Software {
    /// FRR: `zebra` and `bgpd`.
    Frr,
    /// BIRD 2.
    Bird,
    /// GoBGP 3: one next hop a prefix.
    GoBgp,
}

/// What a router is configured with; the rest stands in `tests/lab/routers/`.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// The router's own AS number.
    pub local_as: u32,
    /// The AS number of the nodes.
    pub node_as: u32,
    /// The nodes that may connect, by their addresses in the routers' network.
    pub nodes: Vec<Addresses>,
    /// The prefixes it accepts load balancer addresses from, both families.
    pub pools: Vec<IpNet>,
}

/// A BGP session as the router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The other end.
    pub peer: IpAddr,
    /// The state in the router's words, `Established` for example.
    pub state: String,
}

impl Session {
    /// Whether the session is up.
    pub fn is_established(&self) -> bool {
        self.state == "Established"
    }
}

/// An address family to count prefixes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
}

impl Family {
    /// The family of a prefix.
    pub fn of(prefix: IpNet) -> Self {
        if matches!(prefix, IpNet::V4(_)) { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// A running router.
#[derive(Debug)]
pub struct Router {
    host: Host,
    config: RouterConfig,
    daemons: Daemons,
}

#[derive(Debug)]
enum Daemons {
    Frr(frr::Frr),
    Bird(bird::Bird),
    GoBgp(gobgp::GoBgp),
}

impl Router {
    /// Starts the daemons of one router and waits until they answer and have taken their configuration.
    ///
    /// # Errors
    /// When the package is not installed or the configuration is refused.
    pub fn start(run: &Run, host: &Host, software: Software, config: RouterConfig) -> Result<Self> {
        let folder = run.folder().join(&host.name);
        fs::create_dir_all(&folder).map_err(Error::path(&folder))?;
        let daemons = match software {
            Software::Frr => Daemons::Frr(frr::Frr::start(run, host, &folder, &config)?),
            Software::Bird => Daemons::Bird(bird::Bird::start(run, host, &folder, &config)?),
            Software::GoBgp => Daemons::GoBgp(gobgp::GoBgp::start(run, host, &folder, &config)?),
        };
        Ok(Self { host: host.clone(), config, daemons })
    }

    /// The machine it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its name, `router1` for example.
    pub fn name(&self) -> &str {
        &self.host.name
    }

    /// Its own AS number.
    pub fn local_as(&self) -> u32 {
        self.config.local_as
    }

    /// Name and version of the software, as it says itself.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn version(&self) -> Result<String> {
        match &self.daemons {
            Daemons::Frr(frr) => frr.version(),
            Daemons::Bird(bird) => bird.version(),
            Daemons::GoBgp(gobgp) => gobgp.version(),
        }
    }

    /// A command of the router's own command line: vtysh, birdc or gobgp.
    pub fn cli(&self, words: &str) -> Command {
        match &self.daemons {
            Daemons::Frr(frr) => frr.cli(words),
            Daemons::Bird(bird) => bird.cli(words),
            Daemons::GoBgp(gobgp) => gobgp.cli(words),
        }
    }

    /// The words that show the route to one prefix.
    pub fn route_words(&self, prefix: IpNet) -> String {
        match &self.daemons {
            Daemons::Frr(_) => frr::route_words(prefix),
            Daemons::Bird(_) => bird::route_words(prefix),
            Daemons::GoBgp(_) => gobgp::route_words(prefix),
        }
    }

    /// The words that list the BGP sessions for a reader.
    pub fn sessions_words(&self) -> &'static str {
        match &self.daemons {
            Daemons::Frr(_) => frr::SESSIONS_WORDS,
            Daemons::Bird(_) => bird::SESSIONS_WORDS,
            Daemons::GoBgp(_) => gobgp::SESSIONS_WORDS,
        }
    }

    /// The next hops of one prefix in the router's own table; empty when it does not know the prefix.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn next_hops(&self, prefix: IpNet) -> Result<BTreeSet<IpAddr>> {
        match &self.daemons {
            Daemons::Frr(frr) => frr.next_hops(prefix),
            Daemons::Bird(bird) => bird.next_hops(prefix),
            Daemons::GoBgp(gobgp) => gobgp.next_hops(prefix),
        }
    }

    /// All BGP sessions that the router knows.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn sessions(&self) -> Result<Vec<Session>> {
        match &self.daemons {
            Daemons::Frr(frr) => frr.sessions(),
            Daemons::Bird(bird) => bird.sessions(),
            Daemons::GoBgp(gobgp) => gobgp.sessions(),
        }
    }

    /// How many prefixes of a family its BGP table holds; cheap however many they are.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn prefix_count(&self, family: Family) -> Result<usize> {
        match &self.daemons {
            Daemons::Frr(frr) => frr.prefix_count(family),
            Daemons::Bird(bird) => bird.prefix_count(family),
            Daemons::GoBgp(gobgp) => gobgp.prefix_count(family),
        }
    }

    /// The daemons, to kill, pause or resume.
    pub fn processes(&mut self) -> Vec<&mut Process> {
        match &mut self.daemons {
            Daemons::Frr(frr) => frr.processes(),
            Daemons::Bird(bird) => vec![bird.process()],
            Daemons::GoBgp(gobgp) => vec![gobgp.process()],
        }
    }

    /// Waits until a prefix is in the router's own table with exactly these machines as next hops, and in its
    /// kernel; with none of them, until the prefix is gone from both.
    ///
    /// # Errors
    /// When it does not get there in time.
    pub fn wait_next_hops(&self, prefix: IpNet, expected: &[&Host], timeout: Duration) -> Result<()> {
        let names = expected.iter().map(|host| host.name.as_str()).collect::<Vec<_>>();
        until(format!("{prefix} on {} with next hops {names:?}", self.name()), timeout, || {
            let table = self.next_hops(prefix)?;
            crate::require!(are_hosts(&table, expected), "next hops {table:?} in its table");
            let kernel = kernel_next_hops(&self.host, prefix)?;
            crate::require!(are_hosts(&kernel, expected), "next hops {kernel:?} in its kernel");
            Ok::<_, Error>(())
        })
    }

    /// Waits until sessions with exactly these peers are established.
    ///
    /// # Errors
    /// When it does not get there in time.
    pub fn wait_established(&self, expected: &BTreeSet<IpAddr>, timeout: Duration) -> Result<()> {
        until(format!("sessions of {} with {expected:?}", self.name()), timeout, || {
            let sessions = self.sessions()?;
            let up = sessions.iter().filter(|session| session.is_established());
            let up = up.map(|session| session.peer).collect::<BTreeSet<_>>();
            crate::require!(up == *expected, "sessions {sessions:?}");
            Ok::<_, Error>(())
        })
    }
}

/// Whether these next hops are exactly these machines, one each.
pub fn are_hosts(next_hops: &BTreeSet<IpAddr>, hosts: &[&Host]) -> bool {
    let is_hop = |host: &&Host| next_hops.iter().filter(|hop| host.addresses.contains(**hop)).count() == 1;
    next_hops.len() == hosts.len() && hosts.iter().all(is_hop)
}

#[derive(Deserialize)]
struct KernelRoute {
    gateway: Option<IpAddr>,
    via: Option<Via>,
    #[serde(default)]
    nexthops: Vec<KernelNextHop>,
}

#[derive(Deserialize)]
struct KernelNextHop {
    gateway: Option<IpAddr>,
    via: Option<Via>,
}

/// A gateway of the other family (RFC 8950 routes).
#[derive(Deserialize)]
struct Via {
    host: IpAddr,
}

/// The next hops of one prefix in the kernel of a machine; empty when it has no such route.
///
/// # Errors
/// When `ip` fails.
pub fn kernel_next_hops(host: &Host, prefix: IpNet) -> Result<BTreeSet<IpAddr>> {
    let family = if matches!(prefix, IpNet::V4(_)) { "-4" } else { "-6" };
    let shown = host.namespace.ip_show(&[family, "-j", "route", "show", "exact", &prefix.to_string()])?;
    let routes =
        serde_json::from_str::<Vec<KernelRoute>>(if shown.trim().is_empty() { "[]" } else { &shown })
            .map_err(|error| Error::parse("ip -j route", error))?;
    let hops = routes.into_iter().flat_map(|route| {
        let single = KernelNextHop { gateway: route.gateway, via: route.via };
        std::iter::once(single).chain(route.nexthops)
    });
    Ok(hops.filter_map(|hop| hop.gateway.or(hop.via.map(|via| via.host))).collect())
}

/// Fills in a template of `tests/lab/routers/`. A line with a pool or a node is repeated for each of its family.
fn render(template: &str, hostname: &str, router_id: Ipv4Addr, config: &RouterConfig) -> String {
    let simple = [
        ("{{hostname}}", hostname.to_owned()),
        ("{{router_id}}", router_id.to_string()),
        ("{{local_as}}", config.local_as.to_string()),
        ("{{node_as}}", config.node_as.to_string()),
        ("{{nodes_v4}}", NODES_CIDRS.0.to_owned()),
        ("{{nodes_v6}}", NODES_CIDRS.1.to_owned()),
    ];
    let pools = |family| config.pools.iter().filter(move |pool| Family::of(**pool) == family);
    let repeated = [
        ("{{pool_v4}}", pools(Family::Ipv4).map(IpNet::to_string).collect()),
        ("{{pool_v6}}", pools(Family::Ipv6).map(IpNet::to_string).collect()),
        ("{{node_v4}}", config.nodes.iter().map(|node| node.v4.to_string()).collect()),
        ("{{node_v6}}", config.nodes.iter().map(|node| node.v6.to_string()).collect::<Vec<_>>()),
    ];
    let is_comment = |line: &str| line.starts_with('!') || line.starts_with('#');
    let mut lines = Vec::new();
    for line in template.lines() {
        match repeated.iter().find(|(mark, _)| line.contains(mark)).filter(|_| !is_comment(line)) {
            Some((mark, values)) => lines.extend(values.iter().map(|value| line.replace(mark, value))),
            None => lines
                .push(simple.iter().fold(line.to_owned(), |line, (mark, value)| line.replace(mark, value))),
        }
    }
    lines.join("\n") + "\n"
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::path(path))
}

/// The path of a daemon, or which package brings it.
fn daemon(path: &'static str, package: &str) -> Result<&'static str> {
    if Path::new(path).exists() {
        return Ok(path);
    }
    Err(Error::Missing { what: path.into(), advice: format!("install it with `apt install {package}`") })
}

fn run_cli(command: &mut Command) -> Result<String> {
    command::run(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::node_addresses;

    #[test]
    fn a_template_line_with_a_pool_or_a_node_is_repeated_for_each_of_its_family() {
        let config = RouterConfig {
            local_as: 65001,
            node_as: 64512,
            nodes: vec![node_addresses(1)],
            pools: vec!["192.0.2.0/24".parse().unwrap(), "198.51.100.0/24".parse().unwrap()],
        };
        let template = "as {{local_as}}\npermit {{pool_v4}}\npermit6 {{pool_v6}}\nneighbor {{node_v6}}";
        let text = render(template, "r", 1.into(), &config);
        assert_eq!(text, "as 65001\npermit 192.0.2.0/24\npermit 198.51.100.0/24\nneighbor fd00:30:1::b\n");
    }
}

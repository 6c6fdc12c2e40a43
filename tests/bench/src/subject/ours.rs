//! Our speaker: the library with its driver, on one thread.

use std::{net::SocketAddr, ops::Range, slice, sync::Arc};

use anyhow::{Context as _, Result, bail};
use bgp::{
    config::{PeerAsn, PeerConfig, SpeakerConfig},
    driver::Handle,
    route::{Route, RouteAttributes, RouteClass},
    types::{Asn, RouterId},
};
use ipnet::IpNet;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
};

use super::{Arguments, Line, Verb, answer};
use crate::wire::{BGP_PORT, End, Family};

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // A task like the speaker's own: for the future that it blocks on the runtime asks the kernel once more.
    runtime.block_on(async { tokio::spawn(serve(*arguments)).await? })
}

async fn serve(Arguments { family, routes, dial, .. }: Arguments) -> Result<()> {
    let listen = SocketAddr::new(End::Speaker.address(family), BGP_PORT);
    let listens = if dial { Vec::new() } else { vec![listen] };
    let handle = bgp::driver::spawn(SpeakerConfig { listen: listens, ..SpeakerConfig::default() })
        .with_context(|| format!("listening on {listen}"))?;
    let attributes = Arc::new(RouteAttributes::default());
    handle.announce(numbered(family, 0..routes, &attributes)).await?;
    let mut peers = vec![peer("sink", End::Sink, family, !dial)?];
    if !dial {
        // It only gets a session where a benchmark wants one.
        peers.push(peer("feeder", End::Feeder, family, true)?);
    }
    handle.set_peers(peers).await?;
    // The pipe itself, not tokio's standard input, which is read by a thread of its own.
    let stdin = pipe::OpenOptions::new().open_receiver("/proc/self/fd/0").context("standard input")?;
    let mut lines = BufReader::new(stdin).lines();
    answer("ready")?;
    let mut call = Call::Withdraw(Vec::new());
    while let Some(line) = lines.next_line().await? {
        match Line::parse(&line)? {
            Line::Go => call.make(&handle).await?,
            Line::Relay(_) => bail!("only the raw sender passes octets on"),
            Line::Prepare(verb, numbers) => {
                call = match verb {
                    Verb::Announce => Call::Announce(numbered(family, numbers, &attributes)),
                    Verb::AnnounceInAnyOrder => {
                        Call::Announce(in_any_order(numbered(family, numbers, &attributes)))
                    }
                    Verb::AnnounceAtOnce => Call::AnnounceAtOnce(numbered(family, numbers, &attributes)),
                    Verb::Withdraw => Call::Withdraw(prefixes(family, numbers)),
                };
                answer("prepared")?;
            }
        }
    }
    Ok(())
}

fn peer(name: &str, end: End, family: Family, passive: bool) -> Result<PeerConfig> {
    let asn = |end: End| Asn::new(end.asn()).context("AS number");
    let router_id = RouterId::new(End::Speaker.router_id()).context("router ID")?;
    let peer_asn = PeerAsn::Exactly(asn(end)?);
    let mut peer = PeerConfig::new(name, end.address(family), router_id, asn(End::Speaker)?, peer_asn);
    peer.passive = passive;
    Ok(peer)
}

/// Calls of the library, with values that stay the program's own: they are lent to the calls.
enum Call {
    /// One call a route, as a program makes them that hears of one route after the other.
    Announce(Vec<Route>),
    AnnounceAtOnce(Vec<Route>),
    /// One call a prefix.
    Withdraw(Vec<IpNet>),
}

impl Call {
    /// Returns when all of them are done.
    async fn make(&self, handle: &Handle) -> Result<()> {
        match self {
            Self::Announce(routes) => {
                for route in routes {
                    handle.announce(slice::from_ref(route));
                }
            }
            Self::AnnounceAtOnce(routes) => {
                handle.announce(routes);
            }
            Self::Withdraw(prefixes) => {
                for prefix in prefixes {
                    handle.withdraw(slice::from_ref(prefix));
                }
            }
        }
        Ok(handle.announce([]).await?)
    }
}

fn prefixes(family: Family, numbers: Range<u32>) -> Vec<IpNet> {
    numbers.map(|number| family.prefix(number)).collect()
}

fn numbered(family: Family, numbers: Range<u32>, attributes: &Arc<RouteAttributes>) -> Vec<Route> {
    let route = |prefix| Route { prefix, class: RouteClass::default(), attributes: Arc::clone(attributes) };
    prefixes(family, numbers).into_iter().map(route).collect()
}

/// Nobody's neighbour comes next.
fn in_any_order(routes: Vec<Route>) -> Vec<Route> {
    // A prime that divides no count that is measured, so that every route has its turn.
    const STRIDE: usize = 7_919;
    let count = routes.len();
    (0..count).filter_map(|place| routes.get(place * STRIDE % count).cloned()).collect()
}

//! Announces prefixes to a BGP router until Ctrl-C:
//!
//! ```text
//! cargo run -p bgp --example announce -- --local-as 64512 --peer-as 64513 --router-id 192.0.2.1 \
//!     --peer 192.0.2.254 203.0.113.0/24 2001:db8::/32
//! ```
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use bgp::{
    config::{Hops, OwnNextHops, PeerAsn, PeerConfig, ShutdownMode, SpeakerConfig},
    driver,
    route::{Route, RouteAttributes, RouteClass},
    status::SpeakerStatus,
    types::{Asn, RouterId},
};
use clap::Parser;
use ipnet::IpNet;

/// Announce prefixes to a BGP router until Ctrl-C.
#[derive(Parser)]
struct Arguments {
    /// Our AS number.
    #[arg(long)]
    local_as: Asn,
    /// The router's AS number.
    #[arg(long)]
    peer_as: Asn,
    /// Our BGP identifier, an IPv4 address.
    #[arg(long)]
    router_id: Ipv4Addr,
    /// The router: ADDRESS or ADDRESS:PORT ([ADDRESS]:PORT for IPv6).
    #[arg(long, value_parser = parse_peer)]
    peer: SocketAddr,
    /// The address to dial from.
    #[arg(long)]
    source: Option<IpAddr>,
    /// The router is up to so many hops away.
    #[arg(long)]
    multihop: Option<u8>,
    /// Next hop of IPv4 prefixes over an IPv6 session.
    #[arg(long)]
    next_hop_ipv4: Option<Ipv4Addr>,
    /// Next hop of IPv6 prefixes over an IPv4 session.
    #[arg(long)]
    next_hop_ipv6: Option<Ipv6Addr>,
    /// Communities to attach, like 64512:100.
    #[arg(long = "community", value_parser = parse_community)]
    communities: Vec<u32>,
    /// What to announce.
    #[arg(required = true)]
    prefixes: Vec<IpNet>,
}

fn parse_peer(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse().map(|address: IpAddr| SocketAddr::new(address, 179));
    alone.or_else(|_| text.parse()).map_err(|_| {
        format!("{text:?} is no address: expected one like 192.0.2.1, 192.0.2.1:1179 or [2001:db8::1]:1179")
    })
}

fn parse_community(text: &str) -> Result<u32, String> {
    let parts = text.split_once(':').and_then(|(high, low)| Some((high.parse().ok()?, low.parse().ok()?)));
    let (high, low): (u16, u16) =
        parts.ok_or_else(|| format!("{text:?} is no community: expected one like 64512:100"))?;
    Ok(u32::from(high) << 16 | u32::from(low))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let speaker = driver::spawn(SpeakerConfig::default()).context("cannot start the speaker")?;
    let mut status = speaker.watch_status();
    speaker.announce(routes(&arguments)).await?;
    speaker.set_peers(vec![peer(&arguments)?]).await?;
    let mut last = String::new();
    loop {
        let now = describe(&status.borrow_and_update());
        if now != last {
            println!("{now}");
            last = now;
        }
        tokio::select! {
            changed = status.changed() => changed?,
            end = tokio::signal::ctrl_c() => {
                end?;
                break;
            }
        }
    }
    speaker.shutdown(ShutdownMode::Administrative("the announce example was interrupted".to_owned())).await;
    println!("stopped");
    Ok(())
}

fn peer(arguments: &Arguments) -> anyhow::Result<PeerConfig> {
    let router_id =
        RouterId::new(arguments.router_id).context("a router ID is any IPv4 address but 0.0.0.0")?;
    let scope = match arguments.peer {
        SocketAddr::V6(peer) => peer.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let address = arguments.peer.ip();
    let peer_asn = PeerAsn::Exactly(arguments.peer_as);
    Ok(PeerConfig {
        scope,
        port: arguments.peer.port(),
        source_address: arguments.source,
        connect_retry_time: Duration::from_secs(5),
        hops: arguments.multihop.map_or(Hops::Default, Hops::Multihop),
        next_hops: OwnNextHops { ipv4: arguments.next_hop_ipv4, ipv6: arguments.next_hop_ipv6 },
        ..PeerConfig::new(address.to_string(), address, router_id, arguments.local_as, peer_asn)
    })
}

fn routes(arguments: &Arguments) -> Vec<Route> {
    let attributes = Arc::new(RouteAttributes {
        communities: arguments.communities.clone(),
        ..RouteAttributes::default()
    });
    let route =
        |prefix: &IpNet| Route { prefix: *prefix, class: RouteClass(0), attributes: Arc::clone(&attributes) };
    arguments.prefixes.iter().map(route).collect()
}

fn describe(status: &SpeakerStatus) -> String {
    let Some(peer) = status.peers.first() else { return "starting".to_owned() };
    let mut text = format!("{} (AS {}): {}", peer.name, peer.peer_asn.map_or(0, Asn::value), peer.state);
    if !peer.families.is_empty() {
        let [ipv4, ipv6] = peer.advertised;
        text += &format!(", {ipv4} IPv4 and {ipv6} IPv6 prefixes advertised");
    }
    if let Some(reason) = &peer.unsendable_reason {
        text += &format!("; not sent: {reason}");
    }
    if let (Some(error), true) = (&peer.last_error, peer.families.is_empty()) {
        text += &format!("; {error}");
    }
    text
}

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
    community::Community,
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
    /// Communities to attach, like 64512:100, 64512:1:2 or no-export.
    #[arg(long = "community")]
    communities: Vec<Community>,
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
    let mut attributes = RouteAttributes::default();
    attributes.add_communities(arguments.communities.iter().copied());
    let attributes = Arc::new(attributes);
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

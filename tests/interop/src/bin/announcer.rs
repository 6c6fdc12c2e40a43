//! A program that announces prefixes to one router: a process of its own that a cell can end and start again, with its
//! addresses left where they are. SIGTERM is a restart to come.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU8,
    sync::Arc,
    time::Duration,
};

use bgp::{
    bfd,
    config::{GracefulRestartConfig, OwnNextHops, PeerAsn, PeerConfig, ShutdownMode, SpeakerConfig},
    driver,
    route::{Route, RouteAttributes, RouteClass},
    types::{Asn, Family, RouterId},
};
use clap::Parser;
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};

/// How long routers wait for routes that do not become complete.
const ROUTES_BOUND: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    local_as: Asn,
    #[arg(long)]
    router_as: Asn,
    #[arg(long)]
    router_id: Ipv4Addr,
    #[arg(long)]
    router: IpAddr,
    #[arg(long)]
    next_hop_ipv6: Ipv6Addr,
    /// Another process has announced the same, and its addresses are still there.
    #[arg(long)]
    restarted: bool,
    /// Watch the path with BFD: milliseconds between packets.
    #[arg(long, requires = "bfd_multiplier")]
    bfd_millis: Option<u64>,
    /// How many of them may be lost.
    #[arg(long)]
    bfd_multiplier: Option<NonZeroU8>,
    prefixes: Vec<IpNet>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let config = SpeakerConfig { await_routes: Some(ROUTES_BOUND), ..SpeakerConfig::default() };
    let speaker = driver::spawn(config)?;
    if arguments.restarted {
        speaker.restarted(Family::ALL.to_vec()).await?;
    }
    let router_id = RouterId::new(arguments.router_id).ok_or("0.0.0.0 is no router ID")?;
    let peer_asn = PeerAsn::Exactly(arguments.router_as);
    let bfd = arguments.bfd_millis.zip(arguments.bfd_multiplier).map(|(millis, detect_mult)| {
        let interval = Duration::from_millis(millis);
        let (transmit_interval, receive_interval) = (interval, interval);
        bfd::Config { transmit_interval, receive_interval, detect_mult, ..bfd::Config::default() }
    });
    let peer = PeerConfig {
        bfd,
        connect_retry_time: Duration::from_secs(1),
        next_hops: OwnNextHops { ipv4: None, ipv6: Some(arguments.next_hop_ipv6) },
        graceful_restart: Some(GracefulRestartConfig::default()),
        ..PeerConfig::new("router", arguments.router, router_id, arguments.local_as, peer_asn)
    };
    speaker.set_peers(vec![peer]).await?;
    let attributes = Arc::new(RouteAttributes::default());
    let route =
        |prefix: &IpNet| Route { prefix: *prefix, class: RouteClass(0), attributes: Arc::clone(&attributes) };
    speaker.replace_all(arguments.prefixes.iter().map(route).collect()).await?;
    terminate.recv().await;
    speaker.shutdown(ShutdownMode::Restart).await;
    Ok(())
}

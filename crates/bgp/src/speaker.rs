//! The speaker: the aggregate of Loc-RIB and peers.

use std::{collections::BTreeMap, sync::Arc};

use ipnet::IpNet;

use crate::{
    config::{PeerConfig, PeerName, PeerSetError, SpeakerConfig},
    rib::loc_rib::LocRib,
    route::Route,
    status::{PeerStatus, SpeakerStatus, State},
    types::Time,
};

/// All of BGP but the sockets and the clock.
#[derive(Debug)]
pub struct Speaker {
    loc_rib: LocRib,
    peers: BTreeMap<PeerName, (PeerConfig, Time)>,
}

impl Speaker {
    /// A speaker without peers and routes.
    pub fn new(_config: &SpeakerConfig) -> Speaker {
        Speaker { loc_rib: LocRib::default(), peers: BTreeMap::new() }
    }

    /// Adds routes or replaces those with the same prefixes.
    pub fn announce(&mut self, routes: &[Route]) {
        for route in routes {
            self.loc_rib.set(route);
        }
    }

    /// Removes the routes of these prefixes.
    pub fn withdraw(&mut self, prefixes: &[IpNet]) {
        for prefix in prefixes {
            self.loc_rib.remove(prefix);
        }
    }

    /// Makes these the only routes.
    pub fn replace_all(&mut self, routes: &[Route]) {
        self.loc_rib.replace_all(routes, |_| {});
    }

    /// Makes these the only peers.
    pub fn set_peers(&mut self, peers: Vec<PeerConfig>, now: Time) -> Result<(), PeerSetError> {
        PeerConfig::check_set(&peers)?;
        self.peers = peers.into_iter().map(|peer| (Arc::clone(&peer.name), (peer, now))).collect();
        Ok(())
    }

    /// What is to be told of every peer.
    pub fn status(&self) -> SpeakerStatus {
        let peers = self.peers.values().map(|(peer, since)| PeerStatus {
            name: Arc::clone(&peer.name),
            address: peer.address,
            local_asn: peer.local_asn,
            local_router_id: peer.router_id,
            peer_asn: None,
            peer_router_id: None,
            state: State::Idle,
            since: *since,
            families: Vec::new(),
            advertised: [0; 2],
            received: [0; 2],
            unsendable: [0; 2],
            unsendable_reason: None,
            hold_time: None,
            graceful_restart: false,
            end_of_rib_sent: false,
            last_error: None,
            flaps: 0,
            updates_sent: 0,
        });
        SpeakerStatus { peers: peers.collect(), loc_rib: self.loc_rib.counts() }
    }
}

//! What a peer says of itself.

use super::Peer;
use crate::{
    config::PeerAsn,
    fsm::state::Session,
    status::PeerStatus,
    types::{Asn, Family},
};

impl Peer {
    /// How many of the connections are Established.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn sessions(&self) -> usize {
        self.connections.iter().flatten().filter(|connection| connection.session().is_some()).count()
    }

    /// For status objects, metrics and people.
    pub(crate) fn status(&self) -> PeerStatus {
        let opened = self.connections.iter().flatten().filter_map(|connection| connection.opened()).next();
        let session = self.connections.iter().flatten().find_map(|connection| connection.session());
        let adj_rib_out = session.map(|session| &session.adj_rib_out);
        let configured: Option<Asn> = match self.config.peer_asn {
            PeerAsn::Exactly(asn) => Some(asn),
            PeerAsn::Internal => Some(self.config.local_asn),
            PeerAsn::External => None,
        };
        PeerStatus {
            name: self.config.name.clone(),
            address: self.config.address,
            local_asn: self.config.local_asn,
            local_router_id: self.config.router_id,
            peer_asn: opened.map(|opened| opened.negotiated.peer_asn).or(configured),
            peer_router_id: opened.map(|opened| opened.open.router_id),
            state: self.history.state,
            since: self.history.since,
            families: session.map(|it| it.opened.negotiated.families.clone()).unwrap_or_default(),
            advertised: adj_rib_out.map(|rib| rib.counts()).unwrap_or_default(),
            received: session.map(|session| session.counters.received).unwrap_or_default(),
            unsendable: adj_rib_out.map(|rib| rib.unsendable()).unwrap_or_default(),
            unsendable_reason: session.and_then(unsendable_reason),
            hold_time: session.map(|session| session.opened.negotiated.hold_time),
            graceful_restart: session.is_some_and(|it| it.opened.negotiated.graceful_restart.is_some()),
            bfd: self.path.state(),
            bfd_obstacle: self.path.obstacle(),
            end_of_rib_sent: adj_rib_out.is_some_and(|rib| rib.is_end_of_rib_sent()),
            last_error: self.history.last_error(),
            flaps: self.history.flaps,
            updates_sent: self.history.updates_sent
                + session.map(|session| session.counters.updates_sent).unwrap_or_default(),
            notifications: self.history.notifications.clone(),
        }
    }
}

fn unsendable_reason(session: &Session) -> Option<String> {
    let unsendable = session.adj_rib_out.unsendable();
    let family = Family::ALL.into_iter().find(|family| unsendable[*family as usize] > 0)?;
    Some(session.adj_rib_out.refused().map_or_else(|| session.exporter.reason(family), str::to_owned))
}

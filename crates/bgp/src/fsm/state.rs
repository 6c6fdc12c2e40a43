//! The states of a connection that is up, each with the data that exists only in it.

use crate::{
    capabilities::Negotiated,
    export::Exporter,
    message::{Open, ReceivedUpdate},
    rib::adj_rib_out::AdjRibOut,
    status,
    types::Family,
    wire::EncodeContext,
};

/// State of one connection (RFC 4271 §8.2.2).
#[derive(Debug)]
pub(crate) enum State {
    /// Our OPEN is out.
    OpenSent,
    /// The peer's OPEN has come and was accepted, but we have not said so: collisions come first.
    OpenReceived(Opened),
    /// Our KEEPALIVE is out.
    OpenConfirm(Opened),
    /// The session is up.
    Established(Box<Session>),
}

/// What both OPENs agree on.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) negotiated: Negotiated,
    pub(crate) open: Open,
}

/// An Established session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) opened: Opened,
    pub(crate) exporter: Exporter,
    pub(crate) adj_rib_out: AdjRibOut,
    pub(crate) context: EncodeContext,
    pub(crate) counters: Counters,
}

/// What has gone over a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// Prefixes the peer has announced, by family.
    pub(crate) received: [usize; 2],
    /// UPDATEs sent.
    pub(crate) updates_sent: u64,
}

impl Session {
    pub(crate) fn new(opened: Opened, exporter: Exporter) -> Session {
        Session {
            adj_rib_out: AdjRibOut::new(&opened.negotiated.families),
            context: EncodeContext::from(&opened.negotiated),
            opened,
            exporter,
            counters: Counters::default(),
        }
    }

    /// The peer wants all of a family again.
    pub(crate) fn refresh(&mut self, family: Family) {
        self.adj_rib_out.refresh(family, self.opened.negotiated.enhanced_route_refresh);
    }

    /// Counts what an UPDATE brought; the routes themselves are dropped.
    pub(crate) fn count(&mut self, update: &ReceivedUpdate) {
        for (count, reach) in self.counters.received.iter_mut().zip(update.reach) {
            *count += reach;
        }
    }
}

impl State {
    /// The RFC's name. OpenReceived is the RFC's OpenSent in the middle of event 19.
    pub(crate) fn name(&self) -> status::State {
        match self {
            State::OpenSent | State::OpenReceived(_) => status::State::OpenSent,
            State::OpenConfirm(_) => status::State::OpenConfirm,
            State::Established(_) => status::State::Established,
        }
    }

    pub(crate) fn opened(&self) -> Option<&Opened> {
        match self {
            State::OpenSent => None,
            State::OpenReceived(opened) | State::OpenConfirm(opened) => Some(opened),
            State::Established(session) => Some(&session.opened),
        }
    }
}

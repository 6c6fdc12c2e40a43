//! Octets into and out of a connection: messages become events, and what is to be said becomes octets as fast
//! as the socket takes them (send hold timer: RFC 9687).

use std::time::Duration;

use bytes::BytesMut;

use super::{
    connection::Connection,
    event::Event,
    state::{Session, State},
    timers::Timer,
};
use crate::{
    rib::loc_rib::LocRib,
    types::Time,
    wire::{self, Received},
};

/// RFC 9687 §4: the longer of eight minutes and twice the hold time.
const SEND_HOLD_TIME: Duration = Duration::from_secs(480);

/// How much may wait for the socket before nothing more is produced.
const OUTPUT_LIMIT: usize = 256 * 1024;

/// How much is produced at once: the socket has the first of a large table while the rest is still being made, and
/// the buffer stays in the cache.
const PORTION: usize = 64 * 1024;

impl Connection {
    /// Octets from the peer; [`Connection::received`] makes events of them.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The event of the next whole message.
    pub(crate) fn received(&mut self) -> Option<Event> {
        // RFC 8654 §4: whoever has our OPEN may send them, and has read it where its own has come.
        let max_length = match self.state {
            State::OpenSent => wire::frame::MAX_LENGTH,
            _ if self.sent.capabilities.extended_message => wire::frame::MAX_EXTENDED_LENGTH,
            _ => wire::frame::MAX_LENGTH,
        };
        let length = match wire::frame::next(&self.input, max_length) {
            Ok(length) => length?,
            Err(notification) => return Some(Event::MessageError(notification)),
        };
        let message = self.input.split_to(length);
        Some(match wire::decode(&message, &self.decoding) {
            Ok(Received::Open(open)) => Event::BgpOpen(open),
            Ok(Received::Update(update)) => Event::UpdateMsg(update),
            Ok(Received::Notification(notification)) => Event::NotifMsg(notification),
            Ok(Received::Keepalive) => Event::KeepAliveMsg,
            Ok(Received::RouteRefresh(refresh)) => Event::RouteRefreshMsg(refresh),
            Err(notification) => Event::MessageError(notification),
        })
    }

    /// Octets for the peer, UPDATEs made now from the Loc-RIB among them; empty where there are none or the
    /// socket has to take some first. `is_complete`: the Loc-RIB is, so End-of-RIB may be said.
    pub(crate) fn produce(&mut self, loc_rib: &mut LocRib, is_complete: bool, now: Time) -> BytesMut {
        let limit = OUTPUT_LIMIT.saturating_sub(self.in_flight).min(PORTION);
        if let State::Established(session) = &mut self.state {
            let Session { adj_rib_out, exporter, context, counters, .. } = &mut **session;
            let messages =
                adj_rib_out.flush(loc_rib, exporter, context, is_complete, limit, &mut self.output);
            counters.updates_sent += u64::try_from(messages).unwrap_or(u64::MAX);
            if messages > 0 {
                // §4.4 and §8.2.2: an UPDATE says as much as a KEEPALIVE.
                self.start_keepalive(now);
            }
        }
        if !self.output.is_empty() {
            self.in_flight += self.output.len();
            if !self.timers.is_running(Timer::SendHold) {
                self.timers.start(Timer::SendHold, now + self.send_hold_time());
            }
        }
        // What is split off gives its room back once the socket has taken it.
        self.output.split()
    }

    /// The socket has taken so many octets.
    pub(crate) fn transmitted(&mut self, octets: usize, now: Time) {
        self.in_flight = self.in_flight.saturating_sub(octets);
        if self.in_flight == 0 {
            self.timers.stop(Timer::SendHold);
        } else if octets > 0 {
            self.timers.start(Timer::SendHold, now + self.send_hold_time());
        }
    }

    /// Everything has been said and the socket has taken it.
    pub(crate) fn is_drained(&self, is_complete: bool) -> bool {
        self.in_flight == 0
            && self.output.is_empty()
            && self.session().is_none_or(|session| session.adj_rib_out.is_clean(is_complete))
    }

    /// What is left to send of a connection that is closed.
    pub(crate) fn into_output(self) -> BytesMut {
        self.output
    }

    fn send_hold_time(&self) -> Duration {
        SEND_HOLD_TIME.max(Duration::from_secs(2 * u64::from(self.hold_time().secs())))
    }
}

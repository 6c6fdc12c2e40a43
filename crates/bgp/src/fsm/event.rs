//! What can happen to a connection, by the numbers and names of RFC 4271 §8.1, and what comes of it.

use super::state::Session;
use crate::{
    message::{Open, ReceivedUpdate, RouteRefresh},
    notification::Notification,
    types::Family,
};

/// An event of a connection that is up. The events of a peer without one are calls of `peer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Events 2 and 8, ManualStop and AutomaticStop: ends with this NOTIFICATION, and for the peer our routes end, too.
    Stop(Notification),
    /// The same to come back: the peer is to keep our routes, this NOTIFICATION is for one that cannot.
    Pause(Notification),
    /// The peer has connected anew (RFC 4724 §4.2): it has lost this connection.
    PeerRestarts,
    /// Event 10.
    HoldTimerExpires,
    /// Event 11.
    KeepaliveTimerExpires,
    /// RFC 9687 §3.2, event 29.
    SendHoldTimerExpires,
    /// Event 18, in words of the TCP stack.
    TcpConnectionFails(String),
    /// Event 19.
    BgpOpen(Open),
    /// Events 21, 22 and 28, BGPHeaderErr, BGPOpenMsgErr and UpdateMsgErr: to be answered with this.
    MessageError(Notification),
    /// Event 23.
    OpenCollisionDump,
    /// Events 24 and 25, NotifMsgVerErr and NotifMsg.
    NotifMsg(Notification),
    /// Event 26.
    KeepAliveMsg,
    /// Event 27.
    UpdateMsg(ReceivedUpdate),
    /// RFC 2918; no number of its own.
    RouteRefreshMsg(RouteRefresh),
}

/// What an event comes to, as far as it concerns the peer.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing that the peer has to do anything about.
    Stay,
    /// An acceptable OPEN has come: the peer resolves collisions (§6.8), then confirms or dumps.
    Opened,
    /// The session is up.
    Established,
    /// An UPDATE was wrong in a way that does not cost the session (RFC 7606), in words.
    Fault(String),
    /// The peer wants all of a family again.
    Refresh(Family),
    /// The connection is over.
    Closed(Closed),
}

/// A NOTIFICATION, by its error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// We have told the peer.
    Sent(u8),
    /// The peer has told us.
    Received(u8),
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) struct Closed {
    /// In words, for `last_error`; `None` where we ended it ourselves and nothing is wrong.
    pub(crate) error: Option<String>,
    /// Where RFC 4271 takes the FSM from here.
    pub(crate) next: Next,
    /// The NOTIFICATION that ended it, if one did.
    pub(crate) told: Option<Told>,
    /// The session, where it was Established.
    pub(crate) session: Option<Box<Session>>,
}

/// The state behind the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Go on listening and wait for ConnectRetryTimer: TCP failed before the peer said anything.
    Active,
    /// Release everything and wait for IdleHoldTimer.
    Idle,
}

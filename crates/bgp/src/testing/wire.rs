//! One connection in memory: two ends, each with what is under way to it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Table;
use crate::speaker::ConnectionId;

pub(super) type WireId = u64;

/// A connection. End 0 has dialled.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) ends: [End; 2],
    /// Lost when so many octets more have gone over it.
    pub(super) lose_after: Option<usize>,
}

/// One end of it.
#[derive(Debug)]
pub(super) struct End {
    pub(super) node: String,
    /// `None` before the node knows of it, and once the node is done with it.
    pub(super) connection: Option<ConnectionId>,
    pub(super) is_closed: bool,
    inbound: VecDeque<Segment>,
    pub(super) is_scheduled: bool,
    pub(super) table: Table,
}

/// What goes over a wire.
#[derive(Debug)]
pub(super) enum Segment {
    Octets(Bytes),
    Fin,
}

impl Wire {
    pub(super) fn is_between(&self, a: &str, b: &str) -> bool {
        let [first, second] = self.ends.each_ref().map(|end| end.node.as_str());
        (first, second) == (a, b) || (first, second) == (b, a)
    }

    pub(super) fn is_open(&self) -> bool {
        self.ends.iter().all(|end| end.connection.is_some())
    }

    /// Both ends are closed and nothing is under way.
    pub(super) fn is_done(&self) -> bool {
        self.ends.iter().all(|end| end.is_closed && end.is_empty())
    }

    /// Counts octets; whether the connection is lost over them.
    pub(super) fn count(&mut self, octets: usize) -> bool {
        let Some(left) = self.lose_after else { return false };
        self.lose_after = left.checked_sub(octets);
        self.lose_after.is_none()
    }
}

impl End {
    pub(super) fn new(node: &str) -> End {
        End {
            node: node.to_owned(),
            connection: None,
            is_closed: false,
            inbound: VecDeque::new(),
            is_scheduled: false,
            table: Table::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inbound.is_empty()
    }

    pub(super) fn push(&mut self, segment: Segment) {
        if !matches!(&segment, Segment::Octets(octets) if octets.is_empty()) {
            self.inbound.push_back(segment);
        }
    }

    /// The next segment, of no more than so many octets.
    pub(super) fn take(&mut self, piece: usize) -> Option<Segment> {
        match self.inbound.front_mut()? {
            Segment::Octets(octets) if octets.len() > piece => Some(Segment::Octets(octets.split_to(piece))),
            _ => self.inbound.pop_front(),
        }
    }
}

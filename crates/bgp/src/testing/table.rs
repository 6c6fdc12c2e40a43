//! What a router makes of the octets that it is sent: the simplest receiver that there is.

use std::collections::BTreeMap;

use bytes::BytesMut;
use ipnet::IpNet;

use crate::{
    attributes::{Attributes, NextHop},
    message::Update,
    types::Family,
    wire::{DecodeContext, frame, update::inspect},
};

/// Everything one end of a connection has been told.
#[derive(Clone, Debug, Default)]
pub struct Table {
    octets: BytesMut,
    /// What is announced and not withdrawn.
    pub routes: BTreeMap<IpNet, (NextHop, Attributes)>,
    /// Families whose End-of-RIB has come, with the number of routes that had come before.
    pub end_of_rib: Vec<(Family, usize)>,
    /// UPDATE messages.
    pub updates: usize,
    /// Prefixes announced, counted again each time.
    pub announced: usize,
    /// Prefixes withdrawn, counted again each time.
    pub withdrawn: usize,
    /// Prefixes withdrawn that had not been announced.
    pub withdrawn_unknown: usize,
}

/// How a router reads that has negotiated everything.
pub(super) fn router() -> DecodeContext {
    DecodeContext {
        four_octet_asn: true,
        extended_next_hop: true,
        families: Family::ALL.to_vec(),
        is_ebgp: false,
    }
}

impl Table {
    /// Reads on.
    ///
    /// # Panics
    /// Where the octets are not messages, or an UPDATE has any fault: a speaker must not send such.
    pub fn read(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
        let context = router();
        while let Some(length) =
            frame::next(&self.octets, frame::MAX_EXTENDED_LENGTH).expect("whole messages are sent")
        {
            let message = self.octets.split_to(length);
            if message.get(18) == Some(&2) {
                self.updates += 1;
                for update in inspect::update(&message, &context).expect("UPDATEs are sent without faults") {
                    self.apply(update);
                }
            }
        }
    }

    fn apply(&mut self, update: Update) {
        match update {
            Update::Reach { next_hop, attributes, nlri, .. } => {
                self.announced += nlri.len();
                for prefix in nlri {
                    self.routes.insert(prefix, (next_hop, attributes.clone()));
                }
            }
            Update::Unreach { nlri, .. } => {
                self.withdrawn += nlri.len();
                for prefix in nlri {
                    self.withdrawn_unknown += usize::from(self.routes.remove(&prefix).is_none());
                }
            }
            Update::EndOfRib(family) => self.end_of_rib.push((family, self.routes.len())),
        }
    }
}

//! What has been worked out for a peer and not yet been written: slots in batches that share their attributes.
//! Batches are cut only where a message is full, so that packing stays optimal however little the socket takes.

use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;

use super::{Slot, adj_rib_out::AdjRibOut, intern::Id, loc_rib::LocRib, slot_set::SlotSet};
use crate::{
    types::Family,
    wire::{
        EncodeContext,
        update::{encode_reach, encode_unreach},
    },
};

/// Slots in the order in which they are written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    slots: Vec<Slot>,
    /// Those before it are done.
    next: usize,
}

impl Batch {
    pub(super) fn rest(&self) -> &[Slot] {
        self.slots.get(self.next..).unwrap_or_default()
    }

    /// Takes out what has changed since it was staged: it will be staged anew.
    fn prune(&mut self, dirty: &SlotSet) {
        self.slots.drain(..self.next);
        self.next = 0;
        self.slots.retain(|&slot| !dirty.contains(slot));
    }
}

/// Everything staged.
#[derive(Debug, Default)]
pub(super) struct Staged {
    unreach: [Batch; 2],
    reach: VecDeque<(Id, Batch)>,
    /// Where in `reach` a group is, while staging.
    groups: HashMap<Id, usize>,
}

impl Staged {
    pub(super) fn is_empty(&self) -> bool {
        self.reach.is_empty() && self.unreach.iter().all(|batch| batch.rest().is_empty())
    }

    pub(super) fn withdraw(&mut self, family: Family, slot: Slot) {
        self.unreach[family as usize].slots.push(slot);
    }

    /// Whether this is the first slot of its group.
    pub(super) fn reach(&mut self, id: Id, slot: Slot) -> bool {
        if let Some((last, batch)) = self.reach.back_mut()
            && *last == id
        {
            batch.slots.push(slot);
            return false;
        }
        let index = *self.groups.entry(id).or_insert(self.reach.len());
        if let Some((_, batch)) = self.reach.get_mut(index) {
            batch.slots.push(slot);
            return false;
        }
        self.reach.push_back((id, Batch { slots: vec![slot], next: 0 }));
        true
    }

    /// Staging is over: groups leave from the front now, so their places are good no longer.
    pub(super) fn seal(&mut self) {
        self.groups.clear();
    }

    /// Takes out what has changed since it was staged.
    pub(super) fn prune(&mut self, dirty: &SlotSet) {
        if dirty.is_empty() {
            return;
        }
        self.unreach.iter_mut().for_each(|batch| batch.prune(dirty));
        self.reach.iter_mut().for_each(|(_, batch)| batch.prune(dirty));
    }
}

impl AdjRibOut {
    /// Writes the next batch, at least one message of it and no more than it takes to reach `limit`.
    pub(super) fn pack(
        &mut self,
        loc_rib: &mut LocRib,
        context: &EncodeContext,
        limit: usize,
        out: &mut BytesMut,
    ) -> usize {
        for family in Family::ALL {
            if !self.staged.unreach[family as usize].rest().is_empty() {
                return self.pack_unreach(loc_rib, family, context, limit, out);
            }
        }
        self.pack_reach(loc_rib, context, limit, out)
    }

    fn pack_unreach(
        &mut self,
        loc_rib: &mut LocRib,
        family: Family,
        context: &EncodeContext,
        limit: usize,
        out: &mut BytesMut,
    ) -> usize {
        let batch = &mut self.staged.unreach[family as usize];
        let nlri = batch.rest().iter().map(|&slot| loc_rib.prefix(slot));
        let packed = encode_unreach(family, nlri, context, limit, out);
        let done: Vec<Slot> = batch.rest().iter().take(packed.prefixes).copied().collect();
        batch.next += packed.prefixes;
        if batch.rest().is_empty() {
            *batch = Batch::default();
        }
        self.record_unreach(loc_rib, family, &done);
        packed.messages
    }

    fn pack_reach(
        &mut self,
        loc_rib: &mut LocRib,
        context: &EncodeContext,
        limit: usize,
        out: &mut BytesMut,
    ) -> usize {
        let Some((id, mut batch)) = self.staged.reach.pop_front() else { return 0 };
        let exported = std::sync::Arc::clone(self.exported.value(id));
        let nlri = batch.rest().iter().map(|&slot| loc_rib.prefix(slot));
        let packed = encode_reach(
            exported.family,
            &exported.next_hop,
            &exported.attributes,
            nlri,
            context,
            limit,
            out,
        );
        let messages = match packed {
            Ok(packed) => {
                let done = batch.rest().get(..packed.prefixes).unwrap_or_default();
                self.record_reach(loc_rib, exported.family, id, done);
                batch.next += packed.prefixes;
                packed.messages
            }
            Err(error) => {
                self.refuse(exported.family, &batch, error.to_string());
                batch = Batch::default();
                0
            }
        };
        if batch.rest().is_empty() {
            self.exported.release(id);
        } else {
            self.staged.reach.push_front((id, batch));
        }
        messages
    }
}

//! What has been worked out for a peer and not yet been written: prefixes in batches that share their attributes.
//! Batches are cut only where a message is full, so that packing stays optimal however little the socket takes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::BytesMut;

use super::{
    adj_rib_out::AdjRibOut,
    block::{Block, Members, count, without_first},
    intern::Id,
    loc_rib::LocRib,
    member_set::MemberSet,
};
use crate::{
    types::Family,
    wire::{
        EncodeContext,
        update::{Template, encode_unreach},
    },
};

/// Prefixes in the order in which they are written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    blocks: Vec<(Block, Members)>,
    /// Those before it are done.
    next: usize,
}

impl Batch {
    fn push(&mut self, block: Block, members: Members) {
        self.blocks.push((block, members));
    }

    fn is_done(&self) -> bool {
        self.next == self.blocks.len()
    }

    pub(super) fn rest(&self) -> impl ExactSizeIterator<Item = (Block, Members)> + '_ {
        self.blocks.get(self.next..).unwrap_or_default().iter().copied()
    }

    /// So many prefixes more are done: tells which.
    fn advance(&mut self, prefixes: usize, mut done: impl FnMut(Block, Members)) {
        let mut left = prefixes;
        while let Some((block, members)) = self.blocks.get_mut(self.next).filter(|_| left > 0) {
            let rest = match u32::try_from(left) {
                Ok(left) if left < members.count_ones() => without_first(*members, left),
                _ => 0,
            };
            left -= count(*members & !rest);
            done(*block, *members & !rest);
            *members = rest;
            self.next += usize::from(rest == 0);
        }
    }

    /// Takes out what has changed since it was staged: it will be staged anew.
    fn prune(&mut self, dirty: &MemberSet) {
        self.blocks.drain(..self.next);
        self.next = 0;
        self.blocks.retain_mut(|(block, members)| {
            *members &= !dirty.of(*block);
            *members != 0
        });
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
        self.reach.is_empty() && self.unreach.iter().all(Batch::is_done)
    }

    pub(super) fn withdraw(&mut self, family: Family, block: Block, members: Members) {
        if members != 0 {
            self.unreach[family as usize].push(block, members);
        }
    }

    /// Whether this is the first of its group.
    pub(super) fn reach(&mut self, id: Id, block: Block, members: Members) -> bool {
        if members == 0 {
            return false;
        }
        if let Some((last, batch)) = self.reach.back_mut()
            && *last == id
        {
            batch.push(block, members);
            return false;
        }
        let index = *self.groups.entry(id).or_insert(self.reach.len());
        if let Some((_, batch)) = self.reach.get_mut(index) {
            batch.push(block, members);
            return false;
        }
        self.reach.push_back((id, Batch { blocks: vec![(block, members)], next: 0 }));
        true
    }

    /// Staging is over: groups leave from the front now, so their places are good no longer.
    pub(super) fn seal(&mut self) {
        self.groups.clear();
    }

    /// Takes out what has changed since it was staged.
    pub(super) fn prune(&mut self, dirty: &MemberSet) {
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
            if !self.staged.unreach[family as usize].is_done() {
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
        let mut batch = std::mem::take(&mut self.staged.unreach[family as usize]);
        let nlri = batch.rest().map(|(block, members)| loc_rib.neighbours(block, members));
        let packed = encode_unreach(family, nlri, context, limit, out);
        batch.advance(packed.prefixes, |block, members| self.record_unreach(loc_rib, family, block, members));
        if !batch.is_done() {
            self.staged.unreach[family as usize] = batch;
        }
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
        let exported = Arc::clone(self.exported.value(id));
        let nlri = batch.rest().map(|(block, members)| loc_rib.neighbours(block, members));
        let template = match self.template.take() {
            // Most changes are of routes that go out as the one before did.
            Some((known, template)) if Arc::ptr_eq(&known, &exported) => Ok(template),
            _ => Template::of_reach(exported.family, &exported.next_hop, &exported.attributes, context),
        };
        let packed = template.map(|template| {
            let packed = template.pack(exported.family, nlri, context.max_length, limit, out);
            self.template = Some((Arc::clone(&exported), template));
            packed
        });
        let messages = match packed {
            Ok(packed) => {
                batch.advance(packed.prefixes, |block, members| {
                    self.record_reach(loc_rib, exported.family, id, block, members);
                });
                packed.messages
            }
            Err(error) => {
                self.refuse(exported.family, &batch, error.to_string());
                batch = Batch::default();
                0
            }
        };
        if batch.is_done() {
            self.exported.release(id, 1);
        } else {
            self.staged.reach.push_front((id, batch));
        }
        messages
    }
}

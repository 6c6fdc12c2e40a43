//! The Adj-RIB-Out of one session (RFC 4271 §3.2), derived: what the peer has been told, and which routes of
//! the Loc-RIB have to be looked at again. What to say is worked out only when the peer can take it, from what
//! the Loc-RIB holds then: the last change wins, and a slow peer costs its dirty set, never a queue.

use std::{collections::HashMap, sync::Arc};

use bytes::BytesMut;

use super::{
    block::{Block, Members, count},
    ids::Ids,
    intern::{Id, Interner},
    loc_rib::LocRib,
    member_set::MemberSet,
    pack::{Batch, Staged},
    refresh::Refresh,
};
use crate::{
    export::{Export, Exported, Exporter},
    types::Family,
    wire::{EncodeContext, update::Template},
};

/// What one peer knows of our routes, and what it has still to be told.
#[derive(Debug)]
pub(crate) struct AdjRibOut {
    /// By block: how the peer was told of what is in it.
    advertised: Vec<Ids>,
    pub(super) exported: Interner<Arc<Exported>>,
    /// What is to be looked at again. It overrules what is staged.
    dirty: MemberSet,
    /// What is to be sent even where nothing has changed (RFC 2918).
    resend: MemberSet,
    /// Routes that the peer should have but for which there is no next hop, by family.
    unsendable: [MemberSet; 2],
    /// Why routes were refused by the encoder.
    refused: Option<String>,
    counts: [usize; 2],
    pub(super) staged: Staged,
    /// The UPDATE that was written last, but for its prefixes: a session writes equal values equally.
    pub(super) template: Option<(Arc<Exported>, Template)>,
    end_of_rib: EndOfRib,
    pub(super) refresh: [Refresh; 2],
}

/// The End-of-RIB markers (RFC 4724 §2) follow the first table. They are said when there is nothing else to say: what
/// has changed since it was staged goes out before them, or a peer would drop what it has of it from before.
#[derive(Debug)]
enum EndOfRib {
    TableToCome(Vec<Family>),
    TableStaged(Vec<Family>),
    Sent,
}

/// What a peer should be told of a route.
#[derive(Clone, Copy)]
enum Desired {
    Nothing,
    Unsendable,
    Reach(Id),
}

impl AdjRibOut {
    /// Of a session that has just come up: the whole Loc-RIB is to be told, and then End-of-RIB.
    pub(crate) fn new(families: &[Family]) -> AdjRibOut {
        AdjRibOut {
            advertised: Vec::new(),
            exported: Interner::default(),
            dirty: MemberSet::default(),
            resend: MemberSet::default(),
            unsendable: Default::default(),
            refused: None,
            counts: [0; 2],
            staged: Staged::default(),
            template: None,
            end_of_rib: EndOfRib::TableToCome(families.to_vec()),
            refresh: Default::default(),
        }
    }

    /// These routes of the Loc-RIB have changed.
    #[inline]
    pub(crate) fn mark(&mut self, block: Block, members: Members) {
        self.dirty.insert(block, members);
    }

    /// Every route has to be looked at again: what is exported has changed.
    pub(crate) fn mark_all(&mut self, loc_rib: &LocRib) {
        for block in 0..loc_rib.end() {
            self.dirty.insert(block, loc_rib.kinds(block).present() | self.told(block));
        }
    }

    /// The peer wants all of a family again (RFC 2918 §4).
    pub(crate) fn resend(&mut self, family: Family, loc_rib: &LocRib) {
        for (block, advertised) in (0..).zip(&self.advertised) {
            if loc_rib.family(block) == family {
                self.resend.insert(block, advertised.present());
                self.dirty.insert(block, advertised.present());
            }
        }
    }

    /// Prefixes the peer has been told and that were not taken back, by family.
    pub(crate) fn counts(&self) -> [usize; 2] {
        self.counts
    }

    /// Routes not sent for want of a next hop, by family.
    pub(crate) fn unsendable(&self) -> [usize; 2] {
        self.unsendable.each_ref().map(MemberSet::len)
    }

    /// Why the encoder refused routes, if it did.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    pub(crate) fn is_end_of_rib_sent(&self) -> bool {
        matches!(self.end_of_rib, EndOfRib::Sent)
    }

    /// There is nothing left to say; of a Loc-RIB that is not complete End-of-RIB is not.
    pub(crate) fn is_clean(&self, is_complete: bool) -> bool {
        let is_said = match self.end_of_rib {
            EndOfRib::TableToCome(_) => false,
            EndOfRib::TableStaged(_) => !is_complete,
            EndOfRib::Sent => true,
        };
        self.dirty.is_empty() && self.staged.is_empty() && is_said
            // Before the first table is said the refresh waits for it.
            && !(self.is_refreshing() && self.is_end_of_rib_sent())
    }

    /// The session has ended: nothing is held any more.
    pub(crate) fn release(self, loc_rib: &mut LocRib) {
        for (block, advertised) in (0..).zip(&self.advertised) {
            if advertised.present() != 0 {
                loc_rib.release(block);
            }
        }
    }

    /// Appends UPDATEs to `out` until there is nothing left to say or `out` has reached `limit` octets:
    /// withdrawals first, then announcements grouped by attributes, and End-of-RIB behind the first table once the
    /// Loc-RIB is complete. Returns how many messages.
    pub(crate) fn flush(
        &mut self,
        loc_rib: &mut LocRib,
        exporter: &Exporter,
        context: &EncodeContext,
        is_complete: bool,
        limit: usize,
        out: &mut BytesMut,
    ) -> usize {
        let mut messages = 0;
        // A peer that takes nothing costs nothing, however much there is to tell it and whatever it asks for.
        if out.len() >= limit {
            return 0;
        }
        self.begin_refresh(loc_rib, out);
        self.staged.prune(&self.dirty);
        while out.len() < limit {
            if !self.staged.is_empty() {
                messages += self.pack(loc_rib, context, limit, out);
            } else if !self.dirty.is_empty() || matches!(self.end_of_rib, EndOfRib::TableToCome(_)) {
                self.stage(loc_rib, exporter);
            } else if is_complete && !self.is_end_of_rib_sent() {
                messages += self.say_end_of_rib(out);
            } else {
                self.end_refresh(out);
                self.begin_refresh(loc_rib, out);
                if self.dirty.is_empty() {
                    break;
                }
            }
        }
        messages
    }

    fn say_end_of_rib(&mut self, out: &mut BytesMut) -> usize {
        match std::mem::replace(&mut self.end_of_rib, EndOfRib::Sent) {
            EndOfRib::TableToCome(families) | EndOfRib::TableStaged(families) => {
                families.iter().for_each(|&family| crate::wire::update::encode_end_of_rib(family, out));
                families.len()
            }
            EndOfRib::Sent => 0,
        }
    }

    /// Works out what the dirty ones come to.
    fn stage(&mut self, loc_rib: &LocRib, exporter: &Exporter) {
        if let EndOfRib::TableToCome(families) = &mut self.end_of_rib {
            self.end_of_rib = EndOfRib::TableStaged(std::mem::take(families));
            self.mark_all(loc_rib);
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut kinds = Kinds::new(loc_rib, exporter);
        self.advertised.resize(self.advertised.len().max(loc_rib.end() as usize), Ids::default());
        for (block, members) in dirty.iter() {
            self.stage_block(loc_rib, block, members, &mut kinds);
        }
        kinds.release(&mut self.exported);
        self.staged.seal();
        dirty.clear();
        self.dirty = dirty;
    }

    fn stage_block(&mut self, loc_rib: &LocRib, block: Block, members: Members, kinds: &mut Kinds<'_>) {
        let family = loc_rib.family(block);
        let resent = if self.resend.is_empty() { 0 } else { self.resend.remove(block, members) };
        let mut unsendable = 0;
        let mut unwanted = members;
        for (kind, same) in loc_rib.kinds(block).groups(members) {
            match kinds.desired((family, kind), &mut self.exported) {
                Desired::Nothing => {}
                Desired::Unsendable => unsendable |= same,
                Desired::Reach(wanted) => {
                    unwanted &= !same;
                    let known = self.advertised[block as usize].with(wanted) & !resent;
                    if self.staged.reach(wanted, block, same & !known) {
                        // The group uses its attributes until it is packed.
                        self.exported.retain(wanted, 1);
                    }
                }
            }
        }
        self.staged.withdraw(family, block, unwanted & self.told(block));
        self.note_unsendable(block, members, family, unsendable);
    }

    /// Of these members those of `unsendable` are, and no others, nor are they in another family, which the block may
    /// have been of before.
    fn note_unsendable(&mut self, block: Block, members: Members, family: Family, unsendable: Members) {
        for (set, of) in self.unsendable.iter_mut().zip(Family::ALL) {
            let now = if of == family { unsendable } else { 0 };
            set.insert(block, now);
            set.remove(block, members & !now);
        }
    }

    /// What the peer has of a block.
    fn told(&self, block: Block) -> Members {
        self.advertised.get(block as usize).map_or(0, Ids::present)
    }

    /// `id` has another user, the group that these are from.
    pub(super) fn record_reach(
        &mut self,
        loc_rib: &mut LocRib,
        family: Family,
        id: Id,
        block: Block,
        members: Members,
    ) {
        let Self { advertised, exported, .. } = self;
        let advertised = &mut advertised[block as usize];
        let before = advertised.present();
        let changed = advertised.set(members, id, |old, users| exported.release(old, users));
        exported.retain(id, changed.count_ones());
        self.counts[family as usize] += count(members & !before);
        if before == 0 {
            loc_rib.hold(block);
        }
    }

    pub(super) fn record_unreach(
        &mut self,
        loc_rib: &mut LocRib,
        family: Family,
        block: Block,
        members: Members,
    ) {
        let Self { advertised, exported, .. } = self;
        let advertised = &mut advertised[block as usize];
        let cleared = advertised.clear(members, |old, users| exported.release(old, users));
        self.counts[family as usize] -= count(cleared);
        if cleared != 0 && advertised.present() == 0 {
            loc_rib.release(block);
        }
    }

    /// The encoder has no way to say this: the routes are withdrawn where the peer has them, and reported.
    pub(super) fn refuse(&mut self, family: Family, batch: &Batch, reason: String) {
        self.refused = Some(reason);
        for (block, members) in batch.rest() {
            self.note_unsendable(block, members, family, members);
            self.staged.withdraw(family, block, members & self.told(block));
        }
    }
}

/// What routes of the same kind come to, remembered while the Loc-RIB stands still.
struct Kinds<'a> {
    loc_rib: &'a LocRib,
    exporter: &'a Exporter,
    /// The one asked for last, which nearly always is the only one.
    last: Option<((Family, Id), Desired)>,
    /// All others.
    known: HashMap<(Family, Id), Desired>,
}

impl<'a> Kinds<'a> {
    fn new(loc_rib: &'a LocRib, exporter: &'a Exporter) -> Kinds<'a> {
        Kinds { loc_rib, exporter, last: None, known: HashMap::new() }
    }

    /// Every kind that is to be sent is a user of its attributes until `release`.
    fn desired(&mut self, kind: (Family, Id), exported: &mut Interner<Arc<Exported>>) -> Desired {
        if let Some((last, desired)) = self.last
            && last == kind
        {
            return desired;
        }
        let desired = self.known.remove(&kind).unwrap_or_else(|| self.work_out(kind, exported));
        if let Some((before, desired)) = self.last.replace((kind, desired)) {
            self.known.insert(before, desired);
        }
        desired
    }

    fn work_out(&self, (family, id): (Family, Id), exported: &mut Interner<Arc<Exported>>) -> Desired {
        let route = self.loc_rib.kind(id);
        match self.exporter.export(family, route.class, &route.attributes) {
            Export::Filtered => Desired::Nothing,
            Export::Unsendable => Desired::Unsendable,
            Export::Route(route) => Desired::Reach(exported.acquire(&Arc::new(route))),
        }
    }

    fn release(self, exported: &mut Interner<Arc<Exported>>) {
        for desired in self.known.into_values().chain(self.last.map(|(_, desired)| desired)) {
            if let Desired::Reach(id) = desired {
                exported.release(id, 1);
            }
        }
    }
}

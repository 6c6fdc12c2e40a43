//! The Adj-RIB-Out of one session (RFC 4271 §3.2), derived: what the peer has been told, and which slots of
//! the Loc-RIB have to be looked at again. What to say is worked out only when the peer can take it, from what
//! the Loc-RIB holds then: the last change wins, and a slow peer costs its dirty set, never a queue.

use std::{collections::HashMap, sync::Arc};

use bytes::BytesMut;

use super::{
    Slot,
    intern::{Id, Interner},
    loc_rib::{Kind, LocRib},
    pack::{Batch, Staged},
    refresh::Refresh,
    slot_set::SlotSet,
};
use crate::{
    export::{Export, Exported, Exporter},
    types::Family,
    wire::EncodeContext,
};

/// What one peer knows of our routes, and what it has still to be told.
#[derive(Debug)]
pub(crate) struct AdjRibOut {
    /// By slot: how the peer was told of it.
    advertised: Vec<Option<Id>>,
    pub(super) exported: Interner<Exported>,
    /// Slots to be looked at again. A slot in here overrules what is staged for it.
    dirty: SlotSet,
    /// Slots to be sent even where nothing has changed (RFC 2918).
    resend: SlotSet,
    /// Slots of routes that the peer should have but for which there is no next hop, by family.
    unsendable: [SlotSet; 2],
    /// Why routes were refused by the encoder.
    refused: Option<String>,
    counts: [usize; 2],
    pub(super) staged: Staged,
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
            dirty: SlotSet::default(),
            resend: SlotSet::default(),
            unsendable: Default::default(),
            refused: None,
            counts: [0; 2],
            staged: Staged::default(),
            end_of_rib: EndOfRib::TableToCome(families.to_vec()),
            refresh: Default::default(),
        }
    }

    /// This slot of the Loc-RIB has changed.
    pub(crate) fn mark(&mut self, slot: Slot) {
        self.dirty.insert(slot);
    }

    /// Every route has to be looked at again: what is exported has changed.
    pub(crate) fn mark_all(&mut self, loc_rib: &LocRib) {
        self.dirty.fill(loc_rib.end() as usize);
    }

    /// The peer wants all of a family again (RFC 2918 §4).
    pub(crate) fn resend(&mut self, family: Family, loc_rib: &LocRib) {
        for (slot, advertised) in (0..).zip(&self.advertised) {
            if advertised.is_some() && Family::of(&loc_rib.prefix(slot)) == family {
                self.resend.insert(slot);
                self.dirty.insert(slot);
            }
        }
    }

    /// Prefixes the peer has been told and that were not taken back, by family.
    pub(crate) fn counts(&self) -> [usize; 2] {
        self.counts
    }

    /// Routes not sent for want of a next hop, by family.
    pub(crate) fn unsendable(&self) -> [usize; 2] {
        self.unsendable.each_ref().map(SlotSet::len)
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
        for (slot, advertised) in (0..).zip(&self.advertised) {
            if advertised.is_some() {
                loc_rib.release(slot);
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
                break;
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

    /// Works out what the dirty slots come to.
    fn stage(&mut self, loc_rib: &LocRib, exporter: &Exporter) {
        if let EndOfRib::TableToCome(families) = &mut self.end_of_rib {
            self.end_of_rib = EndOfRib::TableStaged(std::mem::take(families));
            self.mark_all(loc_rib);
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut kinds = Kinds::new(loc_rib, exporter);
        self.advertised.resize(self.advertised.len().max(loc_rib.end() as usize), None);
        let mut any_unsendable = self.unsendable().iter().any(|count| *count > 0);
        let any_resent = !self.resend.is_empty();
        for slot in dirty.iter() {
            let kind = loc_rib.kind(slot);
            let desired = kind.map_or(Desired::Nothing, |kind| kinds.desired(kind, &mut self.exported));
            if any_unsendable || matches!(desired, Desired::Unsendable) {
                any_unsendable = true;
                for family in Family::ALL {
                    let is_unsendable = matches!(desired, Desired::Unsendable)
                        && kind.is_some_and(|kind| kind.family == family);
                    self.note_unsendable(slot, family, is_unsendable);
                }
            }
            let is_resent = any_resent && self.resend.remove(slot);
            match (self.advertised[slot as usize], desired) {
                (Some(current), Desired::Reach(wanted)) if current == wanted && !is_resent => {}
                (_, Desired::Reach(wanted)) => {
                    if self.staged.reach(wanted, slot) {
                        // The group uses its attributes until it is packed.
                        self.exported.retain(wanted, 1);
                    }
                }
                (Some(_), _) => self.staged.withdraw(Family::of(&loc_rib.prefix(slot)), slot),
                (None, _) => {}
            }
        }
        kinds.release(&mut self.exported);
        self.staged.seal();
        dirty.clear();
        self.dirty = dirty;
    }

    fn note_unsendable(&mut self, slot: Slot, family: Family, is_unsendable: bool) {
        let set = &mut self.unsendable[family as usize];
        if is_unsendable {
            set.insert(slot);
        } else {
            set.remove(slot);
        }
    }

    pub(super) fn is_advertised(&self, slot: Slot) -> bool {
        self.advertised.get(slot as usize).is_some_and(Option::is_some)
    }

    /// `id` has another user, the group that the slots are from.
    pub(super) fn record_reach(&mut self, loc_rib: &mut LocRib, family: Family, id: Id, slots: &[Slot]) {
        for &slot in slots {
            match self.advertised[slot as usize].replace(id) {
                Some(old) => self.exported.release(old),
                None => {
                    loc_rib.hold(slot);
                    self.counts[family as usize] += 1;
                }
            }
        }
        self.exported.retain(id, u32::try_from(slots.len()).expect("slots are counted in 32 bits"));
    }

    pub(super) fn record_unreach(&mut self, loc_rib: &mut LocRib, family: Family, slots: &[Slot]) {
        for &slot in slots {
            if let Some(id) = self.advertised[slot as usize].take() {
                self.exported.release(id);
                self.counts[family as usize] -= 1;
                loc_rib.release(slot);
            }
        }
    }

    /// The encoder has no way to say this: the routes are withdrawn where the peer has them, and reported.
    pub(super) fn refuse(&mut self, family: Family, batch: &Batch, reason: String) {
        self.refused = Some(reason);
        for &slot in batch.rest() {
            self.note_unsendable(slot, family, true);
            if self.is_advertised(slot) {
                self.staged.withdraw(family, slot);
            }
        }
    }
}

/// What routes of the same kind come to, remembered while the Loc-RIB stands still.
struct Kinds<'a> {
    loc_rib: &'a LocRib,
    exporter: &'a Exporter,
    known: HashMap<Kind, Desired>,
    last: Option<(Kind, Desired)>,
}

impl<'a> Kinds<'a> {
    fn new(loc_rib: &'a LocRib, exporter: &'a Exporter) -> Kinds<'a> {
        Kinds { loc_rib, exporter, known: HashMap::new(), last: None }
    }

    /// Every kind that is to be sent is a user of its attributes until `release`.
    fn desired(&mut self, kind: Kind, exported: &mut Interner<Exported>) -> Desired {
        if let Some((last, desired)) = self.last
            && last == kind
        {
            return desired;
        }
        let desired = *self.known.entry(kind).or_insert_with(|| {
            match self.exporter.export(kind.family, kind.class, self.loc_rib.attributes(kind)) {
                Export::Filtered => Desired::Nothing,
                Export::Unsendable => Desired::Unsendable,
                Export::Route(route) => Desired::Reach(exported.acquire(&Arc::new(route))),
            }
        });
        self.last = Some((kind, desired));
        desired
    }

    fn release(self, exported: &mut Interner<Exported>) {
        for desired in self.known.into_values() {
            if let Desired::Reach(id) = desired {
                exported.release(id);
            }
        }
    }
}

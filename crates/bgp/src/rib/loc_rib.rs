//! The Loc-RIB (RFC 4271 §3.2): every route of our own, whoever gets it.
//!
//! A block whose routes are all removed stays until the last peer that has one of them was told (`hold` and `release`
//! count them), so that a session needs to remember numbers only.

use std::sync::Arc;

use super::{
    block::{Block, Key, Members, Number, count, places},
    changes::{Changes, Fate, Runs},
    ids::Ids,
    index::{Found, Index},
    intern::{Id, Interner},
    member_set::MemberSet,
};
use crate::{
    route::{Route, RouteAttributes, RouteClass},
    types::Family,
    wire::update::Neighbours,
};

#[cfg(test)]
mod tests;

/// Prefix → class and attributes; what routes share is kept once.
#[derive(Debug, Default)]
pub struct LocRib {
    blocks: Vec<Entry>,
    free: Vec<Block>,
    index: Index,
    /// The block that was looked for last: the next route is mostly in it, too.
    recent: Option<Block>,
    kinds: Interner<Kind>,
    counts: [usize; 2],
}

/// What is kept of a block: 56 octets, and 256 more where its routes are of different kinds.
#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    kinds: Ids,
    /// How many sessions have told their peer of any of these prefixes and not taken it back.
    holders: u32,
}

/// What a route is but for its prefix: routes of one family and kind look the same to one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) class: RouteClass,
    pub(crate) attributes: Arc<RouteAttributes>,
}

impl LocRib {
    /// Routes by family (index: position in [`Family::ALL`]).
    pub fn counts(&self) -> [usize; 2] {
        self.counts
    }

    /// The routes, in no order that means anything.
    pub fn routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.blocks.iter().flat_map(move |entry| {
            entry.kinds.groups(Members::MAX).flat_map(move |(id, same)| {
                let Kind { class, attributes } = self.kinds.value(id);
                places(same).map(move |place| Route {
                    prefix: entry.key.nth(place),
                    class: *class,
                    attributes: Arc::clone(attributes),
                })
            })
        })
    }

    /// Makes these changes; `changed` is told everything that differs from before, once or more often.
    pub(crate) fn apply(&mut self, changes: &Changes, mut changed: impl FnMut(Block, Members)) {
        self.apply_runs(Family::Ipv4Unicast, &changes.ipv4, &mut changed);
        self.apply_runs(Family::Ipv6Unicast, &changes.ipv6, &mut changed);
    }

    fn apply_runs<N: Number>(
        &mut self,
        family: Family,
        runs: &Runs<N>,
        changed: &mut impl FnMut(Block, Members),
    ) {
        for (fate, ranges) in runs.iter() {
            let blocks =
                ranges.iter().flat_map(|it| Key::of_range(family, it.length, it.first.into(), it.count));
            self.apply_run(fate, blocks, changed);
        }
    }

    fn apply_run(
        &mut self,
        fate: &Fate,
        blocks: impl Iterator<Item = (Key, Members)>,
        changed: &mut impl FnMut(Block, Members),
    ) {
        let Some(kind) = fate else {
            for (key, members) in blocks {
                if let Some(block) = self.find(&key) {
                    changed(block, self.remove(block, members));
                }
            }
            return;
        };
        let kind = self.kinds.acquire(kind);
        for (key, members) in blocks {
            let block = self.block_of(key);
            changed(block, self.put(block, members, kind));
        }
        self.kinds.release(kind, 1);
    }

    /// Makes these the only routes, the last of equal prefixes counting; `changed` is told everything that differs
    /// from before.
    pub(crate) fn replace_all(&mut self, routes: &[Route], mut changed: impl FnMut(Block, Members)) {
        let mut wanted = MemberSet::default();
        let mut changes = Changes::default();
        routes.iter().for_each(|route| changes.announce(route));
        self.apply(&changes, &mut changed);
        for route in routes {
            let (key, member) = Key::of(&route.prefix);
            wanted.insert(self.block_of(key), member);
        }
        for block in 0..self.end() {
            changed(block, self.remove(block, !wanted.of(block)));
        }
    }

    /// One past the last block.
    pub(crate) fn end(&self) -> Block {
        Block::try_from(self.blocks.len()).expect("blocks are counted in 32 bits")
    }

    pub(crate) fn family(&self, block: Block) -> Family {
        self.entry(block).key.family
    }

    /// The prefixes of a block's members.
    pub(crate) fn neighbours(&self, block: Block, members: Members) -> Neighbours {
        Neighbours { first: self.entry(block).key.first(), members }
    }

    /// Of what kind the routes in a block are; who is not in it has no route.
    pub(crate) fn kinds(&self, block: Block) -> &Ids {
        &self.entry(block).kinds
    }

    pub(crate) fn kind(&self, id: Id) -> &Kind {
        self.kinds.value(id)
    }

    /// One more session has told its peer of prefixes of this block.
    pub(crate) fn hold(&mut self, block: Block) {
        self.entry_mut(block).holders += 1;
    }

    /// One session less.
    pub(crate) fn release(&mut self, block: Block) {
        self.entry_mut(block).holders -= 1;
        self.free_if_unused(block);
    }

    #[inline]
    fn find(&mut self, key: &Key) -> Option<Block> {
        if let Some(recent) = self.recent_if(key) {
            return Some(recent);
        }
        let blocks = &self.blocks;
        self.recent = self.index.find(key.hash(), |block| blocks[block as usize].key == *key);
        self.recent
    }

    #[inline]
    fn recent_if(&self, key: &Key) -> Option<Block> {
        self.recent.filter(|recent| self.entry(*recent).key == *key)
    }

    /// The block with this key, made where there is none.
    #[inline]
    fn block_of(&mut self, key: Key) -> Block {
        if let Some(recent) = self.recent_if(&key) {
            return recent;
        }
        let hash = key.hash();
        let blocks = &self.blocks;
        let block = match self.index.entry(hash, |block| blocks[block as usize].key == key) {
            Found::Block(block) => block,
            Found::Vacant(bucket) => {
                let block = self.new_block(key);
                self.index.insert(bucket, hash, block);
                block
            }
        };
        self.recent = Some(block);
        block
    }

    fn new_block(&mut self, key: Key) -> Block {
        let entry = Entry { key, kinds: Ids::default(), holders: 0 };
        match self.free.pop() {
            Some(block) => {
                *self.entry_mut(block) = entry;
                block
            }
            None => {
                self.blocks.push(entry);
                self.end() - 1
            }
        }
    }

    /// Which of these prefixes had no route of this kind.
    #[inline]
    fn put(&mut self, block: Block, members: Members, kind: Id) -> Members {
        let LocRib { blocks, kinds, .. } = self;
        let entry = &mut blocks[block as usize];
        let new = members & !entry.kinds.present();
        let changed = entry.kinds.set(members, kind, |old, users| kinds.release(old, users));
        kinds.retain(kind, changed.count_ones());
        self.counts[entry.key.family as usize] += count(new);
        changed
    }

    /// Which of these prefixes had a route.
    fn remove(&mut self, block: Block, members: Members) -> Members {
        let LocRib { blocks, kinds, .. } = self;
        let entry = &mut blocks[block as usize];
        let cleared = entry.kinds.clear(members, |old, users| kinds.release(old, users));
        self.counts[entry.key.family as usize] -= count(cleared);
        if cleared != 0 {
            self.free_if_unused(block);
        }
        cleared
    }

    fn free_if_unused(&mut self, block: Block) {
        let entry = self.entry(block);
        if entry.kinds.present() == 0 && entry.holders == 0 {
            self.index.remove(entry.key.hash(), block);
            self.free.push(block);
            self.recent = None;
        }
    }

    fn entry(&self, block: Block) -> &Entry {
        &self.blocks[block as usize]
    }

    fn entry_mut(&mut self, block: Block) -> &mut Entry {
        &mut self.blocks[block as usize]
    }
}

/// One route at a time, for tests.
#[cfg(test)]
impl LocRib {
    /// Sets a route; its place where that changes anything.
    pub(crate) fn set(&mut self, route: &Route) -> Option<(Block, Members)> {
        let mut changes = Changes::default();
        changes.announce(route);
        self.apply_one(&changes)
    }

    /// Removes a route; its place where there was one.
    pub(crate) fn unset(&mut self, prefix: &ipnet::IpNet) -> Option<(Block, Members)> {
        let mut changes = Changes::default();
        changes.withdraw(prefix);
        self.apply_one(&changes)
    }

    fn apply_one(&mut self, changes: &Changes) -> Option<(Block, Members)> {
        let mut place = None;
        self.apply(changes, |block, members| place = (members != 0).then_some((block, members)));
        place
    }
}

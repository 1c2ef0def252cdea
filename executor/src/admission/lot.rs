//! The sandboxes that can be had without making one: parked ones, and shared ones with a free slot.

use std::collections::{BTreeMap, BTreeSet};

use runlet_core::name::RevisionDigest;

use super::want::{FunctionKey, SandboxKey};
use super::{Handle, Map};

/// A sandbox that waits for its next execution, or that several share.
#[derive(Debug)]
pub(super) struct Parked<T> {
    pub(super) room: u64,
    pub(super) memory: u64,
    pub(super) function: FunctionKey,
    pub(super) key: SandboxKey,
    pub(super) handle: T,
    /// How many calls it serves at a time.
    pub(super) slots: u32,
    /// How many more it could serve now.
    pub(super) free: u32,
}

impl<T> Parked<T> {
    /// Whether nobody is in it.
    pub(super) const fn is_idle(&self) -> bool {
        self.free == self.slots
    }
}

/// What was found.
pub(super) enum Taken<T> {
    /// A sandbox for one alone.
    Whole(T),
    /// A slot of the one with this room.
    Slot(T, u64),
}

/// Kinds that are kept when nothing of them is here any more, so that a call does not make and drop them each time.
const KEPT: usize = 64;

/// The sandboxes of one revision.
#[derive(Debug, Default)]
struct Kind {
    /// Those with a free slot: moment and room.
    open: BTreeSet<(u64, u64)>,
    /// How many are here, with a free slot or without.
    here: usize,
}

/// All of them. `at` counts the moments at which one was put here or became idle again: the lowest has been so for longest.
#[derive(Debug)]
pub(super) struct Lot<T> {
    parked: Map<u64, (u64, Parked<T>)>,
    kinds: Map<FunctionKey, Map<RevisionDigest, Kind>>,
    idle: BTreeMap<u64, u64>,
    idle_memory: u64,
    at: u64,
}

impl<T: Handle> Lot<T> {
    pub(super) fn new() -> Self {
        Self { parked: Map::default(), kinds: Map::default(), idle: BTreeMap::new(), idle_memory: 0, at: 0 }
    }

    pub(super) fn put(&mut self, parked: Parked<T>) {
        self.at += 1;
        let (at, room) = (self.at, parked.room);
        let kind = self.kind(&parked.function, &parked.key.1);
        kind.here += 1;
        if parked.free > 0 {
            kind.open.insert((at, room));
        }
        if parked.is_idle() {
            self.idle.insert(at, room);
            self.idle_memory += parked.memory;
        }
        self.parked.insert(room, (at, parked));
    }

    /// The kind, which is made if it is not known.
    fn kind(&mut self, function: &FunctionKey, revision: &RevisionDigest) -> &mut Kind {
        if !self.kinds.contains_key(function) {
            self.kinds.insert(function.clone(), Map::default());
        }
        let kinds = self.kinds.get_mut(function).expect("it was put there");
        if !kinds.contains_key(revision) {
            kinds.insert(revision.clone(), Kind::default());
        }
        kinds.get_mut(revision).expect("it was put there")
    }

    fn open(&self, function: &FunctionKey, revision: &RevisionDigest) -> Option<u64> {
        self.kinds.get(function)?.get(revision)?.open.last().map(|(_, room)| *room)
    }

    /// Whether one with a free slot is here.
    pub(super) fn has(&self, function: &FunctionKey, revision: &RevisionDigest) -> bool {
        self.open(function, revision).is_some()
    }

    /// A place in the one that was parked last.
    pub(super) fn take(&mut self, function: &FunctionKey, revision: &RevisionDigest) -> Option<Taken<T>> {
        let room = self.open(function, revision)?;
        let mut parked = self.remove(room)?;
        if parked.slots <= 1 {
            return Some(Taken::Whole(parked.handle));
        }
        parked.free -= 1;
        let handle = parked.handle.share();
        self.put(parked);
        Some(Taken::Slot(handle, room))
    }

    /// A slot is free again. One that became idle has been used last of all.
    pub(super) fn give_back(&mut self, room: u64) {
        let Some(mut parked) = self.remove(room) else { return };
        parked.free = (parked.free + 1).min(parked.slots);
        self.put(parked);
    }

    /// Changes what is known of the memory of one that is here.
    pub(super) fn resize(&mut self, room: u64, memory: u64) {
        let Some((_, parked)) = self.parked.get_mut(&room) else { return };
        if parked.is_idle() {
            self.idle_memory = self.idle_memory - parked.memory + memory;
        }
        parked.memory = memory;
    }

    /// One that is here.
    pub(super) fn get(&self, room: u64) -> Option<&Parked<T>> {
        self.parked.get(&room).map(|(_, parked)| parked)
    }

    /// How many of the revision are here, with a free slot or without.
    pub(super) fn here(&self, function: &FunctionKey, revision: &RevisionDigest) -> u32 {
        let kind = self.kinds.get(function).and_then(|kinds| kinds.get(revision));
        kind.map_or(0, |kind| u32::try_from(kind.here).unwrap_or(u32::MAX))
    }

    /// The function of one that is here.
    pub(super) fn function(&self, room: u64) -> Option<&FunctionKey> {
        self.get(room).map(|parked| &parked.function)
    }

    /// Whether it is here, and nobody is in it.
    pub(super) fn is_idle(&self, room: u64) -> bool {
        self.get(room).is_some_and(Parked::is_idle)
    }

    /// How many are idle, and their memory.
    pub(super) fn idle(&self) -> (u32, u64) {
        (u32::try_from(self.idle.len()).unwrap_or(u32::MAX), self.idle_memory)
    }

    pub(super) fn remove(&mut self, room: u64) -> Option<Parked<T>> {
        let (at, parked) = self.parked.remove(&room)?;
        let kind = self.kind(&parked.function, &parked.key.1);
        kind.open.remove(&(at, room));
        kind.here -= 1;
        if kind.here == 0 && self.kinds.len() > self.parked.len() * 2 + KEPT {
            self.kinds.retain(|_, kinds| kinds.values().any(|kind| kind.here > 0));
        }
        if self.idle.remove(&at).is_some() {
            self.idle_memory -= parked.memory;
        }
        Some(parked)
    }

    /// The idle ones, longest idle first.
    pub(super) fn longest_idle(&self) -> impl Iterator<Item = &Parked<T>> {
        self.idle.values().filter_map(|room| self.parked.get(room)).map(|(_, parked)| parked)
    }

    /// Takes out the function's sandboxes of other revisions than `keep`.
    pub(super) fn remove_others(&mut self, function: &FunctionKey, keep: &RevisionDigest) -> Vec<Parked<T>> {
        let Some(kinds) = self.kinds.get(function).filter(|kinds| kinds.len() > 1 || !kinds.contains_key(keep)) else {
            return Vec::new();
        };
        if kinds.iter().all(|(revision, kind)| revision == keep || kind.here == 0) {
            return Vec::new();
        }
        let others = self.remove_where(|parked| parked.function == *function && parked.key.1 != *keep);
        if let Some(kinds) = self.kinds.get_mut(function) {
            kinds.retain(|_, kind| kind.here > 0);
        }
        others
    }

    /// Takes out all of them.
    pub(super) fn remove_all(&mut self) -> Vec<Parked<T>> {
        self.remove_where(|_| true)
    }

    /// Takes out all that `which` names, longest parked first; each is asked about once.
    pub(super) fn remove_where(&mut self, mut which: impl FnMut(&mut Parked<T>) -> bool) -> Vec<Parked<T>> {
        let asked = self.parked.values_mut().map(|(at, parked)| (*at, parked.room, which(parked)));
        let mut found: Vec<(u64, u64)> = asked.filter(|asked| asked.2).map(|(at, room, _)| (at, room)).collect();
        found.sort_unstable();
        found.into_iter().filter_map(|(_, room)| self.remove(room)).collect()
    }
}

//! The sandboxes that can be had without making one: parked ones, and shared ones with a free slot.

use runlet_core::name::RevisionDigest;

use super::Handle;
use super::want::{FunctionKey, SandboxKey};

/// A sandbox that waits for its next execution, or that several share.
#[derive(Debug)]
pub(super) struct Parked<T> {
    pub(super) room: u64,
    pub(super) memory: u64,
    /// Whose it is; `None`: nobody's yet.
    pub(super) owner: Option<(FunctionKey, SandboxKey)>,
    pub(super) handle: T,
    /// How many calls it serves at a time.
    pub(super) slots: u32,
    /// How many more it could serve now.
    pub(super) free: u32,
}

impl<T> Parked<T> {
    /// Whether it serves this function, in another revision than `keep`.
    pub(super) fn is_other(&self, function: &FunctionKey, keep: &RevisionDigest) -> bool {
        self.owner.as_ref().is_some_and(|(owner, key)| owner == function && key.1 != *keep)
    }

    fn serves(&self, wanted: &SandboxKey) -> bool {
        self.owner.as_ref().is_some_and(|(_, key)| key == wanted)
    }

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

/// All of them, longest parked first.
#[derive(Debug)]
pub(super) struct Lot<T>(Vec<Parked<T>>);

impl<T: Handle> Lot<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn put(&mut self, parked: Parked<T>) {
        self.0.push(parked);
    }

    /// A place in the one that was parked last.
    pub(super) fn take(&mut self, key: &SandboxKey) -> Option<Taken<T>> {
        let at = self.0.iter().rposition(|parked| parked.serves(key) && parked.free > 0)?;
        let parked = &mut self.0[at];
        if parked.slots > 1 {
            parked.free -= 1;
            return Some(Taken::Slot(parked.handle.share(), parked.room));
        }
        Some(Taken::Whole(self.0.remove(at).handle))
    }

    /// A slot is free again. One that became idle has been used last of all.
    pub(super) fn give_back(&mut self, room: u64) {
        let Some(at) = self.find(room) else { return };
        let parked = &mut self.0[at];
        parked.free = (parked.free + 1).min(parked.slots);
        if parked.is_idle() {
            let parked = self.0.remove(at);
            self.0.push(parked);
        }
    }

    /// Whether it is here, and nobody is in it.
    pub(super) fn is_idle(&self, room: u64) -> bool {
        self.find(room).is_some_and(|at| self.0[at].is_idle())
    }

    /// How many are idle, and their memory.
    pub(super) fn idle(&self) -> (u32, u64) {
        let idle = self.0.iter().filter(|parked| parked.is_idle());
        idle.fold((0, 0), |(count, memory), parked| (count + 1, memory + parked.memory))
    }

    /// How many are nobody's yet.
    pub(super) fn spare(&self) -> u32 {
        let spare = self.0.iter().filter(|parked| parked.owner.is_none()).count();
        u32::try_from(spare).unwrap_or(u32::MAX)
    }

    pub(super) fn remove(&mut self, room: u64) -> Option<Parked<T>> {
        self.find(room).map(|at| self.0.remove(at))
    }

    pub(super) fn remove_longest_idle(&mut self) -> Option<Parked<T>> {
        // What is nobody's is missed by nobody.
        let spare = self.0.iter().position(|parked| parked.owner.is_none());
        let at = spare.or_else(|| self.0.iter().position(Parked::is_idle))?;
        Some(self.0.remove(at))
    }

    /// Takes out all that `which` names; each is asked about once.
    pub(super) fn remove_where(&mut self, which: impl FnMut(&mut Parked<T>) -> bool) -> Vec<Parked<T>> {
        self.0.extract_if(.., which).collect()
    }

    fn find(&self, room: u64) -> Option<usize> {
        self.0.iter().position(|parked| parked.room == room)
    }
}

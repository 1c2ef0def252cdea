//! Sandboxes that functions want to have ready: they do not cool down, and are the last to leave when somebody needs their room.

use std::collections::HashMap;

use runlet_core::name::RevisionDigest;

use super::super::Handle;
use super::super::lot::Parked;
use super::super::want::{FunctionKey, Kept};
use super::{Book, Effects};

impl<T: Handle, W> Book<T, W> {
    /// From now on these are to be kept, and no others.
    pub(in crate::admission) fn keep(&mut self, kept: HashMap<FunctionKey, Kept>) {
        self.kept = kept;
        self.kept_waits = false;
    }

    /// How many sandboxes the function has that are ready, or at work and ready after that.
    pub(in crate::admission) fn ready(&self, function: &FunctionKey, revision: &RevisionDigest, shared: bool) -> u32 {
        // Those that are shared stay in the lot while somebody is in them.
        let at_work = if shared { 0 } else { self.running_of(function) };
        self.lot.here(function, revision).saturating_add(at_work)
    }

    /// Room for a sandbox that is to be kept: only what no one waits for. If it takes that, sandboxes leave that are nobody's.
    pub(in crate::admission) fn kept_room(
        &mut self,
        function: &FunctionKey,
        memory: u64,
    ) -> (Option<u64>, Effects<T, W>) {
        let mut effects = Effects::none();
        if self.closed || self.is_short() {
            return (None, effects);
        }
        if self.fits(memory) {
            let (namespace, name) = function.clone();
            return (Some(self.book_room(memory, namespace, Some(name))), effects);
        }
        if self.would_fit_without_spares(memory) {
            self.kept_waits = true;
            while !self.will_fit(memory) {
                let Some(handle) = self.send_spare_away() else { break };
                effects.evict.push(handle);
            }
        }
        (None, effects)
    }

    fn would_fit_without_spares(&self, memory: u64) -> bool {
        let leavers = u32::try_from(self.leaving.len()).unwrap_or(u32::MAX).saturating_add(self.spares());
        let rest = self.memory.saturating_sub(self.leaving_memory).saturating_sub(self.memory_of_spares());
        rest.saturating_add(memory) <= self.bounds.memory
            && self.sandboxes().saturating_sub(leavers) < self.bounds.sandboxes
    }

    /// Whether the function would have fewer ready than it wants if this one left.
    pub(super) fn is_kept(&self, parked: &Parked<T>) -> bool {
        let kept = self.kept.get(&parked.function).filter(|kept| kept.revision == parked.key.1);
        kept.is_some_and(|kept| self.ready(&parked.function, &kept.revision, kept.shared) <= kept.least)
    }

    /// How many of those that are ready functions can do without.
    pub(super) fn surplus_of_kept(&self) -> HashMap<(FunctionKey, RevisionDigest), u32> {
        let surplus = |(function, kept): (&FunctionKey, &Kept)| {
            let ready = self.ready(function, &kept.revision, kept.shared);
            ((function.clone(), kept.revision.clone()), ready.saturating_sub(kept.least))
        };
        self.kept.iter().map(surplus).collect()
    }
}

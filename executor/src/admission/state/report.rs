//! What the book says about itself: how one stands who waits, and who has the memory.

use std::collections::HashMap;

use runlet_core::id::InvocationId;
use runlet_core::name::Namespace;

use super::super::Handle;
use super::super::line::Waiter;
use super::super::standing::{Binding, Standing};
use super::super::want::Who;
use super::Book;

impl<T: Handle, W> Book<T, W> {
    /// How the one stands who waits for this invocation; `None` if none does.
    pub(in crate::admission) fn standing(&self, invocation: InvocationId) -> Option<Standing> {
        let (ticket, waiter) = self.waiters.iter().find(|(_, waiter)| waiter.want.invocation == Some(invocation))?;
        let line = self.lines.line(&waiter.want.namespace, &waiter.want.who());
        let for_turn = self.waits_for_turn(*ticket) == Some(true);
        Some(Standing {
            ahead: line.map_or(0, |line| line.before(waiter.order)),
            waiting: self.waiters.len(),
            binding: if for_turn { Binding::Turns(line.map_or(0, |line| line.running)) } else { self.short_of(waiter) },
            memory: waiter.want.memory,
        })
    }

    fn short_of(&self, waiter: &Waiter<W>) -> Binding {
        if self.memory.saturating_add(waiter.want.memory) > self.bounds.memory {
            return Binding::Memory;
        }
        if self.sandboxes() >= self.bounds.sandboxes { Binding::Sandboxes } else { Binding::Share }
    }

    /// Who takes the memory: function, bytes and sandboxes, most first.
    pub(in crate::admission) fn takers(&self, most: usize) -> Vec<(Namespace, Who, u64, u32)> {
        let mut sums: HashMap<(&Namespace, &Who), (u64, u32)> = HashMap::new();
        for (_, taker) in self.rooms.iter().filter(|(room, _)| !self.spares.contains_key(*room)) {
            let sum = sums.entry((&taker.namespace, &taker.who)).or_default();
            *sum = (sum.0 + taker.memory, sum.1 + 1);
        }
        let mut sums: Vec<_> = sums.into_iter().map(|((namespace, who), sum)| (sum, namespace, who)).collect();
        sums.sort_unstable_by(|one, other| other.cmp(one));
        sums.truncate(most);
        sums.into_iter()
            .map(|((memory, count), namespace, who)| (namespace.clone(), who.clone(), memory, count))
            .collect()
    }
}

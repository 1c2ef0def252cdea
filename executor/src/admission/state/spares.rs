//! Sandboxes that are nobody's yet: they take what no one else wants, and are the first to leave.

use runlet_core::name::Namespace;

use super::super::Handle;
use super::{Book, Effects};

impl<T: Handle, W> Book<T, W> {
    /// Sandboxes that are nobody's yet.
    pub(in crate::admission) fn spares(&self) -> u32 {
        u32::try_from(self.spares.len()).unwrap_or(u32::MAX)
    }

    /// Room for a sandbox that is nobody's yet: only what no one else wants now.
    pub(in crate::admission) fn spare_room(&mut self, memory: u64) -> Option<u64> {
        if self.closed || self.is_short() || self.kept_waits || !self.fits(memory) {
            return None;
        }
        Some(self.book_room(memory, Namespace::default_namespace(), None))
    }

    /// The memory that such sandboxes take.
    pub(super) fn memory_of_spares(&self) -> u64 {
        self.spares.keys().filter_map(|room| self.rooms.get(room)).map(|taker| taker.memory).sum()
    }

    /// A sandbox that is nobody's yet is there.
    pub(in crate::admission) fn park_spare(&mut self, room: u64, handle: T) -> Effects<T, W> {
        let mut effects = Effects::none();
        self.spares.insert(room, handle);
        if self.closed {
            effects.evict.extend(self.unpark_spare(room));
        } else if self.is_short() {
            self.pump(None, &mut effects);
        }
        effects
    }

    /// Such a sandbox has been taken, or ends: its room will come free soon.
    pub(in crate::admission) fn unpark_spare(&mut self, room: u64) -> Option<T> {
        let handle = self.spares.remove(&room)?;
        let memory = self.rooms.get(&room).map_or(0, |taker| taker.memory);
        if self.leaving.insert(room, memory).is_none() {
            self.leaving_memory += memory;
        }
        Some(handle)
    }

    /// The oldest of them has to leave.
    pub(super) fn send_spare_away(&mut self) -> Option<T> {
        let room = *self.spares.first_key_value()?.0;
        self.unpark_spare(room)
    }
}

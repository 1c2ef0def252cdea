//! Sandboxes that get another size while they exist.

use super::super::Handle;
use super::{Book, Effects};

impl<T: Handle, W> Book<T, W> {
    /// Sandboxes are to have another size, all or none. `Err`: so many bytes are missing; idle sandboxes were told to leave.
    pub(in crate::admission) fn resize(&mut self, rooms: &[u64], memory: u64) -> (Result<(), u64>, Effects<T, W>) {
        let mut effects = Effects::none();
        let old: u64 = rooms.iter().filter_map(|room| self.rooms.get(room)).map(|taker| taker.memory).sum();
        let count = rooms.iter().filter(|room| self.rooms.contains_key(room)).count() as u64;
        let new = memory.saturating_mul(count);
        let wanted = self.memory.saturating_sub(old).saturating_add(new);
        if new > old && wanted > self.bounds.memory {
            self.evict_for_resize(rooms, wanted, &mut effects);
            return (Err(wanted - self.bounds.memory), effects);
        }
        for room in rooms {
            if let Some(taker) = self.rooms.get_mut(room) {
                taker.memory = memory;
            }
            if let Some(leaving) = self.leaving.get_mut(room) {
                self.leaving_memory = self.leaving_memory - *leaving + memory;
                *leaving = memory;
            }
            self.lot.resize(*room, memory);
        }
        self.memory = wanted;
        self.pump(None, &mut effects);
        (Ok(()), effects)
    }

    fn evict_for_resize(&mut self, rooms: &[u64], wanted: u64, effects: &mut Effects<T, W>) {
        while wanted.saturating_sub(self.leaving_memory) > self.bounds.memory {
            if let Some(handle) = self.send_spare_away() {
                effects.evict.push(handle);
                continue;
            }
            let Some(room) = self.first_to_leave(|parked| !rooms.contains(&parked.room)) else { break };
            effects.evict.extend(self.send_away(room));
        }
    }
}

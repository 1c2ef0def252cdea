//! The limits of the sandboxes of functions: who has a hold on them, and what was set last.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runlet_core::settings::Settings;

use crate::admission::FunctionKey;
use crate::host::sandbox::Reins;

/// What is known.
#[derive(Debug, Default)]
struct Known {
    /// By the number of the room that the sandbox takes.
    reins: HashMap<u64, Reins>,
    /// What this life of the server was told last.
    set: HashMap<FunctionKey, Settings>,
    sweep_at: usize,
}

/// The reins of all sandboxes of functions.
#[derive(Debug, Default)]
pub(super) struct Sizes(Mutex<Known>);

/// Reins that are kept before those are looked for whose sandbox is gone.
const KEPT: usize = 64;

impl Sizes {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sandbox was made under these settings. Returns those that were set since, if any were.
    pub(super) fn put(&self, room: u64, function: &FunctionKey, reins: Reins) -> Option<Settings> {
        let mut known = self.lock();
        if known.reins.len() >= known.sweep_at {
            known.reins.retain(|_, reins| !reins.is_loose());
            known.sweep_at = known.reins.len() * 2 + KEPT;
        }
        let edition = reins.edition();
        known.reins.insert(room, reins);
        known.set.get(function).copied().filter(|set| set.edition() > edition)
    }

    /// The reins of the sandboxes in these rooms. A sandbox that is being made has none yet.
    pub(super) fn of(&self, rooms: &[u64]) -> Vec<(u64, Reins)> {
        let known = self.lock();
        rooms.iter().filter_map(|room| Some((*room, known.reins.get(room)?.clone()))).collect()
    }

    /// From now on sandboxes of the function are made like that.
    pub(super) fn set(&self, function: FunctionKey, settings: Settings) {
        self.lock().set.insert(function, settings);
    }
}

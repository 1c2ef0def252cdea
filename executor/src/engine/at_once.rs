//! Work that is started in the moment in which it is accepted, if nothing goes before it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use runlet_core::limits::Limits;
use runlet_core::manifest::Manifest;
use runlet_core::store::function::Function;
use runlet_core::store::queue::Claimed;
use runlet_core::store::queue::at_once::{Reserved, Starter};

use super::Shared;
use super::claim::{Granted, run_granted};
use super::job;

/// Reserves what work needs. The store that is asked for it must not keep the engine alive.
#[derive(Debug)]
pub(super) struct Desk(Weak<Shared>);

impl Desk {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(Arc::downgrade(shared))
    }
}

/// A turn and a place, and for what.
#[derive(Debug)]
struct Reservation {
    shared: Arc<Shared>,
    manifest: Arc<Manifest>,
    limits: Limits,
    edition: i64,
    granted: Granted,
}

impl Starter for Desk {
    fn reserve(&self, function: &Function) -> Option<Box<dyn Reserved>> {
        let shared = self.0.upgrade()?;
        // What waits in the queue goes first.
        if shared.stopping.is_cancelled() || !shared.nothing_waits.load(Ordering::Acquire) {
            return None;
        }
        let manifest = shared.manifests.of(function);
        let key = (function.namespace.clone(), function.name.clone());
        let limits = function.limits();
        let want = job::want(key, &function.revision, &manifest, &limits);
        let Some(granted) = shared.gate.acquire_at_once(&want) else {
            // It is going to wait, and what comes after it does not overtake it.
            shared.nothing_waits.store(false, Ordering::Release);
            return None;
        };
        Some(Box::new(Reservation { manifest, limits, edition: function.settings.edition(), granted, shared }))
    }

    fn lease(&self) -> Duration {
        self.0.upgrade().map_or(Duration::ZERO, |shared| shared.options.lease)
    }
}

impl Reserved for Reservation {
    fn start(self: Box<Self>, claimed: Claimed) {
        let Self { shared, manifest, limits, edition, granted } = *self;
        // Entered before anybody can hear of it, so that whoever wants to cancel it finds it.
        let live = shared.enter(&claimed);
        let tasks = shared.tasks.clone();
        tasks.spawn(run_granted(shared, claimed, manifest, (limits, edition), live, granted));
    }
}

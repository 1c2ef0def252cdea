//! How much asynchronous work waits in each namespace: the bound on accepting more.
//!
//! Asked of the database a few times a second at most; in between, what was accepted here is added.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runlet_core::name::Namespace;
use runlet_core::store::{Store, StoreError};
use tokio::time::Instant;

/// How long an answer of the database is good for.
const FRESH: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy)]
struct Count {
    waiting: i64,
    at: Instant,
}

/// Known counts.
#[derive(Debug)]
pub(super) struct Backlog {
    store: Store,
    counts: Mutex<HashMap<Namespace, Count>>,
}

impl Backlog {
    pub(super) fn new(store: Store) -> Self {
        Self { store, counts: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Namespace, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pieces of work that wait in the namespace.
    pub(super) async fn waiting(&self, namespace: &Namespace) -> Result<i64, StoreError> {
        let now = Instant::now();
        let known = self.lock().get(namespace).copied();
        if let Some(count) = known.filter(|count| now.duration_since(count.at) < FRESH) {
            return Ok(count.waiting);
        }
        let waiting = self.store.waiting_in(namespace).await?;
        let mut counts = self.lock();
        counts.retain(|_, count| now.duration_since(count.at) < FRESH);
        counts.insert(namespace.clone(), Count { waiting, at: now });
        Ok(waiting)
    }

    /// So many more wait since the last answer.
    pub(super) fn add(&self, namespace: &Namespace, more: usize) {
        if let Some(count) = self.lock().get_mut(namespace) {
            count.waiting = count.waiting.saturating_add(i64::try_from(more).unwrap_or(i64::MAX));
        }
    }
}

//! Leases: the right to use a sandbox for longer than one call.
//!
//! A program that runs once per invocation ([`Leased`], used by the engine itself) and a lease that somebody outside holds
//! ([`Held`], found by [`Leases`]) go the same way: a sandbox in which only its init runs, processes started in it, and a
//! release after which nothing of it is left. The end of a lease is the deadline of its sandbox, which its shim keeps.

mod held;
mod process;
mod tally;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use runlet_core::engine::{EngineError, Lease};
use runlet_core::id::{InvocationId, LeaseId};
use runlet_core::name::Namespace;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::host::sandbox::{ProcessSpec, Sandbox, SandboxEnd};
use crate::pool::{Place, Pool};
use crate::session::{Invoked, OutputSink, run_once};

pub(crate) use held::{Busy, Held, Terms, Why};
pub(crate) use process::{Followed, Talk, follow, spec};

/// A sandbox for one holder.
#[derive(Debug)]
pub(crate) struct Leased {
    sandbox: Arc<Sandbox>,
    room: Place,
}

impl Leased {
    pub(crate) fn new(sandbox: Sandbox, room: Place) -> Self {
        Self { sandbox: Arc::new(sandbox), room }
    }

    /// Name of the sandbox.
    pub(crate) fn name(&self) -> &str {
        self.sandbox.name()
    }

    /// Runs a program with `body` on its stdin until it ends; its result has `max_result` bytes at most.
    pub(crate) async fn run(
        &self,
        program: ProcessSpec,
        body: Bytes,
        (deadline, max_result): (Instant, usize),
        cancel: &CancellationToken,
        sink: &mut impl OutputSink,
    ) -> Invoked {
        run_once(&self.sandbox, program, body, deadline.into_std(), max_result, cancel, sink).await
    }

    /// Kills everything in it and waits until it is gone.
    pub(crate) async fn release(self, pool: &Pool) -> Option<SandboxEnd> {
        pool.bury(self.sandbox, self.room).await
    }
}

type Table = HashMap<LeaseId, Arc<Held>>;

/// The leases that somebody outside holds.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<Table>,
    /// A step has ended, or a lease has.
    changed: Notify,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a lease into the table. Another one with the same key is told to end.
    pub(crate) fn insert(&self, held: &Arc<Held>) {
        let mut table = self.lock();
        if let Some(key) = held.key() {
            let same = |other: &&Arc<Held>| other.namespace() == held.namespace() && other.key() == Some(key);
            for old in table.values().filter(same) {
                old.end(Why::Released);
            }
        }
        table.insert(held.id(), Arc::clone(held));
    }

    /// Takes a lease out of the table: it has ended.
    pub(crate) fn remove(&self, id: LeaseId) {
        self.lock().remove(&id);
        self.changed.notify_waiters();
    }

    /// The lease of that id.
    ///
    /// # Errors
    /// `NotFound` where there is none in the namespace, or it is ending.
    pub(crate) fn find(&self, namespace: &Namespace, id: LeaseId) -> Result<Arc<Held>, EngineError> {
        let found = self.lock().get(&id).filter(|held| held.namespace() == namespace && !held.is_ending()).cloned();
        found.ok_or_else(|| EngineError::NotFound { what: "lease", name: id.to_string(), namespace: namespace.clone() })
    }

    /// The lease with that key.
    pub(crate) fn with_key(&self, namespace: &Namespace, key: &str) -> Option<Arc<Held>> {
        self.lock().values().find(|held| held.namespace() == namespace && held.key() == Some(key)).cloned()
    }

    /// The lease that is on record as that invocation.
    pub(crate) fn of_invocation(&self, invocation: InvocationId) -> Option<Arc<Held>> {
        self.lock().values().find(|held| held.invocation() == invocation).cloned()
    }

    /// All leases of a namespace that are not ending, oldest first.
    pub(crate) fn list(&self, namespace: &Namespace) -> Vec<Lease> {
        let of = |held: &&Arc<Held>| held.namespace() == namespace && !held.is_ending();
        let mut all: Vec<Lease> = self.lock().values().filter(of).map(|held| held.describe()).collect();
        all.sort_by_key(|lease| lease.id.uuid());
        all
    }

    /// All leases.
    pub(crate) fn all(&self) -> Vec<Arc<Held>> {
        self.lock().values().cloned().collect()
    }

    /// Says that a step has ended.
    pub(crate) fn step_ended(&self) {
        self.changed.notify_waiters();
    }

    /// Waits until nothing runs in any lease.
    pub(crate) async fn quiet(&self) {
        self.until(|table| table.values().all(|held| !held.is_busy())).await;
    }

    /// Waits until there is no lease.
    pub(crate) async fn empty(&self) {
        self.until(HashMap::is_empty).await;
    }

    async fn until(&self, met: impl Fn(&Table) -> bool) {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if met(&self.lock()) {
                return;
            }
            changed.await;
        }
    }
}

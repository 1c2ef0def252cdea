//! Leases: the right to use a sandbox for longer than one call.
//!
//! A program that runs once per invocation ([`Leased`], used by the engine itself) and a lease that somebody outside holds
//! ([`Leases`]) go the same way: a sandbox in which only its init runs, processes started in it, and a release after
//! which nothing of it is left. The end of a lease is the deadline of its sandbox, which its shim keeps.

mod process;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use runlet_core::clock;
use runlet_core::engine::{Command, EngineError, Exec, Lease};
use runlet_core::id::LeaseId;
use runlet_core::limits::Limits;
use runlet_core::name::Namespace;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::sandbox::{ProcessSpec, Sandbox, SandboxEnd, SandboxError};
use crate::pool::{Place, Pool};
use crate::session::{Invoked, OutputSink, run_once};

/// Events of a process on their way to whoever follows it.
const ON_THE_WAY: usize = 16;

/// The longest that a lease can last from the moment it is given or renewed.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

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

/// A lease that somebody outside holds.
#[derive(Debug)]
struct Held {
    namespace: Namespace,
    leased: Leased,
    memory: u64,
}

type Table = HashMap<LeaseId, Held>;

/// The leases that somebody outside holds.
#[derive(Debug)]
pub(crate) struct Leases {
    held: Arc<Mutex<Table>>,
    pool: Pool,
    tasks: TaskTracker,
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gone(error: &SandboxError) -> EngineError {
    match error {
        SandboxError::Spawn { .. } => EngineError::Invalid(error.to_string()),
        SandboxError::Resize(_) => EngineError::Conflict(error.to_string()),
        _ => EngineError::SandboxLost(error.to_string()),
    }
}

impl Leases {
    pub(crate) fn new(pool: Pool, tasks: TaskTracker) -> Self {
        Self { held: Arc::default(), pool, tasks }
    }

    /// Hands out a lease on a sandbox.
    pub(crate) fn give(&self, namespace: Namespace, leased: Leased, memory: u64, span: Duration) -> Lease {
        let id = LeaseId::new();
        let sandbox = Arc::clone(&leased.sandbox);
        let lease = arm(id, &sandbox, span);
        lock(&self.held).insert(id, Held { namespace, leased, memory });
        self.tasks.spawn(watch(id, sandbox, Arc::clone(&self.held)));
        lease
    }

    /// Moves the end of a lease to `span` from now.
    pub(crate) fn renew(&self, namespace: &Namespace, id: LeaseId, span: Duration) -> Result<Lease, EngineError> {
        let sandbox = self.sandbox(namespace, id)?;
        Ok(arm(id, &sandbox, span))
    }

    /// Starts a process in a leased sandbox.
    pub(crate) async fn exec(&self, namespace: &Namespace, id: LeaseId, command: Command) -> Result<Exec, EngineError> {
        let sandbox = self.sandbox(namespace, id)?;
        if command.argv.is_empty() {
            return Err(EngineError::Invalid("the command is empty: name a program".to_owned()));
        }
        let process = sandbox.spawn(process::spec(&command)).await.map_err(|error| gone(&error))?;
        let (sender, events) = mpsc::channel(ON_THE_WAY);
        self.tasks.spawn(process::follow(process, sandbox, command.stdin, sender));
        Ok(Exec { events })
    }

    /// Changes the limits of a leased sandbox.
    pub(crate) async fn resize(&self, namespace: &Namespace, id: LeaseId, limits: Limits) -> Result<(), EngineError> {
        let sandbox = self.sandbox(namespace, id)?;
        let Some(before) = self.claim(id, limits.memory.0) else {
            return Err(EngineError::QueueFull(format!("this host has no room for {} more memory", limits.memory)));
        };
        let resized = sandbox.resize(limits).await;
        if resized.is_err() {
            self.claim(id, before);
        }
        resized.map_err(|error| gone(&error))
    }

    /// Ends a lease: its sandbox is gone when this returns.
    pub(crate) async fn release(&self, namespace: &Namespace, id: LeaseId) -> Result<(), EngineError> {
        self.sandbox(namespace, id)?;
        let held = lock(&self.held).remove(&id);
        let Some(held) = held else { return Ok(()) };
        match held.leased.release(&self.pool).await {
            Some(_) => Ok(()),
            None => {
                Err(EngineError::SandboxLost("it was killed and is not gone yet; it will be cleaned up".to_owned()))
            }
        }
    }

    /// Ends all leases.
    pub(crate) async fn release_all(&self) {
        let all: Vec<_> = lock(&self.held).drain().map(|(_, held)| held).collect();
        for held in &all {
            held.leased.sandbox.kill();
        }
        for held in all {
            held.leased.release(&self.pool).await;
        }
    }

    fn sandbox(&self, namespace: &Namespace, id: LeaseId) -> Result<Arc<Sandbox>, EngineError> {
        let held = lock(&self.held);
        let found = held.get(&id).filter(|held| held.namespace == *namespace);
        found.map(|held| Arc::clone(&held.leased.sandbox)).ok_or_else(|| EngineError::NotFound {
            what: "lease",
            name: id.to_string(),
            namespace: namespace.clone(),
        })
    }

    /// Changes the room of a lease; what it was before, or `None` if there is no room for that.
    fn claim(&self, id: LeaseId, memory: u64) -> Option<u64> {
        let mut held = lock(&self.held);
        let held = held.get_mut(&id)?;
        held.leased.room.resize(memory).then(|| std::mem::replace(&mut held.memory, memory))
    }
}

fn arm(id: LeaseId, sandbox: &Sandbox, span: Duration) -> Lease {
    let span = span.min(LONGEST);
    sandbox.arm(Some((Instant::now() + span).into_std()));
    Lease { id, expires: clock::now() + span }
}

/// Forgets a lease whose sandbox has ended: its time was over, or it died.
async fn watch(id: LeaseId, sandbox: Arc<Sandbox>, held: Arc<Mutex<Table>>) {
    while sandbox.gone(LONGEST).await.is_none() {}
    let forgotten = lock(&held).remove(&id);
    if forgotten.is_some() {
        tracing::info!(lease.id = %id, sandbox.id = sandbox.name(), "the lease has ended with its sandbox");
    }
}

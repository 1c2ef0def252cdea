//! Leases: the right to use a sandbox for longer than one call.
//!
//! A program that runs once per invocation ([`Leased`] used by the engine itself) and a lease that somebody outside holds
//! ([`Leases`]) go the same way: a sandbox in which only its init runs, processes started in it, and a release after
//! which nothing of it is left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use runlet_core::clock;
use runlet_core::engine::{Command, EngineError, Exec, ExecEvent, Lease, Stream};
use runlet_core::id::LeaseId;
use runlet_core::limits::Limits;
use runlet_core::name::Namespace;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::sandbox::{ProcessSpec, Sandbox, SandboxEnd, SandboxError};
use crate::pool::{Place, Pool};
use crate::session::{Invoked, OutputSink, run_once};

/// Events of a process on their way to whoever follows it.
const ON_THE_WAY: usize = 16;

/// The longest span that a lease can be given at a time.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A sandbox that serves one holder until it is released.
#[derive(Debug)]
pub(crate) struct Leased {
    /// Names the lease.
    pub(crate) id: LeaseId,
    sandbox: Sandbox,
    room: Place,
}

impl Leased {
    pub(crate) fn new(sandbox: Sandbox, room: Place) -> Self {
        Self { id: LeaseId::new(), sandbox, room }
    }

    /// Name of the sandbox.
    pub(crate) fn sandbox(&self) -> &str {
        self.sandbox.name()
    }

    /// Runs a program with `body` on its stdin until it ends.
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
    leased: Arc<Leased>,
    /// The one that resizes it at a time holds the room.
    expires: Instant,
}

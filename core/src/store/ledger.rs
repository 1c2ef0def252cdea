//! The group-committed part of the ledger: starts and ends of executions.
//!
//! Many calls at a time share one transaction: a writer task takes whatever is waiting (up to 256 entries), writes it
//! with one UNNEST statement per table, commits, and answers each caller. Nobody waits for a timer: a lone entry is
//! written at once. Starts are written with `synchronous_commit = off` for synchronous calls (the row is visible and
//! survives the death of the server); ends are committed durably before the caller gets its answer.
//!
//! Starts and ends have a writer and a connection each: a start never waits for the disk behind an end.
//!
//! This is the way of queued work, and of calls of functions with `durability = "committed"`. Other calls go through the
//! [`spool`](super::spool), which writes with the same statements.

mod batch;
mod complete;
mod finish;
mod notes;
mod start;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::queue::Claimed;
use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::engine::NewInvocation;
use crate::execution::{Remains, StartKind, Usage};
use crate::id::{ExecutionId, InvocationId};
use crate::manifest::{Destination, Reset};
use crate::name::{Namespace, RevisionDigest};
use crate::outcome::Outcome;

/// A synchronous call: invocation and execution are put on record together.
#[derive(Debug, Clone)]
pub struct CallStart {
    /// Id of the invocation to make.
    pub invocation: InvocationId,
    /// Id of the execution to make, state `starting`.
    pub execution: ExecutionId,
    /// What is called. `dedup` and `priority` do not matter here.
    pub call: NewInvocation,
    /// The revision that runs.
    pub revision: RevisionDigest,
    /// The reset policy in force.
    pub reset: Reset,
    /// When it was accepted.
    pub at: Timestamp,
}

/// The code has been given the event: `starting` becomes `running`. Written with the end or in the background.
#[derive(Debug, Clone)]
pub struct Running {
    /// Which execution.
    pub execution: ExecutionId,
    /// How its sandbox came to be.
    pub start: StartKind,
    /// Name of the sandbox.
    pub sandbox: String,
    /// When.
    pub at: Timestamp,
}

/// The end of an execution.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Which execution.
    pub execution: ExecutionId,
    /// Which invocation.
    pub invocation: InvocationId,
    /// Its owner.
    pub namespace: Namespace,
    /// For queued work: the fence of the claim. An old fence writes nothing. `None` for synchronous calls.
    pub fence: Option<i64>,
    /// How it ended.
    pub outcome: Outcome,
    /// The result, with its content type.
    pub result: Option<(Bytes, Cow<'static, str>)>,
    /// How its sandbox came to be, its name and when the code was given the event; `None` if it never was.
    pub running: Option<Running>,
    /// What it used.
    pub usage: Usage,
    /// What was left of its sandbox, where the sandbox ended with it.
    pub remains: Option<Remains>,
    /// Bytes of output on record.
    pub log_bytes: u64,
    /// Bytes of output that were not kept.
    pub log_dropped: u64,
    /// For queued work that did not succeed: it is to be executed again after this pause (attempt + 1), unless it was cancelled or
    /// its deadline comes first. A lost one only until it has been lost too often.
    pub retry: Option<Duration>,
    /// For queued work: its deadline passed before it could start. Its invocation expires.
    pub expired: bool,
    /// For queued work: it is about messages of a queue.
    pub of_messages: bool,
    /// For queued work: who is told, if this is the end of the invocation.
    pub tell: Option<Destination>,
    /// When it ended.
    pub at: Timestamp,
}

/// Entries that may wait for a writer; who comes later waits for room.
const WAITING: usize = 1024;

/// The group-committing writer. Cheap to clone; the writers end when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Ledger {
    starts: mpsc::Sender<batch::Entry<CallStart, ()>>,
    finishes: mpsc::Sender<batch::Entry<Finish, bool>>,
    notes: Arc<notes::Notes>,
}

/// The writer tasks of a [`Ledger`]; to be run by whoever owns the tasks of the process.
#[derive(Debug)]
pub struct LedgerWriters {
    starts: batch::Writer<start::Starts>,
    finishes: batch::Writer<finish::Finishes>,
    notes: notes::Writer,
    store: Store,
}

impl Store {
    /// Makes a ledger: the handle, and the tasks that somebody must run.
    #[must_use]
    pub fn ledger(&self) -> (Ledger, LedgerWriters) {
        let (starts, start_entries) = mpsc::channel(WAITING);
        let (finishes, finish_entries) = mpsc::channel(WAITING);
        let notes = Arc::new(notes::Notes::default());
        let writers = LedgerWriters {
            starts: batch::Writer::new(start::Starts(self.clone()), start_entries),
            finishes: batch::Writer::new(finish::Finishes(self.clone()), finish_entries),
            notes: notes::Writer::new(self.clone(), Arc::clone(&notes)),
            store: self.clone(),
        };
        (Ledger { starts, finishes, notes }, writers)
    }
}

impl LedgerWriters {
    /// Writes until every handle is dropped.
    pub async fn run(self) {
        let mut writers = JoinSet::new();
        writers.spawn(self.starts.run());
        writers.spawn(self.finishes.run());
        // Notes, news and sweeps are best effort and never end by themselves: they go when the others have.
        tokio::select! {
            () = async { while writers.join_next().await.is_some() {} } => {}
            () = self.notes.run() => {}
            () = self.store.tell_others() => {}
            () = self.store.sweep_queue() => {}
        }
        self.store.tell_rest().await;
    }
}

impl Ledger {
    /// Puts the start of a synchronous call on record.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn start(&self, start: CallStart) -> Result<(), StoreError> {
        batch::submit(&self.starts, start).await
    }

    /// Notes that claimed work is being executed: history gets to know of it a moment later, unless it has ended by then.
    pub fn claimed(&self, claimed: &Claimed) {
        self.notes.claimed(claimed);
    }

    /// Notes that an execution runs now. Best effort: the end carries it too, and an execution that ends soon is never noted.
    pub fn running(&self, running: Running) {
        self.notes.running(running);
    }

    /// The execution has ended: that it runs is not to be noted any more.
    pub fn forget(&self, execution: ExecutionId) {
        self.notes.forget(execution);
    }

    /// Puts an end on record. Returns whether it was written: `false` when the execution had ended already or the fence is old.
    ///
    /// # Errors
    /// When the database does not answer; the caller tries again.
    pub async fn finish(&self, finish: Finish) -> Result<bool, StoreError> {
        self.forget(finish.execution);
        batch::submit(&self.finishes, finish).await
    }
}

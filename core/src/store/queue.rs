//! The queue: live asynchronous work. Rows leave it when their invocation is terminal.

use std::time::Duration;

use bytes::Bytes;

use super::{Store, StoreError};
use crate::cause::Cause;
use crate::clock::Timestamp;
use crate::id::{ExecutionId, InvocationId};
use crate::invocation::InvocationState;
use crate::manifest::OnLost;
use crate::name::{FunctionName, Namespace, RevisionDigest};

/// Claimed work: an execution of it, state `starting`, is on record since the claim.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The invocation.
    pub invocation: InvocationId,
    /// The execution that the claim made.
    pub execution: ExecutionId,
    /// Owner.
    pub namespace: Namespace,
    /// The function.
    pub function: FunctionName,
    /// The revision to run.
    pub revision: RevisionDigest,
    /// Why.
    pub cause: Cause,
    /// The raw body.
    pub payload: Bytes,
    /// Content type of the body.
    pub content_type: Option<String>,
    /// 1 for the first.
    pub attempt: u32,
    /// Goes with every later write about this claim.
    pub fence: i64,
    /// When it was accepted.
    pub created_at: Timestamp,
}

/// A claim that was found dead.
#[derive(Debug, Clone)]
pub struct Expired {
    /// The invocation.
    pub invocation: InvocationId,
    /// The execution that was lost.
    pub execution: ExecutionId,
    /// Whether it was queued again.
    pub retried: bool,
}

/// Wakes the dispatcher: a dedicated LISTEN connection that reconnects by itself.
#[derive(Debug)]
pub struct Wakeups {
    _private: (),
}

/// What a wake-up says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wakeup {
    /// Something may be ready to be claimed.
    Work,
    /// Somebody cancelled this invocation, which runs.
    Cancel(InvocationId),
    /// This invocation is terminal.
    Done(InvocationId),
}

impl Wakeups {
    /// The next wake-up. Never fails: while the database is away it waits (and says `Work` once it is back).
    pub async fn next(&mut self) -> Wakeup {
        todo!()
    }
}

impl Store {
    /// Claims up to `limit` pieces of work that are due, best first, for `server`, until `lease` from now.
    /// Functions in `full` (at their max_concurrency on this server) are passed over.
    /// Their invocations become `running`; a new execution row, state `starting`, is made for each.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim(
        &self,
        server: &str,
        limit: i64,
        lease: Duration,
        full: &[(Namespace, FunctionName)],
    ) -> Result<Vec<Claimed>, StoreError> {
        todo!()
    }

    /// Extends the leases of claims that are still ours; returns the fences that are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn heartbeat(&self, server: &str, fences: &[i64], lease: Duration) -> Result<Vec<i64>, StoreError> {
        todo!()
    }

    /// Ends claims whose lease is over: their executions become `lost`; by the function's [`OnLost`] their invocations are queued again or fail.
    /// Idempotent; any server may do it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reap_expired(&self) -> Result<Vec<Expired>, StoreError> {
        let _ = OnLost::Retry;
        todo!()
    }

    /// At boot: everything that an earlier life of this server left `starting` or `running` is lost, claims and synchronous calls alike;
    /// claims are treated as in [`Store::reap_expired`], synchronous calls fail with outcome `lost`. Returns how many executions that concerned.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reconcile(&self, server: &str) -> Result<u64, StoreError> {
        todo!()
    }

    /// Cancels an invocation that waits; for one that runs, notifies the servers. Returns the state it had, `None` if there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn cancel(&self, namespace: &Namespace, id: InvocationId) -> Result<Option<InvocationState>, StoreError> {
        todo!()
    }

    /// How many pieces of work wait, and how many are claimed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn queue_depth(&self) -> Result<(i64, i64), StoreError> {
        todo!()
    }

    /// Pieces of work that wait in a namespace: the bound for accepting more.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn waiting_in(&self, namespace: &Namespace) -> Result<i64, StoreError> {
        todo!()
    }

    /// Opens the LISTEN connection.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn wakeups(&self) -> Result<Wakeups, StoreError> {
        todo!()
    }
}

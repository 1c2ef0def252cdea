//! Leases: one invocation for all that is run in a leased sandbox, one execution for each step of it.
//!
//! The invocation runs as long as the lease lives; the row in `leases` says which server has it, so that the server's next
//! life can close what its last one left.

use sqlx::PgConnection;
use uuid::Uuid;

use super::text::{clean, count, detail, json};
use super::{Store, StoreError};
use crate::cause::Cause;
use crate::clock::{self, Timestamp};
use crate::execution::{ExecutionState, Remains, StartKind, Usage};
use crate::id::{ExecutionId, InvocationId, LeaseId};
use crate::manifest::Reset;
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::outcome::{Outcome, OutcomeKind};

/// A lease that is given.
#[derive(Debug, Clone)]
pub struct NewLease {
    /// Its id.
    pub id: LeaseId,
    /// Owner.
    pub namespace: Namespace,
    /// The invocation to make, in state `running`.
    pub invocation: InvocationId,
    /// The function whose code is in the sandbox, and the revision.
    pub function: Option<(FunctionName, RevisionDigest)>,
    /// Why.
    pub cause: Cause,
}

/// A step that begins.
#[derive(Debug, Clone)]
pub struct NewStep {
    /// The execution to make, in state `running`.
    pub execution: ExecutionId,
    /// How many steps the lease has had with it.
    pub number: u32,
    /// Its name.
    pub step: Option<String>,
    /// Name of the sandbox.
    pub sandbox: String,
}

/// A step that has ended.
#[derive(Debug, Clone)]
pub struct StepEnd {
    /// Which.
    pub execution: ExecutionId,
    /// How.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
    /// What was left of the sandbox, where that ended with it.
    pub remains: Option<Remains>,
    /// Bytes of output on record.
    pub log_bytes: u64,
    /// Bytes of output that were not kept.
    pub log_dropped: u64,
    /// When.
    pub at: Timestamp,
}

impl Store {
    /// Puts a lease on record.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin_lease(&self, lease: &NewLease) -> Result<(), StoreError> {
        let (function, revision) = lease.function.as_ref().map(|(f, r)| (f.as_str(), r.as_str())).unzip();
        sqlx::query!(
            "WITH invocation AS (
               INSERT INTO invocations (id, namespace, function, revision, cause_kind, cause, state, attempts, executions, payload,
                   payload_size, created_at)
               VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, 'running', 0, '{}', '', 0, $7)
             )
             INSERT INTO leases (id, namespace, invocation, server, created_at) VALUES ($8, $2, $1, $9, $7)",
            lease.invocation.uuid(),
            lease.namespace.as_str(),
            function,
            revision,
            lease.cause.kind.as_str(),
            json(&lease.cause),
            clock::now(),
            lease.id.uuid(),
            self.inner.server,
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Puts the start of a step on record: visible when this returns, on disk a moment later.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn begin_step(&self, lease: &NewLease, step: &NewStep) -> Result<(), StoreError> {
        let (function, revision) = lease.function.as_ref().map(|(f, r)| (f.as_str(), r.as_str())).unzip();
        let name = step.step.as_deref().map(clean);
        let start = if step.number > 1 { StartKind::Warm } else { StartKind::Cold };
        sqlx::query!(
            "WITH known AS (
               UPDATE invocations SET attempts = $7, executions = executions || $1::uuid WHERE id = $2
             )
             INSERT INTO executions (id, invocation, namespace, function, revision, cause_kind, attempt, step, state, server,
                 start_kind, sandbox, reset, created_at, started_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'running', $9, $10, $11, $12, $13, $13)",
            step.execution.uuid(),
            lease.invocation.uuid(),
            lease.namespace.as_str(),
            function,
            revision,
            lease.cause.kind.as_str(),
            i32::try_from(step.number).unwrap_or(i32::MAX),
            name.as_deref(),
            self.inner.server,
            start.as_str(),
            step.sandbox,
            Reset::Fresh.as_str(),
            clock::now(),
        )
        .execute(self.relaxed())
        .await?;
        Ok(())
    }

    /// Puts the end of a step on record, on disk. One that has ended already is left as it is.
    ///
    /// # Errors
    /// When the database does not answer; the caller tries again.
    pub async fn end_step(&self, end: &StepEnd) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE executions
             SET state = $2, outcome = $3, detail = $4::text::jsonb, cpu_us = $5, memory_peak = $6, remains = $7::text::jsonb,
                 log_bytes = $8, log_dropped = $9, finished_at = $10
             WHERE id = $1 AND outcome IS NULL",
            end.execution.uuid(),
            ExecutionState::of_outcome(end.outcome.kind).as_str(),
            end.outcome.kind.as_str(),
            detail(&end.outcome),
            end.usage.cpu_us,
            end.usage.memory_peak,
            end.remains.as_ref().map(json),
            count(end.log_bytes),
            count(end.log_dropped),
            end.at,
        )
        .execute(self.hot().pool())
        .await?;
        Ok(())
    }

    /// Closes a lease and its invocation. One that is closed already is left as it is.
    ///
    /// # Errors
    /// When the database does not answer; the caller tries again.
    pub async fn end_lease(&self, lease: &NewLease, outcome: &Outcome) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH gone AS (DELETE FROM leases WHERE id = $1)
             UPDATE invocations SET state = $3, outcome = $4, detail = $5::text::jsonb, finished_at = $6
             WHERE id = $2 AND state = 'running'",
            lease.id.uuid(),
            lease.invocation.uuid(),
            invocation_state(outcome.kind),
            outcome.kind.as_str(),
            detail(outcome),
            clock::now(),
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }
}

/// The state of an invocation whose lease ended like that.
const fn invocation_state(kind: OutcomeKind) -> &'static str {
    match kind {
        OutcomeKind::Ok => "succeeded",
        OutcomeKind::Cancelled => "cancelled",
        _ => "failed",
    }
}

/// Closes the leases that an earlier life of a server has left: their sandboxes went with it.
pub(super) async fn lose_leases(tx: &mut PgConnection, server: &str, detail: Option<&str>) -> Result<(), StoreError> {
    let lost: Vec<Uuid> = sqlx::query_scalar!("DELETE FROM leases WHERE server = $1 RETURNING invocation", server)
        .fetch_all(&mut *tx)
        .await?;
    sqlx::query!(
        "UPDATE invocations SET state = 'failed', outcome = 'lost', detail = $2::text::jsonb, finished_at = $3
         WHERE id = ANY($1) AND state = 'running'",
        &lost,
        detail,
        clock::now(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

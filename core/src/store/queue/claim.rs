//! Claiming work, and keeping the claim.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use chrono::TimeDelta;
use serde_json::Value;
use uuid::Uuid;

use super::{Claimed, Room, first_id};
use crate::cause::Cause;
use crate::clock::{self, Timestamp};
use crate::id::{ExecutionId, InvocationId};
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::store::text::{count, noun};
use crate::store::{Store, StoreError};

/// History of so long before a claim is read by the claim itself.
const RECENT: TimeDelta = TimeDelta::hours(1);

impl Store {
    /// Claims work that is due, by fair shares of namespaces and functions, best first of each, for `server`, until `lease` from now; never more than `room` lets start.
    /// The turns that a function has (its `max_concurrency`) are those of one server: each claims as many.
    /// Work of functions without a free turn is passed over; what lacks only memory is not: then nothing behind it is claimed.
    /// Work whose deadline is over is passed over; it expires within a moment.
    /// A claim is a matter of the queue alone: history gets to know of the execution when it ends, or a moment after the claim
    /// ([`Ledger::claimed`](crate::store::ledger::Ledger::claimed)).
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim(&self, server: &str, room: &Room, lease: Duration) -> Result<Vec<Claimed>, StoreError> {
        self.expire_overdue().await?;
        let executions: Vec<Uuid> = (0..room.executions).map(|_| ExecutionId::new().uuid()).collect();
        if executions.is_empty() {
            return Ok(Vec::new());
        }
        let known = known(room);
        let namespaces: Vec<&str> = known.iter().map(|((namespace, _), ..)| namespace.as_str()).collect();
        let functions: Vec<&str> = known.iter().map(|((_, function), ..)| function.as_str()).collect();
        let used: Vec<i32> = known.iter().map(|(_, used, _)| i32::try_from(*used).unwrap_or(i32::MAX)).collect();
        let ahead: Vec<f64> = known.iter().map(|(.., ahead)| *ahead).collect();
        let owners: Vec<&str> = room.namespaces.iter().map(|(namespace, ..)| namespace.as_str()).collect();
        let owners_ahead: Vec<f64> = room.namespaces.iter().map(|(_, ahead, _)| *ahead).collect();
        let weights: Vec<f64> = room.namespaces.iter().map(|(.., weight)| *weight).collect();
        // The execution ids are made here, for the database has no UUIDv7; surplus ones are forgotten.
        let now = clock::now();
        let mut lane = self.hot().take().await?;
        let mut rows = sqlx::query_file_as!(
            Row,
            "src/store/queue/claim.sql",
            i64::from(room.executions),
            server,
            lease.as_secs_f64(),
            &executions,
            &namespaces as &[&str],
            &functions as &[&str],
            &used,
            count(room.memory),
            room.in_line,
            count(room.total_memory),
            &ahead,
            &owners as &[&str],
            &owners_ahead,
            &weights,
            first_id(now - RECENT),
            first_id(now + RECENT),
        )
        .fetch_all(&mut *lane)
        .await?;
        lane.keep();
        self.read_older(&mut rows).await?;
        let mut claimed = Vec::with_capacity(rows.len());
        for mut row in rows {
            let Some(cause) = row.cause.take() else {
                // Its lease will be over, again and again, until it is a dead letter.
                tracing::error!(invocation.id = %row.invocation, "history has lost an invocation that is queued");
                continue;
            };
            let cause = noun("invocations", &row.invocation, cause)?;
            let (bytes, file) = (row.payload.take().unwrap_or_default(), row.payload_file.take());
            let payload = self.fetch(row.invocation.uuid(), row.namespace.as_str(), bytes, file.as_deref()).await;
            claimed.push(row.claimed(cause, payload.map_err(|error| error.to_string())));
        }
        Ok(claimed)
    }

    /// Reads of claimed work what the claim has not found among what is recent.
    async fn read_older(&self, rows: &mut [Row]) -> Result<(), StoreError> {
        let older: Vec<Uuid> = rows.iter().filter(|row| row.cause.is_none()).map(|row| row.invocation.uuid()).collect();
        if older.is_empty() {
            return Ok(());
        }
        let found = sqlx::query!(
            r#"SELECT id AS "id: InvocationId", cause, payload, payload_file, content_type, created_at FROM invocations WHERE id = ANY($1)"#,
            &older,
        )
        .fetch_all(self.hot().pool())
        .await?;
        for found in found {
            let Some(row) = rows.iter_mut().find(|row| row.invocation == found.id) else { continue };
            row.cause = Some(found.cause);
            row.payload = Some(found.payload);
            row.payload_file = found.payload_file;
            row.content_type = found.content_type;
            row.created_at = Some(found.created_at);
        }
        Ok(())
    }

    /// Whether work is due that nobody has claimed.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn work_is_due(&self) -> Result<bool, StoreError> {
        let mut lane = self.hot().take().await?;
        let due = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM queue WHERE lease_until IS NULL AND not_before <= now()) AS "due!""#
        )
        .fetch_one(&mut *lane)
        .await?;
        lane.keep();
        Ok(due)
    }

    /// Extends the leases of claims that are still ours; returns the fences that are.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn heartbeat(&self, server: &str, fences: &[i64], lease: Duration) -> Result<Vec<i64>, StoreError> {
        // A crash of Postgres that loses a heartbeat costs no more than the lease does: no need to wait for the disk.
        let held = sqlx::query_scalar!(
            r#"UPDATE queue SET lease_until = now() + make_interval(secs => $3)
               WHERE server = $1 AND fence = ANY($2) AND lease_until IS NOT NULL RETURNING fence AS "fence!""#,
            server,
            fences,
            lease.as_secs_f64(),
        )
        .fetch_all(self.relaxed())
        .await?;
        Ok(held)
    }
}

/// What is known of functions: their turns, and what they have had more than others.
fn known(room: &Room) -> Vec<(&(Namespace, FunctionName), u32, f64)> {
    let ahead = |key| room.functions_ahead.get(key).copied().unwrap_or_default();
    let mut known: Vec<_> = room.used.iter().map(|(key, used)| (key, *used, ahead(key))).collect();
    let used: HashSet<_> = room.used.iter().map(|(key, _)| key).collect();
    known.extend(
        room.functions_ahead.iter().filter(|(key, _)| !used.contains(key)).map(|(key, ahead)| (key, 0, *ahead)),
    );
    known
}

/// A row of a claim.
struct Row {
    invocation: InvocationId,
    execution: ExecutionId,
    namespace: Namespace,
    function: FunctionName,
    revision: RevisionDigest,
    attempt: i32,
    fence: i64,
    cause: Option<Value>,
    payload: Option<Vec<u8>>,
    payload_file: Option<String>,
    content_type: Option<String>,
    created_at: Option<Timestamp>,
    priority: i16,
    deadline: Option<Timestamp>,
    not_before: Timestamp,
}

impl Row {
    fn claimed(self, cause: Cause, payload: Result<Bytes, String>) -> Claimed {
        Claimed {
            invocation: self.invocation,
            execution: self.execution,
            cause,
            namespace: self.namespace,
            function: self.function,
            revision: self.revision,
            payload,
            content_type: self.content_type,
            attempt: self.attempt.unsigned_abs(),
            fence: self.fence,
            created_at: self.created_at.unwrap_or(self.not_before),
            priority: self.priority,
            deadline: self.deadline,
            due_at: self.not_before,
        }
    }
}

//! Claiming work, and keeping the claim.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::TimeDelta;
use serde_json::Value;
use uuid::Uuid;

use super::floors::{LATE, Lane, Place};
use super::{Claimed, Room, first_id};
use crate::cause::Cause;
use crate::clock::{self, Timestamp};
use crate::id::{ExecutionId, InvocationId};
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::store::text::{count, noun};
use crate::store::{Store, StoreError};

/// History of so long before a claim is read by the claim itself.
const RECENT: TimeDelta = TimeDelta::hours(1);

/// What a claim has found.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// What is claimed now, best first.
    pub work: Vec<Claimed>,
    /// Whether anything was due, claimed now or not.
    pub due: bool,
}

impl Store {
    /// Claims work that is due, by fair shares of namespaces and functions, best first of each, for `server`, until `lease` from now; never more than `room` lets start.
    /// The turns that a function has (its `max_concurrency`) are those of one server: each claims as many.
    /// Work of functions without a free turn is passed over; what lacks only memory is not: then nothing behind it is claimed.
    /// Work whose deadline is over is passed over; it expires within a moment. So may be, for a moment, what got on record more than a second
    /// after its transaction began.
    /// A claim is a matter of the queue alone: history gets to know of the execution when it ends, or a moment after the claim
    /// ([`Ledger::claimed`](crate::store::ledger::Ledger::claimed)).
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim(&self, server: &str, room: &Room, lease: Duration) -> Result<Claims, StoreError> {
        self.expire_overdue().await?;
        let executions: Vec<Uuid> = (0..room.executions).map(|_| ExecutionId::new().uuid()).collect();
        if executions.is_empty() {
            return Ok(Claims::default());
        }
        let mut rows = self.look(server, room, lease, &executions).await?;
        let due = rows.iter().any(|row| row.lanes.is_some());
        self.read_older(&mut rows).await?;
        let mut work = Vec::with_capacity(rows.len());
        for mut row in rows {
            let Some(invocation) = row.invocation else { continue };
            let Some(cause) = row.cause.take() else {
                // Its lease will be over, again and again, until it is a dead letter.
                tracing::error!(invocation.id = %invocation, "history has lost an invocation that is queued");
                continue;
            };
            let cause = noun("invocations", &invocation, cause)?;
            let (bytes, file) = (row.payload.take().unwrap_or_default(), row.payload_file.take());
            let namespace = row.namespace.as_ref().map_or("", Namespace::as_str);
            let payload = self.fetch(invocation.uuid(), namespace, bytes, file.as_deref()).await;
            work.extend(row.claimed(cause, payload.map_err(|error| error.to_string())));
        }
        Ok(Claims { work, due })
    }

    /// The statement, from the floors on, which it moves.
    async fn look(
        &self,
        server: &str,
        room: &Room,
        lease: Duration,
        executions: &[Uuid],
    ) -> Result<Vec<Row>, StoreError> {
        let known = known(room);
        let namespaces: Vec<&str> = known.iter().map(|((namespace, _), ..)| namespace.as_str()).collect();
        let functions: Vec<&str> = known.iter().map(|((_, function), ..)| function.as_str()).collect();
        let used: Vec<i32> = known.iter().map(|(_, used, _)| *used).collect();
        let ahead: Vec<f64> = known.iter().map(|(.., ahead)| *ahead).collect();
        let owners: Vec<&str> = room.namespaces.iter().map(|(namespace, ..)| namespace.as_str()).collect();
        let owners_ahead: Vec<f64> = room.namespaces.iter().map(|(_, ahead, _)| *ahead).collect();
        let weights: Vec<f64> = room.namespaces.iter().map(|(.., weight)| *weight).collect();
        let began = Instant::now();
        let (lanes, afresh) = self.inner.floors.lanes(began);
        let names: Vec<&str> = lanes.iter().map(|(lane, _)| lane.as_str()).collect();
        let since: Vec<Option<Timestamp>> = lanes.iter().map(|(_, floor)| floor.map(|floor| floor.0)).collect();
        let least: Vec<Uuid> = lanes.iter().map(|(_, floor)| floor.unwrap_or_default().1).collect();
        // The execution ids are made by the caller, for the database has no UUIDv7; surplus ones are forgotten.
        let now = clock::now();
        let mut lane = self.hot().take().await?;
        let mut rows = sqlx::query_file_as!(
            Row,
            "src/store/queue/claim.sql",
            i64::from(room.executions),
            server,
            lease.as_secs_f64(),
            executions,
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
            &names as &[&str],
            &since as &[Option<Timestamp>],
            &least,
            LATE.as_secs_f64(),
        )
        .fetch_all(&mut *lane)
        .await?;
        lane.keep();
        if let Some(first) = rows.first_mut() {
            self.inner.floors.saw(first.seen(), first.late, afresh, began);
        }
        Ok(rows)
    }

    /// Reads of claimed work what the claim has not found among what is recent.
    async fn read_older(&self, rows: &mut [Row]) -> Result<(), StoreError> {
        let older: Vec<Uuid> = rows
            .iter()
            .filter(|row| row.cause.is_none())
            .filter_map(|row| row.invocation)
            .map(InvocationId::uuid)
            .collect();
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
            let Some(row) = rows.iter_mut().find(|row| row.invocation == Some(found.id)) else { continue };
            row.cause = Some(found.cause);
            row.payload = Some(found.payload);
            row.payload_file = found.payload_file;
            row.content_type = found.content_type;
            row.created_at = Some(found.created_at);
        }
        Ok(())
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
fn known(room: &Room) -> Vec<(&(Namespace, FunctionName), i32, f64)> {
    let ahead = |key| room.functions_ahead.get(key).copied().unwrap_or_default();
    let mut known: Vec<_> = room.used.iter().map(|(key, used)| (key, *used, ahead(key))).collect();
    let used: HashSet<_> = room.used.iter().map(|(key, _)| key).collect();
    known.extend(
        room.functions_ahead.iter().filter(|(key, _)| !used.contains(key)).map(|(key, ahead)| (key, 0, *ahead)),
    );
    known
}

/// A row of a claim: the first one tells what was seen, and each a piece of work, if any is claimed.
struct Row {
    late: Timestamp,
    lanes: Option<Vec<Lane>>,
    since: Option<Vec<Timestamp>>,
    best: Option<Vec<Uuid>>,
    invocation: Option<InvocationId>,
    execution: Option<ExecutionId>,
    namespace: Option<Namespace>,
    function: Option<FunctionName>,
    revision: Option<RevisionDigest>,
    attempt: Option<i32>,
    fence: Option<i64>,
    cause: Option<Value>,
    payload: Option<Vec<u8>>,
    payload_file: Option<String>,
    content_type: Option<String>,
    created_at: Option<Timestamp>,
    priority: Option<i16>,
    deadline: Option<Timestamp>,
    not_before: Option<Timestamp>,
}

impl Row {
    /// What the first row tells: the best of each lane in which something was due.
    fn seen(&mut self) -> Vec<(Lane, Place)> {
        let lanes = self.lanes.iter().flatten().cloned();
        let best = self.since.take().unwrap_or_default().into_iter().zip(self.best.take().unwrap_or_default());
        lanes.zip(best).collect()
    }

    fn claimed(self, cause: Cause, payload: Result<Bytes, String>) -> Option<Claimed> {
        Some(Claimed {
            invocation: self.invocation?,
            execution: self.execution?,
            cause,
            namespace: self.namespace?,
            function: self.function?,
            revision: self.revision?,
            payload,
            content_type: self.content_type,
            attempt: self.attempt?.unsigned_abs(),
            fence: self.fence?,
            created_at: self.created_at.or(self.not_before)?,
            priority: self.priority?,
            deadline: self.deadline,
            due_at: self.not_before?,
        })
    }
}

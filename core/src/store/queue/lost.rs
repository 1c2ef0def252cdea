//! Executions that nobody finishes: their server went away, or lost its claim.

use chrono::TimeDelta;
use sqlx::PgConnection;
use uuid::Uuid;

use super::news::notify;
use super::{Expired, MAX_LOST, Wakeup, cancel, first_id};
use crate::clock::{self, Timestamp};
use crate::id::{ExecutionId, InvocationId};
use crate::outcome::{Outcome, OutcomeKind};
use crate::store::dead_letter::bury;
use crate::store::lease::lose_leases;
use crate::store::text::detail;
use crate::store::{Store, StoreError};

/// Rows handled in one transaction.
const BATCH: i64 = 500;

/// A claim that is dead, its row locked.
struct Dead {
    invocation: Uuid,
    execution: Uuid,
    again: bool,
    cancelled: bool,
}

impl Store {
    /// Ends claims whose lease is over: their executions become `lost`; by the function's [`OnLost`](crate::manifest::OnLost) their
    /// invocations are queued again or fail. Idempotent; any server may do it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reap_expired(&self) -> Result<Vec<Expired>, StoreError> {
        self.give_back().await?;
        let mut tx = self.pool().begin().await?;
        let dead = sqlx::query_as!(
            Dead,
            r#"SELECT invocation, execution AS "execution!", cancelled,
                   on_lost = 'retry' AND attempt < $1 AND NOT cancelled AS "again!"
               FROM queue WHERE lease_until < now() LIMIT $2 FOR UPDATE SKIP LOCKED"#,
            MAX_LOST,
            BATCH,
        )
        .fetch_all(&mut *tx)
        .await?;
        let expired = lose(&mut tx, &dead, "the lease of the server that ran it is over").await?;
        tx.commit().await?;
        Ok(expired)
    }

    /// At boot: everything that an earlier life of this server left `starting` or `running` is lost, claims and synchronous calls alike;
    /// claims are treated as in [`Store::reap_expired`], synchronous calls fail with outcome `lost`. Returns how many executions that concerned.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn reconcile(&self, server: &str) -> Result<u64, StoreError> {
        let mut concerned = 0;
        loop {
            let mut tx = self.pool().begin().await?;
            let dead = sqlx::query_as!(
                Dead,
                r#"SELECT invocation, execution AS "execution!", cancelled,
                       on_lost = 'retry' AND attempt < $1 AND NOT cancelled AS "again!"
                   FROM queue WHERE server = $3 AND lease_until IS NOT NULL LIMIT $2 FOR UPDATE"#,
                MAX_LOST,
                BATCH,
                server,
            )
            .fetch_all(&mut *tx)
            .await?;
            lose(&mut tx, &dead, WENT_AWAY).await?;
            tx.commit().await?;
            if dead.is_empty() {
                break;
            }
            concerned += dead.len() as u64;
        }
        Ok(concerned + self.lose_calls(server).await?)
    }

    /// The synchronous calls of a dead server: whoever waited for them is gone too, they are not run again.
    async fn lose_calls(&self, server: &str) -> Result<u64, StoreError> {
        let mut tx = self.pool().begin().await?;
        let detail = detail(&Outcome::because(OutcomeKind::Lost, WENT_AWAY));
        let now = clock::now();
        let calls = sqlx::query_scalar!(
            "UPDATE executions SET state = 'lost', outcome = 'lost', detail = $2::text::jsonb, finished_at = $3
             WHERE server = $1 AND state IN ('starting', 'running') AND id >= $4 RETURNING invocation",
            server,
            detail,
            now,
            first_id(now - LONGEST),
        )
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query!(
            "UPDATE invocations SET state = 'failed', outcome = 'lost', detail = $2::text::jsonb, finished_at = $3
             WHERE id = ANY($1) AND state = 'running'",
            &calls,
            detail,
            now,
        )
        .execute(&mut *tx)
        .await?;
        lose_leases(&mut tx, server, detail.as_deref()).await?;
        tx.commit().await?;
        Ok(calls.len() as u64)
    }
}

/// No execution runs longer than its timeout, which is a day at most: older rows need not be looked at.
const LONGEST: TimeDelta = TimeDelta::days(2);

const WENT_AWAY: &str = "the server went away while it ran";

/// Ends dead claims: execution `lost`; invocation queued again, failed or cancelled.
async fn lose(tx: &mut PgConnection, dead: &[Dead], why: &str) -> Result<Vec<Expired>, StoreError> {
    if dead.is_empty() {
        return Ok(Vec::new());
    }
    let (again, over): (Vec<&Dead>, Vec<&Dead>) = dead.iter().partition(|row| row.again);
    let again: Vec<Uuid> = again.into_iter().map(|row| row.invocation).collect();
    let detail = detail(&Outcome::because(OutcomeKind::Lost, why));
    record(tx, dead, detail.as_deref()).await?;
    requeue(tx, &again, detail.as_deref()).await?;
    close(tx, &over, detail.as_deref()).await?;
    let expired = |row: &Dead| Expired {
        invocation: InvocationId::from(row.invocation),
        execution: ExecutionId::from(row.execution),
        retried: row.again,
    };
    Ok(dead.iter().map(expired).collect())
}

/// Puts lost executions on record: those that were noted while they ran are there already.
async fn record(tx: &mut PgConnection, dead: &[Dead], detail: Option<&str>) -> Result<(), StoreError> {
    let now = clock::now();
    let invocations: Vec<Uuid> = dead.iter().map(|row| row.invocation).collect();
    let claimed_at = |row: &Dead| ExecutionId::from(row.execution).created_at().unwrap_or(now);
    let claimed_at: Vec<Timestamp> = dead.iter().map(claimed_at).collect();
    sqlx::query!(
        "WITH lost AS (
           SELECT q.*, d.claimed_at FROM queue q
           JOIN unnest($1::uuid[], $4::timestamptz[]) AS d (invocation, claimed_at) ON d.invocation = q.invocation
           WHERE q.invocation = ANY($1)
         ), known AS (
           UPDATE invocations i
           SET attempts = l.attempt,
               executions = CASE WHEN l.execution = ANY(i.executions) THEN i.executions ELSE i.executions || l.execution END
           FROM lost l WHERE i.id = l.invocation AND i.id = ANY($1)
         )
         INSERT INTO executions AS x (id, invocation, namespace, function, revision, cause_kind, attempt, state, outcome, detail,
             server, reset, created_at, finished_at)
         SELECT execution, invocation, namespace, function, revision, cause_kind, attempt, 'lost', 'lost', $2::text::jsonb,
             server, reset, claimed_at, $3
         FROM lost
         ON CONFLICT (id) DO UPDATE
         SET state = 'lost', outcome = 'lost', detail = excluded.detail, finished_at = excluded.finished_at
         WHERE x.outcome IS NULL",
        &invocations,
        detail,
        now,
        &claimed_at,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Puts invocations back into the queue, later and later.
async fn requeue(tx: &mut PgConnection, invocations: &[Uuid], detail: Option<&str>) -> Result<(), StoreError> {
    if invocations.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE queue SET lease_until = NULL, server = NULL, fence = NULL, execution = NULL,
             not_before = now() + make_interval(secs => power(2, attempt - 1) - 1)
         WHERE invocation = ANY($1)",
        invocations,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "UPDATE invocations SET state = 'queued', outcome = 'lost', detail = $2::text::jsonb WHERE id = ANY($1)",
        invocations,
        detail,
    )
    .execute(&mut *tx)
    .await?;
    notify(tx, [Wakeup::Work]).await
}

/// Ends invocations that are not executed again.
async fn close(tx: &mut PgConnection, over: &[&Dead], detail: Option<&str>) -> Result<(), StoreError> {
    if over.is_empty() {
        return Ok(());
    }
    let invocations: Vec<Uuid> = over.iter().map(|row| row.invocation).collect();
    let states: Vec<&str> = over.iter().map(|row| if row.cancelled { "cancelled" } else { "failed" }).collect();
    sqlx::query!("DELETE FROM queue WHERE invocation = ANY($1)", &invocations).execute(&mut *tx).await?;
    sqlx::query!(
        "UPDATE invocations i SET state = o.state, outcome = 'lost', detail = $3::text::jsonb, finished_at = $4
         FROM unnest($1::uuid[], $2::text[]) AS o (id, state)
         WHERE i.id = o.id AND i.id = ANY($1)",
        &invocations,
        &states as &[&str],
        detail,
        clock::now(),
    )
    .execute(&mut *tx)
    .await?;
    bury(tx, &invocations).await?;
    cancel::release(tx, &invocations).await
}

//! Ends of work that never started: cancelled or expired while it waited.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use uuid::Uuid;

use super::Wakeup;
use super::news::notify;
use crate::clock;
use crate::id::InvocationId;
use crate::invocation::InvocationState;
use crate::name::Namespace;
use crate::store::dead_letter::bury;
use crate::store::text::word;
use crate::store::{Store, StoreError};

/// How often overdue work is looked for, at most.
const LOOK: Duration = Duration::from_millis(250);

/// When overdue work was looked for last.
#[derive(Debug, Default)]
pub(in crate::store) struct Overdue(Mutex<Option<Instant>>);

impl Overdue {
    /// Whether it is to be looked for now. The next time is later then.
    fn is_due(&self) -> bool {
        let (mut last, now) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        let due = last.is_none_or(|last| now.duration_since(last) >= LOOK);
        if due {
            *last = Some(now);
        }
        due
    }
}

impl Store {
    /// Cancels an invocation that waits; for one that runs, notifies the servers. Returns the state it had, `None` if there is none.
    /// A claimed one that gets lost afterwards is not executed again.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn cancel(&self, namespace: &Namespace, id: InvocationId) -> Result<Option<InvocationState>, StoreError> {
        self.settled().await;
        let mut tx = self.pool().begin().await?;
        let claimed = sqlx::query_scalar!(
            r#"UPDATE queue SET cancelled = true WHERE invocation = $1 AND namespace = $2 RETURNING lease_until IS NOT NULL AS "claimed!""#,
            id.uuid(),
            namespace.as_str(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let state = match claimed {
            Some(false) => {
                sqlx::query!("DELETE FROM queue WHERE invocation = $1", id.uuid()).execute(&mut *tx).await?;
                close_waiting(&mut tx, &[id.uuid()], InvocationState::Cancelled).await?;
                Some(InvocationState::Queued)
            }
            Some(true) => Some(InvocationState::Running),
            None => state_of(&mut tx, namespace, id).await?,
        };
        if state == Some(InvocationState::Running) {
            notify(&mut *tx, [Wakeup::Cancel(id)]).await?;
        }
        tx.commit().await?;
        Ok(state)
    }

    /// Ends waiting work whose deadline is over, unless that was done a moment ago: work that is overdue is never claimed, it can wait.
    pub(super) async fn expire_overdue(&self) -> Result<(), StoreError> {
        if !self.inner.overdue.is_due() {
            return Ok(());
        }
        let mut tx = self.hot().pool().begin().await?;
        let overdue = sqlx::query_scalar!(
            // An array, not `IN`: the connection's plans are nested loops, and the inner query would be run again for each row.
            "DELETE FROM queue WHERE invocation = ANY(ARRAY(
                 SELECT invocation FROM queue WHERE lease_until IS NULL AND deadline <= now() LIMIT 1000 FOR UPDATE SKIP LOCKED))
             RETURNING invocation"
        )
        .fetch_all(&mut *tx)
        .await?;
        close_waiting(&mut tx, &overdue, InvocationState::Expired).await?;
        tx.commit().await?;
        Ok(())
    }
}

async fn state_of(
    tx: &mut PgConnection,
    namespace: &Namespace,
    id: InvocationId,
) -> Result<Option<InvocationState>, StoreError> {
    sqlx::query_scalar!("SELECT state FROM invocations WHERE id = $1 AND namespace = $2", id.uuid(), namespace.as_str())
        .fetch_optional(tx)
        .await?
        .map(|state| word("invocations", &id, &state))
        .transpose()
}

/// Gives invocations that left the queue while they waited their last state, makes dead letters of those that expired, lets their keys go, and tells who waits for them.
pub(in crate::store) async fn close_waiting(
    tx: &mut PgConnection,
    invocations: &[Uuid],
    state: InvocationState,
) -> Result<(), StoreError> {
    if invocations.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE invocations SET state = $2, finished_at = $3 WHERE id = ANY($1)",
        invocations,
        state.as_str(),
        clock::now(),
    )
    .execute(&mut *tx)
    .await?;
    bury(tx, invocations).await?;
    release(tx, invocations).await
}

/// Lets the dedup keys of invocations that failed for good go, and tells who waits for them.
pub(super) async fn release(tx: &mut PgConnection, invocations: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!("UPDATE dedup_keys SET released = true WHERE invocation = ANY($1)", invocations)
        .execute(&mut *tx)
        .await?;
    notify(tx, invocations.iter().map(|id| Wakeup::Done(InvocationId::from(*id)))).await
}

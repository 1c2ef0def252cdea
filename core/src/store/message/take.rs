//! Taking: ready messages become invocations, in one transaction.
//!
//! Whoever takes from a queue holds its row, so that a queue has one taker at a time: order and bounds need no further locks. What
//! becomes of each message is decided by who calls ([`Choice`]); here is only what the ledger knows.

mod ready;
mod write;

pub use ready::{Candidate, Hints};

use bytes::Bytes;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::QueueKey;
use crate::cause::Cause;
use crate::clock::Timestamp;
use crate::id::TriggerId;
use crate::manifest::QueueTrigger;
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::store::queue::Wakeup;
use crate::store::text::noun;
use crate::store::{Store, StoreError};

/// A queue trigger that is deployed.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// The trigger.
    pub trigger: TriggerId,
    /// Owner.
    pub namespace: Namespace,
    /// The function it starts.
    pub function: FunctionName,
    /// What it says.
    pub spec: QueueTrigger,
}

/// How many more invocations a trigger may have.
#[derive(Debug, Clone, Copy)]
pub struct Free {
    /// The trigger.
    pub trigger: TriggerId,
    /// More that it may have.
    pub invocations: u32,
}

/// Messages that become one invocation.
#[derive(Debug, Clone)]
pub struct Batch {
    /// For whom.
    pub trigger: TriggerId,
    /// Which, by their places in the list of candidates.
    pub messages: Vec<usize>,
    /// The body of the invocation.
    pub payload: Bytes,
    /// Its content type.
    pub content_type: Option<String>,
    /// Why it is.
    pub cause: Cause,
}

/// What is to become of candidates; those that are not named stay.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Invocations to make.
    pub batches: Vec<Batch>,
    /// Messages that no trigger wants.
    pub unwanted: Vec<usize>,
    /// Messages that nobody can deal with, and why.
    pub dead: Vec<(usize, String)>,
}

/// What a take did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Invocations that were made.
    pub invocations: usize,
    /// Messages that no trigger wanted.
    pub unwanted: usize,
    /// Messages that became dead letters.
    pub dead: usize,
    /// Whether there may be more to take at once.
    pub more: bool,
}

/// What the ledger knows of a trigger's function.
struct Plan {
    trigger: TriggerId,
    function: FunctionName,
    revision: RevisionDigest,
    reset: String,
    on_lost: String,
    max_concurrency: i32,
    memory: Value,
    set_at: Option<Timestamp>,
    live: i64,
    oldest: Option<Uuid>,
}

impl Store {
    /// All queue triggers, of all namespaces, in an order that stays.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn consumers(&self) -> Result<Vec<Consumer>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT id AS "id: TriggerId", namespace AS "namespace: Namespace", function AS "function: FunctionName", spec
               FROM triggers WHERE kind = 'queue' ORDER BY namespace, function, path, ordinal"#
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter()
            .map(|row| {
                let spec = noun("triggers", &row.id, row.spec)?;
                Ok(Consumer { trigger: row.id, namespace: row.namespace, function: row.function, spec })
            })
            .collect()
    }

    /// Takes up to `limit` messages of a queue as `choose` decides; it is told what is ready, best first, and what its triggers may
    /// still have. `None`: somebody else takes, the queue is paused, or nothing may start.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn take(
        &self,
        queue: &QueueKey,
        triggers: &[(TriggerId, u32)],
        hints: &mut Hints,
        limit: u32,
        choose: impl FnOnce(&[Candidate], &[Free]) -> Choice + Send,
    ) -> Result<Option<Taken>, StoreError> {
        let mut lane = self.steady().take().await?;
        let mut tx = lane.begin().await?;
        if !lock(&mut tx, queue).await? {
            return Ok(None);
        }
        let plans = plans(&mut tx, triggers, hints.live).await?;
        let free: Vec<Free> = plans
            .iter()
            .map(|plan| {
                let most = triggers.iter().find(|(id, _)| *id == plan.trigger).map_or(0, |(_, most)| *most);
                let invocations = most.saturating_sub(u32::try_from(plan.live).unwrap_or(u32::MAX));
                Free { trigger: plan.trigger, invocations }
            })
            .collect();
        if free.iter().all(|free| free.invocations == 0) {
            return Ok(None);
        }
        let candidates = ready::candidates(&mut tx, queue, hints, limit).await?;
        let choice = choose(&candidates, &free);
        let mut at_once = self.at_once();
        let Some(begun) = write::write(&mut tx, queue, &plans, &candidates, &choice, &mut at_once).await? else {
            // Somebody has removed one of them: as if nothing had been.
            tx.rollback().await?;
            return Ok(Some(Taken { more: true, ..Taken::default() }));
        };
        tx.commit().await?;
        lane.keep();
        hints.live = plans.iter().filter_map(|plan| plan.oldest).min().unwrap_or(hints.live);
        let gone = hints.raise(&candidates, &choice);
        if begun.len() < choice.batches.len() {
            self.tell(Wakeup::Work);
        }
        at_once.start(begun);
        Ok(Some(Taken {
            invocations: choice.batches.len(),
            unwanted: choice.unwanted.len(),
            dead: choice.dead.len(),
            more: gone > 0 && candidates.len() >= limit as usize,
        }))
    }

    /// The queues in which something is ready, of those that are not paused. One probe of the index for each: an `EXISTS` would be turned
    /// into a look at all that is ready.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ready_queues(&self) -> Result<Vec<QueueKey>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT q.namespace AS "namespace: Namespace", q.name FROM queues q
               CROSS JOIN LATERAL (SELECT FROM messages m WHERE m.namespace = q.namespace AND m.queue = q.name
                   AND m.due IS NULL AND NOT m.behind AND m.invocation IS NULL AND m.dead_at IS NULL LIMIT 1) ready
               WHERE q.paused_at IS NULL"#
        )
        .fetch_all(self.steady().pool())
        .await?;
        Ok(rows.into_iter().map(|row| (row.namespace, row.name)).collect())
    }

    /// Lets messages go whose delay is over. Returns their queues, and when the next one is due.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn release_due(&self) -> Result<(Vec<QueueKey>, Option<Timestamp>), StoreError> {
        let rows = sqlx::query!(
            r#"WITH over AS (
                 UPDATE messages SET due = NULL, ready_at = now(), place = nextval('message_places')
                 WHERE id = ANY(ARRAY(
                   SELECT id FROM messages WHERE due <= now() AND NOT behind AND dead_at IS NULL
                   ORDER BY due LIMIT 1000 FOR UPDATE SKIP LOCKED))
                 RETURNING namespace, queue)
               SELECT DISTINCT namespace AS "namespace: Namespace", queue FROM over"#
        )
        .fetch_all(self.steady().pool())
        .await?;
        let next = sqlx::query_scalar!(
            r#"SELECT due AS "due!" FROM messages WHERE due IS NOT NULL AND NOT behind AND dead_at IS NULL ORDER BY due LIMIT 1"#
        )
        .fetch_optional(self.steady().pool())
        .await?;
        Ok((rows.into_iter().map(|row| (row.namespace, row.queue)).collect(), next))
    }

    /// Forgets dedup keys whose time is over, and states of servers that are gone.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn prune_messages(&self) -> Result<(), StoreError> {
        sqlx::query!("DELETE FROM message_dedup WHERE expires < now()").execute(self.pool()).await?;
        sqlx::query!("DELETE FROM broker_states WHERE seen_at < now() - interval '1 minute'")
            .execute(self.pool())
            .await?;
        Ok(())
    }
}

/// Whether the queue is ours to take from.
async fn lock(tx: &mut PgConnection, (namespace, queue): &QueueKey) -> Result<bool, StoreError> {
    let free = sqlx::query_scalar!(
        r#"SELECT true AS "free!" FROM queues WHERE namespace = $1 AND name = $2 AND paused_at IS NULL FOR NO KEY UPDATE SKIP LOCKED"#,
        namespace.as_str(),
        queue,
    );
    Ok(free.fetch_optional(tx).await?.is_some())
}

/// The functions of triggers, and how many invocations these have that are not over: of those from `oldest` on.
async fn plans(tx: &mut PgConnection, triggers: &[(TriggerId, u32)], oldest: Uuid) -> Result<Vec<Plan>, StoreError> {
    let ids: Vec<Uuid> = triggers.iter().map(|(id, _)| id.uuid()).collect();
    let plans = sqlx::query_as!(
        Plan,
        r#"SELECT t.id AS "trigger: TriggerId", f.name AS "function: FunctionName", r.digest AS "revision: RevisionDigest",
               r.manifest ->> 'reset' AS "reset!", r.manifest ->> 'on_lost' AS "on_lost!",
               (r.manifest ->> 'max_concurrency')::integer AS "max_concurrency!", r.manifest #> '{limits,memory}' AS "memory!",
               o.set_at AS "set_at?",
               (SELECT count(*) FROM queue q WHERE q.trigger = t.id AND q.invocation >= $2) AS "live!",
               (SELECT q.invocation FROM queue q WHERE q.trigger = t.id AND q.invocation >= $2 ORDER BY q.invocation LIMIT 1) AS oldest
           FROM triggers t
           JOIN functions f ON f.namespace = t.namespace AND f.name = t.function
           JOIN revisions r ON r.namespace = f.namespace AND r.digest = f.revision
           LEFT JOIN function_settings o ON o.namespace = f.namespace AND o.function = f.name
           WHERE t.id = ANY($1)"#,
        &ids,
        oldest,
    );
    Ok(plans.fetch_all(tx).await?)
}

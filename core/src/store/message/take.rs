//! Taking: ready messages become invocations, in one transaction.
//!
//! Whoever takes from a queue holds its row, so that a queue has one taker at a time: order and bounds need no further locks. What
//! becomes of each message is decided by who calls ([`Choice`]); here is only what the ledger knows.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{PRIORITIES, QueueKey, lock_keys, lock_of, promote};
use crate::cause::Cause;
use crate::clock::{self, Timestamp};
use crate::id::{InvocationId, MessageId, TriggerId};
use crate::manifest::QueueTrigger;
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::store::queue::Wakeup;
use crate::store::queue::at_once::{AtOnce, NewWork};
use crate::store::text::{clean, count, json, noun};
use crate::store::{Store, StoreError};
use crate::unit::ByteSize;

/// So many places are looked at again: publishers that work at the same time commit in another order than that of their places.
const LATE: i64 = 2000;

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

/// Where to begin to look: nothing below these places was ready when somebody looked last. What committed late may be below: whoever
/// uses hints takes without them once in a while.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints {
    floors: [i64; PRIORITIES as usize + 1],
    live: Uuid,
}

/// A message that is ready.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its id.
    pub id: MessageId,
    place: i64,
    /// Higher first.
    pub priority: i16,
    /// Its key.
    pub key: Option<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Content type of the body.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
    /// When it was published.
    pub published_at: Timestamp,
    /// Since when it is ready.
    pub ready_at: Timestamp,
    /// Invocations it was in that failed.
    pub attempts: u32,
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
        let candidates = candidates(&mut tx, queue, hints, limit).await?;
        let choice = choose(&candidates, &free);
        let mut at_once = self.at_once();
        let Some(begun) = write(&mut tx, queue, &plans, &candidates, &choice, &mut at_once).await? else {
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

/// What is ready, best first.
async fn candidates(
    tx: &mut PgConnection,
    (namespace, queue): &QueueKey,
    hints: &Hints,
    limit: u32,
) -> Result<Vec<Candidate>, StoreError> {
    let priorities: Vec<i16> = (0..=PRIORITIES).rev().collect();
    let floors: Vec<i64> = hints.floors.iter().rev().copied().collect();
    let rows = sqlx::query!(
        r#"SELECT m.id AS "id!: MessageId", m.place AS "place!", m.priority AS "priority!", m.key, m.attributes AS "attributes!",
               m.content_type, m.body AS "body!", m.published_at AS "published_at!", m.ready_at AS "ready_at!", m.attempts AS "attempts!"
           FROM unnest($3::smallint[], $4::bigint[]) WITH ORDINALITY AS l (priority, floor, nth)
           CROSS JOIN LATERAL (
             SELECT * FROM messages c
             WHERE c.namespace = $1 AND c.queue = $2 AND c.priority = l.priority AND c.place >= l.floor
               AND c.due IS NULL AND NOT c.behind AND c.invocation IS NULL AND c.dead_at IS NULL
             ORDER BY c.place LIMIT $5
           ) m
           LIMIT $5"#,
        namespace.as_str(),
        queue,
        &priorities,
        &floors,
        i64::from(limit),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Candidate {
                id: row.id,
                place: row.place,
                priority: row.priority,
                key: row.key,
                attributes: noun("messages", &row.id, row.attributes)?,
                content_type: row.content_type,
                body: row.body.into(),
                published_at: row.published_at,
                ready_at: row.ready_at,
                attempts: row.attempts.unsigned_abs(),
            })
        })
        .collect()
}

/// Puts a choice on record. Returns the executions and fences of what was claimed with it; `None` if a message is not there any more.
async fn write(
    tx: &mut PgConnection,
    (namespace, queue): &QueueKey,
    plans: &[Plan],
    candidates: &[Candidate],
    choice: &Choice,
    at_once: &mut AtOnce<'_>,
) -> Result<Option<Vec<(Uuid, i64)>>, StoreError> {
    let mut columns = Columns::default();
    for batch in &choice.batches {
        let Some(plan) = plans.iter().find(|plan| plan.trigger == batch.trigger) else { continue };
        columns.push(namespace, plan, batch, candidates, at_once)?;
    }
    let named = |place: &usize| candidates.get(*place).map(|candidate| candidate.id.uuid());
    let unwanted: Vec<Uuid> = choice.unwanted.iter().filter_map(named).collect();
    let dead: Vec<Uuid> = choice.dead.iter().filter_map(|(place, _)| named(place)).collect();
    let reasons: Vec<String> = choice.dead.iter().map(|(_, reason)| clean(reason).into_owned()).collect();
    let expected = columns.messages.len() + unwanted.len() + dead.len();
    if expected == 0 {
        return Ok(Some(Vec::new()));
    }
    let over = choice.unwanted.iter().chain(choice.dead.iter().map(|(place, _)| place));
    let keys: Vec<(&Namespace, &str, &str)> =
        over.filter_map(|place| Some((namespace, queue.as_str(), candidates.get(*place)?.key.as_deref()?))).collect();
    lock_keys(tx, keys.iter().map(|(_, _, key)| lock_of(namespace.as_str(), queue, key)).collect()).await?;
    let written = sqlx::query_file!(
        "src/store/message/take.sql",
        &columns.invocations,
        &columns.triggers,
        &columns.causes,
        &columns.payloads as &[&[u8]],
        &columns.content_types as &[Option<String>],
        &columns.priorities,
        &columns.namespaces as &[&str],
        &columns.functions as &[&str],
        &columns.revisions as &[&str],
        &columns.resets as &[&str],
        &columns.on_lost as &[&str],
        &columns.max_concurrency,
        &columns.memory,
        clock::now(),
        &columns.messages,
        &columns.of_invocation,
        &columns.of_trigger,
        &unwanted,
        &dead,
        &reasons,
        &columns.executions as &[Option<Uuid>],
        at_once.server(),
        at_once.lease(),
    )
    .fetch_one(&mut *tx)
    .await?;
    promote(tx, &keys).await?;
    let done = usize::try_from(written.done).ok() == Some(expected);
    Ok(done.then(|| written.executions.into_iter().zip(written.fences).collect()))
}

/// Invocations and their messages, column by column.
#[derive(Default)]
struct Columns<'a> {
    invocations: Vec<Uuid>,
    triggers: Vec<Uuid>,
    causes: Vec<String>,
    payloads: Vec<&'a [u8]>,
    content_types: Vec<Option<String>>,
    priorities: Vec<i16>,
    namespaces: Vec<&'a str>,
    functions: Vec<&'a str>,
    revisions: Vec<&'a str>,
    resets: Vec<&'a str>,
    on_lost: Vec<&'a str>,
    max_concurrency: Vec<i32>,
    memory: Vec<i64>,
    executions: Vec<Option<Uuid>>,
    messages: Vec<Uuid>,
    of_invocation: Vec<Uuid>,
    of_trigger: Vec<Uuid>,
}

impl<'a> Columns<'a> {
    fn push(
        &mut self,
        namespace: &'a Namespace,
        plan: &'a Plan,
        batch: &'a Batch,
        candidates: &[Candidate],
        at_once: &mut AtOnce<'_>,
    ) -> Result<(), StoreError> {
        let memory: ByteSize = noun("revisions", &plan.revision, plan.memory.clone())?;
        let id = InvocationId::new();
        let invocation = id.uuid();
        let messages = || batch.messages.iter().filter_map(|place| candidates.get(*place));
        let priority = messages().map(|message| message.priority).max().unwrap_or(0);
        let content_type = batch.content_type.as_deref().map(|text| clean(text).into_owned());
        let known = at_once.known(namespace, &plan.function, &plan.revision, plan.set_at);
        let work = || NewWork {
            invocation: id,
            cause: batch.cause.clone(),
            payload: batch.payload.clone(),
            content_type: content_type.clone(),
            priority,
            deadline: None,
        };
        self.executions.push(known.and_then(|known| at_once.reserve(&known.function, work)));
        self.invocations.push(invocation);
        self.triggers.push(plan.trigger.uuid());
        self.causes.push(json(&batch.cause));
        self.payloads.push(&batch.payload);
        self.content_types.push(content_type);
        self.priorities.push(priority);
        self.namespaces.push(namespace.as_str());
        self.functions.push(plan.function.as_str());
        self.revisions.push(plan.revision.as_str());
        self.resets.push(&plan.reset);
        self.on_lost.push(&plan.on_lost);
        self.max_concurrency.push(plan.max_concurrency);
        self.memory.push(count(memory.0));
        for message in messages() {
            self.messages.push(message.id.uuid());
            self.of_invocation.push(invocation);
            self.of_trigger.push(plan.trigger.uuid());
        }
        Ok(())
    }
}

impl Hints {
    /// Raises the floors over what has gone; returns how many have.
    fn raise(&mut self, candidates: &[Candidate], choice: &Choice) -> usize {
        let mut gone = vec![false; candidates.len()];
        let places = choice.batches.iter().flat_map(|batch| &batch.messages).chain(&choice.unwanted);
        for place in places.chain(choice.dead.iter().map(|(place, _)| place)) {
            if let Some(gone) = gone.get_mut(*place) {
                *gone = true;
            }
        }
        for (priority, floor) in (0..).zip(&mut self.floors) {
            let of_priority = || candidates.iter().zip(&gone).filter(|(candidate, _)| candidate.priority == priority);
            let kept = of_priority().filter(|(_, gone)| !**gone).map(|(candidate, _)| candidate.place).min();
            let last = of_priority().map(|(candidate, _)| candidate.place + 1).max();
            *floor = kept.or(last).map_or(*floor, |place| (place - LATE).max(*floor));
        }
        gone.into_iter().filter(|gone| *gone).count()
    }
}

//! Settling: the end of an invocation decides about its messages.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{QueueKey, lock_keys, lock_of, promote};
use crate::id::{InvocationId, MessageId, TriggerId};
use crate::invocation::InvocationState;
use crate::manifest::QueueTrigger;
use crate::name::Namespace;
use crate::outcome::Outcome;
use crate::store::text::{clean, noun, outcome, word};
use crate::store::{Store, StoreError};

/// Largest result that is looked into, bytes.
const RESULT: i32 = 4 << 20;

/// Largest result that is looked through where it comes by, bytes.
const SHORT: usize = 64 << 10;

/// Most invocations settled at a time.
const MOST: i64 = 500;

/// Whether a result may say which messages of a batch have failed: then somebody has to read it.
pub(in crate::store) fn may_report_failures(result: &[u8]) -> bool {
    let has = |word: &[u8]| result.windows(word.len()).any(|window| window == word);
    // A key may be spelt with escapes.
    result.len() > SHORT || has(b"batchItemFailures") || has(b"\\u")
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is dealt with.
    Done,
    /// It failed and gets ready again after this pause.
    Again(Duration, String),
    /// It failed and becomes a dead letter.
    Dead(String),
}

/// An invocation that has ended, with its messages.
#[derive(Debug)]
pub struct Ended {
    /// The invocation.
    pub invocation: InvocationId,
    /// How it ended; `None`: history knows nothing of it any more.
    pub state: Option<InvocationState>,
    /// How its last execution ended.
    pub outcome: Option<Outcome>,
    /// What it returned.
    pub result: Option<Bytes>,
    /// What its trigger says; `None`: it is gone.
    pub spec: Option<QueueTrigger>,
    /// Its messages, and how often each had failed before.
    pub messages: Vec<(MessageId, u32)>,
}

/// A message in flight, its row locked.
struct InFlight {
    id: MessageId,
    namespace: Namespace,
    queue: String,
    key: Option<String>,
    attempts: i32,
    trigger: Option<TriggerId>,
    /// What that says now; `None`: it is gone.
    spec: Option<Value>,
    invocation: Uuid,
}

impl Store {
    /// Invocations of messages that are not at work any more: for what no wake-up told of.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ended_unsettled(&self) -> Result<Vec<InvocationId>, StoreError> {
        let rows = sqlx::query_scalar!(
            r#"SELECT DISTINCT m.invocation AS "invocation!: InvocationId" FROM messages m
               WHERE m.invocation IS NOT NULL AND NOT EXISTS (SELECT FROM queue q WHERE q.invocation = m.invocation) LIMIT $1"#,
            MOST,
        );
        Ok(rows.fetch_all(self.steady().pool()).await?)
    }

    /// Settles the messages of invocations that have ended, as `decide` says, which gives a fate for each message in its order. Those
    /// that have not ended, and those that another server settles, are passed over. Returns the queues that it concerned.
    /// Idempotent; any server may do it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn settle(
        &self,
        invocations: &[InvocationId],
        decide: impl Fn(&Ended) -> Vec<Fate> + Send,
    ) -> Result<Vec<QueueKey>, StoreError> {
        let ids: Vec<Uuid> = invocations.iter().map(|id| id.uuid()).collect();
        let mut lane = self.steady().take().await?;
        if !any_in_flight(&mut lane, &ids).await? {
            lane.keep();
            return Ok(Vec::new());
        }
        let mut tx = lane.begin().await?;
        let mut messages = in_flight(&mut tx, &ids).await?;
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        messages.sort_by_key(|message| (message.invocation, message.id));
        let known = ended(&mut tx, &ids).await?;
        let specs = specs(&messages)?;
        let mut columns = Columns::default();
        let mut over: Vec<&InFlight> = Vec::new();
        for messages in messages.chunk_by(|one, other| one.invocation == other.invocation) {
            let Some(first) = messages.first() else { continue };
            let spec = first.trigger.and_then(|trigger| specs.get(&trigger)).cloned();
            let Some(ended) = self.with_end(known.get(&first.invocation), spec, messages).await? else { continue };
            let fates = decide(&ended);
            for (message, fate) in messages.iter().zip(fates) {
                if !matches!(fate, Fate::Again(..)) {
                    over.push(message);
                }
                columns.push(message, &fate);
            }
        }
        if columns.ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<(&Namespace, &str, &str)> = over
            .iter()
            .filter_map(|message| Some((&message.namespace, message.queue.as_str(), message.key.as_deref()?)))
            .collect();
        lock_keys(
            &mut tx,
            keys.iter().map(|(namespace, queue, key)| lock_of(namespace.as_str(), queue, key)).collect(),
        )
        .await?;
        columns.write(&mut tx).await?;
        promote(&mut tx, &keys).await?;
        let mut queues: Vec<QueueKey> =
            messages.iter().map(|message| (message.namespace.clone(), message.queue.clone())).collect();
        queues.sort_unstable();
        queues.dedup();
        tx.commit().await?;
        lane.keep();
        Ok(queues)
    }

    /// An invocation with its messages; `None` if it has not ended.
    async fn with_end(
        &self,
        end: Option<&End>,
        spec: Option<QueueTrigger>,
        messages: &[InFlight],
    ) -> Result<Option<Ended>, StoreError> {
        let Some(first) = messages.first() else { return Ok(None) };
        let invocation = InvocationId::from(first.invocation);
        let messages = messages.iter().map(|message| (message.id, message.attempts.unsigned_abs())).collect();
        let Some(end) = end else {
            return Ok(Some(Ended { invocation, state: None, outcome: None, result: None, spec, messages }));
        };
        let state: InvocationState = word("invocations", &invocation, &end.state)?;
        if end.live || !state.is_terminal() {
            return Ok(None);
        }
        let result = match &end.result {
            Some(bytes) => {
                let file = end.result_file.as_deref();
                self.fetch(first.invocation, first.namespace.as_str(), bytes.clone(), file).await.ok()
            }
            None => None,
        };
        let outcome = outcome("invocations", &invocation, end.outcome.as_deref(), end.detail.clone())?;
        Ok(Some(Ended { invocation, state: Some(state), outcome, result, spec, messages }))
    }
}

/// What history says of an invocation.
struct End {
    id: Uuid,
    state: String,
    outcome: Option<String>,
    detail: Option<Value>,
    result: Option<Vec<u8>>,
    result_file: Option<String>,
    live: bool,
}

async fn ended(tx: &mut PgConnection, invocations: &[Uuid]) -> Result<HashMap<Uuid, End>, StoreError> {
    let rows = sqlx::query_as!(
        End,
        r#"SELECT i.id, i.state, i.outcome, i.detail, CASE WHEN octet_length(i.result) <= $2 THEN i.result END AS result,
               i.result_file, EXISTS (SELECT FROM queue q WHERE q.invocation = i.id) AS "live!"
           FROM invocations i WHERE i.id = ANY($1) AND i.id BETWEEN $3 AND $4"#,
        invocations,
        RESULT,
        invocations.iter().min().copied().unwrap_or_default(),
        invocations.iter().max().copied().unwrap_or_default(),
    );
    Ok(rows.fetch_all(tx).await?.into_iter().map(|row| (row.id, row)).collect())
}

/// What the triggers of messages say now.
fn specs(messages: &[InFlight]) -> Result<HashMap<TriggerId, QueueTrigger>, StoreError> {
    let mut specs = HashMap::new();
    for message in messages {
        let (Some(trigger), Some(spec)) = (message.trigger, &message.spec) else { continue };
        if let Entry::Vacant(vacant) = specs.entry(trigger) {
            vacant.insert(noun("triggers", &trigger, spec.clone())?);
        }
    }
    Ok(specs)
}

/// Whether any of these invocations has messages: most have none, or their end has dealt with them.
async fn any_in_flight(connection: &mut PgConnection, invocations: &[Uuid]) -> Result<bool, StoreError> {
    let any = sqlx::query_scalar!("SELECT true FROM messages WHERE invocation = ANY($1) LIMIT 1", invocations);
    Ok(any.fetch_optional(connection).await?.is_some())
}

async fn in_flight(tx: &mut PgConnection, invocations: &[Uuid]) -> Result<Vec<InFlight>, StoreError> {
    let rows = sqlx::query_as!(
        InFlight,
        r#"SELECT m.id AS "id: MessageId", m.namespace AS "namespace: Namespace", m.queue, m.key, m.attempts,
               m.trigger AS "trigger: TriggerId", t.spec AS "spec?", m.invocation AS "invocation!"
           FROM messages m LEFT JOIN triggers t ON t.id = m.trigger
           WHERE m.invocation = ANY($1) FOR UPDATE OF m SKIP LOCKED"#,
        invocations,
    );
    Ok(rows.fetch_all(tx).await?)
}

/// Fates, column by column.
#[derive(Default)]
struct Columns {
    ids: Vec<Uuid>,
    fates: Vec<&'static str>,
    pauses: Vec<f64>,
    reasons: Vec<Option<String>>,
}

impl Columns {
    fn push(&mut self, message: &InFlight, fate: &Fate) {
        let (word, pause, reason) = match fate {
            Fate::Done => ("done", Duration::ZERO, None),
            Fate::Again(pause, reason) => ("again", *pause, Some(reason)),
            Fate::Dead(reason) => ("dead", Duration::ZERO, Some(reason)),
        };
        self.ids.push(message.id.uuid());
        self.fates.push(word);
        self.pauses.push(pause.as_secs_f64());
        self.reasons.push(reason.map(|reason| clean(reason).into_owned()));
    }

    async fn write(&self, tx: &mut PgConnection) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH fate AS (
               SELECT * FROM unnest($1::uuid[], $2::text[], $3::float8[], $4::text[]) AS f (id, fate, pause, reason)
             ), done AS (
               DELETE FROM messages WHERE id = ANY(ARRAY(SELECT id FROM fate WHERE fate = 'done'))
             )
             UPDATE messages m
             SET invocation = NULL, attempts = m.attempts + 1, reason = f.reason,
                 trigger = CASE WHEN f.fate = 'dead' THEN m.trigger END,
                 dead_at = CASE WHEN f.fate = 'dead' THEN now() END,
                 due = CASE WHEN f.fate = 'again' THEN now() + make_interval(secs => f.pause) END,
                 ready_at = now() + make_interval(secs => f.pause)
             FROM fate f WHERE m.id = f.id AND m.id = ANY($1) AND f.fate <> 'done'",
            &self.ids,
            &self.fates as &[&str],
            &self.pauses,
            &self.reasons as &[Option<String>],
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}

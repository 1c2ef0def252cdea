//! The outbox: who is to be told how an invocation ended.
//!
//! ```text
//!  end of the invocation ──► waiting ──try──► delivered
//!                              ▲  │  └─────► failed      given up, refused, or its receiver is gone for good
//!                              └──┘  └─────► cancelled   by somebody
//! ```
//! A row is made in the transaction of the end. A try is claimed by moving `next_at` ahead: if the server that makes it goes away, another
//! one takes it over then. Each try has a number; what comes late about an earlier one changes nothing.

mod list;

pub use list::CallbackFilter;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::message::{self, NewMessage};
use super::queue::Wakeup;
use super::text::{json, noun, word};
use super::{Store, StoreError};
use crate::clock::{self, Timestamp};
use crate::id::InvocationId;
use crate::manifest::Destination;
use crate::metric;
use crate::name::{FunctionName, Namespace};

/// What became of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallbackState {
    /// It is to be tried.
    Waiting,
    /// It was told.
    Delivered,
    /// It was given up, refused, or its receiver said that it is gone.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl CallbackState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Delivered, Self::Failed, Self::Cancelled];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What asynchronous work has left behind that somebody may want to look at: of all servers of the database.
#[derive(Debug, Clone, Copy)]
pub struct Aftermath {
    /// Dead letters.
    pub dead_letters: i64,
    /// Callbacks that are to be tried.
    pub waiting: i64,
    /// For how many seconds the oldest of those to be tried has waited since the end it tells of; 0 if none waits.
    pub oldest: f64,
}

/// How an invocation ended, as a callback tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallbackEvent {
    /// It succeeded.
    Succeeded,
    /// It failed for good, or expired.
    Failed,
}

impl CallbackEvent {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallbackTry {
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Status of the answer, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What came of it, in words.
    pub note: String,
    /// How long it took, milliseconds.
    pub duration_ms: u64,
}

/// A callback on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Callback {
    /// The invocation that ended; its id is the id of the message, too.
    pub invocation: InvocationId,
    /// Its function.
    pub function: FunctionName,
    /// How it ended.
    pub event: CallbackEvent,
    /// Who is told.
    pub destination: Destination,
    /// What became of it.
    pub state: CallbackState,
    /// Tries so far.
    pub tries: u32,
    /// The last of them.
    pub history: Vec<CallbackTry>,
    /// When it is tried next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<Timestamp>,
    /// When the invocation ended.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was told, given up or cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}

/// A callback that this server is to try now.
#[derive(Debug, Clone)]
pub struct DueCallback {
    /// The invocation that ended.
    pub invocation: InvocationId,
    /// Owner.
    pub namespace: Namespace,
    /// Its function.
    pub function: FunctionName,
    /// How it ended.
    pub event: CallbackEvent,
    /// Who is told.
    pub destination: Destination,
    /// Number of this try, from 1.
    pub number: u32,
    /// When the invocation ended.
    pub created_at: Timestamp,
}

/// What follows a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was told.
    Delivered,
    /// It is tried again after so long.
    Again(Duration),
    /// It is given up.
    Failed,
}

impl Verdict {
    /// The state that a callback is in then.
    const fn state(self) -> CallbackState {
        match self {
            Self::Delivered => CallbackState::Delivered,
            Self::Failed => CallbackState::Failed,
            Self::Again(_) => CallbackState::Waiting,
        }
    }
}

/// Tries that are kept of a callback.
const HISTORY: i32 = 20;

struct DueRow {
    invocation: InvocationId,
    namespace: Namespace,
    function: FunctionName,
    event: String,
    destination: Value,
    tries: i32,
    created_at: Timestamp,
}

impl DueRow {
    fn due(self) -> Result<DueCallback, StoreError> {
        Ok(DueCallback {
            event: word("outbox", &self.invocation, &self.event)?,
            destination: noun("outbox", &self.invocation, self.destination)?,
            invocation: self.invocation,
            namespace: self.namespace,
            function: self.function,
            number: self.tries.unsigned_abs(),
            created_at: self.created_at,
        })
    }
}

impl Store {
    /// Counts dead letters and callbacks that wait.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn aftermath(&self) -> Result<Aftermath, StoreError> {
        let counted = sqlx::query_as!(
            Aftermath,
            r#"SELECT (SELECT count(*) FROM dead_letters) AS "dead_letters!",
                   count(*) AS "waiting!",
                   COALESCE(EXTRACT(EPOCH FROM now() - min(created_at)), 0)::double precision AS "oldest!"
               FROM outbox WHERE state = 'waiting'"#
        )
        .fetch_one(self.pool())
        .await?;
        Ok(counted)
    }

    /// Claims callbacks that are due, the oldest first, for `lease`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn claim_callbacks(&self, limit: u32, lease: Duration) -> Result<Vec<DueCallback>, StoreError> {
        let rows = sqlx::query_as!(
            DueRow,
            r#"UPDATE outbox o SET tries = o.tries + 1, next_at = now() + make_interval(secs => $2)
               WHERE o.invocation = ANY(ARRAY(
                   SELECT invocation FROM outbox WHERE state = 'waiting' AND next_at <= now()
                   ORDER BY next_at LIMIT $1 FOR UPDATE SKIP LOCKED))
               RETURNING o.invocation AS "invocation: InvocationId", o.namespace AS "namespace: Namespace",
                   o.function AS "function: FunctionName", o.event, o.destination, o.tries, o.created_at"#,
            i64::from(limit),
            lease.as_secs_f64(),
        )
        .fetch_all(self.pool())
        .await?;
        // One that this version cannot read is left to a later one, and keeps none of the others back.
        let due = |row: DueRow| {
            let invocation = row.invocation;
            let read: Result<DueCallback, StoreError> = row.due();
            read.inspect_err(|error| tracing::warn!(invocation.id = %invocation, %error, "a callback cannot be read"))
                .ok()
        };
        Ok(rows.into_iter().filter_map(due).collect())
    }

    /// Publishes a message to a built-in queue and puts the try on record, both or neither. `None`: there is no such queue, and nothing
    /// was done; else whether it was done: not if a later try has begun or somebody cancelled it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn callback_published(
        &self,
        due: &DueCallback,
        tried: &CallbackTry,
        queue: &str,
        message: NewMessage,
    ) -> Result<Option<bool>, StoreError> {
        let mut tx = self.pool().begin().await?;
        if !message::exists(&mut tx, &due.namespace, queue).await? {
            return Ok(None);
        }
        if !put_try(&mut tx, due, tried, Verdict::Delivered).await? {
            return Ok(Some(false));
        }
        message::insert(&mut tx, &due.namespace, queue, &[message], Duration::ZERO).await?;
        tx.commit().await?;
        metric::callback_tried(CallbackState::Delivered.as_str());
        self.tell(Wakeup::Messages(due.namespace.clone(), queue.to_owned()));
        Ok(Some(true))
    }

    /// Puts a try and what follows it on record, unless a later one has begun or somebody cancelled it. Returns whether it was written.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn callback_tried(
        &self,
        due: &DueCallback,
        tried: &CallbackTry,
        verdict: Verdict,
    ) -> Result<bool, StoreError> {
        let mut connection = self.pool().acquire().await?;
        let written = put_try(&mut connection, due, tried, verdict).await?;
        if written {
            metric::callback_tried(verdict.state().as_str());
        }
        Ok(written)
    }

    /// Waits until an end that somebody is to be told of was written by this server.
    pub async fn callback_rung(&self) {
        self.inner.callbacks.notified().await;
    }
}

/// Puts a try and what follows it on record, unless a later one has begun or somebody cancelled it. Returns whether it was written.
async fn put_try(
    connection: &mut PgConnection,
    due: &DueCallback,
    tried: &CallbackTry,
    verdict: Verdict,
) -> Result<bool, StoreError> {
    let pause = if let Verdict::Again(pause) = verdict { pause } else { Duration::ZERO };
    let done = sqlx::query!(
        "UPDATE outbox SET state = $3, next_at = now() + make_interval(secs => $4),
             finished_at = CASE WHEN $3 = 'waiting' THEN NULL ELSE $5::timestamptz END,
             history = (CASE WHEN jsonb_array_length(history) >= $7 THEN history - 0 ELSE history END) || $6::text::jsonb
         WHERE invocation = $1 AND tries = $2 AND state = 'waiting'",
        due.invocation.uuid(),
        i32::try_from(due.number).unwrap_or(i32::MAX),
        verdict.state().as_str(),
        pause.as_secs_f64(),
        clock::now(),
        json(tried),
        HISTORY,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

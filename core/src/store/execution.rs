//! Invocations and executions: the nouns of the history, and reading it.

mod search;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::text::{self, noun, uncount, word};
use super::{Store, StoreError};
use crate::cause::{Cause, CauseKind};
use crate::clock::Timestamp;
use crate::execution::{ExecutionState, Remains, StartKind, Usage};
use crate::id::{ExecutionId, InvocationId};
use crate::invocation::InvocationState;
use crate::manifest::Reset;
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::outcome::Outcome;

/// An invocation on record; payload and result are fetched on their own.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Invocation {
    /// Its id.
    pub id: InvocationId,
    /// Owner.
    pub namespace: Namespace,
    /// The function; jobs of CI systems and bare sandboxes have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
    /// The revision it was accepted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionDigest>,
    /// Why.
    pub cause: Cause,
    /// Its state.
    pub state: InvocationState,
    /// How its last execution ended.
    pub outcome: Option<Outcome>,
    /// Executions so far.
    pub attempts: u32,
    /// Its executions, oldest first.
    pub executions: Vec<ExecutionId>,
    /// Whether it failed for good and is kept for somebody to look at.
    pub dead_letter: bool,
    /// Content type of the payload.
    pub content_type: Option<String>,
    /// Size of the payload, bytes.
    pub payload_size: u64,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it became terminal.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}

/// An execution on record.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// The invocation it is an attempt at.
    pub invocation: InvocationId,
    /// Owner.
    pub namespace: Namespace,
    /// The function; jobs of CI systems and bare sandboxes have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
    /// The revision that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionDigest>,
    /// The door the invocation came in by.
    pub cause: CauseKind,
    /// 1 for the first; steps of a lease are counted on.
    pub attempt: u32,
    /// The step of a job, or the command in a leased sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Its state.
    pub state: ExecutionState,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// How its sandbox came to be.
    pub start: Option<StartKind>,
    /// Name of the sandbox.
    pub sandbox: Option<String>,
    /// The reset policy in force.
    pub reset: Reset,
    /// What it used.
    pub usage: Usage,
    /// What was left of its sandbox, where the sandbox ended with it.
    pub remains: Option<Remains>,
    /// Bytes of output on record (both streams), and bytes that were over the cap.
    pub log_bytes: u64,
    /// Bytes of output that were not kept, over the cap.
    pub log_dropped: u64,
    /// When it was put on record.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When the code was given the event.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}

/// Which executions to list.
#[derive(Debug, Clone, Default)]
pub struct ExecutionFilter {
    /// Of this function.
    pub function: Option<FunctionName>,
    /// Of this invocation.
    pub invocation: Option<InvocationId>,
    /// In this state.
    pub state: Option<ExecutionState>,
    /// That came in by this door.
    pub cause: Option<CauseKind>,
    /// Put on record at or after this moment.
    pub since: Option<Timestamp>,
    /// Older than this one: where the page before ended.
    pub before: Option<ExecutionId>,
    /// At most so many.
    pub limit: i64,
}

impl Store {
    /// One invocation.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn invocation(&self, namespace: &Namespace, id: InvocationId) -> Result<Option<Invocation>, StoreError> {
        self.settled().await;
        let row = sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: InvocationId", namespace AS "namespace: Namespace", function AS "function: FunctionName",
                   revision AS "revision: RevisionDigest", cause, state, outcome, detail, attempts, executions, dead_letter, content_type,
                   payload_size, created_at, finished_at
               FROM invocations WHERE id = $1 AND namespace = $2"#,
            id.uuid(),
            namespace.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        row.map(Row::invocation).transpose()
    }

    /// The result of an invocation that succeeded, with its content type.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn result(&self, namespace: &Namespace, id: InvocationId) -> Result<Option<(Bytes, String)>, StoreError> {
        self.settled().await;
        let row = sqlx::query!(
            r#"SELECT result AS "result!", result_type AS "result_type!", result_file FROM invocations
               WHERE id = $1 AND namespace = $2 AND state = 'succeeded' AND result IS NOT NULL"#,
            id.uuid(),
            namespace.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let result = self.fetch(id.uuid(), namespace.as_str(), row.result, row.result_file.as_deref()).await?;
        Ok(Some((result, row.result_type)))
    }

    /// The payload of an invocation, byte for byte.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn payload(&self, namespace: &Namespace, id: InvocationId) -> Result<Option<Bytes>, StoreError> {
        self.settled().await;
        let row = sqlx::query!(
            "SELECT payload, payload_file FROM invocations WHERE id = $1 AND namespace = $2",
            id.uuid(),
            namespace.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        let Some(row) = row else { return Ok(None) };
        self.fetch(id.uuid(), namespace.as_str(), row.payload, row.payload_file.as_deref()).await.map(Some)
    }
}

/// A row of `invocations`, without payload and result.
struct Row {
    id: InvocationId,
    namespace: Namespace,
    function: Option<FunctionName>,
    revision: Option<RevisionDigest>,
    cause: Value,
    state: String,
    outcome: Option<String>,
    detail: Option<Value>,
    attempts: i32,
    executions: Vec<Uuid>,
    dead_letter: bool,
    content_type: Option<String>,
    payload_size: i64,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl Row {
    fn invocation(self) -> Result<Invocation, StoreError> {
        const TABLE: &str = "invocations";
        Ok(Invocation {
            id: self.id,
            cause: noun(TABLE, &self.id, self.cause)?,
            state: word(TABLE, &self.id, &self.state)?,
            outcome: text::outcome(TABLE, &self.id, self.outcome.as_deref(), self.detail)?,
            namespace: self.namespace,
            function: self.function,
            revision: self.revision,
            attempts: self.attempts.unsigned_abs(),
            executions: self.executions.into_iter().map(ExecutionId::from).collect(),
            dead_letter: self.dead_letter,
            content_type: self.content_type,
            payload_size: uncount(self.payload_size),
            created_at: self.created_at,
            finished_at: self.finished_at,
        })
    }
}

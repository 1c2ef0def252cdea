//! Finding executions: the one query that is put together at run time.

use serde_json::Value;
use sqlx::{FromRow, Postgres, QueryBuilder};
use uuid::Uuid;

use super::{Execution, ExecutionFilter};
use crate::clock::Timestamp;
use crate::execution::Usage;
use crate::id::{ExecutionId, InvocationId};
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::store::text::{self, noun, uncount, word};
use crate::store::{Store, StoreError};

/// Clocks of two servers differ by less: the bound by id is this much wider than the bound by time.
const SKEW_MS: i64 = 3_600_000;

impl Store {
    /// The executions that the filter takes, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn executions(
        &self,
        namespace: &Namespace,
        filter: &ExecutionFilter,
    ) -> Result<Vec<Execution>, StoreError> {
        self.settled().await;
        let rows = query(namespace, filter).build_query_as::<Row>().fetch_all(self.pool()).await?;
        rows.into_iter().map(Row::execution).collect()
    }

    /// One execution.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn execution(&self, namespace: &Namespace, id: ExecutionId) -> Result<Option<Execution>, StoreError> {
        self.settled().await;
        let row = sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: _", invocation AS "invocation: _", namespace AS "namespace: _", function AS "function: _",
                   revision AS "revision: _", cause_kind, attempt, step, state, outcome, detail, start_kind, sandbox, reset, cpu_us,
                   memory_peak, remains, log_bytes, log_dropped, created_at, started_at, finished_at, wait_us, start_us
               FROM executions WHERE id = $1 AND namespace = $2"#,
            id.uuid(),
            namespace.as_str(),
        )
        .fetch_optional(self.pool())
        .await?;
        row.map(Row::execution).transpose()
    }
}

fn query(namespace: &Namespace, filter: &ExecutionFilter) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(
        "SELECT id, invocation, namespace, function, revision, cause_kind, attempt, step, state, outcome, detail, start_kind, sandbox, \
         reset, cpu_us, memory_peak, remains, log_bytes, log_dropped, created_at, started_at, finished_at, wait_us, start_us \
         FROM executions WHERE namespace = ",
    );
    query.push_bind(namespace.clone());
    if let Some(function) = &filter.function {
        query.push(" AND function = ").push_bind(function.clone());
    }
    if let Some(invocation) = filter.invocation {
        // The invocation knows its executions: by id, only their days are looked at.
        query.push(" AND id = ANY((SELECT executions FROM invocations WHERE id = ");
        query.push_bind(invocation).push(")::uuid[])");
    }
    if let Some(state) = filter.state {
        query.push(" AND state = ").push_bind(state.as_str());
    }
    if let Some(cause) = filter.cause {
        query.push(" AND cause_kind = ").push_bind(cause.as_str());
    }
    if let Some(since) = filter.since {
        query.push(" AND created_at >= ").push_bind(since);
        query.push(" AND id >= ").push_bind(lowest_id(since));
    }
    if let Some(before) = filter.before {
        query.push(" AND id < ").push_bind(before);
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(filter.limit.max(0));
    query
}

/// The lowest id that a server may have given out at `since`, if its clock is late: what bounds the partitions to look at.
fn lowest_id(since: Timestamp) -> Uuid {
    let ms = since.timestamp_millis().saturating_sub(SKEW_MS).max(0);
    Uuid::from_u128(u128::from(ms.unsigned_abs()) << 80)
}

/// A row of `executions`.
#[derive(FromRow)]
struct Row {
    id: ExecutionId,
    invocation: InvocationId,
    namespace: Namespace,
    function: Option<FunctionName>,
    revision: Option<RevisionDigest>,
    cause_kind: String,
    attempt: i32,
    step: Option<String>,
    state: String,
    outcome: Option<String>,
    detail: Option<Value>,
    start_kind: Option<String>,
    sandbox: Option<String>,
    reset: String,
    cpu_us: Option<i64>,
    memory_peak: Option<i64>,
    wait_us: Option<i64>,
    start_us: Option<i64>,
    remains: Option<Value>,
    log_bytes: i64,
    log_dropped: i64,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

impl Row {
    fn execution(self) -> Result<Execution, StoreError> {
        const TABLE: &str = "executions";
        let id = self.id;
        Ok(Execution {
            id,
            cause: word(TABLE, &id, &self.cause_kind)?,
            state: word(TABLE, &id, &self.state)?,
            outcome: text::outcome(TABLE, &id, self.outcome.as_deref(), self.detail)?,
            start: self.start_kind.map(|kind| word(TABLE, &id, &kind)).transpose()?,
            reset: word(TABLE, &id, &self.reset)?,
            remains: self.remains.map(|remains| noun(TABLE, &id, remains)).transpose()?,
            invocation: self.invocation,
            namespace: self.namespace,
            function: self.function,
            revision: self.revision,
            attempt: self.attempt.unsigned_abs(),
            step: self.step,
            sandbox: self.sandbox,
            usage: Usage {
                wait_us: self.wait_us,
                start_us: self.start_us,
                wall_us: wall(self.started_at, self.finished_at),
                cpu_us: self.cpu_us,
                memory_peak: self.memory_peak,
            },
            log_bytes: uncount(self.log_bytes),
            log_dropped: uncount(self.log_dropped),
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
        })
    }
}

/// Microseconds between two moments; `None` where one is not known.
fn wall(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<i64> {
    (to? - from?).num_microseconds()
}

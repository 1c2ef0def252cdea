//! Looking at callbacks, cancelling them and having them tried again.

use serde_json::Value;
use sqlx::{FromRow, Postgres, QueryBuilder};

use super::{Callback, CallbackState};
use crate::clock::{self, Timestamp};
use crate::id::InvocationId;
use crate::name::{FunctionName, Namespace};
use crate::store::text::{noun, word};
use crate::store::{Store, StoreError};

/// Which callbacks to list.
#[derive(Debug, Clone, Default)]
pub struct CallbackFilter {
    /// Of this function.
    pub function: Option<FunctionName>,
    /// In this state.
    pub state: Option<CallbackState>,
    /// Of this invocation.
    pub invocation: Option<InvocationId>,
    /// Older than this one: where the page before ended.
    pub before: Option<InvocationId>,
    /// At most so many.
    pub limit: i64,
}

#[derive(FromRow)]
struct Row {
    invocation: InvocationId,
    function: FunctionName,
    event: String,
    destination: Value,
    state: String,
    tries: i32,
    history: Value,
    next_at: Timestamp,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl Row {
    fn callback(self) -> Result<Callback, StoreError> {
        const TABLE: &str = "outbox";
        let state = word(TABLE, &self.invocation, &self.state)?;
        Ok(Callback {
            event: word(TABLE, &self.invocation, &self.event)?,
            destination: noun(TABLE, &self.invocation, self.destination)?,
            history: noun(TABLE, &self.invocation, self.history)?,
            invocation: self.invocation,
            function: self.function,
            tries: self.tries.unsigned_abs(),
            next_at: (state == CallbackState::Waiting).then_some(self.next_at),
            state,
            created_at: self.created_at,
            finished_at: self.finished_at,
        })
    }
}

impl Store {
    /// The callbacks that the filter takes, those of the newest invocations first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn callbacks(&self, namespace: &Namespace, filter: &CallbackFilter) -> Result<Vec<Callback>, StoreError> {
        let rows = query(namespace, filter).build_query_as::<Row>().fetch_all(self.pool()).await?;
        rows.into_iter().map(Row::callback).collect()
    }

    /// The callback of an invocation.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn callback(&self, namespace: &Namespace, id: InvocationId) -> Result<Option<Callback>, StoreError> {
        let filter = CallbackFilter { invocation: Some(id), limit: 1, ..CallbackFilter::default() };
        Ok(self.callbacks(namespace, &filter).await?.pop())
    }

    /// Cancels a callback that waits; one whose try is under way may still be told. `false` if it does not wait.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn cancel_callback(&self, namespace: &Namespace, id: InvocationId) -> Result<bool, StoreError> {
        let cancelled = sqlx::query!(
            "UPDATE outbox SET state = 'cancelled', finished_at = $3 WHERE invocation = $1 AND namespace = $2 AND state = 'waiting'",
            id.uuid(),
            namespace.as_str(),
            clock::now(),
        )
        .execute(self.pool())
        .await?;
        Ok(cancelled.rows_affected() > 0)
    }

    /// Has a callback tried now, whatever became of it: one that waits earlier than it would be, one that is over from the beginning of
    /// its schedule. `false` if there is none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn retry_callback(&self, namespace: &Namespace, id: InvocationId) -> Result<bool, StoreError> {
        // One that is over begins anew. A try that is under way keeps its number, so that what it tells is not lost.
        let again = sqlx::query!(
            "UPDATE outbox SET tries = CASE WHEN state = 'waiting' THEN tries ELSE 0 END, state = 'waiting', finished_at = NULL,
                 next_at = now()
             WHERE invocation = $1 AND namespace = $2",
            id.uuid(),
            namespace.as_str(),
        )
        .execute(self.pool())
        .await?;
        self.inner.callbacks.notify_one();
        Ok(again.rows_affected() > 0)
    }
}

fn query(namespace: &Namespace, filter: &CallbackFilter) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(
        "SELECT invocation, function, event, destination, state, tries, history, next_at, created_at, finished_at \
         FROM outbox WHERE namespace = ",
    );
    query.push_bind(namespace.clone());
    if let Some(function) = &filter.function {
        query.push(" AND function = ").push_bind(function.clone());
    }
    if let Some(state) = filter.state {
        query.push(" AND state = ").push_bind(state.as_str());
    }
    if let Some(invocation) = filter.invocation {
        query.push(" AND invocation = ").push_bind(invocation);
    }
    if let Some(before) = filter.before {
        query.push(" AND invocation < ").push_bind(before);
    }
    query.push(" ORDER BY invocation DESC LIMIT ").push_bind(filter.limit.max(0));
    query
}

//! Dead letters: accepted asynchronous work that failed for good or expired, until somebody redrives or drops it.

use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use utoipa::ToSchema;
use uuid::Uuid;

use super::text::word;
use super::{Store, StoreError};
use crate::clock::{self, Timestamp};
use crate::id::InvocationId;
use crate::name::{FunctionName, Namespace};
use crate::outcome::OutcomeKind;

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// The invocation.
    pub invocation: InvocationId,
    /// Its function.
    pub function: FunctionName,
    /// How its last execution ended; missing where there was none: it expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeKind>,
    /// When it failed.
    #[schema(value_type = String, format = DateTime)]
    pub failed_at: Timestamp,
}

/// Which dead letters are meant.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Of this function.
    pub function: Option<FunctionName>,
    /// That ended like this.
    pub outcome: Option<OutcomeKind>,
    /// That failed at or after this moment.
    pub since: Option<Timestamp>,
    /// That failed before this moment.
    pub until: Option<Timestamp>,
    /// Older than this one: where the page before ended.
    pub before: Option<InvocationId>,
    /// At most so many.
    pub limit: i64,
}

#[derive(sqlx::FromRow)]
struct Row {
    invocation: InvocationId,
    function: FunctionName,
    outcome: Option<String>,
    created_at: Timestamp,
}

impl Row {
    fn letter(self) -> Result<DeadLetter, StoreError> {
        let outcome = self.outcome.as_deref().map(|text| word("dead_letters", &self.invocation, text)).transpose()?;
        Ok(DeadLetter { invocation: self.invocation, function: self.function, outcome, failed_at: self.created_at })
    }
}

impl Store {
    /// The dead letters that the filter takes, those that were accepted last first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn dead_letters(
        &self,
        namespace: &Namespace,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let rows = query(namespace, filter).build_query_as::<Row>().fetch_all(self.pool()).await?;
        rows.into_iter().map(Row::letter).collect()
    }

    /// Takes an invocation off the dead letters: it was redriven, or nobody wants it any more. `false` if it was none.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn drop_dead_letter(&self, namespace: &Namespace, id: InvocationId) -> Result<bool, StoreError> {
        let mut tx = self.pool().begin().await?;
        let dropped = sqlx::query!(
            "DELETE FROM dead_letters WHERE invocation = $1 AND namespace = $2",
            id.uuid(),
            namespace.as_str(),
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "UPDATE invocations SET dead_letter = false WHERE id = $1 AND namespace = $2 AND dead_letter",
            id.uuid(),
            namespace.as_str(),
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(dropped.rows_affected() > 0)
    }
}

fn query(namespace: &Namespace, filter: &DeadLetterFilter) -> QueryBuilder<Postgres> {
    let mut query =
        QueryBuilder::new("SELECT invocation, function, outcome, created_at FROM dead_letters WHERE namespace = ");
    query.push_bind(namespace.clone());
    if let Some(function) = &filter.function {
        query.push(" AND function = ").push_bind(function.clone());
    }
    if let Some(outcome) = filter.outcome {
        query.push(" AND outcome = ").push_bind(outcome.as_str());
    }
    if let Some(since) = filter.since {
        query.push(" AND created_at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        query.push(" AND created_at < ").push_bind(until);
    }
    if let Some(before) = filter.before {
        query.push(" AND invocation < ").push_bind(before);
    }
    query.push(" ORDER BY invocation DESC LIMIT ").push_bind(filter.limit.max(0));
    query
}

/// Makes dead letters of invocations that failed or expired without an end of their own, and of those who want to be told callbacks.
/// Their last state is on record already, in the same transaction.
pub(in crate::store) async fn bury(tx: &mut PgConnection, invocations: &[Uuid]) -> Result<(), StoreError> {
    if invocations.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "WITH dead AS (
           UPDATE invocations SET dead_letter = true
           WHERE id = ANY($1) AND state IN ('failed', 'expired') AND function IS NOT NULL
           RETURNING id, namespace, function, revision, outcome
         ), buried AS (
           INSERT INTO dead_letters (invocation, namespace, function, outcome, created_at)
           SELECT id, namespace, function, outcome, $2 FROM dead
           ON CONFLICT DO NOTHING
         )
         INSERT INTO outbox (invocation, namespace, function, event, destination, next_at, created_at)
         SELECT d.id, d.namespace, d.function, 'failed', r.manifest -> 'on_failure', now(), $2
         FROM dead d JOIN revisions r ON r.namespace = d.namespace AND r.digest = d.revision
         WHERE r.manifest -> 'on_failure' IS NOT NULL
         ON CONFLICT DO NOTHING",
        invocations,
        clock::now(),
    )
    .execute(tx)
    .await?;
    Ok(())
}

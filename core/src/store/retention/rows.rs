//! Removing rows of namespaces that keep less than others do, on days that others still want.
//!
//! Some hundreds at a time, and then a pause of nine times as long as that took: it is never more than a tenth of the database's work.

use std::time::{Duration, Instant};

use chrono::NaiveDate;
use uuid::Uuid;

use super::{Retention, Store, StoreError};
use crate::name::Namespace;

/// Rows of a batch.
const BATCH: i64 = 500;

/// A pause is nine times the work before it, and no longer than this.
const PAUSE: Duration = Duration::from_secs(10);

/// Removes dead letters and callbacks before `day` whose invocation is not on record any more.
pub(super) async fn remove_orphans(store: &Store, day: NaiveDate) -> Result<(), StoreError> {
    let end = store.day_start(day).await?;
    sqlx::query!(
        "DELETE FROM dead_letters d WHERE d.invocation < $1 AND NOT EXISTS (SELECT FROM invocations i WHERE i.id = d.invocation)",
        end,
    )
    .execute(store.relaxed())
    .await?;
    sqlx::query!(
        "DELETE FROM outbox o WHERE o.invocation < $1 AND NOT EXISTS (SELECT FROM invocations i WHERE i.id = o.invocation)",
        end,
    )
    .execute(store.relaxed())
    .await?;
    Ok(())
}

/// Removes what namespaces do not want any more; returns how many executions, invocations and deliveries that were.
pub(super) async fn remove(store: &Store, retention: &Retention, today: NaiveDate) -> Result<u64, StoreError> {
    let mut removed = 0;
    for namespace in store.namespace_names().await? {
        let Some(keep) = retention.of(&namespace) else { continue };
        if retention.longest() == Some(keep) {
            continue;
        }
        let end = store.day_start(Retention::first_kept(keep, today)).await?;
        removed += remove_of(store, &namespace, end).await?;
    }
    Ok(removed)
}

async fn remove_of(store: &Store, namespace: &Namespace, end: Uuid) -> Result<u64, StoreError> {
    let mut removed = 0;
    loop {
        let start = Instant::now();
        let batch = store.remove_executions(namespace, end).await?
            + store.remove_invocations(namespace, end).await?
            + store.remove_deliveries(namespace, end).await?;
        if batch == 0 {
            return Ok(removed);
        }
        removed += batch;
        tokio::time::sleep((start.elapsed() * 9).min(PAUSE)).await;
    }
}

impl Store {
    /// Every namespace.
    pub(super) async fn namespace_names(&self) -> Result<Vec<Namespace>, StoreError> {
        let names = sqlx::query_scalar!(r#"SELECT name AS "name: Namespace" FROM namespaces ORDER BY name"#);
        Ok(names.fetch_all(self.pool()).await?)
    }

    /// The least id of a day.
    pub(super) async fn day_start(&self, day: NaiveDate) -> Result<Uuid, StoreError> {
        let id = sqlx::query_scalar!(r#"SELECT runlet_day_start($1) AS "id!""#, day).fetch_one(self.pool()).await?;
        Ok(id)
    }

    /// Executions before `end` with their output, but those of queued work.
    async fn remove_executions(&self, namespace: &Namespace, end: Uuid) -> Result<u64, StoreError> {
        let removed = sqlx::query_scalar!(
            r#"WITH old AS (
                 SELECT x.id FROM executions x
                 WHERE x.namespace = $1 AND x.id < $2 AND NOT EXISTS (SELECT FROM queue q WHERE q.invocation = x.invocation)
                 ORDER BY x.id LIMIT $3
               ), output AS (
                 DELETE FROM log_chunks l USING old o WHERE l.execution = o.id AND l.execution < $2
               ), gone AS (
                 DELETE FROM executions x USING old o WHERE x.id = o.id AND x.id < $2 RETURNING x.id
               )
               SELECT count(*) AS "removed!" FROM gone"#,
            namespace.as_str(),
            end,
            BATCH,
        )
        .fetch_one(self.relaxed())
        .await?;
        Ok(removed.unsigned_abs())
    }

    /// Invocations before `end`, but queued ones.
    async fn remove_invocations(&self, namespace: &Namespace, end: Uuid) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "DELETE FROM invocations i USING (
               SELECT o.id FROM invocations o
               WHERE o.namespace = $1 AND o.id < $2 AND NOT EXISTS (SELECT FROM queue q WHERE q.invocation = o.id)
               ORDER BY o.id LIMIT $3
             ) old WHERE i.id = old.id AND i.id < $2",
            namespace.as_str(),
            end,
            BATCH,
        )
        .execute(self.relaxed())
        .await?;
        Ok(done.rows_affected())
    }

    async fn remove_deliveries(&self, namespace: &Namespace, end: Uuid) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "DELETE FROM deliveries d USING (
               SELECT o.id FROM deliveries o WHERE o.namespace = $1 AND o.id < $2 ORDER BY o.id LIMIT $3
             ) old WHERE d.id = old.id AND d.id < $2",
            namespace.as_str(),
            end,
            BATCH,
        )
        .execute(self.relaxed())
        .await?;
        Ok(done.rows_affected())
    }
}

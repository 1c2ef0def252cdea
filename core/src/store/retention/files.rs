//! Removing this server's files, once no row can name them any more.

use chrono::NaiveDate;
use sqlx::PgConnection;

use super::{Retention, Store, StoreError};
use crate::name::Namespace;
use crate::store::blob::{self, Shelf};
use crate::store::spill::{blocking, unwritten};

impl Store {
    /// Removes the directories of days that are too old and of which no row is left; returns how many.
    pub(super) async fn remove_files(
        &self,
        connection: &mut PgConnection,
        retention: &Retention,
        today: NaiveDate,
    ) -> Result<u64, StoreError> {
        let Some(root) = self.inner.spill.as_ref().map(|spill| spill.dir.clone()) else { return Ok(0) };
        let all = root.clone();
        let shelves = blocking(move || Ok(blob::shelves(&all))).await.map_err(unwritten)?;
        let mut removed = 0;
        for (day, namespace) in shelves {
            let Some(keep) = Namespace::new(&namespace).map_or(retention.usual, |name| retention.of(&name)) else {
                continue;
            };
            if day >= Retention::first_kept(keep, today) || has_rows(connection, day, &namespace).await? {
                continue;
            }
            let shelf = Shelf::new(&root, day, &namespace);
            blocking(move || shelf.remove()).await.map_err(unwritten)?;
            removed += 1;
        }
        Ok(removed)
    }
}

/// Whether any row of the namespace and day is there.
async fn has_rows(connection: &mut PgConnection, day: NaiveDate, namespace: &str) -> Result<bool, StoreError> {
    let there = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM invocations WHERE namespace = $2 AND id >= runlet_day_start($1) AND id < runlet_day_start($1 + 1))
             OR EXISTS (SELECT FROM executions WHERE namespace = $2 AND id >= runlet_day_start($1) AND id < runlet_day_start($1 + 1))
             OR EXISTS (SELECT FROM deliveries WHERE namespace = $2 AND id >= runlet_day_start($1) AND id < runlet_day_start($1 + 1))
             AS "there!""#,
        day,
        namespace,
    )
    .fetch_one(connection)
    .await?;
    Ok(there)
}

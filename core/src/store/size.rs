//! How large the history is, and when what of it goes.
//!
//! Partitions are counted whole, for they hold all namespaces; rows and their bytes are counted of one namespace. Counting reads all of
//! its rows: for people who ask, not for machines that watch.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::blob::{self, Shelf};
use super::retention::{Keep, Retention};
use super::spill::{blocking, unwritten};
use super::text::uncount;
use super::{Store, StoreError};
use crate::name::Namespace;

/// The size of the history, as one namespace sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistorySize {
    /// Whose rows and files are counted.
    pub namespace: Namespace,
    /// How many days of history it keeps; `null`: all.
    #[schema(value_type = Option<u32>)]
    pub keep_days: Keep,
    /// The whole database on disk, bytes.
    pub database_bytes: u64,
    /// Days, the newest first.
    pub days: Vec<DaySize>,
}

/// The size of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DaySize {
    /// The day, UTC.
    #[schema(value_type = String, format = Date)]
    pub day: NaiveDate,
    /// Each table.
    pub tables: BTreeMap<String, TableSize>,
    /// Files of large bodies and long output, of this namespace on this server.
    pub files: u64,
    /// Their bytes on disk.
    pub file_bytes: u64,
    /// The first day on which the namespace's rows of this day may be removed; `null`: never.
    #[schema(value_type = Option<String>, format = Date)]
    pub removed_from: Option<NaiveDate>,
    /// Whether queued work keeps it from being removed.
    pub held: bool,
}

/// The size of a table's day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableSize {
    /// Bytes of the partition on disk with its indexes, of all namespaces.
    pub disk_bytes: u64,
    /// Rows of the namespace.
    pub rows: u64,
    /// Bytes of their bodies or output, wherever they are.
    pub body_bytes: u64,
}

impl Store {
    /// How large the history is for `namespace`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn history_size(&self, namespace: &Namespace, retention: &Retention) -> Result<HistorySize, StoreError> {
        let keep = retention.of(namespace);
        let mut days: BTreeMap<NaiveDate, DaySize> = BTreeMap::new();
        for part in self.parts().await? {
            let day = days.entry(part.day).or_insert_with(|| DaySize {
                day: part.day,
                tables: BTreeMap::new(),
                files: 0,
                file_bytes: 0,
                removed_from: Retention::removed_on(keep, part.day),
                held: part.held,
            });
            day.tables.entry(part.parent).or_default().disk_bytes = uncount(part.bytes);
        }
        for row in self.rows_of(namespace).await? {
            let Some(size) = days.get_mut(&row.day).and_then(|day| day.tables.get_mut(&row.parent)) else { continue };
            (size.rows, size.body_bytes) = (uncount(row.rows), uncount(row.bytes));
        }
        for (day, (files, bytes)) in self.files_of(namespace).await? {
            if let Some(size) = days.get_mut(&day) {
                (size.files, size.file_bytes) = (files, bytes);
            }
        }
        let database = sqlx::query_scalar!(r#"SELECT pg_database_size(current_database()) AS "bytes!""#);
        let database_bytes = uncount(database.fetch_one(self.pool()).await?);
        let days = days.into_values().rev().collect();
        Ok(HistorySize { namespace: namespace.clone(), keep_days: keep, database_bytes, days })
    }

    async fn parts(&self) -> Result<Vec<Part>, StoreError> {
        let parts = sqlx::query_as!(
            Part,
            r#"SELECT p.relname::text AS "parent!", d.day AS "day!", pg_total_relation_size(c.oid) AS "bytes!",
                   EXISTS (SELECT FROM queue q WHERE q.invocation >= runlet_day_start(d.day) AND q.invocation < runlet_day_start(d.day + 1))
                     AS "held!"
               FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
               CROSS JOIN LATERAL (SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day) d
               WHERE p.relkind = 'p' AND c.relkind = 'r' AND p.relname IN ('invocations', 'executions', 'deliveries', 'log_chunks')"#
        )
        .fetch_all(self.pool())
        .await?;
        Ok(parts)
    }

    async fn rows_of(&self, namespace: &Namespace) -> Result<Vec<Rows>, StoreError> {
        let rows = sqlx::query_as!(
            Rows,
            r#"SELECT 'invocations' AS "parent!", to_date(right(tableoid::regclass::text, 8), 'YYYYMMDD') AS "day!", count(*) AS "rows!",
                   sum(payload_size + COALESCE(split_part(result_file, '/', 3)::bigint, octet_length(result), 0))::bigint AS "bytes!"
               FROM invocations WHERE namespace = $1 GROUP BY tableoid
               UNION ALL
               SELECT 'executions', to_date(right(tableoid::regclass::text, 8), 'YYYYMMDD'), count(*), 0
               FROM executions WHERE namespace = $1 GROUP BY tableoid
               UNION ALL
               SELECT 'deliveries', to_date(right(tableoid::regclass::text, 8), 'YYYYMMDD'), count(*),
                   sum(COALESCE(split_part(body_file, '/', 3)::bigint, octet_length(body)))::bigint
               FROM deliveries WHERE namespace = $1 GROUP BY tableoid
               UNION ALL
               SELECT 'log_chunks', to_date(right(tableoid::regclass::text, 8), 'YYYYMMDD'), count(*),
                   sum(COALESCE(length, octet_length(bytes)))::bigint
               FROM log_chunks WHERE namespace = $1 GROUP BY tableoid"#,
            namespace.as_str(),
        )
        .fetch_all(self.pool())
        .await?;
        Ok(rows)
    }

    async fn files_of(&self, namespace: &Namespace) -> Result<Vec<(NaiveDate, (u64, u64))>, StoreError> {
        let Some(root) = self.inner.spill.as_ref().map(|spill| spill.dir.clone()) else { return Ok(Vec::new()) };
        let name = namespace.as_str().to_owned();
        let count = move || {
            let shelves = blob::shelves(&root).into_iter().filter(|(_, namespace)| *namespace == name);
            Ok(shelves.map(|(day, namespace)| (day, Shelf::new(&root, day, &namespace).size())).collect())
        };
        blocking(count).await.map_err(unwritten)
    }
}

/// A partition.
struct Part {
    parent: String,
    day: NaiveDate,
    bytes: i64,
    held: bool,
}

/// Rows of a namespace in a partition.
struct Rows {
    parent: String,
    day: NaiveDate,
    rows: i64,
    bytes: i64,
}

//! Dropping whole days.
//!
//! `DETACH ... CONCURRENTLY` takes no lock that a reader or writer of the other days would wait for, and waits itself for whoever is
//! using the day. It cannot be in a transaction: if it is cut short, the partition is left half detached, and the next round
//! finishes that first.

use chrono::NaiveDate;
use sqlx::{AssertSqlSafe, PgConnection};

use super::StoreError;

/// A partition of a day, or what is left of one.
struct Part {
    parent: Option<String>,
    name: String,
    day: NaiveDate,
    pending: bool,
}

/// Drops the days before `first`, the oldest first, but those that the queue names; returns how many. A partition that is in use for
/// longer than the lock timeout is left for the next round.
pub(super) async fn drop_before(connection: &mut PgConnection, first: NaiveDate) -> Result<u64, StoreError> {
    let parts = parts(connection, first).await?;
    let mut dropped = 0;
    let mut rest = &parts[..];
    while let Some(part) = rest.first() {
        let of_day = rest.iter().take_while(|other| other.day == part.day).count();
        let (day, later) = rest.split_at(of_day);
        rest = later;
        if named_by_queue(connection, part.day).await? {
            tracing::info!(day = %part.day, "a day is older than its retention and is kept: queued work is of it");
            continue;
        }
        for part in day {
            drop_part(connection, part).await?;
        }
        tracing::info!(day = %part.day, "history of a day was removed");
        dropped += 1;
    }
    Ok(dropped)
}

/// Partitions of days before `first`, and tables that were detached and not dropped yet. Of each day, invocations come last: a day
/// is there as long as they are.
async fn parts(connection: &mut PgConnection, first: NaiveDate) -> Result<Vec<Part>, StoreError> {
    let parts = sqlx::query_as!(
        Part,
        r#"SELECT p.relname::text AS parent, c.relname::text AS "name!", to_date(right(c.relname, 8), 'YYYYMMDD') AS "day!",
               COALESCE(i.inhdetachpending, false) AS "pending!"
           FROM pg_class c
           LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
           LEFT JOIN pg_class p ON p.oid = i.inhparent
           WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
             AND c.relname ~ '^(invocations|executions|deliveries|log_chunks)_[0-9]{8}$'
             AND right(c.relname, 8) < to_char($1::date, 'YYYYMMDD')
           ORDER BY right(c.relname, 8), c.relname LIKE 'invocations%', c.relname"#,
        first,
    )
    .fetch_all(connection)
    .await?;
    Ok(parts)
}

/// Whether work that is still to be done, or one of its executions, is of that day.
async fn named_by_queue(connection: &mut PgConnection, day: NaiveDate) -> Result<bool, StoreError> {
    let named = sqlx::query_scalar!(
        r#"SELECT EXISTS (
             SELECT FROM queue q LEFT JOIN invocations i ON i.id = q.invocation
             WHERE q.invocation >= runlet_day_start($1) AND q.invocation < runlet_day_start($1 + 1)
                OR EXISTS (SELECT FROM unnest(i.executions) e (id) WHERE e.id >= runlet_day_start($1) AND e.id < runlet_day_start($1 + 1))
           ) AS "named!""#,
        day,
    )
    .fetch_one(connection)
    .await?;
    Ok(named)
}

async fn drop_part(connection: &mut PgConnection, part: &Part) -> Result<(), StoreError> {
    if let Some(parent) = &part.parent {
        let how = if part.pending { "FINALIZE" } else { "CONCURRENTLY" };
        // Both names have the shape that the query above asks for.
        let detach = format!("ALTER TABLE {parent} DETACH PARTITION {} {how}", part.name);
        sqlx::raw_sql(AssertSqlSafe(detach)).execute(&mut *connection).await?;
    }
    sqlx::raw_sql(AssertSqlSafe(format!("DROP TABLE {}", part.name))).execute(connection).await?;
    Ok(())
}

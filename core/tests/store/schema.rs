//! The schema: partitions, versions, comments.

use runlet_core::clock;
use runlet_core::id::ExecutionId;
use runlet_core::store::{Store, StoreError};
use sqlx::AssertSqlSafe;

use crate::host::*;

#[tokio::test]
async fn a_look_up_by_id_touches_one_partition() {
    let db = Db::new().await;
    let id = ExecutionId::new().uuid();
    for (table, key) in [("invocations", "id"), ("executions", "id"), ("deliveries", "id"), ("log_chunks", "execution")]
    {
        let explain = format!("EXPLAIN SELECT * FROM {table} WHERE {key} = '{id}'");
        let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&db.sql).await.unwrap();
        let today = format!("{table}_{}", clock::now().format("%Y%m%d"));
        let touched = plan.iter().filter(|line| line.contains(" on ")).count();
        assert!(
            touched >= 1 && plan.iter().filter(|line| line.contains(" on ")).all(|line| line.contains(&today)),
            "{plan:#?}"
        );
    }
}

#[tokio::test]
async fn partitions_are_made_once_by_many_servers() {
    let db = Db::new().await;
    let store = db.store("one").await;
    let count = "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent WHERE c.relkind = 'p'";
    // In the first hour of a day, the day before still counts.
    let now = clock::now();
    let first = (now - chrono::TimeDelta::hours(1)).date_naive();
    let days = (now.date_naive() - first).num_days() + 3;
    assert_eq!(db.number(count).await, 4 * days);
    let later = now + chrono::TimeDelta::days(3);
    let both = tokio::join!(store.make_partitions(later), store.make_partitions(later));
    assert!(both.0.is_ok() && both.1.is_ok());
    assert_eq!(db.number(count).await, 4 * (days + 3));
}

#[tokio::test]
async fn many_servers_open_an_empty_database_at_once() {
    let db = Db::empty().await;
    tokio::join!(db.store("one"), db.store("two"), db.store("three"));
    assert_eq!(db.number("SELECT count(*) - count(DISTINCT version) FROM _sqlx_migrations WHERE success").await, 0);
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let db = Db::new().await;
    db.store("one").await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', true, '', 0)",
    )
    .execute(&db.sql)
    .await
    .unwrap();
    let refused = Store::open(db.options.clone(), 4, "one").await.unwrap_err();
    assert!(matches!(refused, StoreError::Newer { found: 9999, known: 1.. }), "{refused}");
}

#[tokio::test]
async fn every_column_is_explained_and_every_row_has_an_owner() {
    let db = Db::new().await;
    let ours = "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0
          AND c.relname <> '_sqlx_migrations'";
    let silent = format!("SELECT c.relname || '.' || a.attname {ours} AND col_description(c.oid, a.attnum) IS NULL");
    let silent: Vec<String> = sqlx::query_scalar(AssertSqlSafe(silent)).fetch_all(&db.sql).await.unwrap();
    assert_eq!(silent, Vec::<String>::new());
    let orphans = format!(
        "SELECT c.relname::text {ours} AND c.relname <> 'namespaces'
         GROUP BY 1 HAVING count(*) FILTER (WHERE a.attname = 'namespace' AND a.attnotnull) = 0"
    );
    let orphans: Vec<String> = sqlx::query_scalar(AssertSqlSafe(orphans)).fetch_all(&db.sql).await.unwrap();
    assert_eq!(orphans, Vec::<String>::new());
}

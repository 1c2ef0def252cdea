//! Retention: old days go, wanted ones stay, and nobody waits for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{NaiveDate, TimeDelta};
use runlet_core::clock::{self, Timestamp};
use runlet_core::engine::Stream;
use runlet_core::id::{ExecutionId, InvocationId};
use runlet_core::name::Namespace;
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::ledger::CallStart;
use runlet_core::store::log::Chunk;
use runlet_core::store::retention::{Removed, Retention};
use runlet_core::store::{Store, StoreError};
use sqlx::AssertSqlSafe;
use uuid::{NoContext, Uuid};

use crate::host::*;
use crate::ledger::{call, end};

const KEEP: u32 = 30;

fn keep(namespaces: &[(&str, Option<u32>)]) -> Retention {
    let named = namespaces.iter().map(|(name, keep)| (Namespace::new(*name).unwrap(), *keep));
    Retention { usual: Some(KEEP), namespaces: named.collect::<BTreeMap<_, _>>() }
}

fn ago(days: i64) -> Timestamp {
    clock::now() - TimeDelta::days(days)
}

fn id_of(moment: Timestamp) -> Uuid {
    let seconds = u64::try_from(moment.timestamp()).unwrap();
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, 0))
}

async fn make_day(db: &Db, day: NaiveDate) {
    let make = format!("SELECT runlet_make_partitions('{day}', '{day}')");
    sqlx::query(AssertSqlSafe(make)).execute(&db.sql).await.unwrap();
}

/// A call of `moment`, with output, that has ended.
async fn called(store: &Store, namespace: &str, moment: Timestamp) -> CallStart {
    let mut start = call();
    start.call.namespace = Namespace::new(namespace).unwrap();
    (start.invocation, start.execution) = (InvocationId::from(id_of(moment)), ExecutionId::from(id_of(moment)));
    let (ledger, _tasks) = ledger(store);
    ledger.start(start.clone()).await.unwrap();
    let chunk =
        Chunk { execution: start.execution, stream: Stream::Stdout, offset: 0, bytes: Bytes::from(vec![7; 300]) };
    store.append_logs(&start.call.namespace, &[chunk]).await.unwrap();
    assert!(ledger.finish(end(&start, Outcome::of(OutcomeKind::Ok))).await.unwrap());
    start
}

async fn has_day(db: &Db, day: NaiveDate) -> bool {
    let name = day.format("%Y%m%d");
    let count = format!(
        "SELECT count(*) FROM pg_class WHERE relname IN ('invocations_{name}', 'executions_{name}', 'deliveries_{name}', 'log_chunks_{name}')"
    );
    let count: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&db.sql).await.unwrap();
    assert!(count == 0 || count == 4, "{count} of 4 tables");
    count == 4
}

#[tokio::test]
async fn a_day_goes_when_it_is_older_than_its_retention() {
    let (db, store) = db_with_function().await;
    for days in [29, 30, 31, 40] {
        make_day(&db, ago(days).date_naive()).await;
    }
    let kept = called(&store, "default", ago(30)).await;
    let gone = called(&store, "default", ago(31)).await;
    let removed = store.retain(&keep(&[]), clock::now()).await.unwrap();
    assert_eq!(removed, Removed { days: 2, rows: 0, shelves: 0 });
    assert!(has_day(&db, ago(30).date_naive()).await && !has_day(&db, ago(31).date_naive()).await);
    assert!(store.invocation(&ns(), kept.invocation).await.unwrap().is_some());
    assert!(store.invocation(&ns(), gone.invocation).await.unwrap().is_none());
    assert_eq!(store.retain(&keep(&[]), clock::now()).await.unwrap(), Removed::default());
    let all = Retention { usual: None, namespaces: BTreeMap::new() };
    assert_eq!(store.retain(&all, ago(-999)).await.unwrap(), Removed::default());
}

#[tokio::test]
async fn a_day_that_the_queue_names_stays() {
    let (db, store) = db_with_function().await;
    let old = ago(40);
    make_day(&db, old.date_naive()).await;
    let id = accept(&store, invocation("f")).await;
    let old_id = id_of(old);
    for statement in
        ["UPDATE invocations SET id = $1 WHERE id = $2", "UPDATE queue SET invocation = $1 WHERE invocation = $2"]
    {
        sqlx::query(statement).bind(old_id).bind(id.uuid()).execute(&db.sql).await.unwrap();
    }
    assert_eq!(store.retain(&keep(&[]), clock::now()).await.unwrap().days, 0);
    assert!(has_day(&db, old.date_naive()).await);
    let held = store.history_size(&ns(), &keep(&[])).await.unwrap();
    assert!(held.days.iter().any(|day| day.day == old.date_naive() && day.held));
    let claimed = claim_one(&store, "one").await;
    let (ledger, _tasks) = ledger(&store);
    assert!(ledger.finish(finish(&claimed, Outcome::of(OutcomeKind::Ok))).await.unwrap());
    assert_eq!(store.retain(&keep(&[]), clock::now()).await.unwrap().days, 1);
}

#[tokio::test]
async fn nobody_waits_while_a_day_is_dropped() {
    let (db, store) = db_with_function().await;
    let day = ago(40).date_naive();
    make_day(&db, day).await;
    called(&store, "default", ago(40)).await;
    // Somebody reads all of history for a long time: the day cannot be detached yet.
    let mut reader = db.sql.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM invocations").execute(&mut *reader).await.unwrap();
    let (dropping, slowest) = {
        let retention = keep(&[]);
        let retain = store.retain(&retention, clock::now());
        let work = async {
            let (start, mut slowest) = (Instant::now(), Duration::ZERO);
            while start.elapsed() < Duration::from_millis(1500) {
                let began = Instant::now();
                accept(&store, invocation("f")).await;
                called(&store, "default", clock::now()).await;
                slowest = slowest.max(began.elapsed());
            }
            slowest
        };
        tokio::join!(retain, work)
    };
    assert!(matches!(dropping, Err(StoreError::Statement(_) | StoreError::Down(_))), "{dropping:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    reader.rollback().await.unwrap();
    // What was begun is finished by the next round.
    assert_eq!(store.retain(&keep(&[]), clock::now()).await.unwrap().days, 1);
    assert!(!has_day(&db, day).await);
}

#[tokio::test]
async fn a_namespace_may_keep_less_than_others() {
    let db = Db::new().await;
    let dir = base("namespace-retention");
    let store = db.spilling("one", &dir, true).await;
    store.deploy(revision("f", "")).await.unwrap();
    store.ensure_namespace(&Namespace::new("ci").unwrap()).await.unwrap();
    make_day(&db, ago(10).date_naive()).await;
    let (ours, theirs) = (called(&store, "ci", ago(10)).await, called(&store, "default", ago(10)).await);
    let fresh = called(&store, "ci", clock::now()).await;
    let day = dir.join(ago(10).format("%Y%m%d").to_string());
    assert!(day.join("ci").exists() && day.join("default").exists());
    let removed = store.retain(&keep(&[("ci", Some(7))]), clock::now()).await.unwrap();
    assert_eq!(removed, Removed { days: 0, rows: 2, shelves: 1 });
    let ci = Namespace::new("ci").unwrap();
    assert!(store.invocation(&ci, ours.invocation).await.unwrap().is_none());
    assert!(store.execution(&ci, ours.execution).await.unwrap().is_none());
    assert!(store.invocation(&ci, fresh.invocation).await.unwrap().is_some());
    assert!(store.invocation(&ns(), theirs.invocation).await.unwrap().is_some());
    assert_eq!(db.number("SELECT count(*) FROM log_chunks WHERE namespace = 'ci'").await, 1);
    assert!(!day.join("ci").exists() && day.join("default").exists());
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn two_servers_do_not_remove_at_the_same_time() {
    let (db, store) = db_with_function().await;
    make_day(&db, ago(40).date_naive()).await;
    let other = db.store("two").await;
    let retention = keep(&[]);
    let (one, two) = tokio::join!(store.retain(&retention, clock::now()), other.retain(&retention, clock::now()));
    assert_eq!(one.unwrap().days + two.unwrap().days, 1);
}

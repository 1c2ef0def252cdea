//! The spool: what it takes gets to the database, once, whatever dies in between.

use std::path::Path;

use bytes::Bytes;
use chrono::TimeDelta;
use runlet_core::engine::Stream;
use runlet_core::execution::{ExecutionState, Usage};
use runlet_core::invocation::InvocationState;
use runlet_core::outcome::{ErrorDetail, Outcome, OutcomeKind};
use runlet_core::store::ledger::Finish;
use runlet_core::store::log::Chunk;
use runlet_core::store::spool::{Drain, Spool};
use runlet_core::store::{Store, StoreError};
use tokio::task::JoinSet;

use crate::host::*;
use crate::ledger::{call, end};

const MOST: u64 = 1 << 20;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn open(store: &Store, dir: &Path) -> (Spool, Drain) {
    store.spool(dir, MOST).unwrap()
}

/// A task that is waited for: `join_next` ends when it has.
fn task(drain: Drain) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(drain.run());
    tasks
}

fn running(store: &Store, dir: &Path) -> (Spool, JoinSet<()>) {
    let (spool, drain) = open(store, dir);
    (spool, task(drain))
}

/// The next life of the server, as long as it takes to write what `dir` has.
async fn replay(db: &Db, dir: &Path) {
    let store = db.store("one").await;
    let (spool, drain) = running(&store, dir);
    spool.replayed().await;
    drop(spool);
    drain.join_all().await;
    assert_eq!(files(dir), 0);
}

/// A directory with a copy of the one file that `dir` has.
fn copied(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let file = std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    copy
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

#[tokio::test]
async fn a_call_is_on_record_when_somebody_looks() {
    let (_db, store) = db_with_function().await;
    let dir = dir();
    let (spool, drain) = running(&store, dir.path());
    let start = call();
    spool.start(&start).unwrap();
    let read = store.execution(&ns(), start.execution).await.unwrap().expect("its start is seen at once");
    assert_eq!((read.state, read.created_at), (ExecutionState::Starting, start.at));
    let chunk =
        Chunk { execution: start.execution, stream: Stream::Stdout, offset: 0, bytes: Bytes::from_static(b"\0a") };
    spool.output(&ns(), &[chunk]).unwrap();
    let finish = end(&start, Outcome::exit(3));
    spool.end(&finish).unwrap();
    let read = store.execution(&ns(), start.execution).await.unwrap().unwrap();
    assert_eq!(
        (read.state, read.outcome, read.finished_at),
        (ExecutionState::Failed, Some(Outcome::exit(3)), Some(finish.at))
    );
    assert_eq!(store.read_logs(&ns(), start.execution, Stream::Stdout, 0, 9).await.unwrap(), &b"\0a"[..]);

    // From start to end between two looks: written at once, with the same result.
    let whole = call();
    spool.start(&whole).unwrap();
    let finish = end(&whole, Outcome::ok());
    spool.end(&finish).unwrap();
    let read = store.execution(&ns(), whole.execution).await.unwrap().unwrap();
    let wall_us = (finish.at - finish.running.as_ref().unwrap().at).num_microseconds();
    let usage = Usage { wall_us, ..finish.usage };
    assert_eq!((read.state, read.usage, read.remains), (ExecutionState::Succeeded, usage, finish.remains));
    assert_eq!((read.log_bytes, read.log_dropped, read.sandbox.as_deref()), (3, 4, Some("box\u{fffd}")));
    let invocation = get(&store, whole.invocation).await;
    assert_eq!((invocation.state, invocation.executions), (InvocationState::Succeeded, vec![whole.execution]));
    assert_eq!(store.result(&ns(), whole.invocation).await.unwrap().unwrap().0, &b"\0result"[..]);
    assert_eq!(store.payload(&ns(), whole.invocation).await.unwrap().unwrap(), whole.call.payload);

    drop(spool);
    drain.join_all().await;
    assert_eq!(files(dir.path()), 0, "what is written is not kept");
}

#[tokio::test]
async fn what_a_dead_server_left_is_written_by_the_next_one_and_once() {
    let (db, store) = db_with_function().await;
    let dir = dir();
    let (ended, open_ended) = (call(), call());
    {
        // Nobody drains: as if the server died at once.
        let (spool, _drain) = open(&store, dir.path());
        spool.start(&ended).unwrap();
        spool.start(&open_ended).unwrap();
        spool.end(&end(&ended, Outcome::ok())).unwrap();
    }
    // It died within the last write.
    let file = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let part = bytes[8..40].to_vec();
    bytes.extend_from_slice(&part);
    std::fs::write(&file, &bytes).unwrap();
    let again = copied(dir.path());

    for dir in [dir.path(), again.path()] {
        let next = db.store("one").await;
        let (spool, drain) = running(&next, dir);
        spool.replayed().await;
        assert_eq!(next.execution(&ns(), ended.execution).await.unwrap().unwrap().state, ExecutionState::Succeeded);
        next.reconcile("one").await.unwrap();
        let lost = next.execution(&ns(), open_ended.execution).await.unwrap().unwrap();
        assert_eq!(lost.outcome.unwrap().kind, OutcomeKind::Lost, "it had begun and has no end");
        drop(spool);
        drain.join_all().await;
        assert_eq!(files(dir), 0);
    }
    assert_eq!(db.number("SELECT count(*) FROM executions").await, 2);
}

#[tokio::test]
async fn calls_that_are_on_record_already_are_passed_over_together() {
    let (db, store) = db_with_function().await;
    let dir = dir();
    {
        let (spool, _drain) = open(&store, dir.path());
        for call in (0..20).map(|_| call()) {
            spool.start(&call).unwrap();
            spool.end(&end(&call, Outcome::ok())).unwrap();
        }
    }
    let again = copied(dir.path());
    sqlx::raw_sql(
        "CREATE TABLE statements ();
         CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO statements DEFAULT VALUES; RETURN NULL; END $$;
         CREATE TRIGGER counted AFTER INSERT ON invocations FOR EACH STATEMENT EXECUTE FUNCTION counted()",
    )
    .execute(&db.sql)
    .await
    .unwrap();
    for dir in [dir.path(), again.path()] {
        replay(&db, dir).await;
    }
    assert_eq!(db.number("SELECT count(*) FROM executions").await, 20);
    // All of them, then those that were there, and their ends.
    assert_eq!(db.number("SELECT count(*) FROM statements").await, 3, "none of them by itself");
}

#[tokio::test]
async fn rows_are_the_same_whether_calls_are_new_or_looked_for() {
    const ROWS: &str = "SELECT coalesce(jsonb_agg(row ORDER BY row ->> 'id'), '[]') FROM (
        SELECT to_jsonb(i) AS row FROM invocations i UNION ALL SELECT to_jsonb(e) FROM executions e) rows";
    let (db, store) = db_with_function().await;
    let dir = dir();
    {
        let (spool, _drain) = open(&store, dir.path());
        let (plain, mut full) = (call(), call());
        full.call.content_type = Some("text/plain; charset=\0".to_owned());
        full.call.payload = Bytes::from_static(b"\0\xff\\.\n\t");
        full.call.deadline = Some(full.at + TimeDelta::hours(1));
        full.call.cause.headers.insert("x-quoted".to_owned(), "\"\\\0\u{fffd}".to_owned());
        let failed = ErrorDetail { kind: "E".to_owned(), message: "a\0b".to_owned(), trace: vec!["\"\\".to_owned()] };
        let failed = Outcome { error: Some(failed), exit_code: Some(-1), ..Outcome::of(OutcomeKind::Error) };
        let all = Usage {
            wait_us: Some(1),
            start_us: Some(i64::MAX),
            cpu_us: Some(-1),
            memory_peak: Some(0),
            ..Usage::default()
        };
        for (start, finish) in [
            (&plain, Finish { result: None, running: None, remains: None, ..end(&plain, Outcome::ok()) }),
            (&full, Finish { usage: all, log_bytes: u64::MAX, ..end(&full, failed) }),
        ] {
            spool.start(start).unwrap();
            spool.end(&finish).unwrap();
        }
        let known = call();
        spool.start(&known).unwrap();
        spool.end(&end(&known, Outcome::exit(3))).unwrap();
    }
    let again = copied(dir.path());
    let mut rows: Vec<serde_json::Value> = Vec::new();
    for dir in [dir.path(), again.path()] {
        replay(&db, dir).await;
        rows.push(sqlx::query_scalar(ROWS).fetch_one(&db.sql).await.unwrap());
        // One of them stays: the second time they are looked for.
        sqlx::raw_sql(
            "DELETE FROM executions WHERE outcome <> 'exit';
             DELETE FROM invocations WHERE outcome <> 'exit'",
        )
        .execute(&db.sql)
        .await
        .unwrap();
    }
    assert_eq!(rows[0].as_array().map(Vec::len), Some(6));
    assert_eq!(rows[0], rows[1]);
}

#[tokio::test]
async fn beyond_its_bound_it_takes_no_start_but_every_end() {
    let (_db, store) = db_with_function().await;
    let dir = dir();
    let (spool, drain) = open(&store, dir.path());
    let mut taken = Vec::new();
    let refused = loop {
        let mut start = call();
        start.call.payload = Bytes::from(vec![7; 100 << 10]);
        match spool.start(&start) {
            Ok(()) => taken.push(start),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::SpoolFull { most: MOST, .. }), "{refused}");
    assert!((10..=12).contains(&taken.len()), "{}", taken.len());
    for start in &taken {
        spool.end(&end(start, Outcome::ok())).expect("what has begun may end");
    }
    let drain = task(drain);
    for start in &taken {
        assert_eq!(get(&store, start.invocation).await.state, InvocationState::Succeeded);
    }
    spool.start(&call()).expect("there is room again");
    drop(spool);
    drain.join_all().await;
}

#[tokio::test]
async fn many_files_are_written_in_order_and_removed() {
    let (db, store) = db_with_function().await;
    let dir = dir();
    let (spool, drain) = store.spool(dir.path(), u64::MAX).unwrap();
    let mut starts = Vec::new();
    for size in (0..30).map(|n| if n % 7 == 0 { 3 << 20 } else { n }) {
        let mut start = call();
        start.call.payload = Bytes::from(vec![1; size]);
        spool.start(&start).unwrap();
        starts.push(start);
    }
    assert!(files(dir.path()) > 1, "one file would be no test");
    let drain = task(drain);
    for start in &starts {
        spool.end(&end(start, Outcome::ok())).unwrap();
    }
    drop(spool);
    drain.join_all().await;
    assert_eq!(db.number("SELECT count(*) FROM executions WHERE state = 'succeeded'").await, 30);
    assert_eq!(files(dir.path()), 0);
}

#[tokio::test]
async fn a_record_that_the_database_refuses_takes_no_other_with_it_and_is_kept() {
    let (db, store) = db_with_function().await;
    sqlx::query("ALTER TABLE invocations ADD CHECK (content_type <> 'no/such')").execute(&db.sql).await.unwrap();
    let dir = dir();
    let (spool, drain) = open(&store, dir.path());
    let (mut bad, good) = (call(), call());
    bad.call.content_type = Some("no/such".to_owned());
    for start in [&bad, &good] {
        spool.start(start).unwrap();
        spool.end(&end(start, Outcome::ok())).unwrap();
    }
    let drain = task(drain);
    assert_eq!(get(&store, good.invocation).await.state, InvocationState::Succeeded);
    assert!(store.invocation(&ns(), bad.invocation).await.unwrap().is_none());
    drop(spool);
    drain.join_all().await;
    let kept = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().file_name();
    assert!(kept.to_string_lossy().starts_with("refused-"), "{kept:?}");
}

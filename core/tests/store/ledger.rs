//! Group commit: starts and ends of executions.

use bytes::Bytes;
use runlet_core::cause::{Cause, CauseKind};
use runlet_core::clock;
use runlet_core::engine::NewInvocation;
use runlet_core::execution::{ExecutionState, Remains, StartKind, Usage};
use runlet_core::id::{ExecutionId, InvocationId};
use runlet_core::invocation::InvocationState;
use runlet_core::manifest::Reset;
use runlet_core::outcome::{ErrorDetail, Outcome, OutcomeKind};
use runlet_core::store::ledger::{CallStart, Finish, Running};
use tokio::task::JoinSet;

use crate::host::*;

/// A synchronous call of `f`.
pub(crate) fn call() -> CallStart {
    CallStart {
        invocation: InvocationId::new(),
        execution: ExecutionId::new(),
        call: NewInvocation { cause: Cause::of_kind(CauseKind::Http), ..invocation("f") },
        revision: revision("f", "").digest,
        reset: Reset::Warm,
        at: clock::now(),
    }
}

pub(crate) fn end(start: &CallStart, outcome: Outcome) -> Finish {
    Finish {
        execution: start.execution,
        invocation: start.invocation,
        namespace: start.call.namespace.clone(),
        fence: None,
        outcome,
        result: Some((Bytes::from_static(b"\0result"), "application/json".into())),
        running: Some(running(start)),
        usage: Usage { cpu_us: Some(5), ..Usage::default() },
        remains: Some(Remains::default()),
        log_bytes: 3,
        log_dropped: 4,
        retry: None,
        expired: false,
        of_messages: false,
        tell: None,
        at: clock::now(),
    }
}

fn running(start: &CallStart) -> Running {
    Running { execution: start.execution, start: StartKind::Warm, sandbox: "box\0".to_owned(), at: clock::now() }
}

#[tokio::test]
async fn a_call_is_on_record_from_start_to_end() {
    let (_db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let start = call();
    ledger.start(start.clone()).await.unwrap();
    ledger.start(start.clone()).await.expect("a repeat of a start is harmless");
    let read = store.execution(&ns(), start.execution).await.unwrap().unwrap();
    assert_eq!((read.state, read.outcome, read.started_at), (ExecutionState::Starting, None, None));
    assert_eq!(get(&store, start.invocation).await.state, InvocationState::Running);
    assert!(store.result(&ns(), start.invocation).await.unwrap().is_none());

    let finish = end(&start, Outcome::ok());
    assert!(ledger.finish(finish.clone()).await.unwrap());
    assert!(!ledger.finish(finish.clone()).await.unwrap());
    let read = store.execution(&ns(), start.execution).await.unwrap().unwrap();
    assert_eq!((read.state, read.outcome), (ExecutionState::Succeeded, Some(Outcome::ok())));
    assert_eq!(
        (read.start, read.sandbox.as_deref(), read.reset),
        (Some(StartKind::Warm), Some("box\u{fffd}"), Reset::Warm)
    );
    let started = finish.running.unwrap().at;
    let usage = Usage { wall_us: (finish.at - started).num_microseconds(), ..finish.usage };
    assert_eq!((read.usage, read.remains, read.log_bytes, read.log_dropped), (usage, finish.remains, 3, 4));
    assert_eq!((read.started_at, read.finished_at), (Some(started), Some(finish.at)));
    let read = get(&store, start.invocation).await;
    assert_eq!((read.state, read.attempts, read.executions), (InvocationState::Succeeded, 1, vec![start.execution]));
    let result = store.result(&ns(), start.invocation).await.unwrap().unwrap();
    assert_eq!((result.0.as_ref(), result.1.as_str()), (&b"\0result"[..], "application/json"));
}

#[tokio::test]
async fn nul_in_an_error_does_not_fail_the_end() {
    let (_db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let mut start = call();
    start.call.content_type = Some("a\0b".to_owned());
    start.call.cause.headers.insert("x\0".to_owned(), "\0".to_owned());
    start.call.cause.normalised = Some(serde_json::json!({"a": ["\0"]}));
    ledger.start(start.clone()).await.unwrap();
    let mut outcome = Outcome::exit(7);
    outcome.error =
        Some(ErrorDetail { kind: "E\0".to_owned(), message: "m\0".to_owned(), trace: vec!["t\0\u{1f600}".to_owned()] });
    assert!(ledger.finish(end(&start, outcome)).await.unwrap());
    let read = get(&store, start.invocation).await;
    let outcome = read.outcome.unwrap();
    assert_eq!((read.state, outcome.kind, outcome.exit_code), (InvocationState::Failed, OutcomeKind::Exit, Some(7)));
    assert_eq!(outcome.error.unwrap().trace, ["t\u{fffd}\u{1f600}"]);
    assert_eq!(read.cause.headers["x\u{fffd}"], "\u{fffd}");
}

#[tokio::test]
async fn of_many_ends_of_one_execution_exactly_one_is_written() {
    let (_db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let starts: Vec<CallStart> = (0..50).map(|_| call()).collect();
    let mut tasks = JoinSet::new();
    for start in starts.clone() {
        let ledger = ledger.clone();
        tasks.spawn(async move { ledger.start(start).await.unwrap() });
    }
    tasks.join_all().await;
    let mut tasks = JoinSet::new();
    for n in 0..200 {
        let (ledger, finish) = (ledger.clone(), end(&starts[n % 50], Outcome::ok()));
        tasks.spawn(async move { ledger.finish(finish).await.unwrap() });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|written| *written).count(), 50);
}

#[tokio::test]
async fn a_bad_entry_does_not_take_the_others_of_its_batch_with_it() {
    let (_db, store) = db_with_function().await;
    let (ledger, writers) = store.ledger();
    let mut bad = call();
    // No partition takes it.
    bad.execution = ExecutionId::from(uuid::Uuid::nil());
    let good = call();
    let mut tasks = JoinSet::new();
    for start in [good.clone(), bad, call()] {
        let ledger = ledger.clone();
        tasks.spawn(async move { ledger.start(start).await.is_ok() });
    }
    // On this one thread all three wait in the channel before the writers run: they share a batch.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let mut running = JoinSet::new();
    running.spawn(writers.run());
    assert_eq!(tasks.join_all().await.into_iter().filter(|written| *written).count(), 2);
    assert_eq!(get(&store, good.invocation).await.state, InvocationState::Running);
    drop(ledger);
    running.join_all().await;
}

#[tokio::test]
async fn a_long_execution_is_seen_running() {
    let (_db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let start = call();
    ledger.start(start.clone()).await.unwrap();
    ledger.running(running(&start));
    loop {
        let read = store.execution(&ns(), start.execution).await.unwrap().unwrap();
        if read.state == ExecutionState::Running {
            assert!(read.started_at.is_some());
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(ledger.finish(end(&start, Outcome::because(OutcomeKind::Timeout, "too slow"))).await.unwrap());
    ledger.running(running(&start));
    assert_eq!(get(&store, start.invocation).await.state, InvocationState::Failed);
}

#[tokio::test]
async fn an_execution_that_has_ended_is_not_noted() {
    let (_db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let (ended, lasts) = (call(), call());
    for start in [&ended, &lasts] {
        ledger.start(start.clone()).await.unwrap();
        ledger.running(running(start));
    }
    // Its end is in the spool.
    ledger.forget(ended.execution);
    let state = async |start: &CallStart| store.execution(&ns(), start.execution).await.unwrap().unwrap().state;
    while state(&lasts).await != ExecutionState::Running {
        tokio::task::yield_now().await;
    }
    assert_eq!(state(&ended).await, ExecutionState::Starting, "both would have been noted together");
}

#[tokio::test]
async fn the_writers_end_with_the_last_handle_and_lose_nothing() {
    let (db, store) = db_with_function().await;
    let (ledger, mut writers) = ledger(&store);
    let mut tasks = JoinSet::new();
    for _ in 0..40 {
        let ledger = ledger.clone();
        tasks.spawn(async move { ledger.start(call()).await.unwrap() });
    }
    drop(ledger);
    writers.join_next().await.unwrap().unwrap();
    tasks.join_all().await;
    assert_eq!(db.number("SELECT count(*) FROM executions").await, 40);
}

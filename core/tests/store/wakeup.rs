//! Wake-ups.

use std::time::Duration;

use runlet_core::outcome::Outcome;
use runlet_core::store::queue::{Wakeup, Wakeups};

use crate::host::*;

async fn next(wakeups: &mut Wakeups) -> Wakeup {
    tokio::time::timeout(Duration::from_secs(20), wakeups.next()).await.expect("somebody is told")
}

/// What comes next but for work: a server that is not alone hears of its own work twice, at once and from Postgres.
async fn next_but_work(wakeups: &mut Wakeups) -> Wakeup {
    loop {
        let wakeup = next(wakeups).await;
        if wakeup != Wakeup::Work {
            return wakeup;
        }
    }
}

#[tokio::test]
async fn work_cancels_and_ends_are_told() {
    let (_db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let mut wakeups = store.wakeups().await.unwrap();
    let id = accept(&store, invocation("f")).await;
    assert_eq!(next(&mut wakeups).await, Wakeup::Work);
    let claimed = claim_one(&store, "one").await;
    store.cancel(&ns(), id).await.unwrap();
    assert_eq!(next_but_work(&mut wakeups).await, Wakeup::Cancel(id));
    assert!(ledger.finish(finish(&claimed, Outcome::ok())).await.unwrap());
    assert_eq!(next_but_work(&mut wakeups).await, Wakeup::Done(id));
    let id = accept(&store, invocation("f")).await;
    assert_eq!(next(&mut wakeups).await, Wakeup::Work);
    store.cancel(&ns(), id).await.unwrap();
    assert_eq!(next_but_work(&mut wakeups).await, Wakeup::Done(id));
}

#[tokio::test]
async fn a_cut_connection_is_made_anew_and_the_caller_told_to_look() {
    let (db, store) = db_with_function().await;
    let mut wakeups = store.wakeups().await.unwrap();
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    assert_eq!(db.number(cut).await, 1);
    assert_eq!(next(&mut wakeups).await, Wakeup::Work);
    let id = accept(&store, invocation("f")).await;
    assert_eq!(next(&mut wakeups).await, Wakeup::Work);
    store.cancel(&ns(), id).await.unwrap();
    assert_eq!(next(&mut wakeups).await, Wakeup::Done(id));
}

#[tokio::test]
async fn other_servers_are_told() {
    let (db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let other = db.store("two").await;
    let mut wakeups = other.wakeups().await.unwrap();
    let id = accept(&store, invocation("f")).await;
    assert_eq!(next(&mut wakeups).await, Wakeup::Work);
    let claimed = claim_one(&other, "two").await;
    assert_eq!(claimed.invocation, id);
    assert!(ledger.finish(finish(&claimed, Outcome::ok())).await.unwrap());
    assert_eq!(next_but_work(&mut wakeups).await, Wakeup::Done(id));
}

#[tokio::test]
async fn a_server_that_is_alone_tells_itself_and_nobody_else() {
    let (db, first) = db_with_function().await;
    let dir = tempfile::tempdir().unwrap();
    let store = db.spilling("alone", dir.path(), true).await;
    let (ledger, _tasks) = ledger(&store);
    let mut wakeups = store.wakeups().await.unwrap();
    let mut elsewhere = first.wakeups().await.unwrap();
    let id = accept(&store, invocation("f")).await;
    assert_eq!(next(&mut wakeups).await, Wakeup::Work);
    let claimed = claim_one(&store, "alone").await;
    assert!(ledger.finish(finish(&claimed, Outcome::ok())).await.unwrap());
    assert_eq!(next(&mut wakeups).await, Wakeup::Done(id), "each end once");
    // What comes next through Postgres is the first thing that came through it.
    let waiting = accept(&store, invocation("f")).await;
    store.cancel(&ns(), waiting).await.unwrap();
    assert_eq!(next(&mut elsewhere).await, Wakeup::Done(waiting));
}

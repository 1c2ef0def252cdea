//! Claims: one holder at a time, and nothing lost with a holder.

use std::collections::HashSet;
use std::time::Duration;

use runlet_core::clock;
use runlet_core::execution::ExecutionState;
use runlet_core::invocation::InvocationState;
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::queue::{Claimed, MAX_LOST, Room};
use runlet_core::unit::ByteSize;
use tokio::task::JoinSet;

use crate::host::*;

#[tokio::test]
async fn two_servers_never_claim_the_same_work() {
    let (db, one) = db_with_function().await;
    let two = db.store("two").await;
    for _ in 0..300 {
        accept(&one, invocation("f")).await;
    }
    let mut tasks = JoinSet::new();
    for (store, server) in [(&one, "one"), (&two, "two"), (&one, "one"), (&two, "two")] {
        let store = store.clone();
        tasks.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = store.claim(server, &room(7), LEASE).await.unwrap().work;
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed);
            }
        });
    }
    let claimed: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 300);
    assert_eq!(claimed.iter().map(|claimed| claimed.invocation).collect::<HashSet<_>>().len(), 300);
    assert_eq!(claimed.iter().map(|claimed| claimed.fence).collect::<HashSet<_>>().len(), 300);
    assert!(claimed.iter().all(|claimed| claimed.attempt == 1 && claimed.payload.as_deref() == Ok(&b"\0\xffraw"[..])));
    assert_eq!(one.queue_depth().await.unwrap(), (0, 300));
    let read = get(&one, claimed[0].invocation).await;
    assert_eq!(
        (read.state, read.attempts, read.executions),
        (InvocationState::Queued, 0, vec![]),
        "it is not noted yet"
    );
    let (ledger, _tasks) = ledger(&one);
    noted(&one, &ledger, &claimed).await;
    let read = get(&one, claimed[0].invocation).await;
    assert_eq!((read.attempts, read.executions), (1, vec![claimed[0].execution]));
    let execution = one.execution(&ns(), claimed[0].execution).await.unwrap().unwrap();
    assert_eq!((execution.state, execution.attempt), (ExecutionState::Starting, 1));
    assert_eq!(Some(execution.created_at), execution.id.created_at());
}

#[tokio::test]
async fn the_best_work_comes_first_and_full_functions_are_passed_over() {
    let (_db, store) = db_with_function().await;
    store.deploy(revision("g", "")).await.unwrap();
    let low = accept(&store, invocation("f")).await;
    let mut urgent = invocation("f");
    urgent.priority = 5;
    let urgent = accept(&store, urgent).await;
    let other = accept(&store, invocation("g")).await;
    assert_eq!(store.waiting_in(&ns()).await.unwrap(), 3);

    let used = vec![((ns(), name("g")), 10)];
    let claimed = store.claim("one", &Room { used, ..room(9) }, LEASE).await.unwrap().work;
    assert_eq!(claimed.iter().map(|claimed| claimed.invocation).collect::<Vec<_>>(), [urgent, low]);
    assert_eq!(claim_one(&store, "one").await.invocation, other);
    assert!(store.claim("one", &room(0), LEASE).await.unwrap().work.is_empty());
    assert_eq!(store.waiting_in(&ns()).await.unwrap(), 0);
}

#[tokio::test]
async fn no_more_is_claimed_than_can_start() {
    let (_db, store) = db_with_function().await;
    store.deploy(revision("two", "max_concurrency = 2\nmemory = \"64MiB\"\n")).await.unwrap();
    for _ in 0..50 {
        accept(&store, invocation("two")).await;
    }
    accept(&store, invocation("f")).await;
    let functions =
        |claimed: Vec<Claimed>| claimed.into_iter().map(|claimed| claimed.function.to_string()).collect::<Vec<_>>();
    let claim = async |room: Room| functions(store.claim("one", &room, LEASE).await.unwrap().work);

    // Memory for one and a half: the first, and then nothing goes past the second.
    let memory = ByteSize::mib(96).0;
    assert_eq!(claim(Room { memory, ..room(32) }).await, ["two"]);
    assert_eq!(claim(Room { memory: 1, ..room(32) }).await, [""; 0]);
    assert_eq!(claim(Room { memory: 1, total_memory: 1, ..room(1) }).await, ["two"], "it can never start");
    assert_eq!(claim(Room { memory: 1, in_line: true, ..room(32) }).await, ["two"]);

    // As many as have turns, and the backlog of one function does not keep the other waiting.
    let used = vec![((ns(), name("two")), 1)];
    assert_eq!(claim(Room { used, ..room(32) }).await, ["two", "f"]);
    accept(&store, invocation("f")).await;
    assert_eq!(claim(room(32)).await, ["two", "two", "f"]);
    let used = vec![((ns(), name("two")), 2)];
    let claims = store.claim("one", &Room { used, ..room(32) }, LEASE).await.unwrap();
    assert!(claims.work.is_empty() && claims.due);
    // Turns are those of one server.
    assert_eq!(store.claim("two", &room(32), LEASE).await.unwrap().work.len(), 2);
}

#[tokio::test]
async fn an_old_fence_writes_nothing() {
    let (_db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let id = accept(&store, invocation("f")).await;
    let old = store.claim("one", &room(1), Duration::ZERO).await.unwrap().work.remove(0);
    let expired = store.reap_expired().await.unwrap();
    assert_eq!((expired.len(), expired[0].execution, expired[0].retried), (1, old.execution, true));
    assert!(store.reap_expired().await.unwrap().is_empty());
    assert_eq!(get(&store, id).await.state, InvocationState::Queued);

    let new = claim_one(&store, "two").await;
    assert_eq!((new.invocation, new.attempt), (id, 2));
    assert!(new.fence > old.fence && new.execution != old.execution);
    assert_eq!(store.heartbeat("one", &[old.fence, new.fence], LEASE).await.unwrap(), Vec::<i64>::new());
    assert_eq!(store.heartbeat("two", &[old.fence, new.fence], LEASE).await.unwrap(), [new.fence]);

    assert!(!ledger.finish(finish(&old, Outcome::ok())).await.unwrap());
    let mut forged = finish(&new, Outcome::ok());
    forged.fence = Some(old.fence);
    assert!(!ledger.finish(forged).await.unwrap());
    noted(&store, &ledger, std::slice::from_ref(&new)).await;

    assert!(ledger.finish(finish(&new, Outcome::ok())).await.unwrap());
    let read = get(&store, id).await;
    assert_eq!((read.state, read.executions), (InvocationState::Succeeded, vec![old.execution, new.execution]));
    let lost = store.execution(&ns(), old.execution).await.unwrap().unwrap();
    assert_eq!((lost.state, lost.attempt), (ExecutionState::Lost, 1));
    assert_eq!(store.queue_depth().await.unwrap(), (0, 0));
}

#[tokio::test]
async fn what_kills_its_server_again_and_again_becomes_a_dead_letter() {
    let (db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let id = accept(&store, keyed("f", "k")).await;
    for attempt in 1..=MAX_LOST {
        sqlx::query("UPDATE queue SET not_before = now()").execute(&db.sql).await.unwrap();
        // One by the lease, one by its own server's word.
        let claimed = store.claim("one", &room(1), Duration::ZERO).await.unwrap().work.remove(0);
        assert_eq!(claimed.attempt, attempt.unsigned_abs());
        if attempt % 2 == 0 {
            store.reap_expired().await.unwrap();
        } else {
            assert!(ledger.finish(finish(&claimed, Outcome::of(OutcomeKind::Lost))).await.unwrap());
        }
        let read = get(&store, id).await;
        assert_eq!(read.outcome.unwrap().kind, OutcomeKind::Lost);
        let over = attempt == MAX_LOST;
        assert_eq!(
            (read.state == InvocationState::Failed, read.dead_letter, read.finished_at.is_some()),
            (over, over, over)
        );
    }
    assert_eq!(store.queue_depth().await.unwrap(), (0, 0));
    assert_ne!(accept(&store, keyed("f", "k")).await, id, "its key is free again");
}

#[tokio::test]
async fn at_boot_what_an_earlier_life_left_is_lost() {
    let (db, store) = db_with_function().await;
    store.deploy(revision("once", "on_lost = \"fail\"\n")).await.unwrap();
    let (ledger, tasks) = ledger(&store);
    let again = accept(&store, invocation("f")).await;
    let once = accept(&store, keyed("once", "k")).await;
    assert_eq!(store.claim("one", &room(2), LEASE).await.unwrap().work.len(), 2);
    let call = crate::ledger::call();
    ledger.start(call.clone()).await.unwrap();
    let foreign = accept(&store, invocation("f")).await;
    noted(&store, &ledger, &[claim_one(&store, "two").await]).await;
    drop((ledger, tasks));

    let reborn = db.store("one").await;
    assert_eq!(reborn.reconcile("one").await.unwrap(), 3);
    assert_eq!(reborn.reconcile("one").await.unwrap(), 0);
    assert_eq!(get(&reborn, again).await.state, InvocationState::Queued);
    assert_eq!(get(&reborn, foreign).await.state, InvocationState::Running);
    for id in [once, call.invocation] {
        let read = get(&reborn, id).await;
        assert_eq!((read.state, read.outcome.unwrap().kind), (InvocationState::Failed, OutcomeKind::Lost));
    }
    let lost = reborn.execution(&ns(), call.execution).await.unwrap().unwrap();
    assert_eq!(lost.state, ExecutionState::Lost);
    assert!(lost.outcome.unwrap().error.unwrap().message.contains("server"));
    assert_eq!(claim_one(&reborn, "one").await.attempt, 2);
}

#[tokio::test]
async fn work_that_is_days_old_is_claimed_with_all_that_it_says() {
    let (db, store) = db_with_function().await;
    let (old, new) = (keyed("f", "k"), invocation("f"));
    let (old, new) = (accept(&store, old).await, accept(&store, new).await);
    // As if it had been accepted the day before yesterday.
    sqlx::query("SELECT runlet_make_partitions(current_date - 2, current_date)").execute(&db.sql).await.unwrap();
    let id: uuid::Uuid = "00000000-0000-7000-8000-000000000001".parse().unwrap();
    let moment = clock::now() - chrono::TimeDelta::days(2);
    let id = uuid::Uuid::from_u128(id.as_u128() | (u128::from(moment.timestamp_millis().unsigned_abs()) << 80));
    for table in
        ["UPDATE invocations SET id = $1 WHERE id = $2", "UPDATE queue SET invocation = $1 WHERE invocation = $2"]
    {
        sqlx::query(table).bind(id).bind(old.uuid()).execute(&db.sql).await.unwrap();
    }
    let claimed = store.claim("one", &room(9), LEASE).await.unwrap().work;
    let ids: HashSet<_> = claimed.iter().map(|claimed| claimed.invocation).collect();
    assert_eq!(ids, HashSet::from([id.into(), new]));
    for claimed in &claimed {
        assert_eq!(claimed.payload.as_deref(), Ok(&b"\0\xffraw"[..]));
        assert_eq!(claimed.content_type.as_deref(), Some("application/json"));
    }
    let (ledger, _tasks) = ledger(&store);
    for claimed in &claimed {
        assert!(ledger.finish(finish(claimed, Outcome::ok())).await.unwrap());
        assert_eq!(get(&store, claimed.invocation).await.state, InvocationState::Succeeded);
    }
}

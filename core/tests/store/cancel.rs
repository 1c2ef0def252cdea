//! Ends without an execution: cancelled, expired, removed.

use std::time::Duration;

use runlet_core::clock;
use runlet_core::id::InvocationId;
use runlet_core::invocation::InvocationState;
use runlet_core::name::Namespace;
use runlet_core::outcome::Outcome;
use runlet_core::precondition::Precondition;

use crate::host::*;

#[tokio::test]
async fn a_waiting_invocation_never_starts_once_cancelled() {
    let (_db, store) = db_with_function().await;
    let id = accept(&store, keyed("f", "k")).await;
    assert_eq!(store.cancel(&Namespace::new("other").unwrap(), id).await.unwrap(), None);
    assert_eq!(store.cancel(&ns(), id).await.unwrap(), Some(InvocationState::Queued));
    assert_eq!(store.cancel(&ns(), id).await.unwrap(), Some(InvocationState::Cancelled));
    assert_eq!(store.cancel(&ns(), InvocationId::new()).await.unwrap(), None);
    assert!(store.claim("one", &room(1), LEASE).await.unwrap().work.is_empty());
    assert!(get(&store, id).await.finished_at.is_some());
    assert_ne!(accept(&store, keyed("f", "k")).await, id);
}

#[tokio::test]
async fn a_cancelled_execution_that_gets_lost_is_not_tried_again() {
    let (_db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let by_lease = accept(&store, invocation("f")).await;
    store.claim("one", &room(1), Duration::ZERO).await.unwrap();
    assert_eq!(store.cancel(&ns(), by_lease).await.unwrap(), Some(InvocationState::Running));
    assert!(!store.reap_expired().await.unwrap()[0].retried);
    assert_eq!(get(&store, by_lease).await.state, InvocationState::Cancelled);

    let by_word = accept(&store, invocation("f")).await;
    let claimed = claim_one(&store, "one").await;
    store.cancel(&ns(), by_word).await.unwrap();
    let lost = Outcome::of(runlet_core::outcome::OutcomeKind::Lost);
    assert!(ledger.finish(finish(&claimed, lost)).await.unwrap());
    assert_eq!(get(&store, by_word).await.state, InvocationState::Cancelled);
    assert_eq!(store.queue_depth().await.unwrap(), (0, 0));
}

#[tokio::test]
async fn work_past_its_deadline_expires_instead_of_starting() {
    let (_db, store) = db_with_function().await;
    let mut late = keyed("f", "k");
    late.deadline = Some(clock::now() - chrono::TimeDelta::seconds(1));
    let late = accept(&store, late).await;
    let mut early = invocation("f");
    early.deadline = Some(clock::now() + chrono::TimeDelta::seconds(600));
    let early = accept(&store, early).await;
    let claimed = store.claim("one", &room(9), LEASE).await.unwrap().work;
    assert_eq!(claimed.iter().map(|claimed| claimed.invocation).collect::<Vec<_>>(), [early]);
    assert_eq!(get(&store, late).await.state, InvocationState::Expired);
    assert_ne!(accept(&store, keyed("f", "k")).await, late);
}

#[tokio::test]
async fn removing_a_function_cancels_what_waits_and_leaves_what_runs() {
    let (_db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let runs = accept(&store, invocation("f")).await;
    noted(&store, &ledger, &[claim_one(&store, "one").await]).await;
    let waits = accept(&store, invocation("f")).await;
    assert!(store.current(&ns(), &name("f")).await.unwrap().is_some());
    assert!(store.remove_function(&ns(), &name("f"), &Precondition::None).await.unwrap());
    assert!(!store.remove_function(&ns(), &name("f"), &Precondition::None).await.unwrap());
    assert!(store.current(&ns(), &name("f")).await.unwrap().is_none(), "its own removal is seen at once");
    assert_eq!(get(&store, waits).await.state, InvocationState::Cancelled);
    assert_eq!(get(&store, runs).await.state, InvocationState::Running);
}

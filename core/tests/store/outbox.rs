//! Callbacks and dead letters: made with the end, whatever kind of end it is; claimed by one at a time.

use std::time::Duration;

use runlet_core::clock;
use runlet_core::engine::NewInvocation;
use runlet_core::id::InvocationId;
use runlet_core::manifest::Destination;
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::dead_letter::DeadLetterFilter;
use runlet_core::store::ledger::Finish;
use runlet_core::store::outbox::{CallbackEvent, CallbackState, CallbackTry, Verdict};

use crate::host::*;

const ON_FAILURE: &str = "on_lost = \"fail\"\n[on_failure]\nfunction = \"g\"\n";

fn told() -> Option<Destination> {
    Some(Destination::Function { function: name("g") })
}

#[tokio::test]
async fn every_end_without_success_is_a_dead_letter_and_told() {
    let (_db, store) = db_with_function().await;
    store.deploy(revision("h", ON_FAILURE)).await.unwrap();
    let (ledger, _tasks) = ledger(&store);

    let lost = accept(&store, invocation("h")).await;
    store.claim("one", &room(1), Duration::ZERO).await.unwrap();
    store.reap_expired().await.unwrap();

    let overdue = NewInvocation { deadline: Some(clock::now()), ..invocation("h") };
    let overdue = accept(&store, overdue).await;
    expires(&store, overdue).await;

    let failed = accept(&store, invocation("h")).await;
    let claimed = claim_one(&store, "one").await;
    let end = Finish { tell: told(), ..finish(&claimed, Outcome::of(OutcomeKind::Error)) };
    assert!(ledger.finish(end).await.unwrap());

    // Neither what was cancelled nor what is tried again.
    let cancelled = accept(&store, invocation("h")).await;
    store.cancel(&ns(), cancelled).await.unwrap();
    let again = accept(&store, invocation("h")).await;
    let claimed = claim_one(&store, "one").await;
    let retry = Some(Duration::from_secs(60));
    let end = Finish { tell: told(), retry, ..finish(&claimed, Outcome::of(OutcomeKind::Error)) };
    assert!(ledger.finish(end).await.unwrap());
    assert!(store.place_in_queue(again).await.unwrap().is_some_and(|place| !place.due));

    let filter = DeadLetterFilter { limit: 10, ..DeadLetterFilter::default() };
    let letters = store.dead_letters(&ns(), &filter).await.unwrap();
    let seen: Vec<(InvocationId, Option<OutcomeKind>)> =
        letters.iter().map(|letter| (letter.invocation, letter.outcome)).collect();
    assert_eq!(seen, [(failed, Some(OutcomeKind::Error)), (overdue, None), (lost, Some(OutcomeKind::Lost))]);
    let due = store.claim_callbacks(10, LEASE).await.unwrap();
    assert_eq!(due.len(), 3, "{due:?}");
    assert!(due.iter().all(|due| due.event == CallbackEvent::Failed && Some(&due.destination) == told().as_ref()));
    assert!(store.drop_dead_letter(&ns(), lost).await.unwrap());
    assert!(!store.drop_dead_letter(&ns(), lost).await.unwrap());
    assert!(!get(&store, lost).await.dead_letter && get(&store, overdue).await.dead_letter);
}

#[tokio::test]
async fn a_callback_is_tried_by_one_at_a_time_and_a_late_word_changes_nothing() {
    let (_db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let id = accept(&store, invocation("f")).await;
    let claimed = claim_one(&store, "one").await;
    assert!(ledger.finish(Finish { tell: told(), ..finish(&claimed, Outcome::ok()) }).await.unwrap());

    // The first one's lease is over at once: another one takes it over.
    let old = store.claim_callbacks(10, Duration::ZERO).await.unwrap().remove(0);
    let new = store.claim_callbacks(10, LEASE).await.unwrap().remove(0);
    assert_eq!((old.number, new.number, new.event), (1, 2, CallbackEvent::Succeeded));
    assert!(store.claim_callbacks(10, LEASE).await.unwrap().is_empty(), "somebody is at it");
    let tried = |note: &str| CallbackTry { at: clock::now(), status: Some(200), note: note.to_owned(), duration_ms: 1 };
    assert!(!store.callback_tried(&old, &tried("late"), Verdict::Failed).await.unwrap());
    assert!(store.callback_tried(&new, &tried("not yet"), Verdict::Again(Duration::ZERO)).await.unwrap());
    let last = store.claim_callbacks(10, LEASE).await.unwrap().remove(0);
    assert!(store.callback_tried(&last, &tried("taken"), Verdict::Delivered).await.unwrap());
    let read = store.callback(&ns(), id).await.unwrap().unwrap();
    let notes: Vec<&str> = read.history.iter().map(|tried| tried.note.as_str()).collect();
    assert_eq!((read.state, read.tries, notes), (CallbackState::Delivered, 3, vec!["not yet", "taken"]));
    assert!(!store.cancel_callback(&ns(), id).await.unwrap(), "it is over");
    assert!(store.retry_callback(&ns(), id).await.unwrap());
    assert!(store.cancel_callback(&ns(), id).await.unwrap());
    assert!(store.claim_callbacks(10, LEASE).await.unwrap().is_empty());
}

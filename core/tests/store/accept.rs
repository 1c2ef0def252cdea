//! Accepting work: once a key, all or nothing.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use runlet_core::engine::Submission;
use runlet_core::invocation::InvocationState;
use runlet_core::name::HookPath;
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::delivery::{NewDelivery, Verdict};
use tokio::task::JoinSet;

use crate::host::*;

fn delivery(body: &'static [u8], verdict: Verdict) -> NewDelivery {
    NewDelivery {
        namespace: ns(),
        path: HookPath::new("gh").unwrap(),
        adapter: "github",
        provider_id: Some("guid\0".to_owned()),
        event: Some("push".to_owned()),
        headers: BTreeMap::from([("x-a".to_owned(), "\0".to_owned())]),
        source: "127.0.0.1:1".to_owned(),
        body: Bytes::from_static(body),
        body_size: body.len() as u64,
        verdict,
        reasons: vec!["f: event push\0".to_owned()],
    }
}

#[tokio::test]
async fn a_hundred_deliveries_of_one_id_make_one_invocation() {
    let (db, store) = db_with_function().await;
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let store = store.clone();
        tasks.spawn(async move {
            let submission = Submission {
                delivery: Some(delivery(b"{}", Verdict::Accepted)),
                invocations: vec![keyed("f", "guid")],
            };
            store.accept(submission).await.unwrap().unwrap()
        });
    }
    let submitted = tasks.join_all().await;
    let ids: HashSet<_> = submitted.iter().map(|submitted| submitted.invocations[0].invocation).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(submitted.iter().filter(|submitted| !submitted.invocations[0].repeated).count(), 1);
    assert_eq!(store.queue_depth().await.unwrap(), (1, 0));
    assert_eq!(db.number("SELECT count(*) FROM invocations").await, 1);
    assert_eq!(db.number("SELECT count(*) FROM deliveries WHERE verdict = 'accepted'").await, 1);
    assert_eq!(db.number("SELECT count(*) FROM deliveries WHERE verdict = 'duplicate'").await, 99);
}

#[tokio::test]
async fn a_key_blocks_while_its_invocation_lives_or_has_succeeded_and_runs_again_when_it_failed() {
    let (_db, store) = db_with_function().await;
    let (ledger, _tasks) = ledger(&store);
    let first = accept(&store, keyed("f", "k")).await;
    assert_eq!(accept(&store, keyed("f", "k")).await, first);
    let claimed = claim_one(&store, "one").await;
    assert_eq!(accept(&store, keyed("f", "k")).await, first);
    assert!(ledger.finish(finish(&claimed, Outcome::of(OutcomeKind::Error))).await.unwrap());

    let second = accept(&store, keyed("f", "k")).await;
    assert_ne!(second, first);
    let claimed = claim_one(&store, "one").await;
    assert!(ledger.finish(finish(&claimed, Outcome::ok())).await.unwrap());
    assert_eq!(accept(&store, keyed("f", "k")).await, second);
    assert_eq!(get(&store, second).await.state, InvocationState::Succeeded);

    let long = "x".repeat(10_000);
    assert_eq!(accept(&store, keyed("f", &long)).await, accept(&store, keyed("f", &long)).await);
}

#[tokio::test]
async fn an_unknown_function_leaves_nothing_on_record() {
    let (db, store) = db_with_function().await;
    let mut known = keyed("f", "k");
    let submission = Submission {
        delivery: Some(delivery(b"{}", Verdict::Accepted)),
        invocations: vec![known.clone(), invocation("none")],
    };
    assert_eq!(store.accept(submission).await.unwrap().unwrap_err(), name("none"));
    known.revision = Some(revision("other", "").digest);
    let submission = Submission { delivery: None, invocations: vec![known] };
    assert_eq!(store.accept(submission).await.unwrap().unwrap_err(), name("f"));
    for query in [
        "SELECT count(*) FROM invocations",
        "SELECT count(*) FROM deliveries",
        "SELECT count(*) FROM queue",
        "SELECT count(*) FROM dedup_keys",
    ] {
        assert_eq!(db.number(query).await, 0, "{query}");
    }
}

#[tokio::test]
async fn a_delivery_reads_back_as_it_came() {
    let (_db, store) = db_with_function().await;
    let body: &[u8] = b"\0\xff{not json";
    let submission = Submission {
        delivery: Some(delivery(body, Verdict::Accepted)),
        invocations: vec![keyed("f", "a"), keyed("f", "b")],
    };
    let submitted = store.accept(submission).await.unwrap().unwrap();
    let id = submitted.delivery.unwrap();
    let read = store.delivery(&ns(), id).await.unwrap().unwrap();
    assert_eq!((read.verdict, read.body_kept), (Verdict::Accepted, body.len() as u64));
    assert_eq!(read.provider_id.as_deref(), Some("guid\u{fffd}"));
    assert_eq!(read.invocations, submitted.invocations.iter().map(|one| one.invocation).collect::<Vec<_>>());
    assert_eq!(store.delivery_body(&ns(), id).await.unwrap().unwrap(), body);
    let made = get(&store, read.invocations[1]).await;
    assert_eq!(made.cause.delivery, Some(id));
    assert_eq!(store.payload(&ns(), made.id).await.unwrap().unwrap(), &b"\0\xffraw"[..]);

    let other = runlet_core::name::Namespace::new("other").unwrap();
    assert!(store.delivery(&other, id).await.unwrap().is_none());
    assert!(store.delivery_body(&other, id).await.unwrap().is_none());
    assert!(store.invocation(&other, made.id).await.unwrap().is_none());
    assert!(store.payload(&other, made.id).await.unwrap().is_none());
}

#[tokio::test]
async fn bodies_of_strangers_are_kept_within_a_budget() {
    let (_db, store) = db_with_function().await;
    let mut kept = Vec::new();
    for _ in 0..4 {
        let id = store.refuse_delivery(delivery(b"12345678", Verdict::BadSignature), Some(20)).await.unwrap();
        kept.push(store.delivery(&ns(), id).await.unwrap().unwrap().body_kept);
    }
    assert_eq!(kept, [8, 8, 0, 0]);
    let id = store.refuse_delivery(delivery(b"12345678", Verdict::Ignored), None).await.unwrap();
    assert_eq!(store.delivery_body(&ns(), id).await.unwrap().unwrap(), &b"12345678"[..]);

    let path = HookPath::new("gh").unwrap();
    let page = store.deliveries(&ns(), Some(&path), None, 3).await.unwrap();
    let rest = store.deliveries(&ns(), None, Some(page[2].id), 9).await.unwrap();
    assert_eq!((page[0].id, page.len(), rest.len()), (id, 3, 2));
}

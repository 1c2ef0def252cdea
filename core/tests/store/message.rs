//! Messages of queues: what is kept of those that were too large, and what the end of their invocation does.

use bytes::Bytes;
use runlet_core::cause::{Cause, CauseKind};
use runlet_core::clock;
use runlet_core::name::QueueName;
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::StoreError;
use runlet_core::store::ledger::Finish;
use runlet_core::store::message::{Batch, CUT, Candidate, Choice, Ended, Fate, Free, Hints, NewMessage, Redrive};
use runlet_core::store::queue::Wakeup;

use crate::host::*;

#[tokio::test]
async fn a_message_of_which_only_the_beginning_is_here_does_not_go_again() {
    let (_db, store) = db_with_function().await;
    store.make_queue(&ns(), &QueueName::new("q").unwrap(), clock::now()).await.unwrap();
    let dead = |body: &'static [u8]| NewMessage {
        body: Bytes::from_static(body),
        dead: Some("it is too large".to_owned()),
        ..NewMessage::default()
    };
    let cut = NewMessage { attributes: [(CUT.to_owned(), "20000000".to_owned())].into(), ..dead(b"begi") };
    let published = store.publish(&ns(), "q", &[cut, dead(b"whole")]).await.unwrap().expect("it is there");
    let only = store.redrive(&ns(), "q", &Redrive::These(vec![published[0].id])).await;
    let Err(StoreError::Conflict(reason)) = only else { panic!("{only:?}") };
    assert!(reason.starts_with("only the beginning of this message is here, the whole had 20000000 bytes"), "{reason}");
    assert_eq!(store.redrive(&ns(), "q", &Redrive::Oldest(9)).await.unwrap(), Some(1), "the whole one");
    assert_eq!(store.redrive(&ns(), "q", &Redrive::Oldest(9)).await.unwrap(), Some(0));
}

#[tokio::test]
async fn an_end_deals_with_its_messages_unless_something_is_left_to_decide() {
    let (db, store) = db_with_function().await;
    store.deploy(revision("f", "[[trigger]]\ntype = \"queue\"\nqueue = \"q\"\nbatch_size = 2\n")).await.unwrap();
    let (ledger, _tasks) = ledger(&store);
    let consumer = store.consumers().await.unwrap().remove(0);
    let queue = (ns(), "q".to_owned());
    let messages = "SELECT count(*) FROM messages";
    let cases: [(Option<&str>, &'static [u8], Outcome, i64); 5] = [
        (None, b"null", Outcome::ok(), 0),
        (Some("k"), b"null", Outcome::ok(), 2),
        (None, b"{\"batchItemFailures\": []}", Outcome::ok(), 2),
        (None, b"{\"\\u0062atchItemFailures\": []}", Outcome::ok(), 2),
        (None, b"", Outcome::of(OutcomeKind::Error), 2),
    ];
    for (key, result, outcome, left) in cases {
        let message = || NewMessage { key: key.map(str::to_owned), ..NewMessage::default() };
        let keyed = if key.is_some() { 1 } else { 2 };
        let published: Vec<_> =
            (0..keyed).map(|_| message()).chain((keyed..2).map(|_| NewMessage::default())).collect();
        store.publish(&ns(), "q", &published).await.unwrap().expect("it is there");
        let batch = Batch {
            trigger: consumer.trigger,
            messages: vec![0, 1],
            payload: Bytes::new(),
            content_type: None,
            cause: Cause::of_kind(CauseKind::Queue),
        };
        let choice = |_: &[Candidate], _: &[Free]| Choice { batches: vec![batch], ..Choice::default() };
        let triggers = [(consumer.trigger, 9)];
        let taken = store.take(&queue, &triggers, &mut Hints::default(), 9, choice).await.unwrap().unwrap();
        assert_eq!(taken.invocations, 1);
        let claimed = claim_one(&store, "one").await;
        let mut wakeups = store.wakeups().await.unwrap();
        let end = Finish { of_messages: true, ..finish(&claimed, outcome) };
        let result = end.result.map(|(_, kind)| (Bytes::from_static(result), kind));
        assert!(ledger.finish(Finish { result, ..end }).await.unwrap());
        // Of a key's message the next one is to be let go: that one stays for the settlement, the other is dealt with.
        let left = if key.is_some() { left - 1 } else { left };
        assert_eq!(db.number(messages).await, left, "{key:?}");
        if left < 2 {
            while wakeups.next().await != Wakeup::Messages(ns(), "q".to_owned()) {}
        }
        let fates = |ended: &Ended| ended.messages.iter().map(|_| Fate::Done).collect();
        let settled = store.settle(&[claimed.invocation], fates).await.unwrap();
        assert_eq!((settled.is_empty(), db.number(messages).await), (left == 0, 0));
    }
}

#[tokio::test]
async fn plain_messages_need_a_queue_like_all_others() {
    let (_db, store) = db_with_function().await;
    let one = [NewMessage::default()];
    assert!(
        store.publish(&ns(), "q", &one).await.unwrap().is_none()
            && store.publish(&ns(), "q", &[]).await.unwrap().is_none()
    );
    store.make_queue(&ns(), &QueueName::new("q").unwrap(), clock::now()).await.unwrap();
    assert_eq!(store.publish(&ns(), "q", &one).await.unwrap().expect("it is there").len(), 1);
    assert!(store.publish(&ns(), "q", &[]).await.unwrap().expect("it is there").is_empty());
}

//! Work that is claimed by the statement that accepts it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use runlet_core::clock;
use runlet_core::engine::Submission;
use runlet_core::invocation::InvocationState;
use runlet_core::manifest::QueueTrigger;
use runlet_core::outcome::Outcome;
use runlet_core::precondition::Precondition;
use runlet_core::settings::Settings;
use runlet_core::store::Store;
use runlet_core::store::cron::{Decision, DueTick, DueTicks, Fate};
use runlet_core::store::function::Function;
use runlet_core::store::message::{Batch, Candidate, Choice, Free, Hints, NewMessage};
use runlet_core::store::queue::Claimed;
use runlet_core::store::queue::at_once::{Reserved, Starter};
use tokio::task::JoinSet;

use crate::host::*;

/// A server with so many places.
#[derive(Debug, Default)]
struct Places {
    free: AtomicU32,
    started: Mutex<Vec<Claimed>>,
}

/// One of them.
#[derive(Debug)]
struct Place(Arc<Places>);

#[derive(Debug)]
struct Desk(Arc<Places>);

impl Starter for Desk {
    fn reserve(&self, _: &Function) -> Option<Box<dyn Reserved>> {
        let taken = self.0.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| free.checked_sub(1));
        taken.ok().map(|_| Box::new(Place(Arc::clone(&self.0))) as Box<dyn Reserved>)
    }

    fn lease(&self) -> Duration {
        LEASE
    }
}

impl Reserved for Place {
    fn start(self: Box<Self>, claimed: Claimed) {
        self.0.started.lock().unwrap().push(claimed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::SeqCst);
    }
}

impl Places {
    fn free(&self) -> u32 {
        self.free.load(Ordering::SeqCst)
    }

    fn started(&self) -> Vec<Claimed> {
        std::mem::take(&mut *self.started.lock().unwrap())
    }
}

/// A store that starts work at once, and has seen the function.
async fn with_places(store: &Store, free: u32) -> Arc<Places> {
    let places = Arc::new(Places { free: free.into(), ..Places::default() });
    store.start_with(Arc::new(Desk(Arc::clone(&places))));
    store.current(&ns(), &name("f")).await.unwrap();
    places
}

#[tokio::test]
async fn what_can_start_at_once_is_claimed_as_it_is_accepted() {
    let (_db, store) = db_with_function().await;
    let places = with_places(&store, 1).await;
    let (ledger, _tasks) = ledger(&store);
    // By one statement, and in a transaction with a key.
    for new in [invocation("f"), keyed("f", "k")] {
        let id = accept(&store, new.clone()).await;
        let [claimed] = &places.started()[..] else { panic!("it starts") };
        assert_eq!((claimed.invocation, claimed.attempt, &claimed.cause), (id, 1, &new.cause));
        assert_eq!((claimed.payload.clone(), &claimed.content_type), (Ok(new.payload), &new.content_type));
        assert_eq!(store.queue_depth().await.unwrap(), (0, 1));
        assert_eq!(store.heartbeat("one", &[claimed.fence], LEASE).await.unwrap(), [claimed.fence]);
        assert!(store.claim("two", &room(9), LEASE).await.unwrap().work.is_empty());
        assert!(ledger.finish(finish(claimed, Outcome::ok())).await.unwrap());
        let read = get(&store, id).await;
        assert_eq!((read.state, read.attempts), (InvocationState::Succeeded, 1));
        assert_eq!(read.executions, [claimed.execution]);
    }
    accept(&store, keyed("f", "k")).await;
    assert!(places.started().is_empty(), "a repeat is nothing new");
    assert_eq!(places.free(), 1, "every place came back");

    // What is for later, or finds no place, waits.
    let mut later = invocation("f");
    later.not_before = Some(clock::now() + TimeDelta::seconds(60));
    accept(&store, later).await;
    places.free.store(0, Ordering::SeqCst);
    let waits = accept(&store, invocation("f")).await;
    assert!(places.started().is_empty());
    assert_eq!(claim_one(&store, "one").await.invocation, waits);
}

#[tokio::test]
async fn what_another_server_has_changed_is_not_started_as_it_was() {
    let (db, store) = db_with_function().await;
    let places = with_places(&store, 1).await;
    let other = db.store("two").await;
    let newer = revision("f", "timeout = \"7s\"\n");
    other.deploy(newer.clone()).await.unwrap();
    for new in [invocation("f"), keyed("f", "k")] {
        let id = accept(&store, new).await;
        assert_eq!(get(&store, id).await.revision, Some(newer.digest.clone()), "the one that is on record");
    }
    assert!(places.started().is_empty());

    let sees = async || store.current(&ns(), &name("f")).await.unwrap().unwrap().function.revision == newer.digest;
    until("the deploy is seen", sees).await;
    let set = Settings { pids: Some(50), set_at: Some(clock::now()), ..Settings::default() };
    other.set_settings(&ns(), &name("f"), &set, &Precondition::None).await.unwrap();
    accept(&store, invocation("f")).await;
    assert!(places.started().is_empty());
    assert_eq!((places.free(), store.queue_depth().await.unwrap()), (1, (3, 0)));

    other.remove_function(&ns(), &name("f"), &Precondition::None).await.unwrap();
    let submission = Submission { delivery: None, invocations: vec![invocation("f")] };
    assert_eq!(store.accept(submission).await.unwrap().unwrap_err(), name("f"));
}

#[tokio::test]
async fn a_claim_of_which_nobody_knows_whether_it_is_on_record_is_given_back() {
    let (db, store) = db_with_function().await;
    let places = with_places(&store, 0).await;
    // On each connection the statement is prepared from now on: it is sent as a whole.
    for _ in 0..16 {
        accept(&store, invocation("f")).await;
    }
    store.claim("two", &room(16), LEASE).await.unwrap();
    places.free.store(1, Ordering::SeqCst);
    let mut locked = db.sql.begin().await.unwrap();
    sqlx::query("LOCK TABLE queue IN EXCLUSIVE MODE").execute(&mut *locked).await.unwrap();
    let submission = Submission { delivery: None, invocations: vec![invocation("f")] };
    let mut accepting = JoinSet::new();
    let accepts = store.clone();
    accepting.spawn(async move { accepts.accept(submission).await });
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'queue'::regclass";
    until("the statement waits for the lock", async || db.number(waiting).await > 0).await;
    accepting.shutdown().await;
    assert_eq!(places.free(), 1);
    // The statement is under way all the same.
    locked.commit().await.unwrap();
    let claims = "SELECT count(*) FROM queue WHERE server = 'one'";
    until("it is on record", async || db.number(claims).await > 0).await;
    assert!(places.started().is_empty());
    assert!(store.reap_expired().await.unwrap().is_empty());
    let claimed = claim_one(&store, "two").await;
    assert_eq!(claimed.attempt, 1, "it was never executed");
}

#[tokio::test]
async fn ticks_and_messages_start_at_once_too() {
    const TRIGGERS: &str =
        "[[trigger]]\ntype = \"cron\"\nschedule = \"* * * * *\"\n[[trigger]]\ntype = \"queue\"\nqueue = \"q\"\n";
    let db = Db::new().await;
    let store = db.store("one").await;
    store.deploy(revision("f", TRIGGERS)).await.unwrap();
    let places = with_places(&store, 2).await;
    let schedule = store.schedules().await.unwrap().remove(0);
    let at = |second| schedule.cursor + TimeDelta::seconds(second);
    let tick = |second, delay| DueTick { at: at(second), missed: false, delay, body: "{\"n\":1}".into() };
    let due = DueTicks {
        trigger: schedule.trigger,
        rhythm: schedule.spec.rhythm(),
        from: schedule.cursor,
        overlap: schedule.spec.overlap,
        backlog: schedule.spec.backlog,
        ticks: vec![tick(60, Duration::ZERO), tick(120, Duration::from_secs(9)), tick(180, Duration::ZERO)],
        missed: vec![at(30)],
    };
    let fates = |_: &DueTicks, _| Decision { fates: vec![Fate::Fired, Fate::Fired, Fate::Held], cancel: false };
    store.fire(&[due], at(300), fates).await.unwrap();
    let [claimed] = &places.started()[..] else { panic!("the one that is due, and is not held") };
    assert_eq!((claimed.payload.as_deref(), claimed.cause.trigger), (Ok(&b"{\"n\":1}"[..]), Some(schedule.trigger)));

    let message = |body: &'static str| NewMessage { body: body.into(), ..NewMessage::default() };
    store.publish(&ns(), "q", &[message("a"), message("b"), message("c")]).await.unwrap().expect("it is there");
    let consumer = store.consumers().await.unwrap().remove(0);
    let QueueTrigger { max_in_flight, .. } = consumer.spec;
    let batch = |nth: usize, body: &str| Batch {
        trigger: consumer.trigger,
        messages: vec![nth],
        payload: body.to_owned().into(),
        content_type: None,
        cause: runlet_core::cause::Cause::of_kind(runlet_core::cause::CauseKind::Queue),
    };
    let queue = (ns(), "q".to_owned());
    let choose = |candidates: &[Candidate], _: &[Free]| {
        assert_eq!(candidates.len(), 3);
        Choice { batches: vec![batch(0, "a"), batch(1, "b"), batch(2, "c")], ..Choice::default() }
    };
    let triggers = [(consumer.trigger, max_in_flight)];
    let taken = store.take(&queue, &triggers, &mut Hints::default(), 9, choose).await.unwrap().unwrap();
    assert_eq!(taken.invocations, 3);
    let started = places.started();
    assert_eq!(started.iter().map(|one| one.payload.as_deref().unwrap()).collect::<Vec<_>>(), [b"a", b"b"]);
    assert_eq!(claim_one(&store, "one").await.payload.as_deref(), Ok(&b"c"[..]), "the third finds no place");
    assert_eq!(
        store.heartbeat("one", &started.iter().map(|one| one.fence).collect::<Vec<_>>(), LEASE).await.unwrap().len(),
        2
    );
}

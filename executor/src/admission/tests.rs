//! The book by example, and the gate with real waiters.

use std::collections::HashMap;
use std::time::Duration;

use runlet_core::name::{FunctionName, Namespace, RevisionDigest};
use tokio::time::Instant;

use super::state::{Arrival, Book, Place};
use super::want::Weights;
use super::{Admission, Bounds, FunctionKey, Handle, Kept, Refused, SandboxKey, Seat, Want};

pub(super) const MEMORY: u64 = 8;
pub(super) const SANDBOXES: u32 = 4;
pub(super) const WAITING: u32 = 6;
pub(super) const FUNCTIONS: usize = 3;

/// Functions 0 and 2 are of one namespace, 1 of another.
pub(super) fn namespace(n: usize) -> Namespace {
    Namespace::new(format!("n{}", n % 2)).unwrap()
}

pub(super) fn function(n: usize) -> FunctionKey {
    (namespace(n), FunctionName::new(format!("f{n}")).unwrap())
}

pub(super) fn sandbox(n: usize) -> SandboxKey {
    (namespace(n), RevisionDigest::from_sha256(&[u8::try_from(n).unwrap(); 32]))
}

pub(super) fn bounds(memory: u64, sandboxes: u32, waiting: u32) -> Bounds {
    Bounds { memory, sandboxes, waiting, grace: 0 }
}

pub(super) fn book<W>(bounds: Bounds) -> Book<u64, W> {
    Book::new(bounds, Weights::default(), || 0)
}

/// Function `n` may run `n + 1` times, and a sandbox of it needs `2 n + 1`; the last one is always fresh.
pub(super) fn want(n: usize) -> Want {
    Want {
        namespace: namespace(n),
        priority: 0,
        invocation: None,
        function: Some((function(n), u32::try_from(n).unwrap() + 1)),
        reuse: (n + 1 < FUNCTIONS).then(|| sandbox(n)),
        slots: 1,
        memory: 2 * n as u64 + 1,
    }
}

impl Handle for u64 {
    type Rest = ();

    fn open() -> (Self, ()) {
        (0, ())
    }

    fn share(&self) -> Self {
        *self
    }
}

pub(super) fn gate(memory: u64, waiting: u32) -> Admission<u64> {
    Admission::new(bounds(memory, 8, waiting), Weights::default())
}

pub(super) fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(30))
}

#[tokio::test]
async fn a_turn_that_comes_free_wakes_the_next_and_a_late_one_is_told_why() {
    let gate = gate(MEMORY, WAITING);
    let first = gate.acquire(want(0), soon(), true).await.unwrap();
    let (second, ()) = tokio::join!(gate.acquire(want(0), soon(), true), async { drop(first) });
    assert!(second.is_ok());
    assert_eq!(gate.acquire(want(0), soon(), true).await.unwrap_err(), Refused::NoTurn(1));
    assert_eq!(gate.usage().2, 0);
}

#[tokio::test]
async fn what_can_never_start_and_what_is_too_much_is_refused() {
    let gate = gate(2, 1);
    assert_eq!(gate.acquire(want(1), soon(), true).await.unwrap_err(), Refused::TooLarge { wanted: 3, total: 2 });
    let _held = gate.acquire(want(0), soon(), true).await.unwrap();
    let (one, two) = tokio::join!(gate.acquire(want(0), soon(), true), gate.acquire(want(0), soon(), true));
    assert_eq!((one.unwrap_err(), two.unwrap_err()), (Refused::NoTurn(1), Refused::Full(1)));
}

#[tokio::test]
async fn a_waiter_that_goes_away_leaves_nothing_behind() {
    let gate = gate(MEMORY, WAITING);
    let held = gate.acquire(want(0), None, true).await.unwrap();
    let gone = tokio::time::timeout(Duration::from_millis(5), gate.acquire(want(0), None, true)).await;
    assert!(gone.is_err());
    assert_eq!(gate.usage(), (1, 1, 0));
    drop(held);
    assert_eq!(gate.usage(), (0, 0, 0));
    assert!(gate.shares().functions.values().all(|share| share.running + share.waiting == 0));
}

#[tokio::test]
async fn who_comes_back_for_another_place_keeps_its_turn_and_goes_first() {
    let gate = gate(1, WAITING);
    let (turn, seat) = gate.acquire(want(0), None, true).await.unwrap();
    let Seat::New(room) = seat else { panic!("nothing is parked") };
    let other = Want { function: Some((function(1), 9)), reuse: None, memory: 1, ..want(1) };
    let waits = gate.acquire(other, None, true);
    let again = gate.again(want(0), None);
    tokio::pin!(waits, again);
    // Both wait: the other one first.
    for _ in 0..2 {
        tokio::select! {
            biased;
            _ = &mut waits => panic!("there is no room"),
            _ = &mut again => panic!("there is no room"),
            () = std::future::ready(()) => {}
        }
    }
    drop(room);
    let seat = again.await.unwrap();
    assert_eq!(gate.running(&function(0)), 1);
    drop((turn, seat));
    assert!(waits.await.is_ok());
}

#[tokio::test]
async fn closing_sends_everybody_away() {
    let gate = gate(MEMORY, WAITING);
    let (turn, seat) = gate.acquire(want(0), None, true).await.unwrap();
    let Seat::New(room) = seat else { panic!("nothing is parked") };
    gate.park(room.number(), function(0), sandbox(0), 1, room.number());
    let (waiter, ()) = tokio::join!(gate.acquire(want(0), None, true), async { gate.close() });
    assert_eq!(waiter.unwrap_err(), Refused::Closed);
    assert!(!gate.unpark(room.number(), false));
    assert_eq!(gate.acquire(want(1), None, true).await.unwrap_err(), Refused::Closed);
    drop((turn, room));
    assert_eq!(gate.usage(), (0, 0, 0));
}

/// One sandbox at a time, and A has 10,000 who wait.
fn crowded(grace: u64) -> (Book<u64, usize>, u64, std::sync::Arc<std::sync::atomic::AtomicU64>) {
    let now = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let clock = std::sync::Arc::clone(&now);
    let bounds = Bounds { grace, ..bounds(1, 1, 1_000_000) };
    let mut book: Book<u64, usize> =
        Book::new(bounds, Weights::default(), move || clock.load(std::sync::atomic::Ordering::Relaxed));
    let (Arrival::Start(Place::New(room)), _) = book.arrive(one(0), false, true, 0) else { panic!("it is empty") };
    for who in 1..=10_000 {
        assert!(matches!(book.arrive(one(0), false, true, who), (Arrival::Wait(_), _)));
    }
    (book, room, now)
}

fn one(n: usize) -> Want {
    Want { function: Some((function(n), 100)), reuse: Some(sandbox(n)), memory: 1, ..want(n) }
}

#[test]
fn with_ten_thousand_of_a_waiting_b_starts_within_one_slot_time() {
    for n in [1, 2] {
        let (mut book, room, _) = crowded(0);
        assert!(matches!(book.arrive(one(n), false, true, 77_777), (Arrival::Wait(_), _)));
        // A's execution ends. Its sandbox, in which the next of A could start, leaves; B has the room.
        let effects = book.park(room, function(0), sandbox(0), 1, room);
        assert!(effects.start.is_empty());
        assert_eq!(effects.evict, [room]);
        assert!(book.end_turn(&function(0)).start.is_empty());
        let effects = book.end_room(room);
        assert_eq!(effects.start.iter().map(|(who, ..)| *who).collect::<Vec<_>>(), [77_777], "function {n}");
    }
}

#[test]
fn for_a_short_while_a_sandbox_stays_with_who_has_more_to_do_for_it() {
    let (mut book, room, now) = crowded(20);
    book.arrive(one(1), false, true, 77_777).1.start.is_empty();
    for expected in 1..5 {
        assert!(book.park(room, function(0), sandbox(0), 1, room).evict.is_empty());
        let ended = book.end_turn(&function(0));
        let started = ended.start.iter().map(|(who, ..)| *who);
        // It was taken as soon as it was parked: A may run 100 at a time.
        assert!(started.count() == 0, "{expected}");
    }
    now.store(20, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(book.park(room, function(0), sandbox(0), 1, room).evict, [room]);
    assert!(book.end_turn(&function(0)).start.is_empty());
    assert_eq!(book.end_room(room).start[0].0, 77_777);
}

#[test]
fn whoever_fills_the_queue_makes_place_for_others() {
    let mut book: Book<u64, usize> = book(bounds(1, 1, 4));
    assert!(matches!(book.arrive(one(0), false, true, 0).0, Arrival::Start(_)));
    for who in 1..=4 {
        assert!(matches!(book.arrive(one(0), false, true, who).0, Arrival::Wait(_)));
    }
    assert!(matches!(book.arrive(one(0), false, true, 5).0, Arrival::Full));
    // Another namespace pushes out the last who came, until both have as many; so does another function.
    for (n, expected) in [(1, Some(4)), (1, Some(3)), (1, None), (2, Some(2)), (2, None)] {
        let (arrival, effects) = book.arrive(one(n), false, true, 100 + n);
        assert_eq!(effects.refuse.first().copied(), expected);
        assert_eq!(matches!(arrival, Arrival::Full), expected.is_none());
    }
    assert_eq!(book.usage().2, 4);
}

#[test]
fn priority_goes_first_and_age_catches_up() {
    let now = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let clock = std::sync::Arc::clone(&now);
    let mut book: Book<u64, &str> =
        Book::new(bounds(1, 1, 100), Weights::default(), move || clock.load(std::sync::atomic::Ordering::Relaxed));
    let mut come = |at: u64, priority: i16, who: &'static str| {
        now.store(at, std::sync::atomic::Ordering::Relaxed);
        book.arrive(Want { priority, reuse: None, ..one(0) }, false, true, who).0
    };
    let Arrival::Start(Place::New(mut room)) = come(0, 0, "runs") else { panic!("it is empty") };
    come(0, 0, "old");
    come(1_000, 0, "newer");
    come(4_900, 5, "higher");
    come(5_100, 5, "higher, and too late to be first");
    let mut order = Vec::new();
    for _ in 0..4 {
        book.end_turn(&function(0)).start.clear();
        let mut effects = book.end_room(room);
        let (who, place, _) = effects.start.remove(0);
        let Place::New(next) = place else { panic!("nothing is parked") };
        (room, order) = (next, [order, vec![who]].concat());
    }
    assert_eq!(order, ["higher", "old", "higher, and too late to be first", "newer"]);
}

#[test]
fn shares_follow_the_weights() {
    let weights = Weights::new(HashMap::from([(namespace(1), 3)]));
    let mut book: Book<u64, usize> = Book::new(bounds(1, 1, 1_000), weights, || 0);
    let fresh = |n| Want { reuse: None, ..one(n) };
    let (Arrival::Start(Place::New(mut room)), _) = book.arrive(fresh(0), false, true, 0) else { panic!("empty") };
    let mut running = 0;
    for who in 0..400 {
        assert!(matches!(book.arrive(fresh(who % 2), false, true, who).0, Arrival::Wait(_)));
    }
    let mut got = [0, 0];
    for _ in 0..100 {
        book.end_turn(&function(running)).start.clear();
        let mut effects = book.end_room(room);
        let (who, place, _) = effects.start.remove(0);
        let Place::New(next) = place else { panic!("nothing is parked") };
        (room, running) = (next, who % 2);
        got[running] += 1;
    }
    assert!((74..=76).contains(&got[1]), "{got:?}");
}

#[test]
fn a_resize_is_for_all_or_none_and_idle_sandboxes_of_others_make_room_for_it() {
    let mut book: Book<u64, usize> = book(bounds(10, 8, 8));
    let mut start = |n: usize, memory: u64| {
        let (Arrival::Start(Place::New(room)), _) = book.arrive(Want { memory, ..one(n) }, false, true, 0) else {
            panic!("there is room")
        };
        room
    };
    let (one, two, other) = (start(0, 2), start(0, 2), start(1, 4));
    assert_eq!(book.resize(&[one, two], 4).0, Err(2));
    assert_eq!(book.usage().0, 8);
    assert!(book.park(other, function(1), sandbox(1), 1, other).evict.is_empty());
    let (result, effects) = book.resize(&[one, two], 4);
    assert_eq!((result, effects.evict), (Err(2), vec![other]));
    assert!(book.end_room(other).start.is_empty());
    assert_eq!(book.resize(&[one, two], 4).0, Ok(()));
    assert_eq!(book.usage().0, 8);
    // What it took goes back as it is now.
    for room in [one, two] {
        book.end_turn(&function(0)).start.clear();
        book.end_room(room).start.clear();
    }
    assert_eq!(book.usage(), (0, 0, 0));
}

fn kept(least: u32) -> HashMap<FunctionKey, Kept> {
    let (function, (_, revision)) = (function(0), sandbox(0));
    HashMap::from([(function, Kept { revision, least, shared: false })])
}

#[test]
fn what_is_kept_leaves_last_and_does_not_cool_down() {
    let mut book: Book<u64, ()> = book(bounds(4, 4, WAITING));
    book.keep(kept(2));
    for _ in 0..3 {
        let room = book.kept_room(&function(0), 1).0.expect("there is room");
        assert!(book.park(room, function(0), sandbox(0), 1, room).evict.is_empty());
    }
    assert_eq!(book.ready(&function(0), &sandbox(0).1, false), 3);
    // All have been idle for too long: one more than are to be kept goes.
    assert_eq!(book.weed(|_, kept| kept).len(), 1);
    // One that is sick goes in any case.
    assert_eq!(book.weed(|_, _| false).len(), 2);
}

#[test]
fn a_call_goes_before_what_is_kept_and_that_before_what_is_nobodys() {
    let mut book: Book<u64, ()> = book(bounds(4, 4, WAITING));
    book.keep(kept(2));
    let spares: Vec<u64> = (0..4).map(|_| book.spare_room(1).expect("there is room")).collect();
    for spare in &spares {
        assert!(book.park_spare(*spare, *spare).evict.is_empty());
    }
    let (none, effects) = book.kept_room(&function(0), 1);
    assert_eq!((none, effects.evict), (None, vec![spares[0]]), "one that is nobody's leaves for it");
    assert!(book.end_room(spares[0]).evict.is_empty());
    assert_eq!(book.spare_room(1), None, "and the room is not for another of those");
    let first = book.kept_room(&function(0), 1).0.expect("it came free");
    assert!(book.park(first, function(0), sandbox(0), 1, first).evict.is_empty());
    // A call that needs all there is: those that are nobody's leave first, what is kept after them.
    let large = Want { memory: 4, ..want(1) };
    let (arrival, effects) = book.arrive(large, false, true, ());
    assert!(matches!(arrival, Arrival::Wait(_)));
    assert_eq!(effects.evict, [spares[1], spares[2], spares[3], first]);
    assert_eq!(book.kept_room(&function(0), 1).0, None, "somebody waits");
}

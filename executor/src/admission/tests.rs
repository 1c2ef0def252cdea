//! The book against a plain model of it, and the gate with real waiters.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;
use runlet_core::name::{FunctionName, Namespace, RevisionDigest};
use tokio::time::Instant;

use super::state::{Arrival, Book, Effects, Place};
use super::{Admission, Bounds, FunctionKey, Handle, Refused, SandboxKey, Seat, Want};

const MEMORY: u64 = 8;
const SANDBOXES: u32 = 4;
pub(super) const WAITING: u32 = 6;
const FUNCTIONS: usize = 3;

pub(super) fn function(n: usize) -> FunctionKey {
    (Namespace::default_namespace(), FunctionName::new(format!("f{n}")).unwrap())
}

pub(super) fn sandbox(n: usize) -> SandboxKey {
    (Namespace::default_namespace(), RevisionDigest::from_sha256(&[u8::try_from(n).unwrap(); 32]))
}

/// Function `n` may run `n + 1` times, and a sandbox of it needs `2 n + 1`; the last one is always fresh.
pub(super) fn want(n: usize) -> Want {
    Want {
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

#[derive(Debug, Clone)]
enum Op {
    Arrive {
        function: usize,
        counted: bool,
    },
    /// The nth execution ends; its sandbox is parked if it may be.
    End {
        nth: usize,
        park: bool,
    },
    /// The nth evicted or used sandbox is gone.
    Gone(usize),
    /// The nth waiter gives up.
    Leave(usize),
    /// The nth parked sandbox ends by itself.
    Break(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..FUNCTIONS, any::<bool>()).prop_map(|(function, counted)| Op::Arrive { function, counted }),
        3 => (0..8_usize, any::<bool>()).prop_map(|(nth, park)| Op::End { nth, park }),
        2 => (0..8_usize).prop_map(Op::Gone),
        1 => (0..8_usize).prop_map(Op::Leave),
        1 => (0..8_usize).prop_map(Op::Break),
    ]
}

/// A sandbox, as the model knows it. Its room's number is its handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    room: u64,
    function: usize,
}

/// What ought to be true, kept in the simplest way.
struct Model {
    book: Book<u64, usize>,
    functions: Vec<usize>,
    waiting: Vec<(usize, u64, bool)>,
    running: Vec<Known>,
    parked: Vec<Known>,
    leaving: Vec<Known>,
    /// The function whose execution has given its sandbox back and still has its turn.
    ending: Option<usize>,
    started: Vec<usize>,
}

fn memory(function: usize) -> u64 {
    want(function).memory
}

impl Model {
    fn new() -> Self {
        let book = Book::new(Bounds { memory: MEMORY, sandboxes: SANDBOXES, waiting: WAITING });
        Self {
            book,
            functions: Vec::new(),
            waiting: Vec::new(),
            running: Vec::new(),
            parked: Vec::new(),
            leaving: Vec::new(),
            ending: None,
            started: Vec::new(),
        }
    }

    fn start(&mut self, who: usize, place: &Place<u64>) {
        let function = self.functions[who];
        let room = match *place {
            Place::New(room, size) => {
                assert_eq!(size, memory(function));
                self.check_room_is_given_in_order(who);
                room
            }
            Place::Parked(room) => {
                let at = self.parked.iter().position(|parked| parked.room == room).expect("it is parked");
                assert_eq!(self.parked.remove(at).function, function, "a sandbox served somebody else");
                room
            }
            Place::Shared(..) | Place::Opening(..) => panic!("nobody shares here"),
        };
        self.running.push(Known { room, function });
        self.started.push(who);
    }

    fn evict(&mut self, rooms: Vec<u64>) {
        for room in rooms {
            let at =
                self.parked.iter().position(|parked| parked.room == room).expect("only parked ones are told to leave");
            self.leaving.push(self.parked.remove(at));
        }
    }

    fn effects(&mut self, effects: Effects<u64, usize>) {
        self.evict(effects.evict);
        for (who, place, turn) in effects.start {
            assert_eq!(turn, Some(function(self.functions[who])));
            let at = self.waiting.iter().position(|(waiter, ..)| *waiter == who).expect("it waits");
            self.waiting.remove(at);
            self.start(who, &place);
        }
    }

    fn arrive(&mut self, function: usize, counted: bool) {
        let who = self.functions.len();
        self.functions.push(function);
        let full = self.waiting.iter().filter(|(.., counted)| *counted).count() >= WAITING as usize;
        let (arrival, evict) = self.book.arrive(want(function), false, counted, who);
        self.evict(evict);
        match arrival {
            Arrival::Start(place) => self.start(who, &place),
            Arrival::Wait(ticket) => {
                assert!(!(full && counted), "more wait than may");
                self.waiting.push((who, ticket, counted));
            }
            Arrival::Full => assert!(full && counted),
            Arrival::Closed => panic!("it is open"),
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Arrive { function, counted } => self.arrive(function, counted),
            Op::End { nth, park } if !self.running.is_empty() => {
                let ended = self.running.remove(nth % self.running.len());
                self.ending = Some(ended.function);
                if park && want(ended.function).reuse.is_some() {
                    self.parked.push(ended);
                    let room = (ended.room, memory(ended.function));
                    let effects =
                        self.book.park(room, Some((function(ended.function), sandbox(ended.function))), ended.room);
                    self.effects(effects);
                } else {
                    self.leaving.push(ended);
                }
                self.ending = None;
                let effects = self.book.end_turn(&function(ended.function));
                self.effects(effects);
            }
            Op::Gone(nth) if !self.leaving.is_empty() => {
                let gone = self.leaving.remove(nth % self.leaving.len());
                let effects = self.book.end_room(gone.room, memory(gone.function));
                self.effects(effects);
            }
            Op::Leave(nth) if !self.waiting.is_empty() => {
                let (_, ticket, _) = self.waiting.remove(nth % self.waiting.len());
                let (found, effects) = self.book.leave(ticket);
                assert!(found);
                self.effects(effects);
            }
            Op::Break(nth) if !self.parked.is_empty() => {
                let broken = self.parked.remove(nth % self.parked.len());
                assert_eq!(self.book.unpark(broken.room, false), (true, Some(broken.room)));
                self.leaving.push(broken);
            }
            _ => {}
        }
    }

    fn check(&self) {
        let existing: Vec<Known> =
            [&self.running, &self.parked, &self.leaving].into_iter().flatten().copied().collect();
        let used: u64 = existing.iter().map(|one| memory(one.function)).sum();
        assert!(used <= MEMORY && existing.len() <= SANDBOXES as usize, "the host is overcommitted");
        assert_eq!(self.book.usage(), (used, u32::try_from(existing.len()).unwrap(), self.waiting.len()));
        let rooms: HashSet<u64> = existing.iter().map(|one| one.room).collect();
        assert_eq!(rooms.len(), existing.len());
        let mut running = HashMap::new();
        for one in &self.running {
            *running.entry(one.function).or_insert(0_usize) += 1;
        }
        assert!(running.iter().all(|(function, n)| *n <= function + 1), "a function runs more than it may");
        self.check_nobody_waits_in_vain(&running, used, existing.len());
        self.check_order();
    }

    /// Whoever waits could not start: its function is full, or there is no parked sandbox for it and either no room or
    /// somebody before it who waits for room; and then nothing is parked that could make that room at once.
    fn check_nobody_waits_in_vain(&self, running: &HashMap<usize, usize>, used: u64, existing: usize) {
        let mut short = false;
        for (who, ..) in &self.waiting {
            let function = self.functions[*who];
            if running.get(&function).is_some_and(|n| *n > function) {
                continue;
            }
            assert!(!self.parked.iter().any(|parked| parked.function == function), "a parked sandbox was overlooked");
            if !short {
                let fits = used + memory(function) <= MEMORY && existing < SANDBOXES as usize;
                assert!(!fits, "room was overlooked");
                let leaving: u64 = self.leaving.iter().map(|one| memory(one.function)).sum();
                let will_fit =
                    used - leaving + memory(function) <= MEMORY && existing - self.leaving.len() < SANDBOXES as usize;
                assert!(will_fit || self.parked.is_empty(), "parked sandboxes stand in the way");
            }
            short = true;
        }
    }

    /// Nobody gets room while one who came before has a turn and lacks only room.
    fn check_room_is_given_in_order(&self, who: usize) {
        for (other, ..) in self.waiting.iter().filter(|(other, ..)| *other < who) {
            let function = self.functions[*other];
            let running = self.running.iter().map(|one| one.function).chain(self.ending);
            let running = running.filter(|one| *one == function).count();
            assert!(running > function, "room was given past one who waits for room");
        }
    }

    /// Among equals, who came first starts first.
    fn check_order(&self) {
        for (who, ..) in &self.waiting {
            let function = self.functions[*who];
            let overtook = self.started.iter().any(|other| self.functions[*other] == function && other > who);
            assert!(!overtook, "a later call of the same function was first");
        }
    }
}

proptest! {
    #[test]
    fn limits_hold_nobody_waits_in_vain_and_all_start_in_the_end(ops in proptest::collection::vec(op(), 1..120)) {
        let mut model = Model::new();
        for op in ops {
            model.step(op);
            model.check();
        }
        // Once everything ends, everybody who waits gets a turn.
        while !model.waiting.is_empty() {
            prop_assert!(!(model.running.is_empty() && model.leaving.is_empty()), "stuck");
            model.step(Op::End { nth: 0, park: false });
            model.check();
            model.step(Op::Gone(0));
            model.check();
        }
    }
}

pub(super) fn gate(memory: u64, waiting: u32) -> Admission<u64> {
    Admission::new(Bounds { memory, sandboxes: 8, waiting })
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
    assert!(gate.used().is_empty());
}

#[tokio::test]
async fn who_comes_back_for_another_place_keeps_its_turn_and_goes_first() {
    let gate = gate(1, WAITING);
    let (turn, seat) = gate.acquire(want(0), None, true).await.unwrap();
    let Seat::New(room) = seat else { panic!("nothing is parked") };
    let other = Want { function: Some((function(1), 9)), reuse: None, slots: 1, memory: 1 };
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
    gate.park(room.number(), room.memory(), function(0), sandbox(0), room.number());
    let (waiter, ()) = tokio::join!(gate.acquire(want(0), None, true), async { gate.close() });
    assert_eq!(waiter.unwrap_err(), Refused::Closed);
    assert!(!gate.unpark(room.number(), false));
    assert_eq!(gate.acquire(want(1), None, true).await.unwrap_err(), Refused::Closed);
    drop((turn, room));
    assert_eq!(gate.usage(), (0, 0, 0));
}

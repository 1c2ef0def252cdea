//! The book against a plain model of it.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::state::{Arrival, Book, Effects, Place};
use super::tests::{FUNCTIONS, MEMORY, SANDBOXES, WAITING, book, bounds, function, namespace, sandbox, want};

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
    /// For each line that waits with a free turn: how many rooms each other one has got since.
    passed: HashMap<usize, HashMap<usize, u32>>,
    /// How often each has found a parked sandbox: that counts as well, and others have their share after it.
    reused: HashMap<usize, u32>,
}

fn memory(function: usize) -> u64 {
    want(function).memory
}

impl Model {
    fn new() -> Self {
        let book = book(bounds(MEMORY, SANDBOXES, WAITING));
        Self {
            book,
            functions: Vec::new(),
            waiting: Vec::new(),
            running: Vec::new(),
            parked: Vec::new(),
            leaving: Vec::new(),
            ending: None,
            started: Vec::new(),
            passed: HashMap::new(),
            reused: HashMap::new(),
        }
    }

    fn start(&mut self, who: usize, place: &Place<u64>) {
        let function = self.functions[who];
        let room = match *place {
            Place::New(room) => {
                self.check_room_is_given_fairly(function);
                room
            }
            Place::Parked(room) => {
                *self.reused.entry(function).or_default() += 1;
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
        for who in effects.refuse {
            let at = self.waiting.iter().position(|(waiter, _, counted)| *waiter == who && *counted);
            self.waiting.remove(at.expect("only those are pushed out who wait and count"));
        }
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
        let bounded = |model: &Self| model.waiting.iter().filter(|(.., counted)| *counted).count();
        let full = bounded(self) >= WAITING as usize;
        let (arrival, effects) = self.book.arrive(want(function), false, counted, who);
        match arrival {
            Arrival::Start(place) => self.start(who, &place),
            Arrival::Wait(ticket) => {
                assert!(!(full && counted) || effects.refuse.len() == 1, "more wait than may");
                self.waiting.push((who, ticket, counted));
            }
            Arrival::Full => assert!(full && counted),
            Arrival::Closed => panic!("it is open"),
        }
        self.effects(effects);
        assert!(bounded(self) <= WAITING as usize);
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Arrive { function, counted } => self.arrive(function, counted),
            Op::End { nth, park } if !self.running.is_empty() => {
                let ended = self.running.remove(nth % self.running.len());
                self.ending = Some(ended.function);
                if park && want(ended.function).reuse.is_some() {
                    self.parked.push(ended);
                    let effects =
                        self.book.park(ended.room, function(ended.function), sandbox(ended.function), 1, ended.room);
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
                let effects = self.book.end_room(gone.room);
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

    fn check(&mut self) {
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
        let eligible = self.eligible(&running);
        self.passed.retain(|function, _| eligible.contains(function));
        for function in eligible {
            self.passed.entry(function).or_default();
        }
    }

    /// The functions that have a free turn and somebody who waits.
    fn eligible(&self, running: &HashMap<usize, usize>) -> HashSet<usize> {
        let free = |function: &usize| running.get(function).is_none_or(|n| n <= function);
        self.waiting.iter().map(|(who, ..)| self.functions[*who]).filter(free).collect()
    }

    /// Whoever waits could not start: its function is full, or there is no parked sandbox for it and no room for the first; and
    /// then nothing is parked that could make that room at once.
    fn check_nobody_waits_in_vain(&self, running: &HashMap<usize, usize>, used: u64, existing: usize) {
        let eligible = self.eligible(running);
        for function in &eligible {
            assert!(!self.parked.iter().any(|parked| parked.function == *function), "a parked sandbox was overlooked");
        }
        let Some(ticket) = self.book.candidate() else {
            assert!(eligible.is_empty(), "nobody is first, and some wait for room");
            return;
        };
        let first = self.waiting.iter().find(|(_, other, _)| *other == ticket).expect("the first waits");
        let first = self.functions[first.0];
        assert!(eligible.contains(&first));
        let fits = used + memory(first) <= MEMORY && existing < SANDBOXES as usize;
        assert!(!fits, "room was overlooked");
        let leaving: u64 = self.leaving.iter().map(|one| memory(one.function)).sum();
        let will_fit = used - leaving + memory(first) <= MEMORY && existing - self.leaving.len() < SANDBOXES as usize;
        assert!(will_fit || self.parked.is_empty(), "parked sandboxes stand in the way");
    }

    /// While one waits for room, no other of its namespace gets it more than twice, nor the other namespace, but for what
    /// is due to them.
    fn check_room_is_given_fairly(&mut self, to: usize) {
        // Who has just given up waits no more.
        self.passed.retain(|function, _| self.waiting.iter().any(|(who, ..)| self.functions[*who] == *function));
        for (function, passed) in &mut self.passed {
            if *function == to {
                continue;
            }
            *passed.entry(to).or_default() += 1;
            let is_own = |one: usize| namespace(one) == namespace(*function);
            let sum = |of: &HashMap<usize, u32>, own: bool| -> u32 {
                of.iter().filter(|(one, _)| is_own(**one) == own).map(|(_, times)| times).sum()
            };
            let (own, other, due) = (sum(passed, true), sum(passed, false), sum(&self.reused, true));
            assert!(own <= 2 + due, "{function} waits, and another of its namespace got room {own} times");
            assert!(other <= 2 + own + due, "{function} waits, and the other namespace got room {other} times");
        }
        self.passed.remove(&to);
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

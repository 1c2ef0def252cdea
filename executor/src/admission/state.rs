//! Who may start now: plain bookkeeping, without clocks, tasks or locks.
//!
//! A waiter starts when its function has a free turn, and there is either a parked sandbox of its revision or room for
//! a new one. Order is first come, first served, with two ways past an earlier waiter, neither of which takes anything
//! from it: another function may go past one that is at its own maximum, and one that finds a parked sandbox may go
//! past one that waits for room. Room is never given to a later waiter while an earlier one waits for room: a large
//! sandbox does not starve behind small ones. To make room, parked sandboxes are told to leave, longest parked first.
//! A sandbox that several calls share is as good as parked for whoever finds a free slot in it.

use std::collections::{HashMap, VecDeque};

use runlet_core::name::RevisionDigest;

use super::Handle;
use super::lot::{Lot, Parked, Taken};
use super::want::{Bounds, FunctionKey, SandboxKey, Want};

/// How a function stands.
#[derive(Debug, Default, Clone, Copy)]
struct Load {
    running: u32,
    waiting: u32,
}

/// Where an execution may run, as the book knows it.
#[derive(Debug)]
pub(super) enum Place<T: Handle> {
    /// In this parked sandbox.
    Parked(T),
    /// In a new sandbox: number and size of its room.
    New(u64, u64),
    /// In a sandbox that it shares with others: the number of its room.
    Shared(T, u64),
    /// In a new sandbox that others may share, with what it takes to serve them.
    Opening(u64, u64, T, T::Rest),
}

#[derive(Debug)]
struct Waiter<W> {
    ticket: u64,
    want: Want,
    /// Whether it has its turn already and lacks only a place.
    has_turn: bool,
    /// Whether it is among those that [`Bounds::waiting`] bounds.
    counted: bool,
    answer: W,
}

/// What became of one who came.
#[derive(Debug)]
pub(super) enum Arrival<T: Handle> {
    /// It may start.
    Start(Place<T>),
    /// It waits under this ticket.
    Wait(u64),
    /// Too many wait already.
    Full,
    /// Nobody may start any more.
    Closed,
}

/// What a change made happen; to be carried out once the lock is free.
#[derive(Debug)]
#[must_use]
pub(super) struct Effects<T: Handle, W> {
    /// Waiters that may start: where, and the turn that was taken for them.
    pub(super) start: Vec<(W, Place<T>, Option<FunctionKey>)>,
    /// Parked sandboxes that have to leave.
    pub(super) evict: Vec<T>,
}

/// The book: `T` is a handle on a parked sandbox, `W` is how a waiter is answered.
#[derive(Debug)]
pub(super) struct Book<T: Handle, W> {
    bounds: Bounds,
    memory: u64,
    sandboxes: u32,
    /// Rooms that will come free without anybody's doing, and their memory.
    leaving: HashMap<u64, u64>,
    loads: HashMap<FunctionKey, Load>,
    lot: Lot<T>,
    queue: VecDeque<Waiter<W>>,
    counted: u32,
    /// Whether somebody in the queue waits for room.
    short_of_room: bool,
    closed: bool,
    next: u64,
}

impl<T: Handle, W> Book<T, W> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            memory: 0,
            sandboxes: 0,
            leaving: HashMap::new(),
            loads: HashMap::new(),
            lot: Lot::new(),
            queue: VecDeque::new(),
            counted: 0,
            short_of_room: false,
            closed: false,
            next: 0,
        }
    }

    /// Memory promised, sandboxes that exist, waiters.
    pub(super) fn usage(&self) -> (u64, u32, usize) {
        (self.memory, self.sandboxes, self.queue.len())
    }

    /// Sandboxes that wait for their next execution, and those that are nobody's yet.
    pub(super) fn parked(&self) -> (u32, u32) {
        let (idle, spare) = (self.lot.idle().0, self.lot.spare());
        (idle - spare, spare)
    }

    /// Somebody comes and wants to start. `has_turn`: it comes back with its turn, and goes to the head of the queue.
    pub(super) fn arrive(&mut self, want: Want, has_turn: bool, counted: bool, answer: W) -> (Arrival<T>, Vec<T>) {
        if self.closed {
            return (Arrival::Closed, Vec::new());
        }
        let waits_for_room = has_turn || self.has_free_turn(&want);
        if waits_for_room && let Some(place) = self.place(&want, self.short_of_room && !has_turn) {
            if !has_turn {
                self.take_turn(&want);
            }
            return (Arrival::Start(place), Vec::new());
        }
        if counted && self.counted >= self.bounds.waiting {
            return (Arrival::Full, Vec::new());
        }
        let evict =
            if waits_for_room && (has_turn || !self.short_of_room) { self.make_room(want.memory) } else { Vec::new() };
        self.short_of_room |= waits_for_room;
        self.next += 1;
        let ticket = self.next;
        self.counted += u32::from(counted);
        if let (Some(key), false) = (want.key(), has_turn) {
            self.loads.entry(key.clone()).or_default().waiting += 1;
        }
        let waiter = Waiter { ticket, want, has_turn, counted, answer };
        if has_turn {
            self.queue.push_front(waiter)
        } else {
            self.queue.push_back(waiter)
        }
        (Arrival::Wait(ticket), evict)
    }

    /// A waiter gives up; `false` if it waits no more.
    pub(super) fn leave(&mut self, ticket: u64) -> (bool, Effects<T, W>) {
        let Some(at) = self.queue.iter().position(|waiter| waiter.ticket == ticket) else {
            return (false, Effects { start: Vec::new(), evict: Vec::new() });
        };
        self.remove_waiter(at);
        (true, self.pump())
    }

    /// Whether a waiter waits for its turn (else for room); `None` if it waits no more.
    pub(super) fn waits_for_turn(&self, ticket: u64) -> Option<bool> {
        let waiter = self.queue.iter().find(|waiter| waiter.ticket == ticket)?;
        Some(!waiter.has_turn && !self.has_free_turn(&waiter.want))
    }

    /// An execution of the function has ended.
    pub(super) fn end_turn(&mut self, key: &FunctionKey) -> Effects<T, W> {
        if let Some(load) = self.loads.get_mut(key) {
            load.running = load.running.saturating_sub(1);
        }
        self.forget_load(key);
        self.pump()
    }

    /// A sandbox is gone.
    pub(super) fn end_room(&mut self, room: u64, memory: u64) -> Effects<T, W> {
        self.leaving.remove(&room);
        let shared = self.lot.remove(room);
        self.memory = self.memory.saturating_sub(memory);
        self.sandboxes = self.sandboxes.saturating_sub(1);
        let mut effects = self.pump();
        effects.evict.extend(shared.map(|parked| parked.handle));
        effects
    }

    /// A sandbox wants to have another size; `false` if there is no room for that.
    pub(super) fn resize_room(&mut self, old: u64, new: u64) -> (bool, Effects<T, W>) {
        let memory = self.memory.saturating_sub(old).saturating_add(new);
        if new > old && (memory > self.bounds.memory || self.short_of_room) {
            return (false, Effects { start: Vec::new(), evict: Vec::new() });
        }
        self.memory = memory;
        (true, self.pump())
    }

    /// Room for a sandbox that is nobody's yet: only what no one else wants now.
    pub(super) fn spare_room(&mut self, memory: u64) -> Option<u64> {
        let fits = self.memory.saturating_add(memory) <= self.bounds.memory && self.sandboxes < self.bounds.sandboxes;
        if self.closed || self.short_of_room || !fits {
            return None;
        }
        self.memory += memory;
        self.sandboxes += 1;
        self.next += 1;
        Some(self.next)
    }

    /// A sandbox is free for the next execution of its revision.
    pub(super) fn park(
        &mut self,
        (room, memory): (u64, u64),
        owner: Option<(FunctionKey, SandboxKey)>,
        handle: T,
    ) -> Effects<T, W> {
        if self.closed {
            self.leaving.insert(room, memory);
            return Effects { start: Vec::new(), evict: vec![handle] };
        }
        self.lot.put(Parked { room, memory, owner, handle, slots: 1, free: 1 });
        self.pump()
    }

    /// A call has left the sandbox that it shared.
    pub(super) fn end_slot(&mut self, room: u64) -> Effects<T, W> {
        self.lot.give_back(room);
        self.pump()
    }

    /// A parked sandbox ends by itself; `false` if it is parked no more: somebody has taken it, or told it to leave. One
    /// that is shared ends by itself only while nobody is in it, unless it is `unfit`.
    pub(super) fn unpark(&mut self, room: u64, unfit: bool) -> (bool, Option<T>) {
        if !unfit && !self.lot.is_idle(room) {
            return (false, None);
        }
        let parked = self.lot.remove(room);
        (parked.is_some(), parked.map(|parked| self.leave_lot(parked)))
    }

    /// Takes out what is parked for the function and is not of revision `keep`.
    pub(super) fn retire(&mut self, function: &FunctionKey, keep: &RevisionDigest) -> Vec<T> {
        let retired = self.lot.remove_where(|parked| parked.is_other(function, keep));
        retired.into_iter().map(|parked| self.leave_lot(parked)).collect()
    }

    /// Takes out what is parked and may not stay.
    pub(super) fn weed(&mut self, mut may_stay: impl FnMut(&mut T) -> bool) -> Vec<T> {
        let weeds = self.lot.remove_where(|parked| !may_stay(&mut parked.handle));
        weeds.into_iter().map(|parked| self.leave_lot(parked)).collect()
    }

    /// A sandbox that nobody finds any more: if nobody is in it, its room will come free soon.
    fn leave_lot(&mut self, parked: Parked<T>) -> T {
        if parked.is_idle() {
            self.leaving.insert(parked.room, parked.memory);
        }
        parked.handle
    }

    /// From now on nobody starts. Takes out everything that is parked, and all waiters.
    pub(super) fn close(&mut self) -> (Vec<T>, Vec<W>) {
        self.closed = true;
        let mut answers = Vec::new();
        while !self.queue.is_empty() {
            answers.push(self.remove_waiter(0).answer);
        }
        self.short_of_room = false;
        let parked = self.lot.remove_where(|_| true);
        (parked.into_iter().map(|parked| self.leave_lot(parked)).collect(), answers)
    }

    /// How many sandboxes could start now, and the memory for them, bytes. None while somebody waits for room.
    pub(super) fn spare(&self) -> (u32, u64) {
        if self.short_of_room || self.closed {
            return (0, 0);
        }
        let (parked, memory) = self.lot.idle();
        (
            self.bounds.sandboxes.saturating_sub(self.sandboxes).saturating_add(parked),
            self.bounds.memory.saturating_sub(self.memory) + memory,
        )
    }

    /// The turns that are taken or waited for, of each function that has such.
    pub(super) fn used(&self) -> Vec<(FunctionKey, u32)> {
        self.loads.iter().map(|(key, load)| (key.clone(), load.running + load.waiting)).collect()
    }

    /// Executions of the function that run.
    pub(super) fn running(&self, key: &FunctionKey) -> u32 {
        self.loads.get(key).map_or(0, |load| load.running)
    }

    fn has_free_turn(&self, want: &Want) -> bool {
        want.function.as_ref().is_none_or(|(key, max)| self.running(key) < *max)
    }

    fn take_turn(&mut self, want: &Want) {
        if let Some(key) = want.key() {
            self.loads.entry(key.clone()).or_default().running += 1;
        }
    }

    fn forget_load(&mut self, key: &FunctionKey) {
        if self.loads.get(key).is_some_and(|load| load.running == 0 && load.waiting == 0) {
            self.loads.remove(key);
        }
    }

    /// A place for it: the sandbox that was parked last, or, unless it `may_not_take_room`, room.
    fn place(&mut self, want: &Want, may_not_take_room: bool) -> Option<Place<T>> {
        match want.reuse.as_ref().and_then(|key| self.lot.take(key)) {
            Some(Taken::Whole(handle)) => return Some(Place::Parked(handle)),
            Some(Taken::Slot(handle, room)) => return Some(Place::Shared(handle, room)),
            None => {}
        }
        let fits =
            self.memory.saturating_add(want.memory) <= self.bounds.memory && self.sandboxes < self.bounds.sandboxes;
        if may_not_take_room || !fits {
            return None;
        }
        self.memory += want.memory;
        self.sandboxes += 1;
        self.next += 1;
        let room = self.next;
        // One that is shared can be found from now on: who comes next waits for it rather than for another.
        if let (Some(key), Some(function), 2..) = (&want.reuse, want.key(), want.slots) {
            let (handle, rest) = T::open();
            let mine = handle.share();
            let (owner, slots) = (Some((function.clone(), key.clone())), want.slots);
            self.lot.put(Parked { room, memory: want.memory, owner, handle, slots, free: slots - 1 });
            return Some(Place::Opening(room, want.memory, mine, rest));
        }
        Some(Place::New(room, want.memory))
    }

    /// Tells parked sandboxes to leave until, once they have left, there is room for `memory` bytes.
    fn make_room(&mut self, memory: u64) -> Vec<T> {
        let mut evict = Vec::new();
        loop {
            let leaving: u64 = self.leaving.values().sum();
            let leavers = u32::try_from(self.leaving.len()).unwrap_or(u32::MAX);
            let fits = self.memory.saturating_sub(leaving).saturating_add(memory) <= self.bounds.memory;
            if fits && self.sandboxes.saturating_sub(leavers) < self.bounds.sandboxes {
                break;
            }
            let Some(parked) = self.lot.remove_longest_idle() else { break };
            evict.push(self.leave_lot(parked));
        }
        evict
    }

    fn remove_waiter(&mut self, at: usize) -> Waiter<W> {
        let waiter = self.queue.remove(at).expect("the caller has found it there");
        self.counted -= u32::from(waiter.counted);
        if let (Some(key), false) = (waiter.want.key(), waiter.has_turn) {
            if let Some(load) = self.loads.get_mut(key) {
                load.waiting = load.waiting.saturating_sub(1);
            }
            self.forget_load(key);
        }
        waiter
    }

    /// Starts every waiter that can, in order.
    fn pump(&mut self) -> Effects<T, W> {
        let mut effects = Effects { start: Vec::new(), evict: Vec::new() };
        self.short_of_room = false;
        let mut at = 0;
        while let Some(waiter) = self.queue.get(at) {
            if !waiter.has_turn && !self.has_free_turn(&waiter.want) {
                at += 1;
                continue;
            }
            let want = waiter.want.clone();
            if let Some(place) = self.place(&want, self.short_of_room) {
                let waiter = self.remove_waiter(at);
                if !waiter.has_turn {
                    self.take_turn(&want);
                }
                let turn = want.key().filter(|_| !waiter.has_turn).cloned();
                effects.start.push((waiter.answer, place, turn));
                continue;
            }
            if !self.short_of_room {
                effects.evict.extend(self.make_room(want.memory));
                self.short_of_room = true;
            }
            at += 1;
        }
        effects
    }
}

//! Who may start now: plain bookkeeping, without tasks or locks; the only clock is the one it is given.
//!
//! A waiter starts when its function has a free turn, and there is either a parked sandbox of its revision or room for
//! a new one. Room is given by [fair shares](super::fair): to the namespace that has had least for its weight, there to the function that
//! has had least, there by priority and age. Whoever is first for room is waited for: a large sandbox does not starve behind small
//! ones. Nothing that can start waits, with one exception: while the first waits for room, sandboxes of others are not used
//! again but leave, as many as it takes; for a short while ([`Bounds::grace`]) those stay that have work to do. A
//! sandbox that several calls share is as good as parked for whoever finds a free slot in it.

mod kept;
mod report;
mod resize;
mod spares;

use std::collections::{BTreeMap, HashMap, VecDeque};

use runlet_core::name::{Namespace, RevisionDigest};

use super::line::{Lines, Waiter, order};
use super::lot::{Lot, Parked, Taken};
use super::want::{Bounds, FunctionKey, Kept, Want, Weights, Who};
use super::{Handle, Map};

/// Where an execution may run, as the book knows it.
#[derive(Debug)]
pub(super) enum Place<T: Handle> {
    /// In this parked sandbox.
    Parked(T),
    /// In a new sandbox: the number of its room.
    New(u64),
    /// In a sandbox that it shares with others: the number of its room.
    Shared(T, u64),
    /// In a new sandbox that others may share, with what it takes to serve them.
    Opening(u64, T, T::Rest),
}

/// What became of one who came.
#[derive(Debug)]
pub(super) enum Arrival<T: Handle> {
    /// It may start.
    Start(Place<T>),
    /// It waits under this ticket, unless it is among those that the effects start.
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
    /// Waiters that have to go, so that others may wait.
    pub(super) refuse: Vec<W>,
}

impl<T: Handle, W> Effects<T, W> {
    const fn none() -> Self {
        Self { start: Vec::new(), evict: Vec::new(), refuse: Vec::new() }
    }
}

/// Room that is taken, and by whom.
#[derive(Debug)]
struct Taker {
    memory: u64,
    namespace: Namespace,
    who: Who,
}

/// Whose line waits for room first, and since when; `None` instead of a line: one that comes back with its turn.
type First = (Option<(Namespace, Who)>, u64);

/// The book: `T` is a handle on a parked sandbox, `W` is how a waiter is answered.
pub(super) struct Book<T: Handle, W> {
    bounds: Bounds,
    clock: Box<dyn Fn() -> u64 + Send>,
    memory: u64,
    rooms: Map<u64, Taker>,
    /// Rooms that will come free without anybody's doing, and their memory.
    leaving: Map<u64, u64>,
    leaving_memory: u64,
    lot: Lot<T>,
    /// Sandboxes that are nobody's yet, oldest first: the first to leave.
    spares: BTreeMap<u64, T>,
    /// What functions want to have ready.
    kept: HashMap<FunctionKey, Kept>,
    /// Room is wanted for one of those: none is left for who is nobody's.
    kept_waits: bool,
    lines: Lines,
    /// Turns that have ended since somebody asked.
    ended: HashMap<FunctionKey, u32>,
    waiters: Map<u64, Waiter<W>>,
    /// Those that come back with their turn: before all others, in this order.
    returning: VecDeque<u64>,
    counted: u32,
    first: Option<First>,
    closed: bool,
    next: u64,
}

impl<T: Handle, W> std::fmt::Debug for Book<T, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book")
            .field("bounds", &self.bounds)
            .field("waiting", &self.waiters.len())
            .finish_non_exhaustive()
    }
}

impl<T: Handle, W> Book<T, W> {
    /// `clock` tells milliseconds since whenever.
    pub(super) fn new(bounds: Bounds, weights: Weights, clock: impl Fn() -> u64 + Send + 'static) -> Self {
        Self {
            bounds,
            clock: Box::new(clock),
            memory: 0,
            rooms: Map::default(),
            leaving: Map::default(),
            leaving_memory: 0,
            lot: Lot::new(),
            spares: BTreeMap::new(),
            kept: HashMap::new(),
            kept_waits: false,
            lines: Lines::new(weights),
            ended: HashMap::new(),
            waiters: Map::default(),
            returning: VecDeque::new(),
            counted: 0,
            first: None,
            closed: false,
            next: 0,
        }
    }

    /// Memory promised, sandboxes that exist, waiters.
    pub(super) fn usage(&self) -> (u64, u32, usize) {
        (self.memory, self.sandboxes(), self.waiters.len())
    }

    fn sandboxes(&self) -> u32 {
        u32::try_from(self.rooms.len()).unwrap_or(u32::MAX)
    }

    /// Sandboxes that wait for their next execution.
    pub(super) fn parked(&self) -> u32 {
        self.lot.idle().0
    }

    /// Somebody comes and wants to start. `has_turn`: it comes back with its turn, and goes before all others.
    pub(super) fn arrive(
        &mut self,
        want: Want,
        has_turn: bool,
        counted: bool,
        answer: W,
    ) -> (Arrival<T>, Effects<T, W>) {
        let mut effects = Effects::none();
        if self.closed {
            return (Arrival::Closed, effects);
        }
        if let Some(place) = self.start_now(&want, has_turn, &mut effects) {
            return (Arrival::Start(place), effects);
        }
        if counted && self.counted >= self.bounds.waiting {
            let Some(ticket) = self.lines.pushed_out(&want.namespace, &want.who()) else {
                return (Arrival::Full, effects);
            };
            effects.refuse.extend(self.remove_waiter(ticket).map(|waiter| waiter.answer));
        }
        self.next += 1;
        let (ticket, came) = (self.next, (self.clock)());
        self.counted += u32::from(counted);
        let order = order(came, want.priority, ticket);
        let waiter = Waiter { want, has_turn, counted, order, answer };
        if has_turn {
            self.returning.push_back(ticket);
        } else {
            self.lines.push(&waiter);
        }
        self.waiters.insert(ticket, waiter);
        self.pump(None, &mut effects);
        (Arrival::Wait(ticket), effects)
    }

    /// Somebody comes who starts now or not at all.
    pub(super) fn arrive_at_once(&mut self, want: &Want) -> (Option<Place<T>>, Effects<T, W>) {
        let mut effects = Effects::none();
        let place = if self.closed { None } else { self.start_now(want, false, &mut effects) };
        (place, effects)
    }

    /// A turn and a place, if both are free.
    fn start_now(&mut self, want: &Want, has_turn: bool, effects: &mut Effects<T, W>) -> Option<Place<T>> {
        if !has_turn && self.running(want) >= want.most() {
            return None;
        }
        let place = match self.reuse(want) {
            None if !self.is_short() => self.take_room(want),
            place => place,
        }?;
        if !has_turn {
            self.take_turn(want);
        }
        // What it has had now counts against it: somebody else may be first for room.
        if !self.waiters.is_empty() {
            self.pump(None, effects);
        }
        Some(place)
    }

    /// A waiter gives up; `false` if it waits no more.
    pub(super) fn leave(&mut self, ticket: u64) -> (bool, Effects<T, W>) {
        let mut effects = Effects::none();
        let found = self.remove_waiter(ticket).is_some();
        if found {
            self.pump(None, &mut effects);
        }
        (found, effects)
    }

    /// Whether a waiter waits for its turn (else for room); `None` if it waits no more.
    pub(super) fn waits_for_turn(&self, ticket: u64) -> Option<bool> {
        let waiter = self.waiters.get(&ticket)?;
        Some(!waiter.has_turn && self.running(&waiter.want) >= waiter.want.most())
    }

    /// An execution of the function has ended.
    pub(super) fn end_turn(&mut self, key: &FunctionKey) -> Effects<T, W> {
        let mut effects = Effects::none();
        let who = Some(key.1.clone());
        self.lines.end(&key.0, &who);
        *self.ended.entry(key.clone()).or_default() += 1;
        if !self.waiters.is_empty() {
            self.settle(&key.0, &who, &mut effects);
            self.pump(None, &mut effects);
        }
        effects
    }

    /// How many turns of each function have ended since this was asked the last time.
    pub(super) fn take_ended(&mut self) -> HashMap<FunctionKey, u32> {
        std::mem::take(&mut self.ended)
    }

    /// A sandbox is gone.
    pub(super) fn end_room(&mut self, room: u64) -> Effects<T, W> {
        let mut effects = Effects::none();
        self.leaving_memory -= self.leaving.remove(&room).unwrap_or(0);
        let shared = self.lot.remove(room);
        self.memory -= self.rooms.remove(&room).map_or(0, |taker| taker.memory);
        self.pump(None, &mut effects);
        effects.evict.extend(shared.map(|parked| parked.handle));
        effects
    }

    /// A sandbox is free for the next execution of its revision, or for so many of them at a time.
    pub(super) fn park(
        &mut self,
        room: u64,
        function: FunctionKey,
        revision: (Namespace, RevisionDigest),
        slots: u32,
        handle: T,
    ) -> Effects<T, W> {
        let mut effects = Effects::none();
        let memory = self.rooms.get(&room).map_or(0, |taker| taker.memory);
        if self.closed {
            self.leaving.insert(room, memory);
            self.leaving_memory += memory;
            effects.evict.push(handle);
            return effects;
        }
        let contended = !self.waiters.is_empty();
        let line = contended.then(|| (function.0.clone(), Some(function.1.clone())));
        self.lot.put(Parked { room, memory, function, key: revision, handle, slots, free: slots });
        if let Some((namespace, who)) = line {
            self.settle(&namespace, &who, &mut effects);
            self.pump(None, &mut effects);
        }
        effects
    }

    /// A call has left the sandbox that it shared.
    pub(super) fn end_slot(&mut self, room: u64) -> Effects<T, W> {
        let mut effects = Effects::none();
        self.lot.give_back(room);
        if !self.waiters.is_empty() {
            if let Some((namespace, name)) = self.lot.function(room).cloned() {
                self.settle(&namespace, &Some(name), &mut effects);
            }
            self.pump(Some(room), &mut effects);
        }
        effects
    }

    /// A parked sandbox ends by itself; `false` if it is parked no more: somebody has taken it, or told it to leave. One
    /// that is shared ends by itself only while nobody is in it and it is not to be kept, unless it is `unfit`.
    pub(super) fn unpark(&mut self, room: u64, unfit: bool) -> (bool, Option<T>) {
        if !unfit && (!self.lot.is_idle(room) || self.lot.get(room).is_some_and(|parked| self.is_kept(parked))) {
            return (false, None);
        }
        let parked = self.lot.remove(room);
        (parked.is_some(), parked.map(|parked| self.leave_lot(parked)))
    }

    /// Takes out what is parked for the function and is not of revision `keep`.
    pub(super) fn retire(&mut self, function: &FunctionKey, keep: &RevisionDigest) -> Vec<T> {
        let retired = self.lot.remove_others(function, keep);
        retired.into_iter().map(|parked| self.leave_lot(parked)).collect()
    }

    /// Takes out what is parked and may not stay. It is told of each whether it is to be kept.
    pub(super) fn weed(&mut self, mut may_stay: impl FnMut(&mut T, bool) -> bool) -> Vec<T> {
        let mut surplus = self.surplus_of_kept();
        let weeds = self.lot.remove_where(|parked| {
            let surplus = surplus.get_mut(&(parked.function.clone(), parked.key.1.clone()));
            let kept = surplus.as_ref().is_some_and(|surplus| **surplus == 0);
            let leaves = !may_stay(&mut parked.handle, kept);
            if let Some(surplus) = surplus.filter(|_| leaves) {
                *surplus = surplus.saturating_sub(1);
            }
            leaves
        });
        weeds.into_iter().map(|parked| self.leave_lot(parked)).collect()
    }

    /// A sandbox that nobody finds any more: if nobody is in it, its room will come free soon.
    fn leave_lot(&mut self, parked: Parked<T>) -> T {
        if parked.is_idle() && self.leaving.insert(parked.room, parked.memory).is_none() {
            self.leaving_memory += parked.memory;
        }
        parked.handle
    }

    /// A sandbox has to leave, once those are done who are in it.
    fn send_away(&mut self, room: u64) -> Option<T> {
        let parked = self.lot.remove(room)?;
        if self.leaving.insert(room, parked.memory).is_none() {
            self.leaving_memory += parked.memory;
        }
        Some(parked.handle)
    }

    /// From now on nobody starts. Takes out everything that is parked, and all waiters.
    pub(super) fn close(&mut self) -> (Vec<T>, Vec<W>) {
        self.closed = true;
        let mut tickets: Vec<u64> = self.waiters.keys().copied().collect();
        tickets.sort_unstable();
        let answers =
            tickets.into_iter().filter_map(|ticket| self.remove_waiter(ticket)).map(|waiter| waiter.answer).collect();
        let mut handles: Vec<T> = self.lot.remove_all().into_iter().map(|parked| self.leave_lot(parked)).collect();
        while let Some(handle) = self.send_spare_away() {
            handles.push(handle);
        }
        (handles, answers)
    }

    /// How many sandboxes could start now, and the memory for them, bytes. None while somebody waits for room.
    pub(super) fn spare(&self) -> (u32, u64) {
        if self.is_short() || self.closed {
            return (0, 0);
        }
        let (parked, memory) = self.lot.idle();
        (
            self.bounds.sandboxes.saturating_sub(self.sandboxes()).saturating_add(parked).saturating_add(self.spares()),
            self.bounds.memory.saturating_sub(self.memory) + memory + self.memory_of_spares(),
        )
    }

    /// The lines, for who deals out work from elsewhere.
    pub(super) const fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Executions of the function that run.
    pub(super) fn running_of(&self, key: &FunctionKey) -> u32 {
        self.lines.running(&key.0, &Some(key.1.clone()))
    }

    fn running(&self, want: &Want) -> u32 {
        self.lines.running(&want.namespace, &want.who())
    }

    /// Whether somebody waits for room.
    fn is_short(&self) -> bool {
        !self.returning.is_empty() || self.lines.has_heads()
    }

    fn take_turn(&mut self, want: &Want) {
        self.lines.begin(&want.namespace, &want.who());
    }

    /// A sandbox that is there already: the one that was parked last.
    fn reuse(&mut self, want: &Want) -> Option<Place<T>> {
        let (function, revision) = want.parked()?;
        if !self.lot.has(function, revision) || !self.may_reuse(want) {
            return None;
        }
        match self.lot.take(function, revision)? {
            Taken::Whole(handle) => Some(Place::Parked(handle)),
            Taken::Slot(handle, room) => Some(Place::Shared(handle, room)),
        }
    }

    /// Whether a sandbox may be used again, though somebody else may wait for the room it takes.
    fn may_reuse(&self, want: &Want) -> bool {
        let Some(first) = self.candidate().and_then(|ticket| self.waiters.get(&ticket)) else { return true };
        let is_own = first.want.namespace == want.namespace && first.want.who() == want.who();
        is_own || self.will_fit(first.want.memory) || !self.is_overdue()
    }

    /// Whether the first has waited for room for longer than others may keep theirs.
    fn is_overdue(&self) -> bool {
        self.first.as_ref().is_some_and(|(_, since)| (self.clock)().saturating_sub(*since) >= self.bounds.grace)
    }

    fn fits(&self, memory: u64) -> bool {
        self.memory.saturating_add(memory) <= self.bounds.memory && self.sandboxes() < self.bounds.sandboxes
    }

    /// Whether it fits once those have left that are leaving.
    fn will_fit(&self, memory: u64) -> bool {
        let leavers = u32::try_from(self.leaving.len()).unwrap_or(u32::MAX);
        self.memory.saturating_sub(self.leaving_memory).saturating_add(memory) <= self.bounds.memory
            && self.sandboxes().saturating_sub(leavers) < self.bounds.sandboxes
    }

    /// Gives a room that fits away; returns its number.
    fn book_room(&mut self, memory: u64, namespace: Namespace, who: Who) -> u64 {
        self.memory += memory;
        self.next += 1;
        self.rooms.insert(self.next, Taker { memory, namespace, who });
        self.next
    }

    /// Room for a new sandbox.
    fn take_room(&mut self, want: &Want) -> Option<Place<T>> {
        if !self.fits(want.memory) {
            return None;
        }
        let room = self.book_room(want.memory, want.namespace.clone(), want.who());
        // One that is shared can be found from now on: who comes next waits for it rather than for another.
        if let (Some(key), Some(function), 2..) = (&want.reuse, want.key(), want.slots) {
            let (handle, rest) = T::open();
            let mine = handle.share();
            let (function, key, slots) = (function.clone(), key.clone(), want.slots);
            self.lot.put(Parked { room, memory: want.memory, function, key, handle, slots, free: slots - 1 });
            return Some(Place::Opening(room, mine, rest));
        }
        Some(Place::New(room))
    }

    fn remove_waiter(&mut self, ticket: u64) -> Option<Waiter<W>> {
        let waiter = self.waiters.remove(&ticket)?;
        self.counted -= u32::from(waiter.counted);
        if waiter.has_turn {
            self.returning.retain(|other| *other != ticket);
        } else {
            self.lines.remove(&waiter);
        }
        Some(waiter)
    }

    /// Who is first for room.
    pub(super) fn candidate(&self) -> Option<u64> {
        if let Some(ticket) = self.returning.front() {
            return Some(*ticket);
        }
        let (namespace, who) = self.lines.first()?;
        self.lines.line(namespace, who)?.heads().first().copied()
    }

    fn start(&mut self, ticket: u64, place: Place<T>, effects: &mut Effects<T, W>) {
        let Some(waiter) = self.remove_waiter(ticket) else { return };
        if !waiter.has_turn {
            self.take_turn(&waiter.want);
        }
        let turn = waiter.want.key().filter(|_| !waiter.has_turn).cloned();
        let opens = matches!(place, Place::Opening(..));
        effects.start.push((waiter.answer, place, turn));
        if opens {
            self.settle(&waiter.want.namespace, &waiter.want.who(), effects);
        }
    }

    /// Starts those of a line for whom there is a sandbox already.
    fn settle(&mut self, namespace: &Namespace, who: &Who, effects: &mut Effects<T, W>) {
        loop {
            let has = |ticket: &u64| {
                let parked = self.waiters.get(ticket).and_then(|waiter| waiter.want.parked());
                parked.is_some_and(|(function, revision)| self.lot.has(function, revision))
            };
            let own = |ticket: &&u64| self.waiters.get(ticket).is_some_and(|waiter| waiter.want.who() == *who);
            let returning = self.returning.iter().filter(own).copied().find(has);
            let heads = || self.lines.line(namespace, who).map_or_else(Vec::new, super::line::Line::heads);
            let Some(ticket) = returning.or_else(|| heads().into_iter().find(has)) else { return };
            let Some(want) = self.waiters.get(&ticket).map(|waiter| waiter.want.clone()) else { return };
            let Some(place) = self.reuse(&want) else { return };
            self.start(ticket, place, effects);
        }
    }

    /// Gives room to those who are first for it, and sees to it that there will be some for who is first then.
    /// `used`: a shared sandbox that somebody has just left.
    fn pump(&mut self, used: Option<u64>, effects: &mut Effects<T, W>) {
        while let Some(ticket) = self.candidate() {
            let Some(want) = self.waiters.get(&ticket).map(|waiter| waiter.want.clone()) else { return };
            let place = match self.reuse(&want) {
                None => self.take_room(&want),
                place => place,
            };
            let Some(place) = place else {
                self.make_room(ticket, &want, used, effects);
                return;
            };
            self.first = None;
            self.start(ticket, place, effects);
        }
        self.first = None;
    }

    /// Tells sandboxes to leave until, once they have left, there is room for the first.
    fn make_room(&mut self, ticket: u64, want: &Want, used: Option<u64>, effects: &mut Effects<T, W>) {
        let line = self.returning.front().is_none_or(|front| *front != ticket);
        let line = line.then(|| (want.namespace.clone(), want.who()));
        if self.first.as_ref().is_none_or(|(first, _)| *first != line) {
            self.first = Some((line, (self.clock)()));
        }
        let overdue = self.is_overdue();
        while !self.will_fit(want.memory) {
            if let Some(handle) = self.send_spare_away() {
                effects.evict.push(handle);
                continue;
            }
            let Some(room) = self.first_to_leave(|parked| overdue || !self.is_wanted(parked)) else { break };
            effects.evict.extend(self.send_away(room));
        }
        // One that is never idle leaves when those are done who are in it.
        if let Some(room) = used.filter(|_| overdue && !self.will_fit(want.memory))
            && self.lot.function(room).is_some_and(|function| Some(function) != want.key())
        {
            effects.evict.extend(self.send_away(room));
        }
    }

    /// The room of the sandbox that has been idle for longest, of those that `may` leave; those that are to be kept come last.
    fn first_to_leave(&self, may: impl Fn(&Parked<T>) -> bool) -> Option<u64> {
        let idle = || self.lot.longest_idle().filter(|parked| may(parked));
        idle().find(|parked| !self.is_kept(parked)).or_else(|| idle().next()).map(|parked| parked.room)
    }

    /// Whether somebody waits for this very sandbox.
    fn is_wanted(&self, parked: &Parked<T>) -> bool {
        let (namespace, name) = &parked.function;
        self.lines.line(namespace, &Some(name.clone())).is_some_and(|line| line.wants(&parked.key.1))
    }

    /// The rooms that a function takes.
    pub(super) fn rooms_of(&self, key: &FunctionKey) -> Vec<u64> {
        let own = |(_, taker): &(&u64, &Taker)| taker.namespace == key.0 && taker.who.as_ref() == Some(&key.1);
        self.rooms.iter().filter(own).map(|(room, _)| *room).collect()
    }
}

//! Admission: turns of functions and room on the host, given out by fair shares, given back by dropping them.
//!
//! Owns the limits of the host and of each function; refuses to know what a sandbox is: it hands out a parked one as
//! the handle `T` under which it was parked. Dropping a handle tells that sandbox to leave.

mod fair;
mod line;
mod lot;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod sharing_tests;
mod standing;
mod state;
#[cfg(test)]
mod tests;
mod want;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use runlet_core::id::InvocationId;
use runlet_core::name::{FunctionName, Namespace, RevisionDigest};
use runlet_core::unit::ByteSize;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

pub(crate) use standing::{Binding, Standing};
use state::{Arrival, Book, Effects, Place};
pub(crate) use want::{Bounds, FunctionKey, Kept, SandboxKey, Want, Weights};

/// A map of what this server itself counts and names: looked up some dozen times for each call.
type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What a sandbox is handed out as.
pub(crate) trait Handle: Sized {
    /// What serves those who share a sandbox.
    type Rest: std::fmt::Debug;

    /// A handle on a sandbox that is to be shared and is still to be made.
    fn open() -> (Self, Self::Rest);

    /// One more handle on such a sandbox.
    fn share(&self) -> Self;
}

type Answer<T> = oneshot::Sender<Result<Grant<T>, Refused>>;

#[derive(Debug)]
struct Shared<T: Handle> {
    book: Mutex<Book<T, Answer<T>>>,
    bounds: Bounds,
    freed: Notify,
}

/// How a function stands.
#[derive(Debug, Default)]
pub(crate) struct FunctionShare {
    /// Turns that are taken.
    pub(crate) running: u32,
    /// Turns that are waited for.
    pub(crate) waiting: u32,
    /// Turns that have ended since this was asked the last time.
    pub(crate) ended: u32,
    /// How far it is ahead of others of its namespace.
    pub(crate) ahead: f64,
}

/// What was dealt out so far.
#[derive(Debug)]
pub(crate) struct Dealt {
    /// Functions of which there is something to say.
    pub(crate) functions: HashMap<FunctionKey, FunctionShare>,
    /// How far namespaces are ahead of others, and their weights.
    pub(crate) namespaces: Vec<(Namespace, f64, f64)>,
}

/// The gate. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Admission<T: Handle>(Arc<Shared<T>>);

impl<T: Handle> Clone for Admission<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Why nobody may start.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It can never start here.
    #[error(
        "it needs {} of memory; this host has {} for sandboxes: lower `memory` or raise the server's `memory`",
        ByteSize(*wanted),
        ByteSize(*total)
    )]
    TooLarge {
        /// What it needs.
        wanted: u64,
        /// What there is.
        total: u64,
    },
    /// The queue is full.
    #[error("{0} calls wait for a sandbox already; try again later")]
    Full(u32),
    /// It waited for its turn until its time was over.
    #[error("no turn came free in time: {0} executions of the function run, which is its `max_concurrency`")]
    NoTurn(u32),
    /// It waited for room until its time was over.
    #[error("no room for another sandbox came free in time")]
    NoRoom,
    /// The server is stopping.
    #[error("the server is stopping")]
    Closed,
}

/// The right to run one execution of a function now; ends when dropped.
#[derive(Debug)]
pub(crate) struct Turn<T: Handle> {
    key: Option<FunctionKey>,
    shared: Arc<Shared<T>>,
}

/// Room for one sandbox on the host; to be dropped when that sandbox is gone.
#[derive(Debug)]
pub(crate) struct Room<T: Handle> {
    number: u64,
    shared: Arc<Shared<T>>,
}

/// A place in a sandbox that several share; free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot<T: Handle> {
    room: u64,
    shared: Arc<Shared<T>>,
}

/// Where to run.
#[derive(Debug)]
pub(crate) enum Seat<T: Handle> {
    /// In the sandbox that was parked under this handle.
    Parked(T),
    /// In a new sandbox.
    New(Room<T>),
    /// In a sandbox that others are in.
    Shared(T, Slot<T>),
    /// In a new sandbox, into which others may come.
    Opening(Room<T>, T::Rest, T, Slot<T>),
}

#[derive(Debug)]
struct Grant<T: Handle> {
    turn: Turn<T>,
    seat: Seat<T>,
}

impl<T: Handle> Drop for Turn<T> {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.shared.change(|book| ((), book.end_turn(key)));
        }
    }
}

impl<T: Handle> Drop for Room<T> {
    fn drop(&mut self) {
        self.shared.change(|book| ((), book.end_room(self.number)));
    }
}

impl<T: Handle> Drop for Slot<T> {
    fn drop(&mut self) {
        self.shared.change(|book| ((), book.end_slot(self.room)));
    }
}

impl<T: Handle> Room<T> {
    /// Names it to [`Admission::unpark`].
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Changes its size; `false` if there is no room for that.
    pub(crate) fn resize(&self, memory: u64) -> bool {
        self.shared.change(|book| book.resize(&[self.number], memory)).is_ok()
    }
}

impl<T: Handle> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Book<T, Answer<T>>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the book and carries out what follows from it, with the lock free: an answer that nobody waits for any
    /// more comes back here as a dropped turn.
    fn change<R>(self: &Arc<Self>, change: impl FnOnce(&mut Book<T, Answer<T>>) -> (R, Effects<T, Answer<T>>)) -> R {
        let (result, effects) = change(&mut self.lock());
        self.carry_out(effects);
        self.freed.notify_one();
        result
    }

    fn carry_out(self: &Arc<Self>, effects: Effects<T, Answer<T>>) {
        drop(effects.evict);
        for answer in effects.refuse {
            drop(answer.send(Err(Refused::Full(self.bounds.waiting))));
        }
        for (answer, place, key) in effects.start {
            let turn = Turn { key, shared: Arc::clone(self) };
            drop(answer.send(Ok(Grant { turn, seat: self.seat(place) })));
        }
    }

    fn room(self: &Arc<Self>, number: u64) -> Room<T> {
        Room { number, shared: Arc::clone(self) }
    }

    fn seat(self: &Arc<Self>, place: Place<T>) -> Seat<T> {
        match place {
            Place::Parked(handle) => Seat::Parked(handle),
            Place::New(number) => Seat::New(self.room(number)),
            Place::Shared(handle, room) => Seat::Shared(handle, Slot { room, shared: Arc::clone(self) }),
            Place::Opening(number, handle, rest) => {
                let slot = Slot { room: number, shared: Arc::clone(self) };
                Seat::Opening(self.room(number), rest, handle, slot)
            }
        }
    }
}

/// Takes a waiter out of the queue when it stops waiting for whatever reason.
struct Waiting<'a, T: Handle> {
    shared: &'a Arc<Shared<T>>,
    ticket: u64,
}

impl<T: Handle> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        // Nobody waits under the ticket once it was answered: then this changes nothing.
        self.shared.change(|book| book.leave(self.ticket));
    }
}

impl<T: Handle> Admission<T> {
    pub(crate) fn new(bounds: Bounds, weights: Weights) -> Self {
        let began = Instant::now();
        let clock = move || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let book = Mutex::new(Book::new(bounds, weights, clock));
        Self(Arc::new(Shared { book, bounds, freed: Notify::new() }))
    }

    /// Waits for a turn and a place, until `until` at most. `counted` waiters are bounded in number.
    pub(crate) async fn acquire(
        &self,
        want: Want,
        until: Option<Instant>,
        counted: bool,
    ) -> Result<(Turn<T>, Seat<T>), Refused> {
        let key = want.function.as_ref().map(|(key, _)| key.clone());
        let grant = self.arrive(want, until, false, counted, key).await?;
        Ok((grant.turn, grant.seat))
    }

    /// A turn and a place now, or nothing.
    pub(crate) fn acquire_at_once(&self, want: &Want) -> Option<(Turn<T>, Seat<T>)> {
        let (place, effects) = self.0.lock().arrive_at_once(want);
        self.0.carry_out(effects);
        let seat = self.0.seat(place?);
        Some((Turn { key: want.key().cloned(), shared: Arc::clone(&self.0) }, seat))
    }

    /// Waits for another place, for one who has its turn: the place it got is no more. It goes before all others.
    pub(crate) async fn again(&self, want: Want, until: Option<Instant>) -> Result<Seat<T>, Refused> {
        Ok(self.arrive(want, until, true, false, None).await?.seat)
    }

    async fn arrive(
        &self,
        want: Want,
        until: Option<Instant>,
        has_turn: bool,
        counted: bool,
        key: Option<FunctionKey>,
    ) -> Result<Grant<T>, Refused> {
        let Bounds { memory, waiting, .. } = self.0.bounds;
        if want.memory > memory {
            return Err(Refused::TooLarge { wanted: want.memory, total: memory });
        }
        let (answer, granted) = oneshot::channel();
        let (arrival, effects) = self.0.lock().arrive(want, has_turn, counted, answer);
        self.0.carry_out(effects);
        match arrival {
            Arrival::Start(place) => {
                Ok(Grant { turn: Turn { key, shared: Arc::clone(&self.0) }, seat: self.0.seat(place) })
            }
            Arrival::Full => Err(Refused::Full(waiting)),
            Arrival::Closed => Err(Refused::Closed),
            Arrival::Wait(ticket) => self.wait(granted, ticket, until, key.as_ref()).await,
        }
    }

    async fn wait(
        &self,
        mut granted: oneshot::Receiver<Result<Grant<T>, Refused>>,
        ticket: u64,
        until: Option<Instant>,
        key: Option<&FunctionKey>,
    ) -> Result<Grant<T>, Refused> {
        let waiting = Waiting { shared: &self.0, ticket };
        let answer = match until {
            None => Some((&mut granted).await),
            Some(until) => timeout_at(until, &mut granted).await.ok(),
        };
        if let Some(answer) = answer {
            return answer.unwrap_or(Err(Refused::Closed));
        }
        let (for_turn, running) = {
            let book = self.0.lock();
            (book.waits_for_turn(waiting.ticket), key.map_or(0, |key| book.running_of(key)))
        };
        granted.close();
        // The answer may have come while the time ran out.
        let late = || Err(if for_turn == Some(true) { Refused::NoTurn(running) } else { Refused::NoRoom });
        granted.try_recv().unwrap_or_else(|_| late())
    }

    /// Parks a sandbox for the next execution of its revision, or for so many of them at a time.
    pub(crate) fn park(&self, room: u64, function: FunctionKey, key: SandboxKey, slots: u32, handle: T) {
        self.0.change(|book| ((), book.park(room, function, key, slots, handle)));
    }

    /// Tells those of the parked sandboxes to leave that may not stay; it is said of each whether it is to be kept.
    pub(crate) fn weed(&self, may_stay: impl FnMut(&mut T, bool) -> bool) {
        let evicted = self.0.lock().weed(may_stay);
        drop(evicted);
    }

    /// Room for a sandbox that is nobody's yet, if nobody else wants it now.
    pub(crate) fn spare_room(&self, memory: u64) -> Option<Room<T>> {
        let number = self.0.lock().spare_room(memory)?;
        Some(self.0.room(number))
    }

    /// Parks a sandbox that is nobody's yet. It is the first to leave when room is needed.
    pub(crate) fn park_spare(&self, room: u64, handle: T) {
        self.0.change(|book| ((), book.park_spare(room, handle)));
    }

    /// Such a sandbox has been taken, or ends.
    pub(crate) fn unpark_spare(&self, room: u64) {
        let handle = self.0.lock().unpark_spare(room);
        drop(handle);
    }

    /// From now on functions are to have these ready, and no others.
    pub(crate) fn keep(&self, kept: HashMap<FunctionKey, Kept>) {
        self.0.lock().keep(kept);
    }

    /// How many sandboxes the function has that are ready, or at work and ready after that.
    pub(crate) fn ready(&self, function: &FunctionKey, kept: &Kept) -> u32 {
        self.0.lock().ready(function, &kept.revision, kept.shared)
    }

    /// Room for a sandbox that is to be kept ready, if nobody else wants it now.
    pub(crate) fn kept_room(&self, function: &FunctionKey, memory: u64) -> Option<Room<T>> {
        let number = self.0.change(|book| book.kept_room(function, memory))?;
        Some(self.0.room(number))
    }

    /// Sandboxes that are nobody's yet.
    pub(crate) fn spares(&self) -> u32 {
        self.0.lock().spares()
    }

    /// Takes a parked sandbox back; `false` if somebody has taken it or has told it to leave, or, unless it is `unfit`, is
    /// in it.
    pub(crate) fn unpark(&self, room: u64, unfit: bool) -> bool {
        let (found, handle) = self.0.lock().unpark(room, unfit);
        drop(handle);
        found
    }

    /// Tells the function's parked sandboxes of other revisions than `keep` to leave.
    pub(crate) fn retire(&self, function: &FunctionKey, keep: &RevisionDigest) {
        let evicted = self.0.lock().retire(function, keep);
        drop(evicted);
    }

    /// From now on nobody starts; whoever waits is told so, and whatever is parked is told to leave.
    pub(crate) fn close(&self) {
        let closed = self.0.lock().close();
        drop(closed);
    }

    /// Something came free, since the last time this was asked.
    pub(crate) async fn freed(&self) {
        self.0.freed.notified().await;
    }

    /// How many sandboxes could start now, and the memory for them, bytes.
    pub(crate) fn spare(&self) -> (u32, u64) {
        self.0.lock().spare()
    }

    /// How the lines stand, for who deals out work from elsewhere.
    pub(crate) fn shares(&self) -> Dealt {
        let mut book = self.0.lock();
        let ended = book.take_ended().into_iter();
        let mut functions: HashMap<FunctionKey, FunctionShare> =
            ended.map(|(key, ended)| (key, FunctionShare { ended, ..FunctionShare::default() })).collect();
        let lines = book.lines();
        for (namespace, who, line) in lines.all() {
            if let Some(name) = who {
                let share = functions.entry((namespace.clone(), name.clone())).or_default();
                (share.running, share.waiting) = (line.running, line.waiting);
            }
        }
        for (namespace, who, ahead) in lines.functions_ahead() {
            if let Some(name) = who {
                functions.entry((namespace.clone(), name.clone())).or_default().ahead = ahead;
            }
        }
        Dealt { functions, namespaces: lines.namespaces() }
    }

    /// Executions of the function that run.
    pub(crate) fn running(&self, function: &FunctionKey) -> u32 {
        self.0.lock().running_of(function)
    }

    /// How the one stands who waits for this invocation; `None` if none does.
    pub(crate) fn standing(&self, invocation: InvocationId) -> Option<Standing> {
        self.0.lock().standing(invocation)
    }

    /// Who takes the memory: function (or leases), bytes and sandboxes, most first.
    pub(crate) fn takers(&self, most: usize) -> Vec<(Namespace, Option<FunctionName>, u64, u32)> {
        self.0.lock().takers(most)
    }

    /// The rooms that sandboxes of the function take.
    pub(crate) fn rooms_of(&self, function: &FunctionKey) -> Vec<u64> {
        self.0.lock().rooms_of(function)
    }

    /// Gives these rooms another size, all or none.
    ///
    /// # Errors
    /// The bytes that are missing. Idle sandboxes of others were told to leave for that.
    pub(crate) fn resize(&self, rooms: &[u64], memory: u64) -> Result<(), u64> {
        self.0.change(|book| book.resize(rooms, memory))
    }

    /// Sandboxes that wait for their next execution.
    pub(crate) fn parked(&self) -> u32 {
        self.0.lock().parked()
    }

    /// Memory promised to sandboxes, sandboxes that exist, waiters.
    pub(crate) fn usage(&self) -> (u64, u32, usize) {
        self.0.lock().usage()
    }

    /// What the host has.
    pub(crate) fn bounds(&self) -> Bounds {
        self.0.bounds
    }
}

//! Stems: sandboxes that are started ahead, for no function in particular.
//!
//! ```text
//!  spare room ──► made, its runner booted ──► on the shelf ──► given to a revision, for good (specialised)
//!                                                 └── breaks, or its memory is wanted: destroyed, and made anew later
//! ```
//! A stem takes room like every sandbox, but only what nobody wants, and it is the first to leave when somebody does.
//! Whoever is given one brings room of his own; the stem's is free from then on. There are as many as the configuration says, and
//! more where more were asked for at once ([`Demand`]).

mod demand;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runlet_core::limits::Limits;
use runlet_core::manifest::RuntimeKind;
use runlet_core::name::RevisionDigest;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host::Host;
use crate::host::sandbox::SandboxRequest;
use crate::pool::{Gate, Handle, Place, Pool};
use crate::session::Blank;
use demand::Demand;

/// How long an interpreter may take from its start to its first word.
const BOOT: Duration = Duration::from_secs(20);

/// How often it is looked whether there is room for stems that are missing.
const LOOK: Duration = Duration::from_millis(500);

/// Stems that are made at a time: more would only take the processors from each other.
const AT_A_TIME: usize = 4;

/// While half of the stems are there, none is made for so long after one was asked for: it would take the processors from the very call that
/// has asked.
const QUIET: Duration = Duration::from_millis(25);

/// How many stems of each runtime wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StemCounts {
    /// With Python booted.
    pub python: u32,
    /// With Node.js booted.
    pub node: u32,
    /// With their init alone: for exec and custom functions.
    pub exec: u32,
}

impl Default for StemCounts {
    fn default() -> Self {
        Self { python: 4, node: 2, exec: 2 }
    }
}

/// The runtimes that have stems of their own.
const KINDS: [RuntimeKind; 3] = [RuntimeKind::Exec, RuntimeKind::Python, RuntimeKind::Node];

impl StemCounts {
    const fn of(&self, kind: RuntimeKind) -> u32 {
        match kind {
            RuntimeKind::Python => self.python,
            RuntimeKind::Node => self.node,
            RuntimeKind::Exec | RuntimeKind::Custom => self.exec,
        }
    }
}

/// Asks a stem's keeper for it.
type Asker = oneshot::Sender<oneshot::Sender<(Blank, Place)>>;

/// The stems of one runtime.
#[derive(Debug, Default)]
struct Shelf {
    ready: VecDeque<(u64, Asker)>,
    making: usize,
    demand: Demand,
    /// Nothing is made before this moment: the last try has failed.
    rest: Option<Instant>,
}

/// All stems. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Stems(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    counts: StemCounts,
    host: Host,
    pool: Pool,
    gate: Gate,
    tasks: TaskTracker,
    shelves: Mutex<[Shelf; KINDS.len()]>,
    /// One was taken, has broken or was made.
    changed: Notify,
}

/// The limits that a stem is made with.
fn limits() -> Limits {
    Limits::default()
}

const fn at(kind: RuntimeKind) -> usize {
    match kind {
        // A custom runner is a program like any other: it needs no sandbox of another kind.
        RuntimeKind::Exec | RuntimeKind::Custom => 0,
        RuntimeKind::Python => 1,
        RuntimeKind::Node => 2,
    }
}

/// When a stem is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// None is missing, or the last try has failed.
    Never,
    /// After a moment of quiet.
    Soon,
    Now,
}

impl Shelf {
    /// How many there should be, `least` or more.
    fn wanted(&mut self, least: u32, now: Instant) -> usize {
        if least == 0 { 0 } else { self.demand.most(now).max(least as usize) }
    }

    /// When the next one is to be made, of `least` or more.
    fn due(&mut self, least: u32, now: Instant) -> Due {
        let (there, wanted) = (self.ready.len() + self.making, self.wanted(least, now));
        let asked = self.demand.last().is_some_and(|asked| now.saturating_duration_since(asked) < QUIET);
        if there >= wanted || self.rest.is_some_and(|until| now < until) {
            Due::Never
        } else if asked && there * 2 >= wanted {
            Due::Soon
        } else {
            Due::Now
        }
    }
}

impl Stems {
    /// No stems yet: see [`Stems::keep_full`].
    pub(crate) fn new(counts: StemCounts, host: Host, pool: Pool, gate: Gate, tasks: TaskTracker) -> Self {
        let inner = Inner { counts, host, pool, gate, tasks, shelves: Mutex::default(), changed: Notify::new() };
        Self(Arc::new(inner))
    }

    fn lock(&self) -> MutexGuard<'_, [Shelf; KINDS.len()]> {
        self.0.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stem that has become the revision's, with these limits; `None` if a sandbox has to be made.
    pub(crate) async fn specialised(
        &self,
        kind: RuntimeKind,
        revision: &RevisionDigest,
        wanted: Limits,
    ) -> Option<Blank> {
        // Node.js is told at its start how much memory it has.
        if kind == RuntimeKind::Node && wanted.memory != limits().memory {
            return None;
        }
        loop {
            let (blank, room) = self.take(kind).await?;
            match blank.sandbox().specialise(revision.clone(), wanted).await {
                // The function has room of its own.
                Ok(()) => return Some(blank),
                Err(error) => {
                    tracing::warn!(sandbox.id = blank.sandbox().name(), %error, "a stem is of no use");
                    let pool = self.0.pool.clone();
                    self.0.tasks.spawn(async move { pool.bury(blank.into_sandbox(), room).await });
                }
            }
        }
    }

    /// The stem that has waited longest.
    async fn take(&self, kind: RuntimeKind) -> Option<(Blank, Place)> {
        self.lock()[at(kind)].demand.ask(Instant::now());
        loop {
            let (_, keeper) = self.lock()[at(kind)].ready.pop_front()?;
            self.0.changed.notify_one();
            let (asker, stem) = oneshot::channel();
            if keeper.send(asker).is_ok()
                && let Ok(stem) = stem.await
            {
                return Some(stem);
            }
        }
    }

    /// Makes stems until there are as many as there should be, again and again, until `stopping`.
    pub(crate) async fn keep_full(&self, stopping: &CancellationToken) {
        while !stopping.is_cancelled() {
            for kind in KINDS {
                self.thin_out(kind);
            }
            while let Some((kind, room)) = self.by_need().into_iter().find_map(|kind| Some((kind, self.missing(kind)?)))
            {
                let stems = self.clone();
                self.0.tasks.spawn(async move { stems.make(kind, room).await });
            }
            let pause = if self.is_any_due_soon() { QUIET } else { LOOK };
            tokio::select! {
                () = stopping.cancelled() => {}
                () = self.0.changed.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// The runtimes, that one first of which the smallest part is there.
    fn by_need(&self) -> [RuntimeKind; KINDS.len()] {
        let mut shelves = self.lock();
        let now = Instant::now();
        let mut part = |kind: &RuntimeKind| {
            let shelf = &mut shelves[at(*kind)];
            let wanted = shelf.wanted(self.0.counts.of(*kind), now).max(1);
            (shelf.ready.len() + shelf.making) * 1000 / wanted
        };
        let mut kinds = KINDS;
        kinds.sort_by_cached_key(&mut part);
        kinds
    }

    fn is_any_due_soon(&self) -> bool {
        let (mut shelves, now) = (self.lock(), Instant::now());
        KINDS.iter().any(|kind| shelves[at(*kind)].due(self.0.counts.of(*kind), now) == Due::Soon)
    }

    /// Lets those go that a rush has left over. A keeper whose asker is dropped ends its stem.
    fn thin_out(&self, kind: RuntimeKind) {
        let shelf = &mut self.lock()[at(kind)];
        let surplus = shelf.ready.len().saturating_sub(shelf.wanted(self.0.counts.of(kind), Instant::now()));
        shelf.ready.drain(..surplus);
    }

    /// Room for a stem that is missing and can be made now.
    fn missing(&self, kind: RuntimeKind) -> Option<Place> {
        if runlet_runtimes::host::missing(kind).is_some() {
            return None;
        }
        let mut shelves = self.lock();
        let making: usize = shelves.iter().map(|shelf| shelf.making).sum();
        let shelf = &mut shelves[at(kind)];
        if making >= AT_A_TIME || shelf.due(self.0.counts.of(kind), Instant::now()) != Due::Now {
            return None;
        }
        let room = self.0.gate.spare_room(limits().memory.0)?;
        shelf.making += 1;
        Some(room)
    }

    async fn make(&self, kind: RuntimeKind, room: Place) {
        let made = self.made(kind).await;
        self.lock()[at(kind)].making -= 1;
        match made {
            Ok(blank) => self.shelve(kind, blank, room),
            Err(error) => {
                tracing::warn!(runtime = kind.as_str(), error, "a sandbox could not be started ahead");
                self.lock()[at(kind)].rest = Some(Instant::now() + BOOT);
            }
        }
        self.0.changed.notify_one();
    }

    async fn made(&self, kind: RuntimeKind) -> Result<Blank, String> {
        let sandbox = self.0.host.create(SandboxRequest::stem(kind, limits())).await;
        let sandbox = sandbox.map_err(|error| error.to_string())?;
        let Some(runner) = runlet_runtimes::launch::ahead(kind, limits().memory) else {
            return Ok(Blank::Bare(sandbox));
        };
        let booted = Blank::boot(sandbox, runner.into(), Instant::now() + BOOT).await;
        // Whoever drops a sandbox kills it.
        booted.map_err(|(reason, _)| reason)
    }

    fn shelve(&self, kind: RuntimeKind, blank: Blank, room: Place) {
        let (keeper, asked) = oneshot::channel();
        let (handle, evicted) = oneshot::channel();
        let number = room.number();
        self.lock()[at(kind)].ready.push_back((number, keeper));
        self.0.gate.park_spare(number, Handle::Spare(handle));
        let stems = self.clone();
        self.0.tasks.spawn(async move { stems.keep(kind, blank, room, asked, evicted).await });
    }

    /// Keeps a stem until somebody asks for it, it breaks, or its room is wanted.
    async fn keep(
        &self,
        kind: RuntimeKind,
        mut blank: Blank,
        room: Place,
        mut asked: oneshot::Receiver<oneshot::Sender<(Blank, Place)>>,
        evicted: oneshot::Receiver<std::convert::Infallible>,
    ) {
        let number = room.number();
        let asker = tokio::select! {
            biased;
            asker = &mut asked => asker.ok(),
            () = blank.broken() => None,
            _ = evicted => None,
        };
        // It is nobody's to be told to leave any more.
        self.0.gate.unpark_spare(number);
        let left = match asker {
            Some(asker) => asker.send((blank, room)).err(),
            None => Some((blank, room)),
        };
        let Some((blank, room)) = left else { return };
        self.lock()[at(kind)].ready.retain(|(other, _)| *other != number);
        drop(asked);
        tracing::debug!(sandbox.id = blank.sandbox().name(), "a stem ends");
        self.0.pool.bury(blank.into_sandbox(), room).await;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_left_alone_while_half_of_them_are_there() {
        let begin = Instant::now();
        let mut shelf = Shelf { making: 4, ..Shelf::default() };
        assert_eq!(shelf.due(4, begin), Due::Never);
        shelf.demand.ask(begin);
        shelf.making = 3;
        assert_eq!(shelf.due(4, begin + QUIET / 2), Due::Soon);
        assert_eq!(shelf.due(4, begin + QUIET), Due::Now);
        shelf.making = 1;
        assert_eq!(shelf.due(4, begin + QUIET / 2), Due::Now, "the next ones might find none");
        shelf.rest = Some(begin + BOOT);
        assert_eq!(shelf.due(4, begin + QUIET), Due::Never);
        assert_eq!(shelf.due(4, begin + BOOT), Due::Now);
        assert_eq!(Shelf::default().due(0, begin), Due::Never);
    }
}

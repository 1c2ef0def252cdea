//! The service that fires: it sleeps until the next tick, fires what is due in one transaction, and keeps the rest in order.
//!
//! It wakes up at least once a second and looks at the wall clock: a clock that was set is noticed then, forward or back. It looks at
//! the ledger when it is told of a change, and once in a while in any case.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::try_join_all;
use runlet_core::clock::{self, Timestamp};
use runlet_core::id::TriggerId;
use runlet_core::store::cron::Fired;
use runlet_core::store::queue::Wakeup;
use runlet_core::store::{Store, StoreError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::book::Book;
use super::overlap;
use crate::tend::{Tend, tend};

/// Longest sleep: the wall clock may be set while we sleep.
const LOOK: Duration = Duration::from_secs(1);

/// From so many schedules on that are due at once, half of them are fired by another connection.
const MANY: usize = 128;

/// So long before its instant all that is due then is computed: of many schedules that takes longer than anybody should wait.
const AHEAD: TimeDelta = TimeDelta::milliseconds(20);

/// How often the ledger is read without a reason.
const RELOAD: Duration = Duration::from_secs(15);

/// How often old ticks are forgotten.
const PRUNE: Duration = Duration::from_secs(60);

/// Ends of runs that come within this time cause one look at those that wait for them.
const GATHER: Duration = Duration::from_millis(10);

/// About so many ticks are fired in one transaction at most.
const TICKS: usize = 2000;

/// Fires schedules.
#[derive(Debug)]
pub struct Service {
    store: Store,
    now: fn() -> Timestamp,
    book: Book,
    /// Whether anything may wait for the end of an earlier run.
    held: bool,
    reload: Instant,
    release: Instant,
    prune: Instant,
}

impl Service {
    /// A service on this ledger.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let now = Instant::now();
        Self {
            store,
            now: clock::now,
            book: Book::default(),
            held: true,
            reload: now,
            release: now,
            prune: now + PRUNE,
        }
    }

    /// Fires until `stop`. What is due after that is the next server's.
    pub async fn run(self, stop: CancellationToken) {
        let store = self.store.clone();
        tend(self, store, stop).await;
    }

    /// What has its time: reading the ledger, letting held runs start, forgetting old ticks.
    async fn chores(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        if self.reload <= now {
            self.load().await?;
            self.reload = Instant::now() + jittered(RELOAD);
        }
        if self.release <= now {
            self.held = self.store.release_held().await?;
            self.release = Instant::now() + LOOK;
        }
        if self.prune <= now {
            let pruned = self.store.prune_ticks((self.now)()).await?;
            tracing::debug!(pruned, "old ticks are forgotten");
            self.prune = Instant::now() + jittered(PRUNE);
        }
        Ok(())
    }

    async fn load(&mut self) -> Result<(), StoreError> {
        let schedules = self.store.schedules().await?;
        for (trigger, from, to) in self.book.load(schedules, (self.now)()) {
            tracing::warn!(trigger.id = %trigger, %from, "a schedule was decided far into the future: the clock was wrong then");
            self.store.rewind_schedule(trigger, from, to).await?;
        }
        tracing::debug!(schedules = self.book.len(), "schedules are read");
        Ok(())
    }

    /// Fires all that is due, or will be in a moment.
    async fn fire(&mut self) -> Result<(), StoreError> {
        loop {
            let now = (self.now)();
            let Some(next) = self.book.next().filter(|next| *next <= now + AHEAD) else { return Ok(()) };
            let at = next.max(now);
            let due = self.book.due(at, TICKS);
            if due.is_empty() || !self.comes(at).await {
                return Ok(());
            }
            // Each connection is a process of Postgres: many ticks are on record sooner by two of them.
            let part = if due.len() < MANY { due.len() } else { due.len().div_ceil(2) };
            let fired = try_join_all(due.chunks(part).map(|part| self.store.fire(part, at, overlap::decide))).await?;
            let fired: HashMap<TriggerId, Fired> = fired.into_iter().flatten().map(|one| (one.trigger, one)).collect();
            for due in &due {
                match fired.get(&due.trigger) {
                    Some(fired) => {
                        self.book.advance(due.trigger, at);
                        self.note(fired);
                    }
                    // Another server has it, or it has changed: the ledger tells.
                    None => {
                        self.book.set_aside(due.trigger);
                        self.reload = Instant::now();
                    }
                }
            }
        }
    }

    /// Waits for a moment that is near. `false`: the clock was set back meanwhile.
    async fn comes(&self, at: Timestamp) -> bool {
        loop {
            let left = at - (self.now)();
            match left.to_std() {
                // Past, or now.
                Err(_) | Ok(Duration::ZERO) => return true,
                Ok(_) if left > AHEAD => return false,
                // The timer is exact to a millisecond and must not be early.
                Ok(left) => sleep(left).await,
            }
        }
    }

    fn note(&mut self, fired: &Fired) {
        if fired.held > 0 {
            // The run that it waits for may have ended while this was being written.
            self.held = true;
            self.release = self.release.min(Instant::now() + GATHER);
        }
        if fired.invocations > 0 {
            tracing::debug!(trigger.id = %fired.trigger, invocations = fired.invocations, held = fired.held, "tick");
        }
    }
}

impl Tend for Service {
    const WHAT: &'static str = "schedules";

    async fn work(&mut self) -> Result<(), StoreError> {
        // What is due fires even if a chore has failed.
        let chores = self.chores().await;
        chores.and(self.fire().await)
    }

    /// The moment to wake up: a tick, a chore, or a second from now.
    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let tick = self.book.next().map(|next| {
            let left = next - AHEAD - (self.now)();
            left.max(TimeDelta::zero()).to_std().unwrap_or_default()
        });
        let soon = now + tick.unwrap_or(LOOK).min(LOOK);
        let chores = [Some(self.reload), Some(self.prune), self.held.then_some(self.release)];
        chores.into_iter().flatten().fold(soon, Instant::min)
    }

    fn hear(&mut self, wakeup: Wakeup) {
        match wakeup {
            Wakeup::Schedules => self.reload = Instant::now(),
            Wakeup::Done(_) if self.held => self.release = self.release.min(Instant::now() + GATHER),
            Wakeup::Done(_) | Wakeup::Work | Wakeup::Cancel(_) | Wakeup::Messages(..) => {}
        }
    }
}

/// About `span`, and not the same for all servers.
fn jittered(span: Duration) -> Duration {
    let percent = u32::try_from(RandomState::new().hash_one(0) % 20).unwrap_or(0);
    span * (90 + percent) / 100
}

//! The service that takes and settles: it wakes up when a message is there or an invocation has ended, and looks once a second in any
//! case. Whatever a wake-up that got lost would have told is found then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use runlet_core::clock::{self, Timestamp};
use runlet_core::id::InvocationId;
use runlet_core::metric;
use runlet_core::store::message::{Consumer, Fate, Hints, QueueKey, Taken};
use runlet_core::store::queue::Wakeup;
use runlet_core::store::{Store, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{choose, decide};
use crate::tend::{Tend, tend};

/// How often everything is looked at without a reason.
const LOOK: Duration = Duration::from_secs(1);

/// How often triggers are read, and old keys forgotten, without a reason.
const RELOAD: Duration = Duration::from_secs(15);

/// Ends that come within this time are settled together.
const GATHER: Duration = Duration::from_millis(3);

/// A queue from which nothing could be taken is left alone for so long.
const REST: Duration = Duration::from_millis(3);

/// Most messages looked at in a take.
const MOST: u32 = 512;

/// Most takes from one queue before the others have their turn.
const TURNS: usize = 4;

/// Takes and settles messages.
#[derive(Debug)]
pub struct Service {
    store: Store,
    consumers: BTreeMap<QueueKey, Vec<Consumer>>,
    hints: HashMap<QueueKey, Hints>,
    /// Queues in which there may be something to take.
    hot: BTreeSet<QueueKey>,
    /// Queues from which nothing could be taken a moment ago, and until when they are left alone.
    resting: HashMap<QueueKey, Instant>,
    /// Invocations that have ended; most of them have no messages.
    ended: Vec<InvocationId>,
    /// When a batch that waits for more is to go as it is.
    windows: BTreeMap<QueueKey, Timestamp>,
    due: Option<Timestamp>,
    settle: Option<Instant>,
    look: Instant,
    reload: Instant,
}

impl Service {
    /// A service on this ledger.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let now = Instant::now();
        Self {
            store,
            consumers: BTreeMap::new(),
            hints: HashMap::new(),
            hot: BTreeSet::new(),
            resting: HashMap::new(),
            ended: Vec::new(),
            windows: BTreeMap::new(),
            due: None,
            settle: None,
            look: now,
            reload: now,
        }
    }

    /// Works until `stop`. What is ready after that is the next server's.
    pub async fn run(self, stop: CancellationToken) {
        let store = self.store.clone();
        tend(self, store, stop).await;
    }
}

impl Tend for Service {
    const WHAT: &'static str = "queues";

    fn hear(&mut self, wakeup: Wakeup) {
        match wakeup {
            Wakeup::Messages(namespace, queue) => {
                self.hot.insert((namespace, queue));
            }
            Wakeup::Done(invocation) if !self.consumers.is_empty() => {
                self.ended.push(invocation);
                self.settle.get_or_insert_with(|| Instant::now() + GATHER);
            }
            Wakeup::Schedules => self.reload = Instant::now(),
            Wakeup::Done(_) | Wakeup::Work | Wakeup::Cancel(_) => {}
        }
    }

    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let moments = self.windows.values().chain(&self.due).map(|moment| {
            let left = moment.signed_duration_since(clock::now()).to_std().unwrap_or_default();
            now + left + Duration::from_millis(1)
        });
        let hot = self.hot.iter().map(|queue| self.resting.get(queue).copied().unwrap_or(now)).min();
        let timers = [Some(self.look), Some(self.reload), self.settle, hot];
        timers.into_iter().flatten().chain(moments).fold(now + LOOK, Instant::min)
    }

    async fn work(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        if self.reload <= now {
            self.load().await?;
            self.hot.extend(self.consumers.keys().cloned());
            self.store.prune_messages().await?;
            self.reload = Instant::now() + RELOAD;
        }
        if self.settle.is_some_and(|at| at <= now) {
            self.settle = None;
            let ended = std::mem::take(&mut self.ended);
            self.settle(&ended).await?;
        }
        if self.due.is_some_and(|due| due <= clock::now()) {
            self.release().await?;
        }
        if self.look <= now {
            self.release().await?;
            let ended = self.store.ended_unsettled().await?;
            self.settle(&ended).await?;
            // What was committed late may be below the places that were looked at already.
            self.hints.clear();
            self.hot.extend(self.store.ready_queues().await?);
            self.look = Instant::now() + LOOK;
        }
        let clock = clock::now();
        let over = self.windows.iter().filter(|(_, at)| **at <= clock).map(|(queue, _)| queue.clone());
        self.hot.extend(over.collect::<Vec<_>>());
        self.resting.retain(|_, until| *until > Instant::now());
        // Who has more gets its next turn behind the others.
        let (resting, ready): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.hot).into_iter().partition(|queue| self.resting.contains_key(queue));
        self.hot = resting;
        let mut queues = ready.into_iter();
        while let Some(queue) = queues.next() {
            self.take(queue).await?;
            // An end frees a place: whoever settles late starts late.
            if self.settle.is_some_and(|at| at <= Instant::now()) {
                self.hot.extend(queues);
                break;
            }
        }
        Ok(())
    }
}

impl Service {
    async fn load(&mut self) -> Result<(), StoreError> {
        let mut consumers: BTreeMap<QueueKey, Vec<Consumer>> = BTreeMap::new();
        for consumer in self.store.consumers().await? {
            let queue = consumer.spec.ledger_queue(&consumer.function);
            consumers.entry((consumer.namespace.clone(), queue)).or_default().push(consumer);
        }
        self.consumers = consumers;
        Ok(())
    }

    async fn release(&mut self) -> Result<(), StoreError> {
        let (queues, next) = self.store.release_due().await?;
        self.hot.extend(queues);
        self.due = next;
        Ok(())
    }

    async fn settle(&mut self, ended: &[InvocationId]) -> Result<(), StoreError> {
        for ended in ended.chunks(256) {
            let queues = self.store.settle(ended, |ended| counted(decide(ended))).await?;
            if !queues.is_empty() {
                self.hot.extend(queues);
                // What failed has a moment at which it is to go again.
                self.release().await?;
            }
        }
        Ok(())
    }

    /// Takes what is there for the triggers of a queue, a few times at most; what is left then waits behind the other queues.
    async fn take(&mut self, queue: QueueKey) -> Result<(), StoreError> {
        self.windows.remove(&queue);
        // Whether the triggers were read after the messages were seen: only then it is sure that nobody wants one.
        let mut sure = false;
        for _ in 0..TURNS {
            let Some(consumers) = self.consumers.get(&queue) else { return Ok(()) };
            let triggers: Vec<_> = consumers.iter().map(|one| (one.trigger, one.spec.max_in_flight)).collect();
            let wanted = consumers.iter().map(|one| one.spec.batch_size.saturating_mul(one.spec.max_in_flight)).max();
            let limit = wanted.unwrap_or(1).clamp(16, MOST);
            let hints = self.hints.entry(queue.clone()).or_default();
            let (mut wait, mut doubtful) = (None, false);
            let now = clock::now();
            let taken = self.store.take(&queue, &triggers, hints, limit, |candidates, free| {
                let (mut choice, until) = choose(consumers, candidates, free, now);
                wait = until;
                if !sure {
                    doubtful = !choice.unwanted.is_empty() || !choice.dead.is_empty();
                    choice.unwanted.clear();
                    choice.dead.clear();
                }
                choice
            });
            let taken = taken.await?;
            if taken.is_none_or(|taken| taken == Taken::default()) {
                self.resting.insert(queue.clone(), Instant::now() + REST);
            }
            let Some(taken) = taken else { return Ok(()) };
            note(&queue, taken);
            if let Some(until) = wait {
                self.windows.insert(queue.clone(), until);
            }
            sure = doubtful;
            if doubtful {
                self.load().await?;
            } else if !taken.more {
                return Ok(());
            }
        }
        self.hot.insert(queue);
        Ok(())
    }
}

fn note((namespace, queue): &QueueKey, taken: Taken) {
    if taken.unwanted > 0 {
        metric::messages("unwanted", taken.unwanted as u64);
    }
    if taken.dead > 0 {
        metric::messages("dead", taken.dead as u64);
        tracing::warn!(%namespace, queue.name = queue, messages = taken.dead, "messages became dead letters");
    }
    if taken.invocations > 0 {
        tracing::debug!(%namespace, queue.name = queue, invocations = taken.invocations, "messages taken");
    }
}

fn counted(fates: Vec<Fate>) -> Vec<Fate> {
    for fate in &fates {
        metric::messages(
            match fate {
                Fate::Done => "done",
                Fate::Again(..) => "again",
                Fate::Dead(_) => "dead",
            },
            1,
        );
    }
    fates
}

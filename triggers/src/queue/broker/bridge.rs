//! The bridge: for each trigger that names a broker a task that connects, takes over, acknowledges, and says how it is.
//!
//! It takes no more than may wait here: what is too much stays at the broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use runlet_core::backoff::Backoff;
use runlet_core::id::TriggerId;
use runlet_core::metric;
use runlet_core::store::message::{BrokerWord, CUT, Consumer, NewMessage, QueueKey};
use runlet_core::store::{Store, StoreError};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{BrokerError, Brokers, PREFETCH, Received, Subscription, Wanted, connect};

/// How often triggers are read.
const RELOAD: Duration = Duration::from_secs(2);

/// How often a server says that it is still there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// A connection is made, and a subscription, within this time.
const CONNECT: Duration = Duration::from_secs(20);

/// Pause before one looks again whether there is room.
const FULL: Duration = Duration::from_millis(100);

/// Messages that came again are known for so long.
const KNOWN: Duration = Duration::from_secs(3600);

/// Bodies larger than this are not taken over whole.
const LARGEST: usize = 16 << 20;

/// What is kept of those.
const HEAD: usize = 64 << 10;

/// Runs the bridges of all triggers that name a broker.
#[derive(Debug)]
pub struct Bridge {
    store: Store,
    brokers: Arc<Brokers>,
}

/// A bridge that runs.
struct Running {
    consumer: Consumer,
    stop: CancellationToken,
}

impl Bridge {
    /// Bridges into this ledger.
    #[must_use]
    pub const fn new(store: Store, brokers: Arc<Brokers>) -> Self {
        Self { store, brokers }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        if self.brokers.0.is_empty() {
            return;
        }
        let tasks = TaskTracker::new();
        let mut running: HashMap<TriggerId, Running> = HashMap::new();
        while !stop.is_cancelled() {
            match self.store.consumers().await {
                Ok(consumers) => self.adjust(consumers, &mut running, &tasks, &stop),
                Err(error) => tracing::warn!(%error, "could not read queue triggers"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(RELOAD) => {}
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Starts what is new, ends what is gone, and begins anew what has changed.
    fn adjust(
        &self,
        consumers: Vec<Consumer>,
        running: &mut HashMap<TriggerId, Running>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let wanted: HashMap<TriggerId, Consumer> = (consumers.into_iter())
            .filter(|consumer| consumer.spec.source.is_some())
            .map(|consumer| (consumer.trigger, consumer))
            .collect();
        running.retain(|trigger, running| {
            let same = wanted.get(trigger).is_some_and(|wanted| wanted.spec == running.consumer.spec);
            if !same {
                running.stop.cancel();
            }
            same
        });
        for (trigger, consumer) in wanted {
            running.entry(trigger).or_insert_with(|| {
                let stop = stop.child_token();
                let task =
                    Task { store: self.store.clone(), brokers: Arc::clone(&self.brokers), consumer: consumer.clone() };
                tasks.spawn(task.run(stop.clone()));
                Running { consumer, stop }
            });
        }
    }
}

/// The bridge of one trigger.
struct Task {
    store: Store,
    brokers: Arc<Brokers>,
    consumer: Consumer,
}

/// Why a bridge broke off.
enum Failure {
    Broker(BrokerError),
    Store(StoreError),
    /// The queue is gone, and so will be the trigger.
    Gone,
}

impl Task {
    async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            let begin = Instant::now();
            let failure = tokio::select! {
                () = stop.cancelled() => return,
                failure = self.bridge() => failure,
            };
            if begin.elapsed() > CONNECT {
                backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
            }
            let source = self.consumer.spec.source.as_ref().map(ToString::to_string).unwrap_or_default();
            match failure {
                Failure::Broker(error) => {
                    metric::broker_failed(&source);
                    let text = error.to_string();
                    tracing::warn!(trigger.id = %self.consumer.trigger, broker = source, error = text, "nothing comes from a broker; trying again");
                    self.note(BrokerWord::Failing, Some(&text)).await;
                }
                Failure::Store(error) => {
                    tracing::warn!(%error, "messages of a broker could not be put on record: they come again")
                }
                Failure::Gone => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(backoff.pause()) => {}
            }
        }
    }

    async fn note(&self, state: BrokerWord, error: Option<&str>) {
        if let Err(error) = self.store.note_broker(self.consumer.trigger, state, error).await {
            tracing::debug!(%error, "the state of a broker is not on record");
        }
    }

    /// Connects and takes over until something breaks.
    async fn bridge(&self) -> Failure {
        let Consumer { namespace, function, spec, .. } = &self.consumer;
        let Some((source, broker)) =
            spec.source.as_ref().and_then(|name| Some((name, self.brokers.find(namespace, name)?)))
        else {
            let missing = "it is not in the server's configuration any more, or not for this namespace";
            return Failure::Broker(BrokerError::Connect(missing.to_owned()));
        };
        self.note(BrokerWord::Connecting, None).await;
        let wanted = Wanted { namespace: namespace.clone(), function: function.clone(), spec: spec.clone() };
        let mut subscription = match timeout(CONNECT, connect(broker, &wanted)).await {
            Ok(Ok(subscription)) => subscription,
            Ok(Err(error)) => return Failure::Broker(error),
            Err(_) => return Failure::Broker(BrokerError::Connect("it does not answer".to_owned())),
        };
        tracing::info!(trigger.id = %self.consumer.trigger, broker = %source, "messages come from a broker");
        let queue = (namespace.clone(), spec.ledger_queue(function));
        match self.take_over(subscription.as_mut(), &queue, source.as_str()).await {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    async fn take_over(
        &self,
        subscription: &mut dyn Subscription,
        queue: &QueueKey,
        source: &str,
    ) -> Result<std::convert::Infallible, Failure> {
        let spec = &self.consumer.spec;
        let bound = i64::from(spec.batch_size.saturating_mul(spec.max_in_flight).clamp(u32::from(PREFETCH), 10_000));
        let mut state = None;
        let mut said = Instant::now();
        loop {
            let full = self.store.waiting_messages(queue, bound).await.map_err(Failure::Store)? >= bound;
            let word = if full { BrokerWord::Full } else { BrokerWord::On };
            if state != Some(word) || said.elapsed() >= SIGN_OF_LIFE {
                self.note(word, None).await;
                (state, said) = (Some(word), Instant::now());
            }
            if full {
                sleep(FULL).await;
                continue;
            }
            let received = match timeout(SIGN_OF_LIFE, subscription.next()).await {
                Ok(received) => received.map_err(Failure::Broker)?,
                Err(_) => continue,
            };
            let messages: Vec<NewMessage> = received.into_iter().map(message).collect();
            let (namespace, name) = queue;
            let published = self.store.publish_remembering(namespace, name, &messages, KNOWN).await;
            let published = published.map_err(Failure::Store)?.ok_or(Failure::Gone)?;
            metric::received(source, published.iter().filter(|one| !one.repeated).count() as u64);
            subscription.acknowledge().await.map_err(Failure::Broker)?;
        }
    }
}

fn message(received: Received) -> NewMessage {
    let Received { body, content_type, mut attributes, identity, priority } = received;
    let too_large = body.len() > LARGEST;
    let dead = too_large.then(|| {
        format!("its body has {} bytes, and {LARGEST} are taken from a broker: the first {HEAD} are kept", body.len())
    });
    if too_large {
        // It is not to be taken for the whole, ever.
        attributes.insert(CUT.to_owned(), body.len().to_string());
    }
    let body = if too_large { body.slice(..HEAD) } else { body };
    NewMessage { body, content_type, attributes, dedup: identity, priority, dead, ..NewMessage::default() }
}

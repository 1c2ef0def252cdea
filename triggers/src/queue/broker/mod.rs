//! Brokers of others: what they hand over becomes messages of a queue here, and is acknowledged once these are on disk.
//!
//! A broker is one file that implements [`Subscription`] and [`Publisher`](publish::Publisher), a word of [`BrokerKind`], and a line
//! each where they are connected. From there on its messages are like all others: batches, attempts, dead letters and bounds are the
//! queue's.

mod bridge;
#[cfg(feature = "nats")]
mod nats;
mod publish;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use runlet_core::manifest::QueueTrigger;
use runlet_core::name::{BrokerName, FunctionName, Namespace};
use runlet_core::secret::Secret;

pub use bridge::Bridge;
pub use publish::{NotPublished, Outgoing, Publishers};

/// Messages that a broker hands over at a time, and that are on their way without an acknowledgement: bounded for every broker.
const PREFETCH: u16 = 256;

/// Which kind of broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerKind {
    /// NATS JetStream.
    Nats,
    /// RabbitMQ, by AMQP 0-9-1.
    Rabbitmq,
}

impl BrokerKind {
    /// The kind that an address begins with.
    #[must_use]
    pub fn of_url(url: &str) -> Option<Self> {
        match url.split_once("://")?.0 {
            "nats" | "tls" => Some(Self::Nats),
            "amqp" | "amqps" => Some(Self::Rabbitmq),
            _ => None,
        }
    }

    /// Whether this binary speaks to it.
    #[must_use]
    pub const fn is_built(self) -> bool {
        match self {
            Self::Nats => cfg!(feature = "nats"),
            Self::Rabbitmq => cfg!(feature = "rabbitmq"),
        }
    }
}

/// A broker of the operator's configuration.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Its address, without credentials.
    pub url: String,
    /// Who we are there.
    pub user: Option<String>,
    /// The password; without a user a token, or for NATS the text of a credentials file.
    pub secret: Option<Secret>,
    /// Authorities that its certificate may be of besides those of the system, a PEM file.
    pub ca: Option<PathBuf>,
    /// Whose triggers may take from it.
    pub namespaces: Vec<Namespace>,
}

/// The brokers of the operator's configuration.
#[derive(Debug, Default)]
pub struct Brokers(HashMap<BrokerName, BrokerConfig>);

impl Brokers {
    /// These brokers.
    #[must_use]
    pub fn new(brokers: HashMap<BrokerName, BrokerConfig>) -> Self {
        Self(brokers)
    }

    /// Whether a namespace may take from a broker of that name.
    #[must_use]
    pub fn has(&self, namespace: &Namespace, name: &BrokerName) -> bool {
        self.find(namespace, name).is_some()
    }

    fn find(&self, namespace: &Namespace, name: &BrokerName) -> Option<&BrokerConfig> {
        self.0.get(name).filter(|broker| broker.namespaces.contains(namespace))
    }
}

/// What is wanted of a broker.
#[derive(Debug, Clone)]
struct Wanted {
    namespace: Namespace,
    function: FunctionName,
    spec: QueueTrigger,
}

/// A message as a broker hands it over.
#[derive(Debug, Default)]
struct Received {
    body: Bytes,
    content_type: Option<String>,
    attributes: BTreeMap<String, String>,
    /// Names the message at its broker: one that comes again is known by it.
    identity: Option<String>,
    priority: i16,
}

/// Why nothing comes from a broker, or goes to it. The texts are shown to people; they never hold a credential.
#[derive(Debug, thiserror::Error)]
enum BrokerError {
    /// No connection could be made, or it was refused.
    #[error("could not connect: {0}")]
    Connect(String),
    /// The queue, stream or subscription is not to be had.
    #[error("could not take from `{0}`: {1}")]
    Subscribe(String, String),
    /// A message was not taken.
    #[error("could not publish to `{0}`: {1}")]
    Publish(String, String),
    /// The connection is gone, or what came over it makes no sense.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// This binary was built without it.
    #[cfg(not(all(feature = "nats", feature = "rabbitmq")))]
    #[error("this binary was built without the feature `{0}`")]
    NotBuilt(&'static str),
}

/// Messages that come from a broker. When it is dropped, what was not acknowledged comes again, here or elsewhere.
trait Subscription: Send {
    /// Waits for messages: at least one, at most [`PREFETCH`]. Nothing is lost when it is dropped while it waits.
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Received>, BrokerError>>;

    /// All that came so far is on disk here: the broker may forget it.
    fn acknowledge(&mut self) -> BoxFuture<'_, Result<(), BrokerError>>;
}

/// Connects to a broker and subscribes.
async fn connect(broker: &BrokerConfig, wanted: &Wanted) -> Result<Box<dyn Subscription>, BrokerError> {
    match BrokerKind::of_url(&broker.url) {
        #[cfg(feature = "nats")]
        Some(BrokerKind::Nats) => Ok(Box::new(nats::Nats::connect(broker, wanted).await?)),
        #[cfg(feature = "rabbitmq")]
        Some(BrokerKind::Rabbitmq) => Ok(Box::new(rabbitmq::Rabbitmq::connect(broker, wanted).await?)),
        #[cfg(not(feature = "nats"))]
        Some(BrokerKind::Nats) => Err(BrokerError::NotBuilt("nats")),
        #[cfg(not(feature = "rabbitmq"))]
        Some(BrokerKind::Rabbitmq) => Err(BrokerError::NotBuilt("rabbitmq")),
        None => Err(BrokerError::Connect("its address has an unknown scheme".to_owned())),
    }
}

/// An error with its causes, in a line.
fn told(error: &dyn std::error::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in std::iter::successors(Some(error), |error| error.source()) {
        let text = error.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ").replace('\n', " ")
}

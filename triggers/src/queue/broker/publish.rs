//! Publishing to brokers: a connection is kept for a while after it was used, and a message is on the broker's disk when it is said to be
//! published.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use runlet_core::name::{BrokerName, Namespace};

use super::{BrokerConfig, BrokerError, BrokerKind, Brokers};

/// How long a connection is kept that nobody uses.
const KEPT: Duration = Duration::from_secs(60);

/// Most of them for each broker of each namespace.
const MOST: usize = 4;

/// A message for a broker.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Names it: the same in every try, so that a broker that can does away with repeats.
    pub id: String,
    /// The body.
    pub body: Bytes,
    /// Its content type.
    pub content_type: &'static str,
    /// Texts by name.
    pub attributes: BTreeMap<String, String>,
}

/// Why a message was not published. The text never holds a credential.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct NotPublished {
    text: String,
}

/// A way to publish to a broker.
pub(super) trait Publisher: Send {
    /// Publishes a message to a queue or subject; when it returns the broker has it for good.
    fn publish<'a>(&'a mut self, queue: &'a str, message: &'a Outgoing) -> BoxFuture<'a, Result<(), BrokerError>>;
}

type Idle = HashMap<(Namespace, BrokerName), Vec<(Instant, Box<dyn Publisher>)>>;

/// Publishes to the brokers of the operator's configuration.
pub struct Publishers {
    brokers: Arc<Brokers>,
    idle: Mutex<Idle>,
}

impl std::fmt::Debug for Publishers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publishers").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl Publishers {
    /// Publishes to these.
    #[must_use]
    pub fn new(brokers: Arc<Brokers>) -> Self {
        Self { brokers, idle: Mutex::default() }
    }

    /// Publishes a message within `patience`.
    ///
    /// # Errors
    /// [`NotPublished`]: whether the broker has it is not known then.
    pub async fn publish(
        &self,
        (namespace, name): (&Namespace, &BrokerName),
        queue: &str,
        message: &Outgoing,
        patience: Duration,
    ) -> Result<(), NotPublished> {
        let not = |text: String| NotPublished { text };
        let Some(broker) = self.brokers.find(namespace, name) else {
            return Err(not(format!("broker `{name}` is not in the server's configuration, or not for `{namespace}`")));
        };
        let key = (namespace.clone(), name.clone());
        let publishing = async {
            let mut publisher = match self.take(&key) {
                Some(publisher) => publisher,
                None => connect(broker).await?,
            };
            publisher.publish(queue, message).await?;
            Ok::<_, BrokerError>(publisher)
        };
        match tokio::time::timeout(patience, publishing).await {
            Ok(Ok(publisher)) => {
                self.keep(key, publisher);
                Ok(())
            }
            Ok(Err(error)) => Err(not(error.to_string())),
            Err(_) => Err(not(format!("no answer within {} s", patience.as_secs()))),
        }
    }

    /// Ends connections that nobody has used for long.
    pub fn tidy(&self) {
        self.lock().retain(|_, kept| {
            kept.retain(|(since, _)| since.elapsed() < KEPT);
            !kept.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last.
    fn take(&self, key: &(Namespace, BrokerName)) -> Option<Box<dyn Publisher>> {
        self.lock().get_mut(key)?.pop().map(|(_, publisher)| publisher)
    }

    fn keep(&self, key: (Namespace, BrokerName), publisher: Box<dyn Publisher>) {
        let mut idle = self.lock();
        let kept = idle.entry(key).or_default();
        if kept.len() < MOST {
            kept.push((Instant::now(), publisher));
        }
    }
}

async fn connect(broker: &BrokerConfig) -> Result<Box<dyn Publisher>, BrokerError> {
    match BrokerKind::of_url(&broker.url) {
        #[cfg(feature = "nats")]
        Some(BrokerKind::Nats) => Ok(Box::new(super::nats::NatsPublisher::connect(broker).await?)),
        #[cfg(feature = "rabbitmq")]
        Some(BrokerKind::Rabbitmq) => Ok(Box::new(super::rabbitmq::RabbitmqPublisher::connect(broker).await?)),
        #[cfg(not(feature = "nats"))]
        Some(BrokerKind::Nats) => Err(BrokerError::NotBuilt("nats")),
        #[cfg(not(feature = "rabbitmq"))]
        Some(BrokerKind::Rabbitmq) => Err(BrokerError::NotBuilt("rabbitmq")),
        None => Err(BrokerError::Connect("its address has an unknown scheme".to_owned())),
    }
}

//! NATS JetStream: a durable pull consumer on a stream, shared by all servers.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, Message};
use async_nats::{ConnectOptions, Event, HeaderMap};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;

use super::publish::{Outgoing, Publisher};
use super::{BrokerConfig, BrokerError, PREFETCH, Received, Subscription, Wanted, told};

/// A message that is not acknowledged comes again after this time.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// A stream of messages, and what happens to the connection.
pub(super) struct Nats {
    client: async_nats::Client,
    stream: pull::Stream,
    events: mpsc::Receiver<String>,
    unacknowledged: Vec<Message>,
    /// When the stream was made: another one of its name counts its messages anew.
    made: String,
}

impl Nats {
    pub(super) async fn connect(broker: &BrokerConfig, wanted: &Wanted) -> Result<Self, BrokerError> {
        let failed = |error: &dyn std::error::Error| BrokerError::Connect(told(error));
        // Two are enough: the first one ends the bridge.
        let (tell, events) = mpsc::channel(2);
        let options = credentials(broker)?.name("runlet").connection_timeout(Duration::from_secs(5)).event_callback(
            move |event| {
                let tell = tell.clone();
                async move {
                    let gone = match event {
                        Event::Disconnected | Event::Closed => "the server is gone".to_owned(),
                        Event::LameDuckMode => "the server is about to stop".to_owned(),
                        Event::ClientError(error) => error.to_string(),
                        Event::ServerError(error) => error.to_string(),
                        _ => return,
                    };
                    // A full channel has an end in it already.
                    drop(tell.try_send(gone));
                }
            },
        );
        let client = options.connect(broker.url.as_str()).await.map_err(|error| failed(&error))?;
        let spec = &wanted.spec;
        let refused = |error: &dyn std::error::Error| BrokerError::Subscribe(spec.queue.clone(), told(error));
        let context = jetstream::new(client.clone());
        let stream = context.get_stream(&spec.queue).await.map_err(|error| refused(&error))?;
        let made = stream.cached_info().created.unix_timestamp().to_string();
        let name = format!("runlet-{}-{}", wanted.namespace, wanted.function);
        let config = pull::Config {
            durable_name: Some(name.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: i64::from(PREFETCH) * 4,
            filter_subject: spec.subject.clone().unwrap_or_default(),
            ..pull::Config::default()
        };
        let consumer = stream.get_or_create_consumer(&name, config).await.map_err(|error| refused(&error))?;
        let stream = consumer
            .stream()
            .max_messages_per_batch(usize::from(PREFETCH))
            .heartbeat(Duration::from_secs(5))
            .expires(Duration::from_secs(30))
            .messages()
            .await
            .map_err(|error| refused(&error))?;
        Ok(Self { client, stream, events, unacknowledged: Vec::new(), made })
    }

    async fn receive(&mut self) -> Result<Vec<Received>, BrokerError> {
        let first = tokio::select! {
            biased;
            gone = self.events.recv() => {
                return Err(BrokerError::Broken(gone.unwrap_or_else(|| "the client has ended".to_owned())));
            }
            first = self.stream.next() => first,
        };
        let mut next = first;
        let mut received = Vec::new();
        loop {
            let message = match next {
                Some(Ok(message)) => message,
                Some(Err(error)) if received.is_empty() => return Err(BrokerError::Broken(told(&error))),
                None if received.is_empty() => return Err(BrokerError::Broken("the stream has ended".to_owned())),
                // What came before it is taken over first.
                Some(Err(_)) | None => return Ok(received),
            };
            received.push(read(&self.made, &message));
            self.unacknowledged.push(message);
            if received.len() >= usize::from(PREFETCH) {
                return Ok(received);
            }
            match self.stream.next().now_or_never() {
                Some(more) => next = more,
                None => return Ok(received),
            }
        }
    }

    async fn confirm(&mut self) -> Result<(), BrokerError> {
        for message in self.unacknowledged.drain(..) {
            message.ack().await.map_err(|error| BrokerError::Broken(error.to_string()))?;
        }
        self.client.flush().await.map_err(|error| BrokerError::Broken(told(&error)))
    }
}

/// A connection to publish by.
pub(super) struct NatsPublisher(jetstream::Context);

impl NatsPublisher {
    pub(super) async fn connect(broker: &BrokerConfig) -> Result<Self, BrokerError> {
        let options = credentials(broker)?.name("runlet").connection_timeout(Duration::from_secs(5));
        let client = options.connect(broker.url.as_str()).await;
        Ok(Self(jetstream::new(client.map_err(|error| BrokerError::Connect(told(&error)))?)))
    }

    /// A stream has it when this returns: a subject that none takes is an error.
    async fn send(&self, subject: &str, message: &Outgoing) -> Result<(), BrokerError> {
        let refused = |error: &dyn std::error::Error| BrokerError::Publish(subject.to_owned(), told(error));
        let mut headers = HeaderMap::new();
        for (name, value) in &message.attributes {
            headers.insert(name.as_str(), value.as_str());
        }
        headers.insert("Content-Type", message.content_type);
        // Within its window the stream keeps repeats of an id out.
        headers.insert(async_nats::header::NATS_MESSAGE_ID, message.id.as_str());
        let sent = self.0.publish_with_headers(subject.to_owned(), headers, message.body.clone()).await;
        sent.map_err(|error| refused(&error))?.await.map(drop).map_err(|error| refused(&error))
    }
}

impl Publisher for NatsPublisher {
    fn publish<'a>(&'a mut self, queue: &'a str, message: &'a Outgoing) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(self.send(queue, message))
    }
}

impl Subscription for Nats {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Received>, BrokerError>> {
        Box::pin(self.receive())
    }

    fn acknowledge(&mut self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(self.confirm())
    }
}

/// How we say who we are: user and password, a credentials file, or a token.
fn credentials(broker: &BrokerConfig) -> Result<ConnectOptions, BrokerError> {
    let text = broker.secret.as_ref().map(|secret| String::from_utf8_lossy(secret.expose()).into_owned());
    let mut options = match (&broker.user, text) {
        (Some(user), text) => ConnectOptions::with_user_and_password(user.clone(), text.unwrap_or_default()),
        (None, Some(text)) if text.contains("BEGIN NATS USER JWT") => ConnectOptions::with_credentials(&text)
            .map_err(|_| BrokerError::Connect("its secret is no NATS credentials file".to_owned()))?,
        (None, Some(text)) => ConnectOptions::with_token(text),
        (None, None) => ConnectOptions::new(),
    };
    if let Some(ca) = &broker.ca {
        options = options.add_root_certificates(ca.clone());
    }
    Ok(options.require_tls(broker.url.starts_with("tls://")))
}

fn read(made: &str, message: &Message) -> Received {
    let mut received = Received { body: message.payload.clone(), ..Received::default() };
    for (name, values) in message.headers.iter().flat_map(|headers| headers.iter()) {
        // As HTTP does it: one value of several.
        let value = values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if name.to_string().eq_ignore_ascii_case("content-type") {
            received.content_type = Some(value);
        } else {
            received.attributes.insert(name.to_string(), value);
        }
    }
    received.attributes.insert("nats.subject".to_owned(), message.subject.to_string());
    if let Ok(info) = message.info() {
        received.identity = Some(format!("{}:{made}:{}", info.stream, info.stream_sequence));
    }
    received
}

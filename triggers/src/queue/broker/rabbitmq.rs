//! RabbitMQ: a consumer of a queue that is there, with a bounded prefetch.

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};

use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::{AMQPUri, AMQPUserInfo};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};

use super::publish::{Outgoing, Publisher};
use super::{BrokerConfig, BrokerError, PREFETCH, Received, Subscription, Wanted, told};

/// Delivery mode of messages that a durable queue keeps on disk.
const PERSISTENT: u8 = 2;

/// A consumer, and the last message that was not acknowledged.
pub(super) struct Rabbitmq {
    /// Ends with this.
    _connection: Connection,
    channel: Channel,
    consumer: Consumer,
    last: Option<u64>,
}

impl Rabbitmq {
    pub(super) async fn connect(broker: &BrokerConfig, wanted: &Wanted) -> Result<Self, BrokerError> {
        let connection = connection_to(broker).await?;
        let queue = wanted.spec.queue.clone();
        let refused = |error: lapin::Error| BrokerError::Subscribe(queue.clone(), told(&error));
        let channel = connection.create_channel().await.map_err(|error| BrokerError::Connect(told(&error)))?;
        // Whose queue it is decides how it is made: here it must be there.
        let there = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.as_str().into(), there, FieldTable::default()).await.map_err(refused)?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(refused)?;
        let tag = format!("runlet-{}-{}-{}", wanted.namespace, wanted.function, std::process::id());
        let options = BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume(queue.as_str().into(), tag.as_str().into(), options, FieldTable::default());
        let consumer = consumer.await.map_err(refused)?;
        Ok(Self { _connection: connection, channel, consumer, last: None })
    }

    async fn receive(&mut self) -> Result<Vec<Received>, BrokerError> {
        let mut next = self.consumer.next().await;
        let mut received = Vec::new();
        loop {
            let delivery = match next {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) if received.is_empty() => return Err(BrokerError::Broken(told(&error))),
                None if received.is_empty() => {
                    return Err(BrokerError::Broken("the consumer was cancelled".to_owned()));
                }
                // What came before it is taken over first.
                Some(Err(_)) | None => return Ok(received),
            };
            self.last = Some(delivery.delivery_tag);
            received.push(read(delivery));
            if received.len() >= usize::from(PREFETCH) {
                return Ok(received);
            }
            match self.consumer.next().now_or_never() {
                Some(more) => next = more,
                None => return Ok(received),
            }
        }
    }

    async fn confirm(&mut self) -> Result<(), BrokerError> {
        let Some(last) = self.last.take() else { return Ok(()) };
        let all = BasicAckOptions { multiple: true };
        self.channel.basic_ack(last, all).await.map_err(|error| BrokerError::Broken(told(&error)))
    }
}

async fn connection_to(broker: &BrokerConfig) -> Result<Connection, BrokerError> {
    let failed = |error: lapin::Error| BrokerError::Connect(told(&error));
    let mut uri: AMQPUri = broker.url.parse().map_err(|error: String| BrokerError::Connect(error))?;
    if let Some(user) = &broker.user {
        let password = broker.secret.as_ref().map(|secret| String::from_utf8_lossy(secret.expose()).into_owned());
        uri.authority.userinfo = AMQPUserInfo { username: user.clone(), password: password.unwrap_or_default() };
    }
    uri.query.heartbeat = uri.query.heartbeat.or(Some(10));
    let cert_chain =
        match &broker.ca {
            Some(path) => Some(tokio::fs::read_to_string(path).await.map_err(|error| {
                BrokerError::Connect(format!("its `ca` {} cannot be read: {error}", path.display()))
            })?),
            None => None,
        };
    let tls = OwnedTLSConfig { identity: None, cert_chain };
    let runtime = lapin::runtime::default_runtime().map_err(|error| BrokerError::Connect(error.to_string()))?;
    Connection::connect_uri_with_config(uri, ConnectionProperties::default(), tls, runtime).await.map_err(failed)
}

/// A channel to publish by.
pub(super) struct RabbitmqPublisher {
    /// Ends with this.
    _connection: Connection,
    channel: Channel,
}

impl RabbitmqPublisher {
    pub(super) async fn connect(broker: &BrokerConfig) -> Result<Self, BrokerError> {
        let failed = |error: lapin::Error| BrokerError::Connect(told(&error));
        let connection = connection_to(broker).await?;
        let channel = connection.create_channel().await.map_err(failed)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
        Ok(Self { _connection: connection, channel })
    }

    /// The queue has it when this returns, on disk if it is a durable one; a queue that is not there is an error.
    async fn send(&self, queue: &str, message: &Outgoing) -> Result<(), BrokerError> {
        let refused = |text: &str| BrokerError::Publish(queue.to_owned(), text.to_owned());
        let failed = |error: lapin::Error| BrokerError::Publish(queue.to_owned(), told(&error));
        let mut headers = FieldTable::default();
        for (name, value) in &message.attributes {
            headers.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().into()));
        }
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type(message.content_type.into())
            .with_message_id(message.id.as_str().into())
            .with_headers(headers);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        // The exchange without a name leads to the queue that is called as the message is addressed.
        let sent = self.channel.basic_publish("".into(), queue.into(), options, &message.body, properties);
        match sent.await.map_err(failed)?.await.map_err(failed)? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err(refused("there is no such queue")),
            Confirmation::Nack(_) => Err(refused("the broker did not take it")),
            Confirmation::NotRequested => Err(refused("the broker confirms nothing")),
        }
    }
}

impl Publisher for RabbitmqPublisher {
    fn publish<'a>(&'a mut self, queue: &'a str, message: &'a Outgoing) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(self.send(queue, message))
    }
}

impl Subscription for Rabbitmq {
    fn next(&mut self) -> BoxFuture<'_, Result<Vec<Received>, BrokerError>> {
        Box::pin(self.receive())
    }

    fn acknowledge(&mut self) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(self.confirm())
    }
}

fn read(delivery: Delivery) -> Received {
    let Delivery { exchange, routing_key, properties, data, .. } = delivery;
    let mut received = Received { body: data.into(), ..Received::default() };
    received.content_type = properties.content_type().as_ref().map(ToString::to_string);
    received.priority = properties.priority().map_or(0, i16::from);
    // A publisher may give two messages one id: a message that comes again is taken twice rather than one of those lost.
    if let Some(id) = properties.message_id() {
        received.attributes.insert("amqp.message_id".to_owned(), id.to_string());
    }
    for (name, value) in properties.headers().iter().flat_map(|headers| headers.inner()) {
        let text = match value {
            AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
            AMQPValue::ShortString(text) => text.to_string(),
            AMQPValue::Boolean(truth) => truth.to_string(),
            AMQPValue::ShortInt(number) => number.to_string(),
            AMQPValue::LongInt(number) => number.to_string(),
            AMQPValue::LongLongInt(number) => number.to_string(),
            _ => continue,
        };
        received.attributes.insert(name.to_string(), text);
    }
    received.attributes.insert("amqp.exchange".to_owned(), exchange.to_string());
    received.attributes.insert("amqp.routing_key".to_owned(), routing_key.to_string());
    received
}

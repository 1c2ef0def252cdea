//! `[on_success]` and `[on_failure]`: who is told how asynchronous work ended.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::name::{BrokerName, FunctionName, SecretName};

/// How an end is written down for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// As Standard Webhooks recommends it.
    #[default]
    Webhook,
    /// A CloudEvent in structured mode: a document with attributes and data.
    Cloudevents,
    /// A CloudEvent in binary mode: attributes in headers, which the signature does not cover.
    CloudeventsBinary,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Webhook, Self::Cloudevents, Self::CloudeventsBinary];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Cloudevents => "cloudevents",
            Self::CloudeventsBinary => "cloudevents_binary",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where the end of an invocation is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Destination {
    /// Another function of the namespace is invoked with it.
    Function {
        /// Which.
        function: FunctionName,
    },
    /// It is sent to an address, as Standard Webhooks says.
    Http {
        /// The address.
        url: String,
        /// Name of the secret that it is signed with.
        secret: SecretName,
        /// How it is written down.
        #[serde(default, skip_serializing_if = "Format::is_default")]
        format: Format,
    },
    /// It is published to a queue.
    Queue {
        /// A built-in queue of the namespace; at RabbitMQ a queue, at NATS a subject that a stream takes.
        queue: String,
        /// The broker, as the operator's configuration names it; none: the built-in queue.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        broker: Option<BrokerName>,
    },
}

impl Destination {
    /// The word for its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Function { .. } => "function",
            Self::Http { .. } => "http",
            Self::Queue { .. } => "queue",
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Function { function } => write!(f, "function {function}"),
            Self::Http { url, .. } => f.write_str(url),
            Self::Queue { queue, broker: None } => write!(f, "queue {queue}"),
            Self::Queue { queue, broker: Some(broker) } => write!(f, "queue {queue} at {broker}"),
        }
    }
}

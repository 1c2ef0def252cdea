//! A queue trigger as the manifest declares it: which messages become invocations, how many at a time, and what follows a failure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::field::{FieldPath, FieldValue};
use crate::name::{BrokerName, FunctionName};
use crate::unit::Span;

/// A queue trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueTrigger {
    /// The queue: a built-in one, or at a broker the queue or stream there.
    pub queue: String,
    /// The broker, as the operator's configuration names it; `None`: the built-in queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<BrokerName>,
    /// NATS: only subjects that match this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Most messages of an invocation.
    pub batch_size: u32,
    /// How long the first message of a batch waits for others.
    pub batch_window: Span,
    /// Most invocations of the trigger that are not over, of all servers.
    pub max_in_flight: u32,
    /// A message that failed so often becomes a dead letter.
    pub max_attempts: u32,
    /// Pause after the first failure; each further one is twice as long.
    pub backoff: Span,
    /// The longest pause.
    pub backoff_max: Span,
    /// Attributes that must hold one of these values, each of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Vec<String>>,
    /// Fields of the body that must hold one of these values, each of them.
    #[serde(rename = "match", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<FieldPath, Vec<FieldValue>>,
}

impl QueueTrigger {
    /// The queue in the ledger that its messages go through. What comes from a broker has one for each function: its name has dots, as
    /// the name of no built-in queue has.
    #[must_use]
    pub fn ledger_queue(&self, function: &FunctionName) -> String {
        self.source.as_ref().map_or_else(|| self.queue.clone(), |source| format!("{source}.{function}.{}", self.queue))
    }
}

//! The rules of a queue trigger that the text of `function.toml` alone can break.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::manifest::QueueTrigger;
use crate::name::{BrokerName, QueueName};
use crate::unit::Span;

/// Longest name of a queue or stream at a broker, bytes.
const NAME: usize = 120;
/// Most attributes that are matched, and most values of each.
const MATCHES: usize = 16;

/// The keys of a queue trigger, as written.
pub(super) struct Keys {
    pub(super) queue: Option<String>,
    pub(super) source: Option<BrokerName>,
    pub(super) subject: Option<String>,
    pub(super) batch_size: Option<u32>,
    pub(super) batch_window: Option<Span>,
    pub(super) max_in_flight: Option<u32>,
    pub(super) max_attempts: Option<u32>,
    pub(super) backoff: Option<Span>,
    pub(super) backoff_max: Option<Span>,
    pub(super) attributes: Option<toml::Table>,
}

type Broken = (&'static str, String);

impl Keys {
    /// The first key that is set: none of them means anything to another kind of trigger.
    pub(super) fn any(&self) -> Option<&'static str> {
        let set = [
            ("queue", self.queue.is_some()),
            ("source", self.source.is_some()),
            ("subject", self.subject.is_some()),
            ("batch_size", self.batch_size.is_some()),
            ("batch_window", self.batch_window.is_some()),
            ("max_in_flight", self.max_in_flight.is_some()),
            ("max_attempts", self.max_attempts.is_some()),
            ("backoff", self.backoff.is_some()),
            ("backoff_max", self.backoff_max.is_some()),
            ("attributes", self.attributes.is_some()),
        ];
        set.into_iter().find_map(|(key, set)| set.then_some(key))
    }

    /// The trigger, or the key that breaks a rule and what to write instead.
    pub(super) fn checked(self) -> Result<QueueTrigger, Broken> {
        let queue = self.queue.unwrap_or_default();
        check_name(&queue, self.source.as_ref()).map_err(|message| ("queue", message))?;
        if self.subject.is_some() && self.source.is_none() {
            return broken("subject", "only streams of a broker have subjects; leave it out, or name a `source`");
        }
        let backoff = span("backoff", self.backoff, Duration::from_secs(1), Duration::from_secs(3600))?;
        let most = span("backoff_max", self.backoff_max, Duration::from_secs(300), Duration::from_secs(86_400))?;
        Ok(QueueTrigger {
            queue,
            source: self.source,
            subject: self.subject,
            batch_size: ranged("batch_size", self.batch_size, 1, 500)?,
            batch_window: span("batch_window", self.batch_window, Duration::ZERO, Duration::from_secs(300))?,
            max_in_flight: ranged("max_in_flight", self.max_in_flight, 20, 1000)?,
            max_attempts: ranged("max_attempts", self.max_attempts, 5, 1000)?,
            backoff,
            backoff_max: most.max(backoff),
            attributes: attributes(self.attributes.unwrap_or_default())?,
            fields: BTreeMap::new(),
        })
    }
}

/// Whether this can be the name of a built-in queue, or of something at a broker.
pub(super) fn check_name(queue: &str, broker: Option<&BrokerName>) -> Result<(), String> {
    match broker {
        _ if queue.is_empty() => Err("name the queue; `runlet queue ls` lists those there are".to_owned()),
        None => QueueName::new(queue).map(drop).map_err(|error| error.to_string()),
        Some(_) if queue.len() > NAME || queue.chars().any(|c| c.is_control() || c.is_whitespace()) => {
            Err(format!("write the broker's queue, stream or subject: at most {NAME} bytes, no space"))
        }
        Some(_) => Ok(()),
    }
}

fn broken<T>(key: &'static str, message: impl Into<String>) -> Result<T, Broken> {
    Err((key, message.into()))
}

fn ranged(key: &'static str, value: Option<u32>, usual: u32, most: u32) -> Result<u32, Broken> {
    super::cron::ranged(key, value, usual, most)
}

fn span(key: &'static str, value: Option<Span>, usual: Duration, most: Duration) -> Result<Span, Broken> {
    let value = value.unwrap_or(Span(usual));
    if value.0 <= most { Ok(value) } else { broken(key, format!("write at most \"{}\"", Span(most))) }
}

fn attributes(table: toml::Table) -> Result<BTreeMap<String, Vec<String>>, Broken> {
    const SHAPE: &str = "write texts by name, for example { kind = [\"order\", \"refund-*\"] }";
    if table.len() > MATCHES {
        return broken("attributes", format!("at most {MATCHES} attributes can be matched"));
    }
    let text = |value: toml::Value| match value {
        toml::Value::String(text) => Ok(text),
        _ => Err(("attributes", SHAPE.to_owned())),
    };
    let mut wanted = BTreeMap::new();
    for (name, value) in table {
        let values = match value {
            toml::Value::Array(values) => values.into_iter().map(text).collect::<Result<Vec<_>, _>>()?,
            one => vec![text(one)?],
        };
        if values.is_empty() || values.len() > MATCHES {
            return broken("attributes", SHAPE);
        }
        wanted.insert(name, values);
    }
    Ok(wanted)
}

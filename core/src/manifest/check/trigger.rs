//! The rules of a `[[trigger]]`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Lines;
use super::cron::Keys;
use super::queue::Keys as QueueKeys;
use crate::manifest::{AdapterKind, FieldPath, FieldValue, ManifestError, QueueTrigger, TriggerSpec, WebhookTrigger};
use crate::name::{BrokerName, HookPath, SecretName};
use crate::unit::Span;

/// Most fields that a trigger matches, and most values of each.
const MATCHES: usize = 16;
/// Longest text that a field is compared with, bytes.
const TEXT: usize = 1000;

/// A trigger as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTrigger {
    #[serde(rename = "type")]
    kind: String,
    path: Option<HookPath>,
    adapter: Option<String>,
    secret: Option<SecretName>,
    public: Option<bool>,
    #[serde(default)]
    events: Vec<String>,
    #[serde(default)]
    branches: Vec<String>,
    #[serde(rename = "match", default)]
    fields: toml::Table,
    schedule: Option<String>,
    zone: Option<String>,
    seconds: Option<bool>,
    overlap: Option<String>,
    misfire: Option<String>,
    misfire_window: Option<Span>,
    misfire_limit: Option<u32>,
    backlog: Option<u32>,
    jitter: Option<Span>,
    data: Option<toml::Value>,
    queue: Option<String>,
    source: Option<BrokerName>,
    subject: Option<String>,
    batch_size: Option<u32>,
    batch_window: Option<Span>,
    max_in_flight: Option<u32>,
    max_attempts: Option<u32>,
    backoff: Option<Span>,
    backoff_max: Option<Span>,
    attributes: Option<toml::Table>,
}

/// The key that breaks a rule, and what to write instead.
struct Broken(&'static str, String);

impl RawTrigger {
    /// Checks the trigger, the `nth` of its manifest.
    pub(super) fn check(mut self, lines: &Lines<'_>, nth: usize) -> Result<TriggerSpec, ManifestError> {
        let (cron, queue) = (self.cron(), self.queue());
        let foreign = |of: Option<&'static str>, whose: &str| match of {
            Some(key) => broken(key, format!("belongs to {whose}; leave it out")),
            None => Ok(()),
        };
        let (of_cron, of_queue) = (foreign(cron.any(), "a cron trigger"), foreign(queue.any(), "a queue trigger"));
        let checked = match self.kind.as_str() {
            "webhook" => of_cron.and(of_queue).and_then(|()| self.webhook()).map(TriggerSpec::Webhook),
            "cron" => foreign(self.of_webhook(), "a webhook")
                .and(of_queue)
                .and_then(|()| cron.checked().map(TriggerSpec::Cron).map_err(|(key, message)| Broken(key, message))),
            "queue" => {
                let fields = std::mem::take(&mut self.fields);
                foreign(self.of_webhook(), "a webhook").and(of_cron).and_then(|()| {
                    let spec = queue.checked().map_err(|(key, message)| Broken(key, message))?;
                    Ok(TriggerSpec::Queue(QueueTrigger { fields: matched(fields)?, ..spec }))
                })
            }
            "http" => broken("type", "only \"webhook\", \"cron\" and \"queue\" are available in this version"),
            _ => broken("type", "this is no trigger type; write \"webhook\", \"cron\" or \"queue\""),
        };
        checked.map_err(|Broken(key, message)| ManifestError {
            line: lines.of("trigger", nth, key),
            key: format!("trigger.{key}"),
            message,
        })
    }

    /// The keys of a cron trigger, taken out.
    fn cron(&mut self) -> Keys {
        Keys {
            schedule: self.schedule.take(),
            zone: self.zone.take(),
            seconds: self.seconds.take(),
            overlap: self.overlap.take(),
            misfire: self.misfire.take(),
            misfire_window: self.misfire_window.take(),
            misfire_limit: self.misfire_limit.take(),
            backlog: self.backlog.take(),
            jitter: self.jitter.take(),
            data: self.data.take(),
        }
    }

    /// The keys of a queue trigger, taken out.
    fn queue(&mut self) -> QueueKeys {
        QueueKeys {
            queue: self.queue.take(),
            source: self.source.take(),
            subject: self.subject.take(),
            batch_size: self.batch_size.take(),
            batch_window: self.batch_window.take(),
            max_in_flight: self.max_in_flight.take(),
            max_attempts: self.max_attempts.take(),
            backoff: self.backoff.take(),
            backoff_max: self.backoff_max.take(),
            attributes: self.attributes.take(),
        }
    }

    /// The first key of a webhook that is set.
    fn of_webhook(&self) -> Option<&'static str> {
        let set = [
            ("path", self.path.is_some()),
            ("adapter", self.adapter.is_some()),
            ("secret", self.secret.is_some()),
            ("public", self.public.is_some()),
            ("events", !self.events.is_empty()),
            ("branches", !self.branches.is_empty()),
            ("match", !self.fields.is_empty()),
        ];
        set.into_iter().find_map(|(key, set)| set.then_some(key))
    }

    fn webhook(self) -> Result<WebhookTrigger, Broken> {
        let adapter = self.adapter.as_deref().and_then(adapter);
        let Some(adapter) = adapter else {
            return broken(
                "adapter",
                "write \"github\", \"gitlab\", \"standard-webhooks\", \"hmac\", \"cloudevents\" or \"none\"",
            );
        };
        let Some(path) = self.path else {
            return broken("path", "a webhook needs a path; its URL is /hooks/{namespace}/{path}");
        };
        signing(adapter, self.secret.as_ref(), self.public)?;
        // No sender's event has such a name: the trigger would never want anything.
        if self.events.iter().any(|event| event.is_empty() || event.contains(char::is_whitespace)) {
            return broken(
                "events",
                "an event's name has no space; GitLab's `Push Hook` is written \"push\", its `Tag Push Hook` \"tag_push\"",
            );
        }
        let fields = matched(self.fields)?;
        Ok(WebhookTrigger { path, adapter, secret: self.secret, events: self.events, branches: self.branches, fields })
    }
}

fn broken<T>(key: &'static str, message: impl Into<String>) -> Result<T, Broken> {
    Err(Broken(key, message.into()))
}

fn adapter(word: &str) -> Option<AdapterKind> {
    AdapterKind::ALL.into_iter().find(|kind| kind.as_str() == word)
}

/// A hook has a secret, or says that anybody may start the function: neither is ever assumed.
fn signing(adapter: AdapterKind, secret: Option<&SecretName>, public: Option<bool>) -> Result<(), Broken> {
    match (adapter, secret, public) {
        (AdapterKind::None, None, Some(true)) => Ok(()),
        (AdapterKind::None, Some(_), _) => {
            broken("secret", "the adapter \"none\" checks no signature; leave it out, or choose another adapter")
        }
        (AdapterKind::None, None, _) => broken(
            "adapter",
            "\"none\" lets anybody who reaches the hook start the function; write `public = true` if that is wanted",
        ),
        (_, _, Some(true)) => {
            broken("public", "only hooks with the adapter \"none\" are public; leave it out, or write that adapter")
        }
        (_, None, _) => broken("secret", "name the signing secret, as in the operator's [secrets]"),
        (_, Some(_), _) => Ok(()),
    }
}

/// What `match` says.
fn matched(table: toml::Table) -> Result<BTreeMap<FieldPath, Vec<FieldValue>>, Broken> {
    let mut fields = BTreeMap::new();
    collect("", table, &mut fields)?;
    if fields.len() > MATCHES {
        return broken("match", format!("at most {MATCHES} fields can be matched"));
    }
    Ok(fields)
}

/// Paths and values of `match`; a table within it is the same as a dotted key.
fn collect(above: &str, table: toml::Table, fields: &mut BTreeMap<FieldPath, Vec<FieldValue>>) -> Result<(), Broken> {
    for (key, value) in table {
        let path = if above.is_empty() { key } else { format!("{above}.{key}") };
        let values = match value {
            toml::Value::Table(inner) => {
                collect(&path, inner, fields)?;
                continue;
            }
            toml::Value::Array(values) => values,
            one => vec![one],
        };
        if values.is_empty() || values.len() > MATCHES {
            return broken("match", format!("{path}: write one value, or a list of 1 to {MATCHES}"));
        }
        let values = values.into_iter().map(|value| scalar(&path, value)).collect::<Result<_, _>>()?;
        let place = FieldPath::new(path.as_str()).map_err(|error| Broken("match", error.to_string()))?;
        if fields.insert(place, values).is_some() {
            return broken("match", format!("{path} is there twice; give it a list of values"));
        }
    }
    Ok(())
}

fn scalar(path: &str, value: toml::Value) -> Result<FieldValue, Broken> {
    match value {
        toml::Value::String(text) if text.len() <= TEXT => Ok(FieldValue::Text(text)),
        toml::Value::String(_) => broken("match", format!("{path}: a text has at most {TEXT} bytes")),
        toml::Value::Integer(number) => Ok(FieldValue::Whole(number)),
        toml::Value::Boolean(truth) => Ok(FieldValue::Truth(truth)),
        other => broken(
            "match",
            format!(
                "{path}: a value of type {} cannot be matched; write a string, a whole number, true or false",
                other.type_str()
            ),
        ),
    }
}

//! What a function is given of its messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use runlet_core::cause::{Cause, CauseKind};
use runlet_core::clock::Timestamp;
use runlet_core::lineage::Lineage;
use runlet_core::store::message::{Candidate, Consumer};
use runlet_core::trace::Trace;
use serde_json::{Map, Value, json};

/// Content type of a batch, and of a body that says nothing.
const JSON: &str = "application/json";

fn moment(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// The facts about a message, without its body.
fn facts(consumer: &Consumer, message: &Candidate) -> Map<String, Value> {
    let mut facts = Map::new();
    facts.insert("queue".to_owned(), consumer.spec.queue.clone().into());
    facts.insert("message".to_owned(), message.id.to_string().into());
    facts.insert("attempt".to_owned(), (message.attempts + 1).into());
    facts.insert("priority".to_owned(), message.priority.into());
    facts.insert("published_at".to_owned(), moment(message.published_at).into());
    if let Some(key) = &message.key {
        facts.insert("key".to_owned(), key.clone().into());
    }
    facts.insert("attributes".to_owned(), json!(message.attributes));
    facts
}

/// Attribute of a message that the end of an invocation has caused: where that one came from, as JSON.
pub const LINEAGE: &str = "runlet.lineage";

/// Where a message comes from, if an invocation is its cause.
pub(super) fn lineage(message: &Candidate) -> Option<Lineage> {
    serde_json::from_str(message.attributes.get(LINEAGE)?).ok()
}

/// The trace that a message belongs to.
fn trace(message: &Candidate) -> Option<Trace> {
    let value = |name: &str| message.attributes.get(name).map(String::as_bytes).into_iter();
    Trace::of_headers(value("traceparent"), value("tracestate"))
}

/// Why an invocation of these messages is: a lone one is described in full. Of several, the one that has come the longest way says where it
/// comes from.
pub(super) fn cause(consumer: &Consumer, messages: &[&Candidate]) -> Cause {
    let normalised = match (consumer.spec.batch_size, messages) {
        (1, [only]) => Value::Object(facts(consumer, only)),
        _ => json!({ "queue": consumer.spec.queue, "messages": messages.len() }),
    };
    Cause {
        trigger: Some(consumer.trigger),
        normalised: Some(normalised),
        lineage: messages.iter().filter_map(|message| lineage(message)).max_by_key(|one| one.depth).map(Box::new),
        trace: messages.iter().find_map(|message| trace(message)),
        ..Cause::of_kind(CauseKind::Queue)
    }
}

/// The body of the invocation: that of the message, or a document with all of them where a trigger takes batches.
pub(super) fn payload(consumer: &Consumer, messages: &[&Candidate]) -> (Bytes, Option<String>) {
    if let (1, [only]) = (consumer.spec.batch_size, messages) {
        return (only.body.clone(), only.content_type.clone());
    }
    let all: Vec<Value> = messages.iter().map(|message| entry(consumer, message)).collect();
    (Bytes::from(json!({ "messages": all }).to_string()), Some(JSON.to_owned()))
}

/// A message in a batch: its body is `body` where that is JSON or text, else `body_base64`.
fn entry(consumer: &Consumer, message: &Candidate) -> Value {
    let mut entry = facts(consumer, message);
    entry.remove("queue");
    entry.remove("message");
    entry.insert("id".to_owned(), message.id.to_string().into());
    if let Some(content_type) = &message.content_type {
        entry.insert("content_type".to_owned(), content_type.clone().into());
    }
    let (key, body) = body(message);
    entry.insert(key.to_owned(), body);
    Value::Object(entry)
}

fn body(message: &Candidate) -> (&'static str, Value) {
    let Ok(text) = std::str::from_utf8(&message.body) else {
        return ("body_base64", STANDARD.encode(&message.body).into());
    };
    let json = is_json(message).then(|| serde_json::from_str(text).ok()).flatten();
    ("body", json.unwrap_or_else(|| text.into()))
}

/// Whether the body says that it is JSON, or says nothing.
pub(super) fn is_json(message: &Candidate) -> bool {
    message.content_type.as_deref().is_none_or(|text| {
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        essence == JSON || essence == "text/json" || essence.ends_with("+json")
    })
}

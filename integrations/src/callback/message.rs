//! What is told of an end: one shape for functions and addresses, as Standard Webhooks recommends it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use runlet_core::store::execution::Invocation;
use runlet_core::store::outbox::CallbackEvent;
use serde_json::{Map, Value, json};

/// Largest event and largest result that are told; larger ones are to be fetched.
const INLINE: usize = 256 << 10;

/// The message about an invocation that has ended.
pub(super) fn message(
    event: CallbackEvent,
    invocation: &Invocation,
    payload: Option<&Bytes>,
    result: Option<&(Bytes, String)>,
) -> Bytes {
    let mut data = Map::new();
    let fixed = [
        ("invocation", json!(invocation.id)),
        ("namespace", json!(invocation.namespace)),
        ("function", json!(invocation.function)),
        ("revision", json!(invocation.revision)),
        ("state", json!(invocation.state)),
        ("outcome", json!(invocation.outcome)),
        ("attempts", json!(invocation.attempts)),
        ("cause", json!(invocation.cause.kind)),
        ("accepted_at", json!(invocation.created_at)),
    ];
    data.extend(fixed.map(|(key, value)| (key.to_owned(), value)));
    if let Some(lineage) = &invocation.cause.lineage {
        data.insert("lineage".to_owned(), json!(lineage));
    }
    if let Some(payload) = payload.filter(|payload| !payload.is_empty()) {
        add(&mut data, "event", payload, invocation.content_type.as_deref());
    }
    if let Some((result, kind)) = result {
        add(&mut data, "result", result, Some(kind));
    }
    let message = json!({
        "type": format!("invocation.{}", event.as_str()),
        "timestamp": invocation.finished_at.unwrap_or(invocation.created_at),
        "data": data,
    });
    Bytes::from(message.to_string())
}

/// JSON as it is, anything else as base64, and of what is large only how large it is.
fn add(data: &mut Map<String, Value>, key: &str, bytes: &Bytes, content_type: Option<&str>) {
    if bytes.len() > INLINE {
        data.insert(format!("{key}_size"), json!(bytes.len()));
        return;
    }
    let is_json = content_type.is_none_or(|kind| kind.contains("json"));
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) if is_json => data.insert(key.to_owned(), value),
        _ => data.insert(format!("{key}_base64"), json!(STANDARD.encode(bytes))),
    };
}

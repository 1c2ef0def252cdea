//! What is told of an end: one shape for functions, queues and addresses, as Standard Webhooks recommends it; for addresses a CloudEvent
//! where they ask for one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use runlet_core::cloudevent::{self, CloudEvent};
use runlet_core::manifest::Format;
use runlet_core::store::execution::Invocation;
use runlet_core::store::outbox::CallbackEvent;
use serde_json::{Map, Value, json};

/// Content type of what is told.
pub(super) const JSON: &str = "application/json";

/// Largest event and largest result that are told; larger ones are to be fetched.
const INLINE: usize = 256 << 10;

/// What is told of an invocation that has ended.
#[derive(Debug)]
pub(super) struct Told {
    event: CallbackEvent,
    /// Which, as a CloudEvent names it.
    id: String,
    source: String,
    at: String,
    data: Value,
}

impl Told {
    pub(super) fn new(
        event: CallbackEvent,
        invocation: &Invocation,
        payload: Option<&Bytes>,
        result: Option<&(Bytes, String)>,
    ) -> Self {
        let function = invocation.function.as_ref().map(ToString::to_string).unwrap_or_default();
        Self {
            event,
            id: invocation.id.to_string(),
            source: format!("/{}/function/{function}", invocation.namespace),
            at: json!(invocation.finished_at.unwrap_or(invocation.created_at)).as_str().unwrap_or_default().to_owned(),
            data: data(invocation, payload, result),
        }
    }

    /// As Standard Webhooks recommends it.
    pub(super) fn webhook(&self) -> Bytes {
        let kind = format!("invocation.{}", self.event.as_str());
        json!({ "type": kind, "timestamp": self.at, "data": self.data }).to_string().into()
    }

    /// For an address: headers, of which the content type is one, and body.
    pub(super) fn for_address(&self, format: Format) -> (Vec<(String, String)>, Bytes) {
        let content_type = |kind: &str| vec![("content-type".to_owned(), kind.to_owned())];
        match format {
            Format::Webhook => (content_type(JSON), self.webhook()),
            Format::Cloudevents => {
                (content_type(cloudevent::STRUCTURED), self.cloudevent().structured().to_string().into())
            }
            Format::CloudeventsBinary => self.cloudevent().binary(),
        }
    }

    fn cloudevent(&self) -> CloudEvent {
        CloudEvent {
            id: self.id.clone(),
            source: self.source.clone(),
            kind: format!("runlet.invocation.{}", self.event.as_str()),
            content_type: Some(JSON.to_owned()),
            attributes: [("time".to_owned(), self.at.clone())].into(),
            data: self.data.to_string().into(),
        }
    }
}

fn data(invocation: &Invocation, payload: Option<&Bytes>, result: Option<&(Bytes, String)>) -> Value {
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
    Value::Object(data)
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

//! Messages: publishing one or many, and looking at what is in a queue.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use runlet_core::id::MessageId;
use runlet_core::problem::{Code, Problem};
use runlet_core::store::message::{MessageRecord, MessageState, NewMessage, PRIORITIES, Published};
use runlet_core::unit::Span;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use warp::reply::Response;

use super::errors::ApiError;
use super::input::Input;
use super::queues::missing;
use super::shapes::Anything;
use crate::http::reply;

/// Largest request: many messages.
const REQUEST: usize = 25 << 20;
/// Largest body of a message.
const BODY: usize = 1 << 20;
/// Most messages of a request.
const MESSAGES: usize = 10_000;
/// Longest key.
const KEY: usize = 500;
/// Most attributes of a message, and most bytes of all of them.
const ATTRIBUTES: (usize, usize) = (32, 16 << 10);
/// Longest delay.
const DELAY: Span = Span(std::time::Duration::from_secs(366 * 86_400));
/// Content type of many messages: one JSON document a line.
const LINES: &str = "application/x-ndjson";

/// A message as a line of a request with many.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    body_base64: Option<String>,
    content_type: Option<String>,
    key: Option<String>,
    dedup: Option<String>,
    #[serde(default)]
    priority: i16,
    delay: Option<Span>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

impl Line<'_> {
    fn message(self) -> Result<NewMessage, String> {
        let (body, usual) = match (self.body, self.body_base64) {
            (Some(json), None) => (Bytes::copy_from_slice(json.get().as_bytes()), Some("application/json".to_owned())),
            (None, Some(text)) => {
                (STANDARD.decode(text).map_err(|error| format!("body_base64: {error}"))?.into(), None)
            }
            _ => return Err("write `body` (any JSON) or `body_base64`, one of them".to_owned()),
        };
        checked(NewMessage {
            body,
            content_type: self.content_type.or(usual),
            attributes: self.attributes,
            key: self.key,
            dedup: self.dedup,
            priority: self.priority,
            delay: self.delay.map_or(std::time::Duration::ZERO, |span| span.0),
            dead: None,
        })
    }
}

/// Looks at what any publisher may say.
fn checked(message: NewMessage) -> Result<NewMessage, String> {
    for (what, key) in [("key", &message.key), ("dedup", &message.dedup)] {
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY) {
            return Err(format!("{what}: write 1 to {KEY} bytes"));
        }
    }
    if !(0..=PRIORITIES).contains(&message.priority) {
        return Err(format!("priority: write a number from 0 to {PRIORITIES}; higher goes first"));
    }
    if message.delay > DELAY.0 {
        return Err(format!("delay: write at most \"{DELAY}\""));
    }
    let bytes: usize = message.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    if message.attributes.len() > ATTRIBUTES.0 || bytes > ATTRIBUTES.1 {
        return Err(format!("attributes: at most {} of them, {} bytes together", ATTRIBUTES.0, ATTRIBUTES.1));
    }
    Ok(message)
}

/// What was published, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PublishedBody {
    messages: Vec<Published>,
}

/// Publish messages
///
/// The body is one message, or with the content type `application/x-ndjson` many: a JSON object a line, with `body` (any JSON) or
/// `body_base64`, and `key`, `dedup`, `priority`, `delay`, `attributes`, `content_type`. All are on disk when this is answered, or
/// none is.
#[utoipa::path(
    post,
    path = "/v1/queues/{name}/messages",
    tag = "queues",
    params(
        ("name" = String, Path, description = "Name of the queue"),
        ("key" = Option<String>, Query, description = "One message: those with the same key go one at a time, in order", max_length = 500),
        ("dedup" = Option<String>, Query, description = "One message: a repeat within five minutes is no new message", max_length = 500),
        ("priority" = Option<i16>, Query, description = "One message: higher first; 0 unless given", minimum = 0, maximum = 9),
        ("delay" = Option<String>, Query, description = "One message: not before so long has passed: \"30s\"", example = "30s"),
        ("attributes" = Option<String>, Query, description = "One message: a JSON object of texts by name")
    ),
    request_body(content = Anything, content_type = "application/json", description = "A message, 1 MiB at most, with any content type; or lines, 25 MiB and 10000 messages at most"),
    responses(
        (status = 202, description = "They are published", body = PublishedBody),
        (status = 404, description = "There is no such queue", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn publish(name: String, mut input: Input) -> Result<Response, ApiError> {
    let body = input.body(REQUEST).await?;
    input.api.disk.check()?;
    let query = input.query(&["key", "dedup", "priority", "delay", "attributes"])?;
    if name.contains('.') {
        return Err(ApiError::invalid("what comes from a broker is published at the broker"));
    }
    let content_type = input.header(CONTENT_TYPE).map(str::to_owned);
    let essence = content_type.as_deref().and_then(|text| text.split(';').next()).map(str::trim);
    let messages = if essence == Some(LINES) {
        lines(&body.bytes)?
    } else {
        if essence.is_some_and(|essence| essence.ends_with("json")) && !body.bytes.is_empty() {
            serde_json::from_slice::<serde::de::IgnoredAny>(&body.bytes)
                .map_err(|error| ApiError::new(Code::BadJson, format!("the body is not JSON: {error}")))?;
        }
        let attributes = query.text("attributes").map(serde_json::from_str).transpose();
        let attributes = attributes.map_err(|error| {
            ApiError::invalid(format!("query key `attributes`: {error}; write a JSON object of texts by name"))
        })?;
        let message = NewMessage {
            body: body.bytes.clone(),
            content_type,
            attributes: attributes.unwrap_or_default(),
            key: query.text("key").map(str::to_owned),
            dedup: query.text("dedup").map(str::to_owned),
            priority: query.read("priority")?.unwrap_or(0),
            delay: query.read::<Span>("delay")?.map_or(std::time::Duration::ZERO, |span| span.0),
            dead: None,
        };
        vec![checked(message).map_err(ApiError::invalid)?]
    };
    if let Some(nth) = messages.iter().position(|message| message.body.len() > BODY) {
        let which = if messages.len() > 1 { format!(" of message {}", nth + 1) } else { String::new() };
        return Err(ApiError::new(
            Code::TooLarge,
            format!("the body{which} is larger than {BODY} bytes; store it elsewhere and send where"),
        ));
    }
    let published = input.api.store.publish(input.namespace(), &name, &messages).await?;
    let messages = published.ok_or_else(|| missing(&name))?;
    Ok(reply::json(StatusCode::ACCEPTED, &PublishedBody { messages }))
}

/// Many messages, one a line; empty lines are passed over.
fn lines(text: &[u8]) -> Result<Vec<NewMessage>, ApiError> {
    let mut messages = Vec::new();
    for (nth, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let at = |code, what: String| ApiError::new(code, format!("line {}: {what}", nth + 1));
        let line: Line<'_> = serde_json::from_slice(line)
            .map_err(|error| at(if error.is_data() { Code::Invalid } else { Code::BadJson }, error.to_string()))?;
        messages.push(line.message().map_err(|what| at(Code::Invalid, what))?);
        if messages.len() > MESSAGES {
            return Err(ApiError::invalid(format!(
                "at most {MESSAGES} messages at a time; send the rest in another request"
            )));
        }
    }
    if messages.is_empty() {
        return Err(ApiError::invalid("there is no message in the body; write a JSON object a line"));
    }
    Ok(messages)
}

/// A page of messages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessagePage {
    messages: Vec<MessageRecord>,
    /// What goes into `after` for the next page; missing on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Look at the messages of a queue
///
/// Nothing is taken by looking.
#[utoipa::path(
    get,
    path = "/v1/queues/{name}/messages",
    tag = "queues",
    params(
        ("name" = String, Path, description = "Name of the queue"),
        ("state" = Option<MessageState>, Query, description = "Only those"),
        ("after" = Option<MessageId>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "At most so many; 100 unless given", minimum = 1, maximum = 1000)
    ),
    responses(
        (status = 200, description = "A page, oldest first", body = MessagePage),
        (status = 404, description = "There is no such queue", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(name: String, input: Input) -> Result<Response, ApiError> {
    let query = input.query(&["state", "after", "limit"])?;
    let state = query.word("state", &MessageState::ALL, MessageState::as_str)?;
    let (after, page) = (query.read::<MessageId>("after")?, query.page()?);
    let store = &input.api.store;
    let mut messages = store.messages(input.namespace(), &name, state, after, page.rows()).await?;
    if messages.is_empty() && store.queues(Some(input.namespace()), Some(&name), None, 1).await?.is_empty() {
        return Err(missing(&name));
    }
    let next = page.cut(&mut messages, |last| last.id);
    Ok(reply::json(StatusCode::OK, &MessagePage { messages, next }))
}

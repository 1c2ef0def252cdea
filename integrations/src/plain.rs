//! What senders of no particular kind say about a delivery: `X-Event`, an id if they have one, any body.
//!
//! Shared by the adapters that only differ in how such a delivery is verified.

use runlet_triggers::webhook::{Event, EventKind, Headers, Label, Refusal, Request};
use serde::de::IgnoredAny;

use crate::label::word;
use crate::loose::parse;

const EVENT: &str = "x-event";
/// Headers that may hold the delivery's id; the first that is there counts.
const IDS: [&str; 3] = ["idempotency-key", "x-delivery", "webhook-id"];

/// Name and id.
pub(crate) fn label(headers: &Headers) -> Result<Label, Refusal> {
    let mut provider_id = None;
    for name in IDS {
        provider_id = provider_id.or(word(headers, name)?);
    }
    Ok(Label { event: word(headers, EVENT)?, provider_id })
}

/// The event; only what says that it is JSON has to be JSON.
pub(crate) fn read(request: &Request<'_>) -> Result<Event, Refusal> {
    let json = claims_json(request)?;
    if json {
        parse::<IgnoredAny>(request.body)?;
    }
    let payload = json.then(|| request.body.clone());
    Ok(Event { kind: EventKind::Deliver, label: label(request.headers)?, branch: None, payload, normalised: None })
}

/// Whether the headers say that the body is JSON.
pub(crate) fn claims_json(request: &Request<'_>) -> Result<bool, Refusal> {
    let media = request.headers.media_type()?;
    Ok(media.is_some_and(|media| media == "application/json" || media.ends_with("+json")))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use runlet_core::clock;

    use super::*;

    fn ask(pairs: &[(&str, &str)], body: &'static [u8]) -> Result<Event, Refusal> {
        let (headers, body) = (pairs.iter().copied().collect(), Bytes::from_static(body));
        read(&Request { headers: &headers, body: &body, at: clock::now() })
    }

    #[test]
    fn name_and_id_come_from_headers() {
        let event = ask(&[("X-Event", "paid"), ("webhook-id", "w"), ("X-Delivery", "d")], b"\0\xff").unwrap();
        assert_eq!(event.label, Label { event: Some("paid".to_owned()), provider_id: Some("d".to_owned()) });
        assert_eq!(event.payload, None);
        assert_eq!(ask(&[], b"").unwrap().label, Label::default());
        let first = ask(&[("Idempotency-Key", "i"), ("X-Delivery", "d")], b"").unwrap();
        assert_eq!(first.label.provider_id.as_deref(), Some("i"));
    }

    #[test]
    fn only_what_claims_to_be_json_has_to_be_json() {
        let json = [("content-type", "application/problem+json; charset=utf-8")];
        assert!(ask(&json, b"{\"a\": [1]}").unwrap().payload.is_some());
        for bad in [&b""[..], b"{", b"{} x", b"{\"a\": \"\xff\"}"] {
            assert!(matches!(ask(&json, bad), Err(Refusal::Body(_))), "{}", String::from_utf8_lossy(bad));
        }
        assert!(ask(&[("content-type", "text/plain")], b"{").is_ok());
    }
}

//! Any sender that can make an HMAC-SHA256: `X-Signature-256` over the raw body, `X-Event`, and an id if it has one.
//!
//! The body may be anything; only what says that it is JSON has to be JSON.

use runlet_core::secret::Secret;
use runlet_triggers::webhook::{Adapter, Event, EventKind, Headers, Label, Refusal, Request};
use serde::de::IgnoredAny;

use crate::label::word;
use crate::loose::parse;
use crate::signature::{self, Prefix};

const SIGNATURE: &str = "x-signature-256";
const EVENT: &str = "x-event";
/// Headers that may hold the delivery's id; the first that is there counts.
const IDS: [&str; 3] = ["idempotency-key", "x-delivery", "webhook-id"];

/// The generic adapter.
#[derive(Debug)]
pub(crate) struct Generic;

impl Adapter for Generic {
    fn verify(&self, request: &Request<'_>, secret: &Secret) -> Result<(), Refusal> {
        signature::check(request, SIGNATURE, Prefix::Optional, secret)
    }

    fn label(&self, headers: &Headers) -> Result<Label, Refusal> {
        let mut provider_id = None;
        for name in IDS {
            provider_id = provider_id.or(word(headers, name)?);
        }
        Ok(Label { event: word(headers, EVENT)?, provider_id })
    }

    fn read(&self, request: &Request<'_>) -> Result<Event, Refusal> {
        let media = request.headers.media_type()?;
        if media.is_some_and(|media| media == "application/json" || media.ends_with("+json")) {
            parse::<IgnoredAny>(request.body)?;
        }
        let label = self.label(request.headers)?;
        Ok(Event { kind: EventKind::Deliver, label, branch: None, normalised: None })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read(pairs: &[(&str, &str)], body: &'static [u8]) -> Result<Event, Refusal> {
        let (headers, body) = (pairs.iter().copied().collect(), Bytes::from_static(body));
        Generic.read(&Request { headers: &headers, body: &body })
    }

    #[test]
    fn name_and_id_come_from_headers() {
        let event = read(&[("X-Event", "paid"), ("webhook-id", "w"), ("X-Delivery", "d")], b"\0\xff").unwrap();
        assert_eq!(event.label, Label { event: Some("paid".to_owned()), provider_id: Some("d".to_owned()) });
        assert_eq!(read(&[], b"").unwrap().label, Label::default());
        let first = read(&[("Idempotency-Key", "i"), ("X-Delivery", "d")], b"").unwrap();
        assert_eq!(first.label.provider_id.as_deref(), Some("i"));
    }

    #[test]
    fn only_what_claims_to_be_json_has_to_be_json() {
        let json = [("content-type", "application/problem+json; charset=utf-8")];
        assert!(read(&json, b"{\"a\": [1]}").is_ok());
        for bad in [&b""[..], b"{", b"{} x", b"{\"a\": \"\xff\"}"] {
            assert!(matches!(read(&json, bad), Err(Refusal::Body(_))), "{}", String::from_utf8_lossy(bad));
        }
        assert!(read(&[("content-type", "text/plain")], b"{").is_ok());
    }

    #[test]
    fn the_signature_is_over_the_raw_body() {
        let body = Bytes::from_static(b"{ \"a\":1 }");
        let headers: Headers = [("X-Signature-256", signature::sign("s", &body))].into_iter().collect();
        let verify = |body: &Bytes| Generic.verify(&Request { headers: &headers, body }, &Secret::new("s"));
        assert_eq!(verify(&body), Ok(()));
        assert!(verify(&Bytes::from_static(b"{\"a\":1}")).is_err());
    }
}

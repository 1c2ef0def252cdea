//! CloudEvents over HTTP: the sender shows a bearer token, as the webhook specification of CloudEvents has it.
//!
//! The function gets the body as it came, and the attributes of binary mode as headers; with `envelope = "cloudevents"` it gets the
//! whole event as one document, whichever way it came.

use bytes::Bytes;
use runlet_core::cloudevent::{BadEvent, CloudEvent};
use runlet_core::secret::Secret;
use runlet_triggers::webhook::{Adapter, Event, EventKind, Headers, Label, Refusal, Request};
use sha2::{Digest as _, Sha256};

use crate::signature;

/// The adapter `cloudevents`.
#[derive(Debug)]
pub(crate) struct CloudEvents;

impl Adapter for CloudEvents {
    fn usable(&self, secret: &Secret) -> Result<(), String> {
        signature::not_empty(secret)
    }

    fn verify(&self, request: &Request<'_>, secret: &Secret) -> Result<(), Refusal> {
        let refuse = |what: &str| Err(Refusal::Signature(what.to_owned()));
        let token = match request.headers.one("authorization") {
            Ok(Some(value)) => value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")),
            Ok(None) => return refuse("header authorization is missing; send `Bearer` and the hook's token"),
            Err(error) => return Err(Refusal::Signature(error.to_string())),
        };
        let Some((_, token)) = token else { return refuse("header authorization is no bearer token") };
        // Digests have one length: comparing them tells nothing of the token.
        let digest = |bytes: &[u8]| Sha256::digest(bytes);
        if same(&digest(token.trim().as_bytes()), &digest(secret.expose())) {
            Ok(())
        } else {
            refuse("the token is wrong")
        }
    }

    fn label(&self, headers: &Headers) -> Result<Label, Refusal> {
        // Of structured mode the headers say nothing.
        Ok(event(headers, &Bytes::new()).ok().flatten().map(|event| label_of(&event)).unwrap_or_default())
    }

    fn read(&self, request: &Request<'_>) -> Result<Event, Refusal> {
        let event = event(request.headers, request.body)?.ok_or_else(|| {
            Refusal::Header(
                "this is no CloudEvent: send headers ce-specversion, ce-id, ce-source and ce-type, or a document"
                    .to_owned(),
            )
        })?;
        let label = label_of(&event);
        Ok(Event { kind: EventKind::Deliver, label, branch: None, payload: Some(event.data), normalised: None })
    }
}

fn event(headers: &Headers, body: &Bytes) -> Result<Option<CloudEvent>, Refusal> {
    let mut pairs = Vec::new();
    for (name, values) in headers.iter().filter(|(name, _)| *name == "content-type" || name.starts_with("ce-")) {
        match values {
            [value] => pairs.push((name, value.as_str())),
            _ => return Err(Refusal::Header("a header of the event came more than once; send it once".to_owned())),
        }
    }
    CloudEvent::read(pairs.into_iter(), body).map_err(|error| match error {
        BadEvent::Document(_) => Refusal::Body(error.to_string()),
        BadEvent::Attribute(_) | BadEvent::Format => Refusal::Header(error.to_string()),
    })
}

/// The event's type names it; source and id together make a repeat recognisable.
fn label_of(event: &CloudEvent) -> Label {
    Label { event: Some(event.kind.clone()), provider_id: Some(format!("{} {}", event.source, event.id)) }
}

fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use runlet_core::clock;

    use super::*;

    fn ask(pairs: &[(&str, &str)], body: &'static str) -> (Result<(), Refusal>, Result<Event, Refusal>) {
        let (headers, body) = (pairs.iter().copied().collect(), Bytes::from_static(body.as_bytes()));
        let request = Request { headers: &headers, body: &body, at: clock::now() };
        (CloudEvents.verify(&request, &Secret::new("s3cret")), CloudEvents.read(&request))
    }

    #[test]
    fn the_token_is_the_secret_and_nothing_else() {
        for (value, right) in [
            ("Bearer s3cret", true),
            ("bearer s3cret", true),
            ("Bearer s3cre", false),
            ("Basic s3cret", false),
            ("", false),
        ] {
            assert_eq!(ask(&[("Authorization", value)], "").0.is_ok(), right, "{value}");
        }
        assert!(ask(&[], "").0.is_err());
    }

    #[test]
    fn both_modes_are_the_same_event() {
        let binary = [
            ("ce-specversion", "1.0"),
            ("ce-id", "7"),
            ("ce-source", "/a"),
            ("ce-type", "paid"),
            ("content-type", "application/json"),
        ];
        let structured = r#"{"specversion":"1.0","id":"7","source":"/a","type":"paid","data":{"n":1}}"#;
        let one = ask(&binary, r#"{"n":1}"#).1.unwrap();
        let other = ask(&[("content-type", "application/cloudevents+json")], structured).1.unwrap();
        assert_eq!(one, other);
        assert_eq!(one.label.provider_id.as_deref(), Some("/a 7"));
        assert!(matches!(ask(&[("content-type", "application/json")], "{}").1, Err(Refusal::Header(_))));
        assert!(matches!(ask(&[("content-type", "application/cloudevents+json")], "{").1, Err(Refusal::Body(_))));
        let twice = [("ce-specversion", "1.0"), ("ce-id", "1"), ("CE-ID", "2"), ("ce-source", "/a"), ("ce-type", "t")];
        assert!(matches!(ask(&twice, "").1, Err(Refusal::Header(_))));
    }
}

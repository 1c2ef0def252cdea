//! Standard Webhooks, from any sender: `webhook-signature` over id, time and body.
//!
//! The event's name is the `type` of a JSON body, as the specification recommends. What the signature does not cover
//! (any other header) is not looked at.

pub(crate) mod signed;

use runlet_core::secret::Secret;
use runlet_triggers::webhook::{Adapter, Event, EventKind, Headers, Label, Refusal, Request};
use serde::Deserialize;

use crate::label::{is_word, word};
use crate::loose::{Object, Text, parse};
use crate::plain::claims_json;
use signed::Keys;

/// The adapter for Standard Webhooks.
#[derive(Debug)]
pub(crate) struct Standard;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Payload {
    #[serde(rename = "type")]
    kind: Text,
}

impl Adapter for Standard {
    fn usable(&self, secret: &Secret) -> Result<(), String> {
        Keys::read(secret).map(|_| ())
    }

    fn verify(&self, request: &Request<'_>, secret: &Secret) -> Result<(), Refusal> {
        let keys = Keys::read(secret).map_err(|what| Refusal::Signature(format!("the hook's secret {what}")))?;
        signed::check(request, &keys)
    }

    fn label(&self, headers: &Headers) -> Result<Label, Refusal> {
        Ok(Label { event: None, provider_id: word(headers, signed::ID)? })
    }

    fn read(&self, request: &Request<'_>) -> Result<Event, Refusal> {
        let mut label = self.label(request.headers)?;
        let claimed = claims_json(request)?;
        // Senders need not name a content type: what is not JSON then is a body of another kind.
        let parsed = parse::<Object<Payload>>(request.body);
        let payload = parsed.is_ok().then(|| request.body.clone());
        let parsed = if claimed { parsed? } else { parsed.unwrap_or_default() };
        label.event = parsed.0.and_then(|payload| payload.kind.0).filter(|kind| is_word(kind));
        Ok(Event { kind: EventKind::Deliver, label, branch: None, payload, normalised: None })
    }
}

#[cfg(test)]
mod tests;

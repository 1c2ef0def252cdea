//! GitHub, and GitHub Enterprise: `X-Hub-Signature-256` over the raw body, JSON or a form with the JSON in it.
//!
//! Only the body is signed. Event name and delivery id are headers: who has once seen a signed body can send it again
//! under another id. That is GitHub's design; TLS in front of the hook keeps bodies unseen.

mod normalise;
mod payload;

use bytes::Bytes;
use runlet_core::form;
use runlet_core::secret::Secret;
use runlet_triggers::webhook::{Adapter, Event, EventKind, Headers, Label, Refusal, Request};

use crate::label::word;
use crate::signature::{self, Prefix};
use payload::Payload;

const SIGNATURE: &str = "x-hub-signature-256";
const OLD_SIGNATURE: &str = "x-hub-signature";
const EVENT: &str = "x-github-event";
const DELIVERY: &str = "x-github-delivery";

/// The GitHub adapter.
#[derive(Debug)]
pub(crate) struct Github;

impl Adapter for Github {
    fn usable(&self, secret: &Secret) -> Result<(), String> {
        signature::not_empty(secret)
    }

    fn verify(&self, request: &Request<'_>, secret: &Secret) -> Result<(), Refusal> {
        if request.headers.all(SIGNATURE).is_empty() && !request.headers.all(OLD_SIGNATURE).is_empty() {
            let text =
                "only the SHA-1 signature x-hub-signature came; set a secret so that GitHub sends x-hub-signature-256";
            return Err(Refusal::Signature(text.to_owned()));
        }
        signature::check(request, SIGNATURE, Prefix::Required, secret)
    }

    fn label(&self, headers: &Headers) -> Result<Label, Refusal> {
        Ok(Label { event: word(headers, EVENT)?, provider_id: word(headers, DELIVERY)? })
    }

    fn read(&self, request: &Request<'_>) -> Result<Event, Refusal> {
        let label = self.label(request.headers)?;
        let json = json(request)?;
        let normalised = Payload::parse(&json)?.normalise(label.event.as_deref());
        let kind = if label.event.as_deref() == Some("ping") { EventKind::Ping } else { EventKind::Deliver };
        let branch = normalised.branch.clone();
        Ok(Event { kind, label, branch, payload: Some(json), normalised: Some(normalised) })
    }
}

/// The JSON text of the body.
fn json(request: &Request<'_>) -> Result<Bytes, Refusal> {
    match request.headers.media_type()?.as_deref() {
        None | Some("application/json") => Ok(request.body.clone()),
        Some(form::CONTENT_TYPE) => form::field(request.body, "payload").map(Bytes::from).ok_or_else(|| {
            Refusal::Body(
                "the form has no readable field `payload`; send that, or content-type application/json".to_owned(),
            )
        }),
        Some(_) => Err(Refusal::Body(format!("content-type is neither application/json nor {}", form::CONTENT_TYPE))),
    }
}

#[cfg(test)]
mod tests;

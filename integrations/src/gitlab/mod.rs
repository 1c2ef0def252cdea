//! GitLab: `X-Gitlab-Token`, or from 19.0 on a signing token, which is the signed form of Standard Webhooks.
//!
//! A delivery that carries `webhook-signature` has to be signed well: the token beside it does not help. Only without
//! that header the token counts, and only if the hook's secret has one. So nobody can make a signed hook accept less
//! by leaving something out, unless the operator keeps a token for senders that do not sign yet.

mod payload;

use hmac::{Hmac, KeyInit, Mac};
use runlet_core::secret::Secret;
use runlet_triggers::webhook::{Adapter, Event, EventKind, Headers, Label, Refusal, Request};
use sha2::Sha256;

use crate::label::{is_word, word};
use crate::loose::{Object, parse};
use crate::standard::signed::{self, Keys};
use payload::Payload;

const TOKEN: &str = "x-gitlab-token";
const EVENT: &str = "x-gitlab-event";
/// Headers that may hold the delivery's id; the first that is there counts. `X-Gitlab-Event-UUID` is none: the hooks
/// that one event sets off by way of another share it.
const IDS: [&str; 2] = [signed::ID, "idempotency-key"];
/// The name of a system hook, whose payload says what it is.
const SYSTEM: &str = "system";

/// The GitLab adapter.
#[derive(Debug)]
pub(crate) struct Gitlab;

/// A hook's secret: a token, a signing token (`whsec_...`) or several of either, one a line.
struct Credentials<'a> {
    keys: Option<Keys>,
    tokens: Vec<&'a [u8]>,
}

impl<'a> Credentials<'a> {
    fn read(secret: &'a Secret) -> Result<Self, String> {
        let (keys, tokens): (Vec<_>, Vec<_>) =
            signed::lines(secret).partition(|line| line.starts_with(signed::PREFIX.as_bytes()));
        if keys.is_empty() && tokens.is_empty() {
            return Err("is empty".to_owned());
        }
        let keys = if keys.is_empty() { None } else { Some(Keys::of(keys.into_iter())?) };
        Ok(Self { keys, tokens })
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Refusal> {
        let refuse = |text: &str| Err(Refusal::Signature(text.to_owned()));
        if !request.headers.all(signed::SIGNATURE).is_empty() {
            return match &self.keys {
                Some(keys) => signed::check(request, keys),
                None => refuse(
                    "the delivery is signed, and the hook's secret holds no signing token; \
                     add the one that begins with whsec_ to it, on a line of its own",
                ),
            };
        }
        if self.tokens.is_empty() {
            return refuse("header webhook-signature is missing, and this hook takes signed deliveries only");
        }
        match request.headers.all(TOKEN) {
            [] => refuse("header x-gitlab-token is missing; set the secret token of GitLab's webhook"),
            [given] if self.tokens.iter().fold(false, |good, token| good | equal(token, given.as_bytes())) => Ok(()),
            [_] => refuse("header x-gitlab-token does not hold the hook's secret"),
            values => Err(Refusal::Signature(format!("header {TOKEN} came {} times; send it once", values.len()))),
        }
    }
}

/// Whether two texts are equal. Their digests are compared, in constant time: neither length nor content shows.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let digest = |text: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"runlet").expect("HMAC takes a key of any length");
        mac.update(text);
        mac
    };
    digest(one).verify(&digest(other).finalize().into_bytes()).is_ok()
}

impl Adapter for Gitlab {
    fn usable(&self, secret: &Secret) -> Result<(), String> {
        Credentials::read(secret).map(|_| ())
    }

    fn verify(&self, request: &Request<'_>, secret: &Secret) -> Result<(), Refusal> {
        let credentials = Credentials::read(secret);
        credentials.map_err(|what| Refusal::Signature(format!("the hook's secret {what}")))?.check(request)
    }

    fn label(&self, headers: &Headers) -> Result<Label, Refusal> {
        let mut provider_id = None;
        for name in IDS {
            provider_id = provider_id.or(word(headers, name)?);
        }
        Ok(Label { event: name(headers)?, provider_id })
    }

    fn read(&self, request: &Request<'_>) -> Result<Event, Refusal> {
        let mut label = self.label(request.headers)?;
        // Users can write templates for GitLab's payloads: whatever is JSON is a payload.
        let payload = parse::<Object<Payload>>(request.body)?.0.unwrap_or_default();
        if label.event.as_deref().is_none_or(|name| name == SYSTEM) {
            label.event = payload.name().filter(|name| is_word(name)).or(label.event);
        }
        let normalised = payload.normalise(label.event.as_deref());
        let branch = normalised.branch.clone();
        let body = request.body.clone();
        Ok(Event { kind: EventKind::Deliver, label, branch, payload: Some(body), normalised: Some(normalised) })
    }
}

/// The event's name: `Tag Push Hook` is `tag_push`.
fn name(headers: &Headers) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.one(EVENT)? else {
        return Ok(None);
    };
    let name = value.strip_suffix(" Hook").unwrap_or(value).to_ascii_lowercase().replace(' ', "_");
    if is_word(&name) {
        Ok(Some(name))
    } else {
        Err(Refusal::Header(format!("header {EVENT} does not hold the name of an event, such as `Push Hook`")))
    }
}

#[cfg(test)]
mod tests;

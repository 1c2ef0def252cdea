//! The signed form of Standard Webhooks, symmetric scheme `v1`: HMAC-SHA256 over `id.timestamp.body`.
//!
//! Any one good signature is enough, under any of the keys: that is how both sides change keys without a gap. Other
//! schemes in the header are skipped, as the specification asks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use runlet_core::secret::Secret;
use runlet_triggers::webhook::{Headers, Refusal, Request};
use sha2::Sha256;

/// Header with the message's id; a repeat carries it again.
pub(crate) const ID: &str = "webhook-id";
/// Header with the seconds since 1970 at which it was signed.
pub(crate) const TIMESTAMP: &str = "webhook-timestamp";
/// Header with the signatures.
pub(crate) const SIGNATURE: &str = "webhook-signature";

/// What a secret begins with.
pub(crate) const PREFIX: &str = "whsec_";
const SCHEME: &str = "v1,";
/// How far the sender's clock may be from ours, seconds.
const TOLERANCE: i64 = 300;
/// Most signatures in one header: keys are changed one at a time.
const SIGNATURES: usize = 32;
/// Bytes of a key, by the specification.
const KEY: std::ops::RangeInclusive<usize> = 24..=64;

/// The keys of a hook: one `whsec_...` a line.
pub(crate) struct Keys(Vec<Vec<u8>>);

impl Keys {
    /// Reads them out of the secret.
    pub(crate) fn read(secret: &Secret) -> Result<Self, String> {
        Self::of(lines(secret))
    }

    /// Reads keys, each of which has to be one.
    pub(crate) fn of<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Self, String> {
        let keys: Vec<_> = lines.map(key).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err("is empty".to_owned()) } else { Ok(Self(keys)) }
    }
}

/// The lines of a secret, without empty ones.
pub(crate) fn lines(secret: &Secret) -> impl Iterator<Item = &[u8]> {
    secret.expose().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

fn key(line: &[u8]) -> Result<Vec<u8>, String> {
    let encoded = line.strip_prefix(PREFIX.as_bytes());
    let key = encoded.and_then(|encoded| STANDARD.decode(encoded).ok()).filter(|key| KEY.contains(&key.len()));
    key.ok_or_else(|| {
        format!(
            "is no key of Standard Webhooks: write {PREFIX} and the base64 of {} to {} random bytes, one a line",
            KEY.start(),
            KEY.end()
        )
    })
}

/// Checks the signature of a request.
pub(crate) fn check(request: &Request<'_>, keys: &Keys) -> Result<(), Refusal> {
    let refuse = |text: String| Err(Refusal::Signature(text));
    let (id, timestamp) = (once(request.headers, ID)?, once(request.headers, TIMESTAMP)?);
    let signatures = signatures(once(request.headers, SIGNATURE)?)?;
    let good = keys.0.iter().any(|key| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", request.body.as_ref()] {
            mac.update(part);
        }
        signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
    });
    if !good {
        return refuse(format!(
            "header {SIGNATURE} holds no signature of this id, time and body: the secrets differ, or something was changed"
        ));
    }
    // Only now, so that a stale repeat is told apart from a forgery.
    let canonical = timestamp.len() <= 12 && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let Some(sent) = timestamp.parse::<i64>().ok().filter(|_| canonical) else {
        return refuse(format!("header {TIMESTAMP} does not hold seconds since 1970"));
    };
    let late = request.at.timestamp() - sent;
    if late.abs() > TOLERANCE {
        let word = if late > 0 { "before" } else { "after" };
        return refuse(format!(
            "the delivery was signed {} s {word} it came, and at most {TOLERANCE} s are taken; look at the clocks",
            late.abs()
        ));
    }
    Ok(())
}

/// The value of a header that has to be there once.
fn once<'a>(headers: &'a Headers, name: &'static str) -> Result<&'a str, Refusal> {
    match headers.all(name) {
        [value] if !value.is_empty() => Ok(value),
        [] | [_] => Err(Refusal::Signature(format!("header {name} is missing; sign as Standard Webhooks says"))),
        values => Err(Refusal::Signature(format!("header {name} came {} times; send it once", values.len()))),
    }
}

/// The signatures of the scheme in a header.
fn signatures(value: &str) -> Result<Vec<[u8; 32]>, Refusal> {
    let refuse = |text: String| Err(Refusal::Signature(text));
    let mut found = Vec::new();
    for entry in value.split(' ') {
        if let Some(encoded) = entry.strip_prefix(SCHEME) {
            match STANDARD.decode(encoded).ok().and_then(|bytes| bytes.try_into().ok()) {
                Some(signature) => found.push(signature),
                None => return refuse(format!("header {SIGNATURE} holds a `{SCHEME}` without 32 bytes of base64")),
            }
        }
    }
    match found.len() {
        0 => refuse(format!("header {SIGNATURE} holds no signature of the scheme v1")),
        1..=SIGNATURES => Ok(found),
        many => refuse(format!("header {SIGNATURE} holds {many} signatures; at most {SIGNATURES} are looked at")),
    }
}

/// The signatures of a message, one for each key: a receiver that knows any of them takes it.
pub(crate) fn signature(keys: &Keys, id: &str, timestamp: i64, body: &[u8]) -> String {
    let one = |key: &Vec<u8>| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("{SCHEME}{}", STANDARD.encode(mac.finalize().into_bytes()))
    };
    keys.0.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// The headers of a signed message, as a sender makes them.
#[cfg(test)]
pub(crate) fn sign(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Vec<(&'static str, String)> {
    let signature = signature(&Keys(vec![key(secret.as_bytes()).unwrap()]), id, timestamp, body);
    vec![(ID, id.to_owned()), (TIMESTAMP, timestamp.to_string()), (SIGNATURE, signature)]
}

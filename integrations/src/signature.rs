//! HMAC-SHA256 signatures in a header: one strict spelling, compared in constant time.
//!
//! Strict because every second accepted spelling is one more thing that a proxy in front may read differently.

use hmac::{Hmac, KeyInit, Mac};
use runlet_core::secret::Secret;
use runlet_triggers::webhook::{Refusal, Request};
use sha2::Sha256;

/// What stands before the hex characters.
const PREFIX: &str = "sha256=";

/// Whether `sha256=` has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// It has to.
    Required,
    /// With or without it.
    Optional,
}

/// A secret for HMAC can be anything but nothing.
pub(crate) fn not_empty(secret: &Secret) -> Result<(), String> {
    if secret.expose().is_empty() { Err("is empty".to_owned()) } else { Ok(()) }
}

/// Checks that `header` holds the signature of the raw body under `secret`.
pub(crate) fn check(
    request: &Request<'_>,
    header: &'static str,
    prefix: Prefix,
    secret: &Secret,
) -> Result<(), Refusal> {
    let refuse = |text: String| Err(Refusal::Signature(text));
    if let Err(what) = not_empty(secret) {
        return refuse(format!("the hook's secret {what}"));
    }
    let value = match request.headers.all(header) {
        [] => return refuse(format!("header {header} is missing; sign the raw body with HMAC-SHA256")),
        [value] => value.as_str(),
        values => return refuse(format!("header {header} came {} times; send it once", values.len())),
    };
    let hex = match (value.strip_prefix(PREFIX), prefix) {
        (Some(hex), _) => hex,
        (None, Prefix::Optional) => value,
        (None, Prefix::Required) => return refuse(format!("header {header} does not begin with {PREFIX}")),
    };
    let Some(signature) = decode(hex) else {
        return refuse(format!("header {header} does not hold 64 characters of 0-9 a-f"));
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose()).expect("HMAC takes a key of any length");
    mac.update(request.body);
    mac.verify_slice(&signature).or_else(|_| {
        refuse(format!(
            "header {header} is not the signature of this body: the secrets differ, or the body was changed"
        ))
    })
}

/// 32 bytes from exactly 64 lower-case hex characters.
fn decode(hex: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs: &[u8; 64] = hex.as_bytes().try_into().ok()?;
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(pairs.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

/// The signature of `body`, as a sender makes it.
#[cfg(test)]
pub(crate) fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use runlet_core::clock;
    use runlet_triggers::webhook::Headers;

    use super::*;

    const HEADER: &str = "x-hub-signature-256";

    fn ask(signatures: &[&str], prefix: Prefix, secret: &str, body: &[u8]) -> Result<(), String> {
        let headers: Headers = signatures.iter().map(|value| (HEADER, *value)).collect();
        let body = Bytes::copy_from_slice(body);
        let request = Request { headers: &headers, body: &body, at: clock::now() };
        check(&request, HEADER, prefix, &Secret::new(secret)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn the_published_vector_verifies() {
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let secret = "It's a Secret to Everybody";
        assert_eq!(ask(&[signature], Prefix::Required, secret, b"Hello, World!"), Ok(()));
        assert!(ask(&[signature], Prefix::Required, secret, b"Hello, World?").is_err());
        assert!(ask(&[signature], Prefix::Required, "another secret", b"Hello, World!").is_err());
    }

    #[test]
    fn only_one_spelling_is_accepted() {
        let (secret, body) = ("s", b"body");
        let hex = sign(secret, body);
        let good = format!("sha256={hex}");
        let bad = [
            (String::new(), "does not begin with sha256="),
            (hex.clone(), "does not begin with sha256="),
            (format!("sha1={hex}"), "does not begin with sha256="),
            (format!("SHA256={hex}"), "does not begin with sha256="),
            (format!("sha256={}", hex.to_uppercase()), "does not hold 64 characters of 0-9 a-f"),
            (format!("sha256={}", &hex[..62]), "does not hold 64 characters of 0-9 a-f"),
            (format!("sha256={hex}00"), "does not hold 64 characters of 0-9 a-f"),
            (format!("sha256= {hex}"), "does not hold 64 characters of 0-9 a-f"),
            (format!("sha256={}é", &hex[..62]), "does not hold 64 characters of 0-9 a-f"),
            (format!("{good}, {good}"), "does not hold 64 characters of 0-9 a-f"),
            ("sha256=".to_owned(), "does not hold 64 characters of 0-9 a-f"),
            (format!("sha256={}", "0".repeat(64)), "is not the signature of this body"),
        ];
        assert_eq!(ask(&[&good], Prefix::Required, secret, body), Ok(()));
        for (value, reason) in bad {
            let error = ask(&[&value], Prefix::Required, secret, body).unwrap_err();
            assert!(error.contains(reason), "{value}: {error}");
        }
        assert!(ask(&[], Prefix::Required, secret, body).unwrap_err().contains("is missing"));
        assert!(ask(&[&good, &good], Prefix::Required, secret, body).unwrap_err().contains("came 2 times"));
        assert!(
            ask(&[&format!("sha256={}", sign("", body))], Prefix::Required, "", body).unwrap_err().contains("is empty")
        );
    }

    #[test]
    fn the_prefix_may_be_optional() {
        let hex = sign("s", b"body");
        for value in [hex.clone(), format!("sha256={hex}")] {
            assert_eq!(ask(&[&value], Prefix::Optional, "s", b"body"), Ok(()));
        }
        assert!(ask(&[&format!("sha1={hex}")], Prefix::Optional, "s", b"body").is_err());
    }

    proptest! {
        #[test]
        fn one_flipped_bit_anywhere_is_refused(
            body in proptest::collection::vec(any::<u8>(), 1..200),
            secret in ".{1,80}",
            at: prop::sample::Index,
            bit in 0..8u8,
        ) {
            let hex = sign(&secret, &body);
            prop_assert_eq!(ask(&[&hex], Prefix::Optional, &secret, &body), Ok(()));

            let mut other = body.clone();
            other[at.index(body.len())] ^= 1 << bit;
            prop_assert!(ask(&[&hex], Prefix::Optional, &secret, &other).is_err());

            let mut text = hex.into_bytes();
            let place = at.index(text.len());
            text[place] ^= 1 << (bit % 7);
            let text = String::from_utf8(text).unwrap();
            prop_assert!(ask(&[&text], Prefix::Optional, &secret, &body).is_err());
        }
    }
}

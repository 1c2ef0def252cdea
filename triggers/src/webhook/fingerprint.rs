//! Credentials in headers: recognised by name, recorded as a keyed fingerprint, kept away from the code.
//!
//! The fingerprint tells two deliveries with the same credential from two with different ones. It tells nothing else
//! without the key, which never leaves the server.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::headers::Headers;

/// Parts of a header's name that give away a credential. Better one header too many than one too few.
const PARTS: [&str; 13] = [
    "access-key",
    "api-key",
    "api_key",
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "passwd",
    "password",
    "secret",
    "signature",
    "subscription-key",
    "token",
];

/// Whether a header of this name (lower case) carries a credential.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    name.starts_with("x-auth") || PARTS.iter().any(|part| name.contains(part))
}

/// The key of the fingerprints.
#[derive(Clone)]
pub struct FingerprintKey([u8; 32]);

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

impl FingerprintKey {
    /// A key of 32 random bytes, the same over restarts: otherwise fingerprints of yesterday match nothing.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// `hmac-sha256:` and 16 hex characters.
    #[must_use]
    pub fn of(&self, value: &str) -> String {
        use fmt::Write as _;
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(value.as_bytes());
        let mut text = "hmac-sha256:".to_owned();
        for byte in mac.finalize().into_bytes().iter().take(8) {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// The headers as they go on record: credentials fingerprinted, several values of one name joined by `, `.
    pub(super) fn record(&self, headers: &Headers) -> BTreeMap<String, String> {
        let value = |name: &str, values: &[String]| {
            if is_credential(name) {
                values.iter().map(|value| self.of(value)).collect::<Vec<_>>().join(", ")
            } else {
                values.join(", ")
            }
        };
        headers.iter().map(|(name, values)| (name.to_owned(), value(name, values))).collect()
    }
}

/// The headers as the code sees them: without credentials.
pub(super) fn for_code(headers: &Headers) -> BTreeMap<String, String> {
    let plain = headers.iter().filter(|(name, _)| !is_credential(name));
    plain.map(|(name, values)| (name.to_owned(), values.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 16] = [
        "X-Hub-Signature",
        "X-Hub-Signature-256",
        "X-Signature-256",
        "Webhook-Signature",
        "Authorization",
        "Proxy-Authorization",
        "Cookie",
        "X-Gitlab-Token",
        "Private-Token",
        "X-Api-Key",
        "X-ApiKey",
        "X-Auth-Key",
        "X-Client-Secret",
        "X-Amz-Security-Token",
        "X-Password",
        "Ocp-Apim-Subscription-Key",
    ];

    #[test]
    fn no_credential_is_recorded_or_shown() {
        let key = FingerprintKey::new([7; 32]);
        let headers: Headers =
            NAMES.iter().map(|name| (*name, "hunter2")).chain([("X-GitHub-Event", "push")]).collect();
        let recorded = key.record(&headers);
        assert_eq!(recorded.len(), NAMES.len() + 1);
        assert!(!format!("{recorded:?}{key:?}").contains("hunter2"));
        assert_eq!(recorded["authorization"], key.of("hunter2"));
        let shown = for_code(&headers);
        assert_eq!(shown.into_iter().collect::<Vec<_>>(), [("x-github-event".to_owned(), "push".to_owned())]);
    }

    #[test]
    fn ordinary_headers_stay_readable() {
        for name in [
            "x-github-event",
            "x-github-delivery",
            "idempotency-key",
            "x-event-key",
            "user-agent",
            "content-type",
            "author",
        ] {
            assert!(!is_credential(name), "{name}");
        }
    }

    #[test]
    fn fingerprints_tell_values_and_keys_apart() {
        let key = FingerprintKey::new([1; 32]);
        assert_eq!(key.of("a"), key.of("a"));
        assert_ne!(key.of("a"), key.of("b"));
        assert_ne!(key.of("a"), FingerprintKey::new([2; 32]).of("a"));
        assert_eq!(key.of("a").len(), "hmac-sha256:".len() + 16);
    }
}

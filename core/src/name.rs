//! Names that users choose. Each is checked once, where it enters, and cannot be wrong afterwards; a copy shares its text.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

/// A name that breaks its rule.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{what} `{text}` is not valid: {rule}")]
pub struct BadName {
    what: &'static str,
    text: String,
    rule: &'static str,
}

const DNS_LABEL: &str = "use 1 to 63 characters of a-z, 0-9 and -, neither first nor last a -";
const PATH: &str =
    "use 1 to 8 segments of a-z, 0-9, -, _ and . joined by /, at most 200 characters, no segment `.` or `..`";
const DIGEST: &str = "use `sha256:` and 64 characters of 0-9 a-f";

const DNS_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
const PATH_PATTERN: &str = "^[a-z0-9._-]+(/[a-z0-9._-]+){0,7}$";
const DIGEST_PATTERN: &str = "^sha256:[0-9a-f]{64}$";

fn dns_label(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(ok) && !text.starts_with('-') && !text.ends_with('-')
}

fn hook_path(text: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(ok);
    text.len() <= 200 && text.split('/').count() <= 8 && text.split('/').all(segment)
}

fn digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

macro_rules! name {
    ($($(#[$doc:meta])* $name:ident: $what:literal, $check:ident, $rule:ident, $pattern:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` against the rule of this name.
            ///
            /// # Errors
            /// [`BadName`] with the rule that was broken.
            pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
                let text = text.into();
                if $check(&text) {
                    Ok(Self(text.into()))
                } else {
                    Err(BadName { what: $what, text: text.chars().take(80).collect(), rule: $rule })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                crate::schema::text($rule, $pattern)
            }
        }

        impl utoipa::ToSchema for $name {}

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::new(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl Type<Postgres> for $name {
            fn type_info() -> PgTypeInfo {
                <str as Type<Postgres>>::type_info()
            }

            fn compatible(info: &PgTypeInfo) -> bool {
                <str as Type<Postgres>>::compatible(info)
            }
        }

        impl Encode<'_, Postgres> for $name {
            fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
                <&str as Encode<'_, Postgres>>::encode(&self.0, buffer)
            }
        }

        impl<'r> Decode<'r, Postgres> for $name {
            fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
                Ok(Self(<&str as Decode<'r, Postgres>>::decode(value)?.into()))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

name! {
    /// Who owns a row. `default` always exists.
    Namespace: "namespace", dns_label, DNS_LABEL, DNS_PATTERN;
    /// A function, unique in its namespace.
    FunctionName: "function name", dns_label, DNS_LABEL, DNS_PATTERN;
    /// A name that points at revisions of one function, unique among its aliases.
    AliasName: "alias", dns_label, DNS_LABEL, DNS_PATTERN;
    /// A secret as functions name it; the operator's `[secrets]` says where it is.
    SecretName: "secret name", dns_label, DNS_LABEL, DNS_PATTERN;
    /// The part of a webhook URL after `/hooks/{namespace}/`.
    HookPath: "hook path", hook_path, PATH, PATH_PATTERN;
    /// `sha256:<hex>` of a revision's normalised archive and settings.
    RevisionDigest: "revision", digest, DIGEST, DIGEST_PATTERN;
}

impl Namespace {
    /// The namespace that always exists.
    #[must_use]
    pub fn default_namespace() -> Self {
        Self("default".into())
    }
}

impl RevisionDigest {
    /// The digest whose SHA-256 value is `bytes`.
    #[must_use]
    pub fn from_sha256(bytes: &[u8; 32]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text.into())
    }

    /// The 64 hex characters, without the algorithm; safe as a file name.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.strip_prefix("sha256:").unwrap_or(&self.0)
    }

    /// The first 12 hex characters, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.hex().get(..12).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        let long = "a".repeat(64);
        for text in ["", "A", "a_b", "-a", "a-", "../x", "a b", "é", "a\n", "$(x)", ";rm", &long] {
            assert!(FunctionName::new(text).is_err(), "{text:?}");
        }
        for text in ["a", "on-push", "0", "a-0"] {
            assert!(FunctionName::new(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn hook_paths_cannot_climb() {
        for text in ["", "/", "a/", "/a", "a//b", "..", "a/../b", "a/.", "A", "a%2e", "a/b/c/d/e/f/g/h/i"] {
            assert!(HookPath::new(text).is_err(), "{text:?}");
        }
        assert!(HookPath::new("gh/repo_1.x").is_ok());
    }
}

//! Typed identifiers: a prefix and the base32 text of a UUIDv7.
//!
//! The text form sorts by creation time, as does the UUID itself; the day of a row, and so its partition, is derived from its id.

use std::fmt;
use std::str::FromStr;

use chrono::DateTime;
use uuid::Uuid;

use crate::clock::Timestamp;

/// The text is no id of the expected kind.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("`{text}` is not an id of this kind: expected `{prefix}_` and 26 characters of 0-9 a-z")]
pub struct BadId {
    prefix: &'static str,
    text: String,
}

const CROCKFORD: base32::Alphabet = base32::Alphabet::Crockford;

fn encode(uuid: Uuid) -> String {
    base32::encode(CROCKFORD, uuid.as_bytes()).to_ascii_lowercase()
}

fn decode(prefix: &'static str, text: &str) -> Result<Uuid, BadId> {
    let bad = || BadId { prefix, text: text.chars().take(64).collect() };
    let body = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')).ok_or_else(bad)?;
    let bytes = base32::decode(CROCKFORD, body).ok_or_else(bad)?;
    let uuid = Uuid::from_slice(&bytes).map_err(|_| bad())?;
    // Only the canonical spelling is an id: the decoder alone would also take `O` for `0` and stray low bits.
    if encode(uuid) == body { Ok(uuid) } else { Err(bad()) }
}

/// The moment a UUIDv7 was made, to the millisecond.
fn created_at(uuid: Uuid) -> Option<Timestamp> {
    let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type)]
        #[sqlx(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, made now.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "every new id differs: that is no default")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The UUID as the store keeps it.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// When the id was made, to the millisecond; `None` for an id that is no UUIDv7.
            #[must_use]
            pub fn created_at(self) -> Option<Timestamp> {
                created_at(self.0)
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let rule = concat!("`", $prefix, "_` and the base32 of a UUIDv7: ids sort by the time they were made");
                crate::schema::text(rule, concat!("^", $prefix, "_[0-9a-z]{26}$"))
            }
        }

        impl utoipa::ToSchema for $name {}

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                decode($prefix, text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

id! {
    /// "Run this once."
    InvocationId = "inv";
    /// One attempt at an invocation.
    ExecutionId = "exe";
    /// One raw webhook or message as received.
    DeliveryId = "dlv";
    /// What makes invocations.
    TriggerId = "trg";
    /// A message in a queue.
    MessageId = "msg";
    /// The right to use a sandbox.
    LeaseId = "lse";
    /// An API token (its name, never its secret).
    TokenId = "tok";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_sorts_by_time() {
        let ids: Vec<ExecutionId> = (0..64).map(|_| ExecutionId::new()).collect();
        let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
        assert!(texts.is_sorted());
        for (id, text) in ids.iter().zip(&texts) {
            assert_eq!(text.len(), 30);
            assert_eq!(text.parse(), Ok(*id));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        let text = InvocationId::new().to_string();
        assert!(text.parse::<ExecutionId>().is_err());
        assert!(text.to_uppercase().parse::<InvocationId>().is_err());
        assert!(format!("{text}0").parse::<InvocationId>().is_err());
        assert!("inv_".parse::<InvocationId>().is_err());
        assert!("inv_oooooooooooooooooooooooooo".parse::<InvocationId>().is_err());
    }
}

//! Typed identifiers: a prefix and the base32 text of a UUIDv7.
//!
//! The text form sorts by creation time, as does the UUID itself; the day of a row, and so its partition, is derived from its id.

use std::fmt;
use std::str::FromStr;

use chrono::DateTime;
use uuid::Uuid;

use crate::base32;
use crate::clock::Timestamp;

/// The text is no id of the expected kind.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("`{text}` is not an id of this kind: expected `{prefix}_` and 26 characters of 0-9 a-z")]
pub struct BadId {
    prefix: &'static str,
    text: String,
}

/// The text of an id: a prefix of three letters, `_`, and the base32 of the UUID.
struct Text([u8; 4 + base32::LENGTH]);

impl Text {
    fn new(prefix: &'static str, uuid: Uuid) -> Self {
        let mut text = [b'_'; 4 + base32::LENGTH];
        text[..3].copy_from_slice(prefix.as_bytes());
        text[4..].copy_from_slice(&base32::text(uuid.into_bytes()));
        Self(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("all of it is ASCII")
    }
}

fn decode(prefix: &'static str, text: &str) -> Result<Uuid, BadId> {
    let body = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_'));
    let bytes = body.and_then(|body| base32::bytes(body.as_bytes()));
    bytes.map(Uuid::from_bytes).ok_or_else(|| BadId { prefix, text: text.chars().take(64).collect() })
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
                f.write_str(Text::new($prefix, self.0).as_str())
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                decode($prefix, text).map(Self)
            }
        }

        /// Text where people read it, else the 16 bytes.
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.serialize_str(Text::new($prefix, self.0).as_str())
                } else {
                    self.0.as_bytes().serialize(serializer)
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(deserializer).map(|bytes| Self(Uuid::from_bytes(bytes)))
                }
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

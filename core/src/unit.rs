//! Sizes and durations as people write them: `128MiB`, `10s`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time in whole milliseconds, written `1500ms`, `10s`, `5m`, `2h` or `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A text that is no size or no duration.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum BadUnit {
    /// Not a size.
    #[error("`{0}` is not a size: write a whole number and B, KiB, MiB or GiB, for example \"128MiB\"")]
    Size(String),
    /// Not a duration.
    #[error("`{0}` is not a duration: write a whole number and ms, s, m, h or d, for example \"10s\"")]
    Span(String),
}

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SPANS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|value| i64::try_from(*value).is_ok())
}

fn show(f: &mut fmt::Formatter<'_>, value: u64, units: impl Iterator<Item = (&'static str, u64)>) -> fmt::Result {
    for (name, factor) in units {
        if value.is_multiple_of(factor) && (value > 0 || factor == 1) {
            return write!(f, "{}{name}", value / factor);
        }
    }
    Ok(())
}

impl ByteSize {
    /// `n` mebibytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
}

impl std::str::FromStr for ByteSize {
    type Err = BadUnit;
    fn from_str(text: &str) -> Result<Self, BadUnit> {
        parse(text, &SIZES).map(Self).ok_or_else(|| BadUnit::Size(text.to_owned()))
    }
}

impl std::str::FromStr for Span {
    type Err = BadUnit;
    fn from_str(text: &str) -> Result<Self, BadUnit> {
        parse(text, &SPANS).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(|| BadUnit::Span(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, SIZES.into_iter())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        show(f, ms, SPANS.into_iter().rev())
    }
}

macro_rules! as_text {
    ($($name:ident: $expecting:literal;)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    )*};
}

as_text! {
    ByteSize: "a size such as \"128MiB\"";
    Span: "a duration such as \"10s\"";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_back_as_written() {
        for text in ["128MiB", "1GiB", "3KiB", "7B", "0B"] {
            assert_eq!(text.parse::<ByteSize>().map(|v| v.to_string()), Ok(text.to_owned()));
        }
        for text in ["1500ms", "10s", "5m", "2h", "1d", "0ms"] {
            assert_eq!(text.parse::<Span>().map(|v| v.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "128", "128MB", "MiB", "-1MiB", "1.5GiB", "18446744073709551615GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
        for text in ["", "10", "10sec", "s", "-1s", "1.5s", "99999999999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }
}

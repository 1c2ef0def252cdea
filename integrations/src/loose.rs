//! Reads single fields out of JSON whose shape nobody promises.
//!
//! A field of another type than expected counts as absent, so that a sender's new kind of event is still an event.
//! The rest of the document is skipped without being kept: 25 MB of it cost no memory. A known key that comes twice
//! is an error: the code might read the other one.

use std::fmt;
use std::marker::PhantomData;

use runlet_triggers::webhook::Refusal;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Reads `json`, all of which has to be JSON in UTF-8: the parser alone would not look into texts that it skips.
pub(crate) fn parse<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, Refusal> {
    let text = std::str::from_utf8(json).map_err(|error| Refusal::Body(format!("the JSON is not UTF-8: {error}")))?;
    serde_json::from_str(text).map_err(|error| Refusal::Body(format!("this is not the JSON it should be: {error}")))
}

/// Longest text that is taken, bytes.
const LONGEST: usize = 1000;

/// A text of at most 1000 bytes without control characters; anything else is absent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) Option<String>);

/// A whole number from 0 on; anything else is absent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) Option<u64>);

/// A text or a truth, for fields that senders use for both; anything else is absent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: Option<String>,
    pub(crate) truth: Option<bool>,
}

/// `true` or `false`; anything else is absent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Truth(pub(crate) Option<bool>);

/// The first element of an array, where that is an object; anything else is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct First<T>(pub(crate) Option<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// An object; anything else is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object<T>(pub(crate) Option<T>);

impl<T> Default for Object<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// What a visitor has to make of each JSON type; `None` everywhere but where a type is wanted.
trait Want: Sized {
    type Out: Default;
    fn text(_: &str) -> Self::Out {
        Self::Out::default()
    }
    fn number(_: u64) -> Self::Out {
        Self::Out::default()
    }
    fn truth(_: bool) -> Self::Out {
        Self::Out::default()
    }
    fn array<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Self::Out, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::Out::default())
    }
    fn object<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self::Out, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::Out::default())
    }
}

struct Any<W>(PhantomData<W>);

impl<'de, W: Want> Visitor<'de> for Any<W> {
    type Value = W::Out;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E: Error>(self, truth: bool) -> Result<W::Out, E> {
        Ok(W::truth(truth))
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<W::Out, E> {
        Ok(W::Out::default())
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<W::Out, E> {
        Ok(W::number(number))
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<W::Out, E> {
        Ok(W::Out::default())
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<W::Out, E> {
        Ok(W::text(text))
    }
    fn visit_unit<E: Error>(self) -> Result<W::Out, E> {
        Ok(W::Out::default())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<W::Out, A::Error> {
        W::array(seq)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<W::Out, A::Error> {
        W::object(map)
    }
}

impl Want for Text {
    type Out = Self;
    fn text(text: &str) -> Self {
        Self((text.len() <= LONGEST && !text.chars().any(char::is_control)).then(|| text.to_owned()))
    }
}

impl Want for Number {
    type Out = Self;
    fn number(number: u64) -> Self {
        Self(Some(number))
    }
}

impl Want for Scalar {
    type Out = Self;
    fn text(text: &str) -> Self {
        Self { text: Text::text(text).0, truth: None }
    }
    fn truth(truth: bool) -> Self {
        Self { text: None, truth: Some(truth) }
    }
}

impl Want for Truth {
    type Out = Self;
    fn truth(truth: bool) -> Self {
        Self(Some(truth))
    }
}

impl<T: for<'de> Deserialize<'de>> Want for First<T> {
    type Out = Self;
    fn array<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<Self, A::Error> {
        let first: Option<Object<T>> = seq.next_element()?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self(first.and_then(|Object(first)| first)))
    }
}

impl<T: for<'de> Deserialize<'de>> Want for Object<T> {
    type Out = Self;
    fn object<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|value| Self(Some(value)))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any::<Self>(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any::<Self>(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any::<Self>(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Truth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any::<Self>(PhantomData))
    }
}

impl<'de, T: for<'a> Deserialize<'a>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any::<Self>(PhantomData))
    }
}

impl<'de, T: for<'a> Deserialize<'a>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any::<Self>(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default)]
    struct Sample {
        text: Text,
        number: Number,
        inner: Object<Inner>,
        first: First<Inner>,
        truth: Truth,
    }

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default)]
    struct Inner {
        text: Text,
    }

    #[test]
    fn every_type_is_survived_and_only_the_right_one_is_taken() {
        for value in [
            json!(null),
            json!(-1),
            json!(1.5),
            json!([]),
            json!([1, {"a": []}]),
            json!("a\u{0}"),
            json!("x".repeat(1001)),
        ] {
            let sample = Sample::deserialize(
                json!({"text": value, "number": value, "inner": value, "first": value, "truth": value}),
            )
            .unwrap();
            assert_eq!(sample, Sample::default(), "{value}");
        }
        let sample = Sample::deserialize(json!({
            "text": "é", "number": 7, "inner": {"text": 1}, "first": [{"text": "a"}, {}], "truth": true,
        }))
        .unwrap();
        assert_eq!(sample.text.0.as_deref(), Some("é"));
        assert_eq!(sample.number.0, Some(7));
        assert_eq!(sample.inner.0, Some(Inner::default()));
        assert_eq!(sample.first.0, Some(Inner { text: Text(Some("a".to_owned())) }));
        assert_eq!(sample.truth.0, Some(true));
    }

    #[test]
    fn a_known_key_must_not_come_twice() {
        assert!(parse::<Sample>(br#"{"text": "a", "text": "b"}"#).is_err());
        assert!(parse::<Sample>(br#"{"other": "a", "other": "b"}"#).is_ok());
    }

    #[test]
    fn skipped_parts_have_to_be_json_too() {
        for bad in [&b"{\"a\": \"\xff\"}"[..], b"{\"a\": nul}", b"{\"a\": 1} {}", b"", b"\xef\xbb\xbf{}"] {
            assert!(parse::<Sample>(bad).is_err(), "{bad:?}");
        }
        let deep = "[".repeat(100_000);
        assert!(
            parse::<Sample>(format!("{{\"a\": {deep}{}}}", "]".repeat(100_000)).as_bytes()).is_ok(),
            "depth costs no stack"
        );
    }
}

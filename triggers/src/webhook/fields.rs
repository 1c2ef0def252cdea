//! `match`: whether the fields of a payload hold what a trigger wants of them.
//!
//! The payload is read once and nothing of it is kept. A step of a path is a key of an object; at an array it is asked
//! of every element, and one that matches is enough; a number there means the element at that place. Of a key that
//! comes twice the last one counts, as it does for the code.

use std::collections::BTreeMap;
use std::fmt;

use runlet_core::manifest::{FieldPath, FieldValue};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::rules::matches;

/// Characters of a value that a reason repeats.
const SHOWN: usize = 60;

/// Why the payload is not wanted; `None` if each field holds one of its values.
pub(crate) fn unmatched(fields: &BTreeMap<FieldPath, Vec<FieldValue>>, payload: Option<&[u8]>) -> Option<String> {
    let (first, _) = fields.first_key_value()?;
    let steps: Vec<Vec<&str>> = fields.keys().map(|path| path.steps().collect()).collect();
    let asked = steps.iter().zip(fields.values()).map(|(steps, values)| Asked { steps, values, element: false });
    let found = payload.and_then(|json| {
        let mut reader = serde_json::Deserializer::from_slice(json);
        Seek(asked.collect()).deserialize(&mut reader).ok()
    });
    let Some(found) = found else {
        return Some(format!("the body is no JSON to look into, and {first} has to match"));
    };
    fields.iter().zip(found).find_map(|((path, values), found)| {
        let wanted = values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match found {
            Found::Wanted => None,
            Found::Other(value) => Some(format!("{path} is {value}, and only [{wanted}] is wanted")),
            Found::Missing => Some(format!("the payload has no {path}, and only [{wanted}] is wanted")),
        }
    })
}

/// A question to one value of the document.
#[derive(Clone, Copy)]
struct Asked<'a> {
    /// The steps from this value on.
    steps: &'a [&'a str],
    /// What is wanted at their end.
    values: &'a [FieldValue],
    /// Whether the value is an element that a step was asked of: arrays in arrays are not looked into.
    element: bool,
}

impl<'a> Asked<'a> {
    /// The question to the member `key` of this object.
    fn member(self, key: &str) -> Option<Self> {
        let (first, steps) = self.steps.split_first()?;
        (*first == key).then_some(Self { steps, element: false, ..self })
    }

    /// The question to the element at `place` of this array.
    fn element(self, place: usize) -> Option<Self> {
        if let Some((number, steps)) =
            self.steps.split_first().filter(|(step, _)| step.bytes().all(|b| b.is_ascii_digit()))
        {
            return (number.parse() == Ok(place)).then_some(Self { steps, element: false, ..self });
        }
        (!self.element).then_some(Self { element: true, ..self })
    }

    /// The answer of a value that has no parts.
    fn answer(self, wanted: impl Fn(&FieldValue) -> bool, shown: impl FnOnce() -> String) -> Found {
        if !self.steps.is_empty() {
            return Found::Missing;
        }
        if self.values.iter().any(wanted) { Found::Wanted } else { Found::Other(shown()) }
    }
}

/// What a value answers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Missing,
    Other(String),
    Wanted,
}

/// Asks one value all questions; answers come in the same order.
struct Seek<'a>(Vec<Asked<'a>>);

impl<'a> Seek<'a> {
    /// The questions that `to` passes on to a part of this value, and where their answers belong.
    fn pass(&self, to: impl Fn(Asked<'a>) -> Option<Asked<'a>>) -> (Vec<usize>, Vec<Asked<'a>>) {
        self.0.iter().enumerate().filter_map(|(place, asked)| Some((place, to(*asked)?))).unzip()
    }

    /// The answers of a value of the kind `shown`; those of its parts, if it has any, are not in them.
    fn whole(&self, wanted: impl Fn(&FieldValue) -> bool, shown: impl Fn() -> String) -> Vec<Found> {
        self.0.iter().map(|asked| asked.answer(&wanted, &shown)).collect()
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Vec<Found>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Found>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Vec<Found>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E: Error>(self, truth: bool) -> Result<Vec<Found>, E> {
        Ok(self.whole(|wanted| *wanted == FieldValue::Truth(truth), || truth.to_string()))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Vec<Found>, E> {
        Ok(self.whole(|wanted| *wanted == FieldValue::Whole(number), || number.to_string()))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Vec<Found>, E> {
        let whole = i64::try_from(number).ok().map(FieldValue::Whole);
        Ok(self.whole(|wanted| Some(wanted) == whole.as_ref(), || number.to_string()))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Vec<Found>, E> {
        Ok(self.whole(|_| false, || number.to_string()))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Found>, E> {
        let shown = || match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
            None => format!("{text:?}"),
        };
        Ok(self.whole(|wanted| matches!(wanted, FieldValue::Text(glob) if matches(glob, text)), shown))
    }
    fn visit_unit<E: Error>(self) -> Result<Vec<Found>, E> {
        Ok(self.whole(|_| false, || "null".to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Found>, A::Error> {
        let mut found = self.whole(|_| false, || "a list without it".to_owned());
        for element in 0.. {
            let (places, asked) = self.pass(|asked| asked.element(element));
            if asked.is_empty() {
                if seq.next_element::<IgnoredAny>()?.is_none() {
                    break;
                }
                continue;
            }
            let Some(answers) = seq.next_element_seed(Seek(asked))? else { break };
            for (place, answer) in places.into_iter().zip(answers) {
                if let Some(kept) = found.get_mut(place).filter(|kept| **kept != Found::Wanted) {
                    *kept = if answer == Found::Missing { std::mem::replace(kept, Found::Missing) } else { answer };
                }
            }
        }
        Ok(found)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Found>, A::Error> {
        let mut found = self.whole(|_| false, || "an object".to_owned());
        while let Some(key) = map.next_key::<String>()? {
            let (places, asked) = self.pass(|asked| asked.member(&key));
            if asked.is_empty() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            for (place, answer) in places.into_iter().zip(map.next_value_seed(Seek(asked))?) {
                if let Some(kept) = found.get_mut(place) {
                    *kept = answer;
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ask(fields: Value, payload: &Value) -> Option<String> {
        let fields = fields.as_object().unwrap().iter();
        let fields = fields.map(|(path, value)| {
            let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            let values = values.into_iter().map(|value| serde_json::from_value(value).unwrap()).collect();
            (FieldPath::new(path.as_str()).unwrap(), values)
        });
        unmatched(&fields.collect(), Some(payload.to_string().as_bytes()))
    }

    #[test]
    fn every_field_has_to_hold_one_of_its_values() {
        let payload = json!({
            "repository": {"full_name": "o/r", "private": false, "id": 7},
            "labels": [{"name": "bug"}, {"name": "help wanted"}],
            "topics": ["ci", "faas"], "nothing": null, "half": 0.5,
        });
        for fields in [
            json!({}),
            json!({"repository.full_name": "o/r"}),
            json!({"repository.full_name": ["x", "o/*"], "repository.private": false, "repository.id": 7}),
            json!({"labels.name": "help*"}),
            json!({"labels.0.name": "bug", "labels.1.name": "help wanted", "topics": "faas", "topics.0": "ci"}),
        ] {
            assert_eq!(ask(fields.clone(), &payload), None, "{fields}");
        }
        for (fields, reason) in [
            (json!({"repository.full_name": "o/s"}), r#"repository.full_name is "o/r", and only ["o/s"] is wanted"#),
            (json!({"repository.id": ["7", 8]}), r#"repository.id is 7, and only ["7", 8] is wanted"#),
            (json!({"repository.private": "false"}), r#"repository.private is false, and only ["false"] is wanted"#),
            (json!({"repository": "o/r"}), r#"repository is an object, and only ["o/r"] is wanted"#),
            (json!({"repository.name": "r"}), r#"the payload has no repository.name, and only ["r"] is wanted"#),
            (json!({"repository.id.x": 7}), "the payload has no repository.id.x, and only [7] is wanted"),
            (json!({"labels.name": "wontfix"}), r#"labels.name is "help wanted", and only ["wontfix"] is wanted"#),
            (json!({"labels.2.name": "bug"}), r#"the payload has no labels.2.name, and only ["bug"] is wanted"#),
            (json!({"topics": "x"}), r#"topics is "faas", and only ["x"] is wanted"#),
            (json!({"nothing": false}), "nothing is null, and only [false] is wanted"),
            (json!({"half": 0}), "half is 0.5, and only [0] is wanted"),
            (json!({"repository.id": 7, "topics": 1}), r#"topics is "faas", and only [1] is wanted"#),
        ] {
            assert_eq!(ask(fields, &payload).as_deref(), Some(reason));
        }
    }

    #[test]
    fn arrays_in_arrays_are_not_looked_into_by_name() {
        assert!(ask(json!({"a.b": 1}), &json!({"a": [[{"b": 1}]]})).is_some());
        assert_eq!(ask(json!({"a.0.b": 1}), &json!({"a": [[{"b": 1}]]})), None);
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let fields = BTreeMap::from([(FieldPath::new("a.b").unwrap(), vec![FieldValue::Whole(1)])]);
        assert!(unmatched(&fields, Some(deep.as_bytes())).is_some(), "depth costs no stack");
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let fields = BTreeMap::from([(FieldPath::new("a.b").unwrap(), vec![FieldValue::Whole(1)])]);
        let ask = |json: &str| unmatched(&fields, Some(json.as_bytes())).is_none();
        assert!(ask(r#"{"a": {"b": 2}, "a": {"b": 1}}"#));
        assert!(!ask(r#"{"a": {"b": 1}, "a": {}}"#));
        assert!(!ask(r#"{"a": {"b": 1, "b": 2}}"#));
    }

    #[test]
    fn without_json_nothing_matches_and_long_values_are_cut() {
        let fields = BTreeMap::from([(FieldPath::new("a").unwrap(), vec![FieldValue::Whole(1)])]);
        for payload in [None, Some(&b"{"[..]), Some(b"")] {
            assert_eq!(unmatched(&fields, payload).unwrap(), "the body is no JSON to look into, and a has to match");
        }
        assert_eq!(unmatched(&BTreeMap::new(), None), None);
        let reason = ask(json!({"a": 1}), &json!({"a": "\u{e9}".repeat(1000)})).unwrap();
        assert!(reason.chars().count() < 120, "{reason}");
    }
}

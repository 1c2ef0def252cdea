//! What a trigger's `match` names: a field of a payload, and a value that it may hold.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// Most steps of a path.
const STEPS: usize = 16;
/// Longest path, bytes.
const LONGEST: usize = 256;

/// The place of a field in a JSON document: names of objects' keys joined by dots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct FieldPath(String);

/// A text that is no path of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no path of a field: write 1 to {STEPS} names joined by dots, for example \"repository.full_name\", \
     at most {LONGEST} bytes"
)]
pub struct BadPath(String);

impl FieldPath {
    /// Checks a path.
    ///
    /// # Errors
    /// [`BadPath`] when a step is empty, or there are too many.
    pub fn new(text: impl Into<String>) -> Result<Self, BadPath> {
        let text = text.into();
        let steps = text.split('.');
        let fits = text.len() <= LONGEST && steps.clone().count() <= STEPS && !text.chars().any(char::is_control);
        if fits && steps.into_iter().all(|step| !step.is_empty()) { Ok(Self(text)) } else { Err(BadPath(text)) }
    }

    /// Its steps, from the document inwards.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// The path as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FieldPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A value that a field may hold. Types are never converted: the number 1 is not the text "1".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FieldValue {
    /// `true` or `false`.
    Truth(bool),
    /// A whole number.
    Whole(i64),
    /// A text, in which `*` stands for any run of characters.
    Text(String),
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truth(value) => write!(f, "{value}"),
            Self::Whole(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_names_joined_by_dots() {
        for good in ["a", "repository.full_name", "object_attributes.0.x-y z"] {
            assert!(FieldPath::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a\n", &"a.".repeat(16), &"a".repeat(257)] {
            assert!(FieldPath::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(FieldPath::new("a.b").unwrap().steps().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn values_keep_their_type_on_record() {
        let values = vec![FieldValue::Truth(true), FieldValue::Whole(-1), FieldValue::Text("1".to_owned())];
        let stored = serde_json::to_string(&values).unwrap();
        assert_eq!(stored, r#"[true,-1,"1"]"#);
        assert_eq!(serde_json::from_str::<Vec<FieldValue>>(&stored).unwrap(), values);
    }
}

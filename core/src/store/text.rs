//! Between the nouns and their columns: words, JSON and text that Postgres can hold.
//!
//! Postgres has no NUL character in text and jsonb; code under test has. It is replaced by U+FFFD, here and nowhere else.

use std::borrow::Cow;

use serde::de::value::{Error as WordError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StoreError;
use crate::outcome::{ErrorDetail, Outcome, OutcomeKind};

/// `text` without NUL.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// The JSON of `value`, without NUL in any text of it.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_string(value).expect("the nouns have text keys and no fallible parts");
    // The escape may also be that of a backslash before `u0000`: then cleaning finds nothing to do.
    if !text.contains("\\u0000") {
        return text;
    }
    let mut value: Value = serde_json::from_str(&text).expect("it was made from a value just now");
    clean_value(&mut value);
    value.to_string()
}

fn clean_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = clean(text).into_owned(),
        Value::Array(items) => items.iter_mut().for_each(clean_value),
        Value::Object(fields) => {
            let old = std::mem::take(fields);
            for (key, mut value) in old {
                clean_value(&mut value);
                fields.insert(clean(&key).into_owned(), value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The noun that `text` is the word of.
pub(super) fn word<T: DeserializeOwned>(table: &'static str, id: &impl ToString, text: &str) -> Result<T, StoreError> {
    let deserializer: StrDeserializer<'_, WordError> = text.into_deserializer();
    T::deserialize(deserializer).map_err(|error| inconsistent(table, id, error))
}

/// The noun that a jsonb column holds.
pub(super) fn noun<T: DeserializeOwned>(
    table: &'static str,
    id: &impl ToString,
    value: Value,
) -> Result<T, StoreError> {
    serde_json::from_value(value).map_err(|error| inconsistent(table, id, error))
}

pub(super) fn inconsistent(table: &'static str, id: &impl ToString, what: impl ToString) -> StoreError {
    StoreError::Inconsistent { table, id: id.to_string(), what: what.to_string() }
}

/// What an outcome has to tell beyond its kind: the `detail` columns.
#[derive(Debug, Serialize, Deserialize)]
struct Detail<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, ErrorDetail>>,
}

/// The `detail` of an outcome as JSON; `None` where the kind says all.
pub(super) fn detail(outcome: &Outcome) -> Option<String> {
    let Outcome { kind: _, exit_code, signal, error } = outcome;
    if exit_code.is_none() && signal.is_none() && error.is_none() {
        return None;
    }
    Some(json(&Detail { exit_code: *exit_code, signal: *signal, error: error.as_ref().map(Cow::Borrowed) }))
}

/// The outcome that the columns `outcome` and `detail` tell of.
pub(super) fn outcome(
    table: &'static str,
    id: &impl ToString,
    kind: Option<&str>,
    detail: Option<Value>,
) -> Result<Option<Outcome>, StoreError> {
    let Some(kind) = kind else { return Ok(None) };
    let mut outcome = Outcome::of(word::<OutcomeKind>(table, id, kind)?);
    if let Some(detail) = detail {
        let detail: Detail<'static> = noun(table, id, detail)?;
        outcome.exit_code = detail.exit_code;
        outcome.signal = detail.signal;
        outcome.error = detail.error.map(Cow::into_owned);
    }
    Ok(Some(outcome))
}

/// A count as Postgres keeps it. Sizes beyond `i64` do not exist on any machine: they are cut, not refused.
pub(super) fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A count as Postgres kept it.
pub(super) fn uncount(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn outcomes_read_back_but_for_nul(kind in proptest::sample::select(&OutcomeKind::ALL), code: Option<i32>,
            message in "\\PC{0,8}\0?\\\\u0000", trace in proptest::collection::vec(".{0,8}", 0..3)) {
            let mut written = Outcome::of(kind);
            written.exit_code = code;
            written.error = Some(ErrorDetail { kind: "E".to_owned(), message, trace });
            let detail = detail(&written).map(|text| serde_json::from_str(&text).unwrap());
            let read = outcome("t", &1, Some(kind.as_str()), detail).unwrap().unwrap();
            if let Some(error) = &mut written.error {
                error.message = clean(&error.message).into_owned();
                for line in &mut error.trace {
                    *line = clean(line).into_owned();
                }
            }
            prop_assert_eq!(read, written);
        }
    }

    #[test]
    fn nul_is_replaced_everywhere() {
        let text = json(&serde_json::json!({"a\0": ["\0", {"b": "x\0y"}], "c": "\\u0000"}));
        assert_eq!(text, r#"{"a�":["�",{"b":"x�y"}],"c":"\\u0000"}"#);
    }

    #[test]
    fn unknown_words_are_reported() {
        assert!(word::<OutcomeKind>("t", &1, "fine").is_err());
        assert_eq!(word::<OutcomeKind>("t", &1, "init_error").unwrap(), OutcomeKind::InitError);
    }
}

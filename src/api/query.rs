//! Query strings: few keys, each known; a misspelt one is an error and not silently ignored.

use std::time::Duration;

use chrono::DateTime;
use runlet_core::clock::{self, Timestamp};
use runlet_core::unit::Span;

use super::errors::ApiError;

/// A checked query string.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query that may have the `allowed` keys, each once.
    ///
    /// # Errors
    /// `invalid` for any other.
    pub(crate) fn parse(text: &str, allowed: &[&str]) -> Result<Self, ApiError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(key), Some(value)) = (decode(key), decode(value)) else {
                return Err(ApiError::invalid("the query string has a malformed % escape"));
            };
            if !allowed.contains(&key.as_str()) {
                let key: String = key.chars().take(40).collect();
                let known = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
                return Err(ApiError::invalid(format!("query key `{key}` is not known here; known: {known}")));
            }
            if pairs.iter().any(|(have, _)| *have == key) {
                return Err(ApiError::invalid(format!("query key `{key}` is given twice")));
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a key; an empty one counts as none.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have == key).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The value of a key, read as a `T`.
    ///
    /// # Errors
    /// `invalid` with the rule that `T` has.
    pub(crate) fn read<T>(&self, key: &str) -> Result<Option<T>, ApiError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let read = |text: &str| text.parse().map_err(|error| ApiError::invalid(format!("query key `{key}`: {error}")));
        self.text(key).map(read).transpose()
    }

    /// One of a few words.
    ///
    /// # Errors
    /// `invalid` with the words.
    pub(crate) fn word<T: Copy>(
        &self,
        key: &str,
        all: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        all.iter().copied().find(|word| name(*word) == text).map(Some).ok_or_else(|| {
            let words: Vec<&str> = all.iter().copied().map(&name).collect();
            ApiError::invalid(format!("query key `{key}`: write one of {}", words.join(", ")))
        })
    }

    /// How many rows are wanted: from 1 to `most`, `usual` where nothing is said.
    ///
    /// # Errors
    /// `invalid` for anything else.
    pub(crate) fn limit(&self, usual: usize, most: usize) -> Result<usize, ApiError> {
        match self.text("limit").map(str::parse::<usize>) {
            None => Ok(usual),
            Some(Ok(limit)) if (1..=most).contains(&limit) => Ok(limit),
            Some(_) => Err(ApiError::invalid(format!("query key `limit`: write a number from 1 to {most}"))),
        }
    }

    /// The page of a list that is wanted.
    ///
    /// # Errors
    /// As for [`Query::limit`].
    pub(crate) fn page(&self) -> Result<Page, ApiError> {
        self.limit(100, 1000).map(Page)
    }

    /// How long to wait, at most `most`; zero where nothing is said.
    ///
    /// # Errors
    /// `invalid` for what is no duration.
    pub(crate) fn wait(&self, most: Duration) -> Result<Duration, ApiError> {
        Ok(self.read::<Span>("wait")?.map_or(Duration::ZERO, |span| span.0.min(most)))
    }

    /// A moment: RFC 3339, or how long ago.
    ///
    /// # Errors
    /// `invalid` for what is neither.
    pub(crate) fn since(&self, key: &str) -> Result<Option<Timestamp>, ApiError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
            return Ok(Some(moment.to_utc()));
        }
        let ago = text.parse::<Span>().ok().and_then(|span| chrono::TimeDelta::from_std(span.0).ok());
        ago.and_then(|ago| clock::now().checked_sub_signed(ago)).map(Some).ok_or_else(|| {
            ApiError::invalid(format!(
                "query key `{key}`: write a moment like 2026-01-31T12:00:00Z, or a span like \"1h\" for that long ago"
            ))
        })
    }
}

/// Percent-decodes; `None` for a malformed escape or what is no UTF-8 then.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                (hex(bytes.next()?)? << 4) | hex(bytes.next()?)?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// How many rows a page of a list has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page(usize);

impl Page {
    /// How many rows to ask the ledger for: one more than wanted tells whether there is another page.
    pub(crate) fn rows(self) -> i64 {
        i64::try_from(self.0 + 1).unwrap_or(i64::MAX)
    }

    /// Takes what belongs to the next page off `rows`, and says where that begins: behind the last one of this page.
    pub(crate) fn cut<T, C: ToString>(self, rows: &mut Vec<T>, cursor: impl FnOnce(&T) -> C) -> Option<String> {
        let more = rows.len() > self.0;
        rows.truncate(self.0);
        rows.last().filter(|_| more).map(|last| cursor(last).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_and_given_once() {
        let query = Query::parse("a=x%20y&b=1+2&c=", &["a", "b", "c"]).expect("it is valid");
        assert_eq!(query.text("a"), Some("x y"));
        assert_eq!(query.text("b"), Some("1 2"));
        assert_eq!(query.text("c"), None);
        for text in ["d=1", "a=1&a=2", "a=%2", "a=%zz", "a=%ff"] {
            assert!(Query::parse(text, &["a"]).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_checked() {
        let query = |text: &str| Query::parse(text, &["limit", "wait", "since", "w"]).expect("it is valid");
        assert_eq!(query("").limit(100, 1000).ok(), Some(100));
        assert_eq!(query("limit=7").limit(100, 1000).ok(), Some(7));
        for text in ["limit=0", "limit=1001", "limit=x", "limit=-1"] {
            assert!(query(text).limit(100, 1000).is_err(), "{text}");
        }
        assert_eq!(query("wait=90s").wait(Duration::from_secs(60)).ok(), Some(Duration::from_secs(60)));
        assert!(query("wait=soon").wait(Duration::from_secs(60)).is_err());
        assert!(query("since=2026-01-31T12:00:00Z").since("since").is_ok());
        assert!(query("since=1h").since("since").is_ok_and(|since| since < Some(clock::now())));
        assert!(query("since=yesterday").since("since").is_err());
        assert!(query("w=b").word("w", &["a", "b"], |word| word).is_ok());
        assert!(query("w=c").word("w", &["a", "b"], |word| word).is_err());
    }
}

//! Request headers as a trigger needs them: names in lower case, every value kept.
//!
//! A header that comes twice is never silently reduced to one of its values: a proxy in front may have read the other.

use std::collections::BTreeMap;
use std::fmt;

use runlet_core::trace::Trace;

/// Request headers. Their `Debug` shows names only: values may be credentials.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<String, Vec<String>>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A header that may come once came more often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("header {name} came {times} times; send it once")]
pub struct Ambiguous {
    /// The header.
    pub name: &'static str,
    /// How often it came.
    pub times: usize,
}

impl Headers {
    /// Every value of `name` (lower case), in the order they came.
    #[must_use]
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of a header that may come once.
    ///
    /// # Errors
    /// [`Ambiguous`] when it came more often.
    pub fn one(&self, name: &'static str) -> Result<Option<&str>, Ambiguous> {
        match self.all(name) {
            [] => Ok(None),
            [value] => Ok(Some(value)),
            values => Err(Ambiguous { name, times: values.len() }),
        }
    }

    /// The media type of the body in lower case, without parameters.
    ///
    /// # Errors
    /// [`Ambiguous`] when `content-type` came more than once.
    pub fn media_type(&self) -> Result<Option<String>, Ambiguous> {
        let value = self.one("content-type")?;
        Ok(value.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()))
    }

    /// The trace that the sender says this belongs to.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        let values = |name| self.all(name).iter().map(String::as_bytes);
        Trace::of_headers(values("traceparent"), values("tracestate"))
    }

    /// Names and their values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    /// Takes names in any case; bytes of a value that are no UTF-8 become U+FFFD.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in pairs {
            let value = String::from_utf8_lossy(value.as_ref()).into_owned();
            map.entry(name.as_ref().to_ascii_lowercase()).or_default().push(value);
        }
        Self(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_case_and_no_value_is_lost() {
        let headers: Headers = [("X-A", "1"), ("x-a", "2"), ("B", "3")].into_iter().collect();
        assert_eq!(headers.all("x-a"), ["1", "2"]);
        assert_eq!(headers.one("b"), Ok(Some("3")));
        assert_eq!(headers.one("c"), Ok(None));
        assert_eq!(headers.one("x-a"), Err(Ambiguous { name: "x-a", times: 2 }));
        assert_eq!(format!("{headers:?}"), r#"{"b", "x-a"}"#);
    }

    #[test]
    fn the_media_type_has_no_parameters() {
        let headers: Headers = [("Content-Type", "Application/JSON; charset=utf-8")].into_iter().collect();
        assert_eq!(headers.media_type(), Ok(Some("application/json".to_owned())));
    }
}

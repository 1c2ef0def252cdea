//! The trace that an invocation belongs to: W3C Trace Context, as the caller sent it.
//!
//! runlet records no spans of its own, so it passes the context on unchanged: a parent that nobody ever reports would cut the
//! caller's trace in two. What breaks the rules is ignored and never a reason to refuse a request.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Largest `tracestate` that is passed on, bytes: what everybody must be able to take.
const LARGEST_STATE: usize = 512;
/// Most members of a `tracestate`.
const MOST_MEMBERS: usize = 32;

/// A checked `traceparent` of version 00.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent(String);

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent: write 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, in lower case and not all zeros")]
pub struct BadTraceParent;

impl TraceParent {
    /// Reads a header. A version after 00 is read by the fields that 00 has, and becomes 00, as the standard wants it.
    ///
    /// # Errors
    /// For what breaks a rule of the standard.
    pub fn parse(text: &str) -> Result<Self, BadTraceParent> {
        let bytes = text.as_bytes();
        let known = bytes.get(..55).ok_or(BadTraceParent)?;
        let hex = |range: std::ops::Range<usize>| {
            let part = known.get(range).unwrap_or_default();
            part.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)).then_some(part)
        };
        let zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
        let dashes = [2, 35, 52].iter().all(|at| known.get(*at) == Some(&b'-'));
        let (Some(version), Some(trace), Some(parent), Some(_)) = (hex(0..2), hex(3..35), hex(36..52), hex(53..55))
        else {
            return Err(BadTraceParent);
        };
        let ends = match (version, bytes.get(55)) {
            (b"00", more) => more.is_none(),
            (b"ff", _) => false,
            (_, more) => more.is_none_or(|byte| *byte == b'-'),
        };
        if !dashes || !ends || zero(trace) || zero(parent) {
            return Err(BadTraceParent);
        }
        // All of it is ASCII by now.
        Ok(Self(format!("00{}", text.get(2..55).ok_or(BadTraceParent)?)))
    }

    /// The header's value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the trace: 32 hex digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.0.get(3..35).unwrap_or_default()
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TraceParent {
    type Error = BadTraceParent;

    fn try_from(text: String) -> Result<Self, BadTraceParent> {
        Self::parse(&text)
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> Self {
        parent.0
    }
}

/// The trace that something belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    /// Which trace, and where in it.
    #[schema(value_type = String)]
    pub parent: TraceParent,
    /// What tracing systems have added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl Trace {
    /// Reads the values of the headers `traceparent` and `tracestate`; `None` unless there is exactly one valid `traceparent`.
    /// A `tracestate` that breaks the rules is left out alone.
    pub fn of_headers<'a>(
        parents: impl IntoIterator<Item = &'a [u8]>,
        states: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        let mut parents = parents.into_iter();
        let parent = std::str::from_utf8(parents.next()?).ok()?;
        if parents.next().is_some() {
            return None;
        }
        let parent = TraceParent::parse(parent).ok()?;
        Some(Self { parent, state: state(states) })
    }
}

/// All `tracestate` headers as one.
fn state<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    let mut members: Vec<&str> = Vec::new();
    for value in values {
        let text = std::str::from_utf8(value).ok()?;
        members
            .extend(text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty()));
        if members.len() > MOST_MEMBERS {
            return None;
        }
    }
    let mut keys: Vec<&str> = Vec::with_capacity(members.len());
    for member in &members {
        let (key, value) = member.split_once('=')?;
        if keys.contains(&key) || !is_key(key) || !is_value(value) {
            return None;
        }
        keys.push(key);
    }
    let text = members.join(",");
    (!text.is_empty() && text.len() <= LARGEST_STATE).then_some(text)
}

fn is_key(key: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    let starts = key.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    starts && key.len() <= 256 && key.bytes().all(ok)
}

fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len()) && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn good_ones_are_kept_and_later_versions_become_ours() {
        assert_eq!(TraceParent::parse(GOOD).map(String::from).as_deref(), Ok(GOOD));
        let later = GOOD.replacen("00", "cc", 1) + "-what-comes-later";
        assert_eq!(TraceParent::parse(&later).map(String::from).as_deref(), Ok(GOOD));
        assert_eq!(TraceParent::parse(GOOD).expect("good").trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn bad_ones_are_ignored() {
        let zero_trace = GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_parent = GOOD.replace("00f067aa0ba902b7", &"0".repeat(16));
        let later = GOOD.replacen("00", "01", 1) + "x";
        for text in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD} "),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace('-', "_"),
            &GOOD.replace('7', "ä"),
            &zero_trace,
            &zero_parent,
            &later,
        ] {
            assert_eq!(TraceParent::parse(text), Err(BadTraceParent), "{text}");
        }
    }

    fn read(parents: &[&str], states: &[&str]) -> Option<Trace> {
        Trace::of_headers(parents.iter().map(|text| text.as_bytes()), states.iter().map(|text| text.as_bytes()))
    }

    #[test]
    fn there_is_one_parent_or_no_trace() {
        assert!(read(&[GOOD], &[]).is_some());
        assert_eq!(read(&[GOOD, GOOD], &[]), None);
        assert_eq!(read(&[], &["a=b"]), None);
    }

    #[test]
    fn states_are_joined_and_a_bad_one_costs_only_itself() {
        let state = |states: &[&str]| read(&[GOOD], states).expect("the parent is good").state;
        assert_eq!(state(&["a=1, b@c=2", "d=3,"]).as_deref(), Some("a=1,b@c=2,d=3"));
        let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let large = format!("a={},b={},c={}", "x".repeat(200), "y".repeat(200), "z".repeat(200));
        for bad in ["", "a", "A=1", "a=1,a=2", "a=b=c", "a=\u{1}", "=1", "a=", &many, &large] {
            assert_eq!(state(&[bad]), None, "{bad}");
        }
    }

    #[test]
    fn a_record_with_a_broken_trace_does_not_read() {
        let text = format!(r#"{{"parent":"{GOOD}"}}"#);
        assert_eq!(serde_json::from_str::<Trace>(&text).ok(), read(&[GOOD], &[]));
        assert!(serde_json::from_str::<Trace>(r#"{"parent":"00-x"}"#).is_err());
    }
}

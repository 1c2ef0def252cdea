//! When asynchronous work is to start, and what a repeat of it is told.

use chrono::DateTime;
use hyper::header::HeaderName;
use runlet_core::clock::{self, Timestamp};
use runlet_core::id::InvocationId;
use runlet_core::invocation::InvocationState;
use runlet_core::unit::Span;
use serde_json::Value;

use super::errors::ApiError;
use super::input::Input;

const DELAY: HeaderName = HeaderName::from_static("runlet-delay");
const NOT_BEFORE: HeaderName = HeaderName::from_static("runlet-not-before");
const PRIORITY: HeaderName = HeaderName::from_static("runlet-priority");

/// Work may wait for a year.
const LONGEST: Span = Span(std::time::Duration::from_secs(366 * 86_400));

/// A result up to this size is told to who sends its key again.
const INLINE: usize = 256 << 10;

/// When asynchronous work is to start, and before whom.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct When {
    pub(super) not_before: Option<Timestamp>,
    pub(super) priority: i16,
}

/// Reads the headers that say so.
///
/// # Errors
/// `invalid` for what is none, or where nothing can be put off: the caller waits.
pub(super) fn when(input: &Input, respond_async: bool) -> Result<When, ApiError> {
    let given = [DELAY, NOT_BEFORE, PRIORITY].into_iter().find(|name| input.headers.contains_key(name));
    let Some(given) = given else { return Ok(When::default()) };
    let invalid = |name: &HeaderName, what: &str| Err(ApiError::invalid(format!("header {name}: {what}")));
    if !respond_async {
        return invalid(&given, "it is for asynchronous calls: send `Prefer: respond-async` with it, or leave it out");
    }
    let text = |name: &HeaderName| input.headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let not_before = match (text(&DELAY), text(&NOT_BEFORE)) {
        (Some(_), Some(_)) => return invalid(&DELAY, "Runlet-Not-Before says when, too; leave one of them out"),
        (Some(delay), None) => match delay.parse::<Span>().ok().filter(|delay| *delay <= LONGEST) {
            Some(delay) => Some(clock::now() + delay.0),
            None => return invalid(&DELAY, "write a duration like \"10m\", at most \"366d\""),
        },
        (None, Some(moment)) => match DateTime::parse_from_rfc3339(moment) {
            Ok(moment) if moment.to_utc() <= clock::now() + LONGEST.0 => Some(moment.to_utc()),
            _ => return invalid(&NOT_BEFORE, "write a moment like 2026-01-31T12:00:00Z, within a year from now"),
        },
        (None, None) => None,
    };
    let priority = match text(&PRIORITY).map(str::parse::<i16>) {
        None => 0,
        Some(Ok(priority @ -100..=100)) => priority,
        Some(_) => return invalid(&PRIORITY, "write a whole number from -100 to 100; higher goes first, 0 is usual"),
    };
    Ok(When { not_before, priority })
}

/// What has become of an invocation whose key was sent again: its state, and its result if that is JSON and not large.
pub(super) async fn known(
    input: &Input,
    id: InvocationId,
) -> Result<(Option<InvocationState>, Option<Value>), ApiError> {
    let Some(invocation) = input.api.store.invocation(input.namespace(), id).await? else { return Ok((None, None)) };
    if invocation.state != InvocationState::Succeeded {
        return Ok((Some(invocation.state), None));
    }
    let result = input.api.store.result(input.namespace(), id).await?;
    let small = result.filter(|(bytes, kind)| bytes.len() <= INLINE && kind.starts_with("application/json"));
    Ok((Some(invocation.state), small.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok())))
}

//! The rules of a cron trigger that the text of `function.toml` alone can break.

use std::time::Duration;

use crate::manifest::{CronTrigger, Misfire, Overlap};
use crate::unit::Span;

/// The keys of a cron trigger, as written.
pub(super) struct Keys {
    pub(super) schedule: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) seconds: Option<bool>,
    pub(super) overlap: Option<String>,
    pub(super) misfire: Option<String>,
    pub(super) misfire_window: Option<Span>,
    pub(super) misfire_limit: Option<u32>,
    pub(super) backlog: Option<u32>,
    pub(super) jitter: Option<Span>,
    pub(super) data: Option<toml::Value>,
}

impl Keys {
    /// The first key that is set: none of them means anything to another kind of trigger.
    pub(super) fn any(&self) -> Option<&'static str> {
        let set = [
            ("schedule", self.schedule.is_some()),
            ("zone", self.zone.is_some()),
            ("seconds", self.seconds.is_some()),
            ("overlap", self.overlap.is_some()),
            ("misfire", self.misfire.is_some()),
            ("misfire_window", self.misfire_window.is_some()),
            ("misfire_limit", self.misfire_limit.is_some()),
            ("backlog", self.backlog.is_some()),
            ("jitter", self.jitter.is_some()),
            ("data", self.data.is_some()),
        ];
        set.into_iter().find_map(|(key, set)| set.then_some(key))
    }

    /// The trigger, or the key that breaks a rule and what to write instead.
    pub(super) fn checked(self) -> Result<CronTrigger, (&'static str, String)> {
        let schedule = self.schedule.ok_or_else(|| {
            ("schedule", "a cron trigger needs a schedule, for example \"0 3 * * *\" for 03:00 every day".to_owned())
        })?;
        let overlap = word("overlap", self.overlap.as_deref(), &Overlap::ALL, Overlap::as_str)?;
        let misfire = word("misfire", self.misfire.as_deref(), &Misfire::ALL, Misfire::as_str)?;
        let most_a_day = |key, span: Option<Span>, usual: Duration, most_days: u64| {
            let span = span.unwrap_or(Span(usual));
            let most = Duration::from_secs(most_days * 86_400);
            if span.0 <= most { Ok(span) } else { Err((key, format!("write at most \"{most_days}d\""))) }
        };
        Ok(CronTrigger {
            schedule,
            zone: self.zone.unwrap_or_else(|| "UTC".to_owned()),
            seconds: self.seconds.unwrap_or(false),
            overlap,
            misfire,
            misfire_window: most_a_day("misfire_window", self.misfire_window, Duration::from_secs(86_400), 366)?,
            misfire_limit: ranged("misfire_limit", self.misfire_limit, 100, 1000)?,
            backlog: ranged("backlog", self.backlog, 100, 10_000)?,
            jitter: most_a_day("jitter", self.jitter, Duration::ZERO, 1)?,
            data: self
                .data
                .map(|data| serde_json::to_value(data).map_err(|error| ("data", error.to_string())))
                .transpose()?,
        })
    }
}

pub(super) fn ranged(
    key: &'static str,
    value: Option<u32>,
    usual: u32,
    most: u32,
) -> Result<u32, (&'static str, String)> {
    let value = value.unwrap_or(usual);
    if (1..=most).contains(&value) { Ok(value) } else { Err((key, format!("write a number from 1 to {most}"))) }
}

fn word<T: Copy + Default>(
    key: &'static str,
    text: Option<&str>,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, (&'static str, String)> {
    let Some(text) = text else { return Ok(T::default()) };
    all.iter().copied().find(|one| name(*one) == text).ok_or_else(|| {
        let words: Vec<String> = all.iter().map(|one| format!("\"{}\"", name(*one))).collect();
        (key, format!("`{text}` is not known; write one of {}", words.join(", ")))
    })
}

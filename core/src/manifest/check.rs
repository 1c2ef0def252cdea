//! The rules of `function.toml` that its text alone can break.

mod after;
mod cron;
mod queue;
mod trigger;

use std::collections::BTreeMap;

use serde::Deserialize;

use after::{RawDestination, RawRetry};
use trigger::RawTrigger;

use super::{Destination, Durability, EnvValue, Envelope, Manifest, ManifestError, OnLost, Reset, Retry, RuntimeKind};
use crate::limits::Limits;
use crate::name::FunctionName;
use crate::unit::{ByteSize, Span};

/// The file as written: every key known to the contract, so that one that is not built yet is told apart from a typo.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    schema: u32,
    name: FunctionName,
    runtime: String,
    handler: String,
    image: Option<String>,
    timeout: Option<Span>,
    memory: Option<ByteSize>,
    cpu: Option<f64>,
    pids: Option<u32>,
    tmp: Option<ByteSize>,
    reset: Option<String>,
    max_concurrency: Option<u32>,
    concurrency: Option<u32>,
    min_warm: Option<u32>,
    on_lost: Option<OnLost>,
    durability: Option<Durability>,
    envelope: Option<String>,
    retry: Option<RawRetry>,
    on_success: Option<RawDestination>,
    on_failure: Option<RawDestination>,
    #[serde(default)]
    env: BTreeMap<String, EnvValue>,
    #[serde(default)]
    trigger: Vec<RawTrigger>,
}

/// Finds the lines of keys, for messages about rules that TOML itself does not know.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    /// The line of `key` in the table whose header is `table` (empty: before any header), the `nth` one of its name.
    fn of(&self, table: &str, nth: usize, key: &str) -> Option<usize> {
        let mut current = String::new();
        let mut seen = 0;
        let mut at_table = None;
        for (index, line) in self.0.lines().enumerate() {
            let line = line.trim();
            if line.starts_with('[') {
                current = line.trim_matches(['[', ']']).trim().to_owned();
                if current == table {
                    seen += 1;
                    if seen == nth + 1 {
                        at_table = Some(index + 1);
                    }
                }
            } else if current == table && (table.is_empty() || seen == nth + 1) {
                let name = line.split('=').next().unwrap_or_default().trim().trim_matches('"');
                if name == key {
                    return Some(index + 1);
                }
            }
        }
        at_table
    }
}

/// Line (from 1) of byte `offset` in `text`.
fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// Reads and checks the text of a `function.toml`.
pub(super) fn read(text: &str) -> Result<Manifest, ManifestError> {
    let raw: Raw = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| line_at(text, span.start));
        let key = line
            .and_then(|line| text.lines().nth(line - 1))
            .and_then(|line| line.split_once('='))
            .map(|(key, _)| key.trim().to_owned())
            .filter(|key| !key.is_empty() && !key.starts_with('['))
            .unwrap_or_default();
        ManifestError { line, key, message: error.message().to_owned() }
    })?;
    Check { lines: Lines(text) }.manifest(raw)
}

struct Check<'a> {
    lines: Lines<'a>,
}

impl Check<'_> {
    fn fail<T>(&self, key: &str, message: impl Into<String>) -> Result<T, ManifestError> {
        Err(ManifestError { line: self.lines.of("", 0, key), key: key.to_owned(), message: message.into() })
    }

    fn manifest(&self, raw: Raw) -> Result<Manifest, ManifestError> {
        if raw.schema != 1 {
            return self.fail("schema", format!("{} is not known to this version; write `schema = 1`", raw.schema));
        }
        let runtime = self.runtime(&raw.runtime)?;
        self.not_built(&raw)?;
        let limits = self.limits(&raw, runtime)?;
        let reset = self.reset(raw.reset.as_deref(), runtime)?;
        let max_concurrency = raw.max_concurrency.unwrap_or(10);
        if !(1..=1000).contains(&max_concurrency) {
            return self.fail("max_concurrency", "write a number from 1 to 1000");
        }
        let concurrency = self.concurrency(&raw, runtime, reset)?;
        let min_warm = self.min_warm(&raw, runtime, reset, max_concurrency)?;
        if raw.handler.is_empty() || raw.handler.contains('\0') {
            return self.fail(
                "handler",
                "name the handler: `module.function` for python, `module.export` for node, a file for exec and custom",
            );
        }
        self.env(&raw.env)?;
        let retry = self.retry(raw.retry)?;
        let on_success = self.destination("on_success", raw.on_success, &raw.name)?;
        let on_failure = self.destination("on_failure", raw.on_failure, &raw.name)?;
        let triggers = raw
            .trigger
            .into_iter()
            .enumerate()
            .map(|(nth, trigger)| trigger.check(&self.lines, nth))
            .collect::<Result<_, _>>()?;
        Ok(Manifest {
            name: raw.name,
            runtime,
            handler: raw.handler,
            image: raw.image.unwrap_or_else(|| "host".to_owned()),
            limits,
            reset,
            max_concurrency,
            concurrency,
            min_warm,
            on_lost: raw.on_lost.unwrap_or_default(),
            retry,
            on_success,
            on_failure,
            durability: raw.durability.unwrap_or_default(),
            envelope: self.envelope(raw.envelope.as_deref())?,
            env: raw.env,
            triggers,
        })
    }

    fn runtime(&self, text: &str) -> Result<RuntimeKind, ManifestError> {
        RuntimeKind::ALL.into_iter().find(|kind| kind.as_str() == text).map_or_else(
            || {
                let message = format!("`{text}` is not a runtime; write \"python\", \"node\", \"exec\" or \"custom\"");
                self.fail("runtime", message)
            },
            Ok,
        )
    }

    fn concurrency(&self, raw: &Raw, runtime: RuntimeKind, reset: Reset) -> Result<u32, ManifestError> {
        match raw.concurrency.unwrap_or(1) {
            1 => Ok(1),
            2..=1000 if !runtime.stays() => {
                self.fail("concurrency", "an exec function starts a process per invocation; leave it out")
            }
            2..=1000 if reset == Reset::Fresh => {
                self.fail("concurrency", "`reset = \"fresh\"` is a sandbox per invocation; leave one of the two out")
            }
            2..=1000 if reset == Reset::Fork => {
                self.fail("concurrency", "`reset = \"fork\"` makes one call at a time; leave one of the two out")
            }
            many @ 2..=1000 => Ok(many),
            _ => self.fail("concurrency", "write how many calls may run in one sandbox at a time, from 1 to 1000"),
        }
    }

    fn min_warm(&self, raw: &Raw, runtime: RuntimeKind, reset: Reset, most: u32) -> Result<u32, ManifestError> {
        match raw.min_warm.unwrap_or(0) {
            0 => Ok(0),
            _ if !runtime.stays() => self
                .fail("min_warm", "an exec function starts a process per invocation, none of it stays; leave it out"),
            _ if reset == Reset::Fresh => self.fail(
                "min_warm",
                "`reset = \"fresh\"` is a sandbox per invocation, none stays; leave one of the two out",
            ),
            many if many > most => self.fail(
                "min_warm",
                format!("more than `max_concurrency` ({most}) can never be at work; write that or less"),
            ),
            many => Ok(many),
        }
    }

    /// Keys of the contract whose other values a later version will take.
    fn not_built(&self, raw: &Raw) -> Result<(), ManifestError> {
        if raw.image.as_deref().is_some_and(|image| image != "host") {
            return self.fail("image", "only \"host\" is available in this version");
        }
        Ok(())
    }

    fn envelope(&self, text: Option<&str>) -> Result<Envelope, ManifestError> {
        match text {
            None | Some("raw") => Ok(Envelope::Raw),
            Some("cloudevents") => Ok(Envelope::Cloudevents),
            Some(_) => self.fail("envelope", "only \"raw\" and \"cloudevents\" are available in this version"),
        }
    }

    fn reset(&self, text: Option<&str>, runtime: RuntimeKind) -> Result<Reset, ManifestError> {
        match (text, runtime) {
            (None, _) => Ok(runtime.default_reset()),
            (Some("fresh"), _) => Ok(Reset::Fresh),
            (Some("warm"), _) if runtime.stays() => Ok(Reset::Warm),
            (Some("warm"), _) => {
                self.fail("reset", "an exec function starts a process per invocation; write \"fresh\" or leave it out")
            }
            (Some("fork"), RuntimeKind::Python) => Ok(Reset::Fork),
            (Some("fork"), _) => {
                self.fail("reset", "only python functions fork; write \"fresh\", or \"warm\" where a runner stays")
            }
            (Some(other), _) => self.fail(
                "reset",
                format!("`{other}` is not a reset policy; write \"warm\", \"fresh\" or, for python, \"fork\""),
            ),
        }
    }

    fn limits(&self, raw: &Raw, runtime: RuntimeKind) -> Result<Limits, ManifestError> {
        let default = Limits::default();
        let limits = Limits {
            timeout: raw.timeout.unwrap_or(default.timeout),
            memory: raw.memory.unwrap_or(default.memory),
            cpu: raw.cpu.unwrap_or(default.cpu),
            pids: raw.pids.unwrap_or(default.pids),
            tmp: raw.tmp.unwrap_or(default.tmp),
        };
        if limits.timeout.0.is_zero() || limits.timeout.0 > std::time::Duration::from_secs(86_400) {
            return self.fail("timeout", "write a duration from \"1ms\" to \"1d\"");
        }
        if !(0.01..=1024.0).contains(&limits.cpu) {
            return self.fail("cpu", "write a number from 0.01 to 1024");
        }
        if !(8..=1_000_000).contains(&limits.pids) {
            return self.fail("pids", "write a number from 8 to 1000000");
        }
        let least_pids = match runtime {
            // A thread per call, and a few of its own.
            RuntimeKind::Python if raw.concurrency > Some(1) => raw.concurrency.unwrap_or(1).saturating_add(8),
            RuntimeKind::Node => 16,
            _ => 8,
        };
        if limits.pids < least_pids {
            return self.fail(
                "pids",
                format!("this function may need {least_pids} processes and threads; write that or more"),
            );
        }
        if limits.tmp.0 < 4096 {
            return self.fail("tmp", "write at least \"4KiB\"");
        }
        let least = limits.tmp.0.saturating_add(runtime.floor().0);
        if limits.memory.0 < least {
            let key = if raw.memory.is_some() { "memory" } else { "tmp" };
            return self.fail(
                key,
                format!(
                    "/tmp is memory: tmp ({}) and what the {} runtime itself needs ({}) make {}, more than memory ({}); \
                     raise memory to at least {} or lower tmp",
                    limits.tmp,
                    runtime.as_str(),
                    runtime.floor(),
                    ByteSize(least),
                    limits.memory,
                    ByteSize(least.div_ceil(1 << 20) << 20),
                ),
            );
        }
        Ok(limits)
    }

    fn in_table(&self, table: &str, (key, message): (&str, String)) -> ManifestError {
        ManifestError { line: self.lines.of(table, 0, key), key: format!("{table}.{key}"), message }
    }

    fn retry(&self, raw: Option<RawRetry>) -> Result<Retry, ManifestError> {
        raw.map_or_else(|| Ok(Retry::default()), |raw| raw.checked().map_err(|broken| self.in_table("retry", broken)))
    }

    fn destination(
        &self,
        table: &str,
        raw: Option<RawDestination>,
        of: &FunctionName,
    ) -> Result<Option<Destination>, ManifestError> {
        raw.map(|raw| raw.checked(of).map_err(|broken| self.in_table(table, broken))).transpose()
    }

    fn env(&self, env: &BTreeMap<String, EnvValue>) -> Result<(), ManifestError> {
        for name in env.keys() {
            let ok = !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            let message = if !ok {
                "a variable's name is made of A-Z, a-z, 0-9 and _, and does not begin with a digit"
            } else if name.starts_with("RUNLET_") {
                "names that begin with RUNLET_ are runlet's own; choose another"
            } else {
                continue;
            };
            return Err(ManifestError {
                line: self.lines.of("env", 0, name),
                key: format!("env.{name}"),
                message: message.to_owned(),
            });
        }
        Ok(())
    }
}

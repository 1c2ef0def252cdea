//! The rules of `[retry]`, `[on_success]` and `[on_failure]`: what follows the end of asynchronous work.

use std::time::Duration;

use serde::Deserialize;
use url::{Host, Url};

use super::queue;
use crate::manifest::{Destination, Format, Retry, RetryOn};
use crate::name::{BrokerName, FunctionName, SecretName};
use crate::unit::Span;

const DAY: Duration = Duration::from_secs(86_400);
/// Longest address, bytes.
const URL: usize = 2000;

/// `[retry]` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRetry {
    max_attempts: Option<u32>,
    max_age: Option<Span>,
    on: Option<Vec<String>>,
    min_backoff: Option<Span>,
    max_backoff: Option<Span>,
}

/// A destination as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDestination {
    function: Option<FunctionName>,
    url: Option<String>,
    secret: Option<SecretName>,
    format: Option<String>,
    queue: Option<String>,
    broker: Option<BrokerName>,
}

/// The key that breaks a rule, and what to write instead.
type Broken = (&'static str, String);

impl RawRetry {
    pub(super) fn checked(self) -> Result<Retry, Broken> {
        let usual = Retry::ASKED;
        let max_attempts = self.max_attempts.unwrap_or(usual.max_attempts);
        if !(1..=100).contains(&max_attempts) {
            return Err(("max_attempts", "write how many executions there may be in all, from 1 to 100".to_owned()));
        }
        let (min, max) = (self.min_backoff.unwrap_or(usual.min_backoff), self.max_backoff.unwrap_or(usual.max_backoff));
        let max = if self.max_backoff.is_none() { max.max(min) } else { max };
        if min.0 < Duration::from_millis(10) || min.0 > DAY {
            return Err(("min_backoff", "write a duration from \"10ms\" to \"1d\"".to_owned()));
        }
        if max < min || max.0 > DAY {
            return Err(("max_backoff", format!("write a duration from min_backoff ({min}) to \"1d\"")));
        }
        if self.max_age.is_some_and(|age| age.0 < Duration::from_secs(1) || age.0 > 366 * DAY) {
            return Err(("max_age", "write a duration from \"1s\" to \"366d\"".to_owned()));
        }
        let on = match self.on {
            None => RetryOn::ALL.to_vec(),
            Some(words) => words.iter().map(|text| word(text)).collect::<Result<_, _>>()?,
        };
        Ok(Retry { max_attempts, max_age: self.max_age, on, min_backoff: min, max_backoff: max })
    }
}

fn word(text: &str) -> Result<RetryOn, Broken> {
    RetryOn::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let message = if text == "lost" {
            "what becomes of lost executions is what on_lost says; leave \"lost\" out here".to_owned()
        } else {
            format!("`{text}` is no failure that can be tried again; write \"error\", \"timeout\" or \"oom\"")
        };
        ("on", message)
    })
}

impl RawDestination {
    /// The destination of a function of this name.
    pub(super) fn checked(self, of: &FunctionName) -> Result<Destination, Broken> {
        self.fits_together()?;
        match self {
            Self { function: Some(function), .. } if function == *of => {
                Err(("function", format!("`{function}` would invoke itself without end; name another function")))
            }
            Self { function: Some(function), .. } => Ok(Destination::Function { function }),
            Self { queue: Some(queue), broker, .. } => {
                queue::check_name(&queue, broker.as_ref()).map_err(|message| ("queue", message))?;
                Ok(Destination::Queue { queue, broker })
            }
            Self { url: Some(url), secret: Some(secret), format, .. } => {
                let format = format.as_deref().map_or(Ok(Format::default()), format_of)?;
                Ok(Destination::Http { url: address(&url)?, secret, format })
            }
            Self { url: Some(_), .. } => Err((
                "secret",
                "callbacks are signed: write secret = \"NAME\", the name of a secret that holds whsec_...".to_owned(),
            )),
            Self { .. } => Err((
                "function",
                "write function = \"NAME\", queue = \"NAME\", or url = \"https://...\" and secret = \"NAME\""
                    .to_owned(),
            )),
        }
    }

    /// Whether one of them is told, and nothing is said that means nothing to it.
    fn fits_together(&self) -> Result<(), Broken> {
        let (function, queue, url) = (self.function.is_some(), self.queue.is_some(), self.url.is_some());
        let told = u8::from(function) + u8::from(queue) + u8::from(url);
        let second = if url { "url" } else { "queue" };
        if told > 1 {
            return Err((second, "one of function, queue and url is told; leave the others out".to_owned()));
        }
        let strays = [
            ("secret", self.secret.is_some(), url, "url"),
            ("format", self.format.is_some(), url, "url"),
            ("broker", self.broker.is_some(), queue, "queue"),
        ];
        let stray = strays.into_iter().find(|(_, set, fits, _)| *set && !fits && told > 0);
        stray.map_or(Ok(()), |(key, .., of)| Err((key, format!("only a {of} has it; leave it out"))))
    }
}

fn format_of(text: &str) -> Result<Format, Broken> {
    Format::ALL.into_iter().find(|format| format.as_str() == text).ok_or_else(|| {
        let words = "write \"webhook\", \"cloudevents\" or \"cloudevents_binary\"";
        ("format", format!("`{text}` is no format; {words}"))
    })
}

fn address(text: &str) -> Result<String, Broken> {
    let broken = |message: &str| Err(("url", message.to_owned()));
    let Ok(url) = Url::parse(text) else {
        return broken("this is no URL; write one like \"https://example.com/hook\"");
    };
    if text.len() > URL || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return broken("write at most 2000 visible ASCII characters");
    }
    if !matches!(url.scheme(), "http" | "https") {
        return broken("write an address that begins with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return broken("an address with a user or a password in it would show them; the signature says who sends");
    }
    match url.host() {
        None | Some(Host::Domain("")) => broken("the address names no host"),
        Some(_) => Ok(text.to_owned()),
    }
}

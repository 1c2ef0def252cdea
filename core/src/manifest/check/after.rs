//! The rules of `[retry]`, `[on_success]` and `[on_failure]`: what follows the end of asynchronous work.

use std::time::Duration;

use serde::Deserialize;
use url::{Host, Url};

use crate::manifest::{Destination, Retry, RetryOn};
use crate::name::{FunctionName, SecretName};
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
        match (self.function, self.url, self.secret) {
            (Some(function), None, None) if function == *of => {
                Err(("function", format!("`{function}` would invoke itself without end; name another function")))
            }
            (Some(function), None, None) => Ok(Destination::Function { function }),
            (Some(_), Some(_), _) => Err(("url", "a function or a url is told, not both; leave one out".to_owned())),
            (Some(_), None, Some(_)) => Err(("secret", "a function needs no secret; leave it out".to_owned())),
            (None, Some(url), Some(secret)) => Ok(Destination::Http { url: address(&url)?, secret }),
            (None, Some(_), None) => Err((
                "secret",
                "callbacks are signed: write secret = \"NAME\", the name of a secret that holds whsec_...".to_owned(),
            )),
            (None, None, _) => Err((
                "function",
                "write function = \"NAME\", or url = \"https://...\" and secret = \"NAME\"".to_owned(),
            )),
        }
    }
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

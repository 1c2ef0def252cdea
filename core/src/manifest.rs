//! `function.toml`: what a function says about itself.
//!
//! Parsing and every rule that needs nothing but the text are here; rules that need the files (is the handler there?)
//! are in `runlet-runtimes`, those that need the operator's configuration (may it use this secret?) are in the server.

mod check;
mod cron;
mod destination;
mod field;
mod queue;
mod retry;
mod webhook;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits::Limits;
use crate::name::{FunctionName, SecretName};
use crate::unit::ByteSize;

pub use cron::{CronTrigger, Misfire, Overlap};
pub use destination::{Destination, Format};
pub use field::{BadPath, FieldPath, FieldValue};
pub use queue::QueueTrigger;
pub use retry::{Retry, RetryOn};
pub use webhook::{AdapterKind, WebhookTrigger};

/// Name of the file in the function's directory.
pub const FILE: &str = "function.toml";

/// How code is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// A function in a Python module, in a process that serves many calls.
    Python,
    /// A function in a Node.js module, in a process that serves many calls.
    Node,
    /// One process per invocation: event on stdin, result on stdout.
    Exec,
    /// An executable of the user's that speaks the frames of descriptor 3, as python's and node's runners do.
    Custom,
}

impl RuntimeKind {
    /// Every runtime, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Python, Self::Node, Self::Exec, Self::Custom];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Exec => "exec",
            Self::Custom => "custom",
        }
    }

    /// Whether a process of it stays in its sandbox and serves one call after another.
    #[must_use]
    pub const fn stays(self) -> bool {
        !matches!(self, Self::Exec)
    }

    /// Memory that the runtime itself needs before any code of the user runs.
    #[must_use]
    pub const fn floor(self) -> ByteSize {
        match self {
            Self::Python => ByteSize::mib(24),
            Self::Node => ByteSize::mib(32),
            Self::Exec | Self::Custom => ByteSize::mib(4),
        }
    }

    /// The reset policy when the function names none.
    #[must_use]
    pub const fn default_reset(self) -> Reset {
        if self.stays() { Reset::Warm } else { Reset::Fresh }
    }
}

/// What happens to a sandbox between two invocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// The same process serves the next invocation of the same revision.
    Warm,
    /// A fork of the process that has loaded the handler serves each invocation of the same revision; what it leaves is removed.
    Fork,
    /// A new sandbox per invocation.
    Fresh,
}

impl Reset {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Fork => "fork",
            Self::Fresh => "fresh",
        }
    }
}

/// What becomes of accepted asynchronous work whose execution was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum OnLost {
    /// It is executed again (at least once).
    #[default]
    Retry,
    /// It fails (at most once).
    Fail,
}

impl OnLost {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Fail => "fail",
        }
    }
}

/// When the history of a synchronous call is on disk in the database. Accepted asynchronous work always is before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Soon after: before the answer it is in the spool, which survives the death of the server, not a power cut.
    #[default]
    Spooled,
    /// Before the answer.
    Committed,
}

impl Durability {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What code is given as its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Envelope {
    /// The body, as it came.
    #[default]
    Raw,
    /// A CloudEvent in structured mode: the one that came, or one made of what came.
    Cloudevents,
}

impl Envelope {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Value of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// Written in the manifest.
    Plain(String),
    /// The secret of this name, from the operator's configuration.
    Secret(SecretName),
}

impl Serialize for EnvValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(text) => serializer.serialize_str(text),
            Self::Secret(name) => serializer.collect_map([("secret", name)]),
        }
    }
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            secret: SecretName,
        }
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = EnvValue;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or { secret = \"name\" }")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<EnvValue, E> {
                if text.contains('\0') {
                    return Err(E::custom("an environment value cannot hold a NUL byte"));
                }
                Ok(EnvValue::Plain(text.to_owned()))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<EnvValue, A::Error> {
                let table = Table::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(EnvValue::Secret(table.secret))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A trigger as the manifest declares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TriggerSpec {
    /// A webhook.
    Webhook(WebhookTrigger),
    /// A schedule.
    Cron(CronTrigger),
    /// Messages of a queue.
    Queue(QueueTrigger),
}

/// A checked `function.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the function.
    pub name: FunctionName,
    /// How its code is run.
    pub runtime: RuntimeKind,
    /// python: `module.function`; node: `module.export`; exec and custom: path of the executable in the directory.
    pub handler: String,
    /// The root file system; `host` is the only one yet.
    pub image: String,
    /// Limits of its sandboxes.
    pub limits: Limits,
    /// What happens to a sandbox between two invocations.
    pub reset: Reset,
    /// Most executions at a time.
    pub max_concurrency: u32,
    /// Most calls at a time in one sandbox.
    #[serde(default = "one")]
    pub concurrency: u32,
    /// Sandboxes that each server keeps ready for it, whether it is called or not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_warm: u32,
    /// What becomes of accepted asynchronous work whose execution was lost.
    pub on_lost: OnLost,
    /// When asynchronous work that failed is executed again.
    #[serde(default, skip_serializing_if = "Retry::is_default")]
    pub retry: Retry,
    /// Who is told of asynchronous work that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<Destination>,
    /// Who is told of asynchronous work that failed for good or expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Destination>,
    /// When the history of its synchronous calls is on disk.
    #[serde(default, skip_serializing_if = "Durability::is_default")]
    pub durability: Durability,
    /// What its code is given as its event.
    #[serde(default, skip_serializing_if = "Envelope::is_default")]
    pub envelope: Envelope,
    /// Environment of the code.
    pub env: BTreeMap<String, EnvValue>,
    /// Its triggers.
    pub triggers: Vec<TriggerSpec>,
}

/// What manifests mean that were stored before they could say it.
const fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A manifest that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// Line in the file, from 1; `None` where the rule concerns the file as a whole.
    pub line: Option<usize>,
    /// The key, with its table; empty where the text is no TOML.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FILE)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ManifestError {}

impl Manifest {
    /// Reads and checks the text of a `function.toml`.
    ///
    /// # Errors
    /// [`ManifestError`] for the first rule that is broken, with line and key.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        check::read(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "schema = 1\nname = \"f\"\nruntime = \"python\"\nhandler = \"main.handle\"\n";

    fn error(rest: &str) -> String {
        match Manifest::parse(&format!("{HEAD}{rest}")) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn hook(rest: &str) -> String {
        error(&format!("[[trigger]]\ntype = \"webhook\"\npath = \"x\"\n{rest}"))
    }

    #[test]
    fn a_short_manifest_gets_the_defaults() {
        let manifest = Manifest::parse(HEAD).expect("it is valid");
        assert_eq!(manifest.limits, Limits::default());
        assert_eq!(manifest.reset, Reset::Warm);
        assert_eq!((manifest.max_concurrency, manifest.concurrency), (10, 1));
    }

    #[test]
    fn a_manifest_that_was_stored_before_concurrency_reads_as_one() {
        let mut stored = serde_json::to_value(Manifest::parse(HEAD).expect("it is valid")).expect("it serialises");
        stored.as_object_mut().expect("it is an object").remove("concurrency");
        assert_eq!(serde_json::from_value::<Manifest>(stored).expect("it reads back").concurrency, 1);
    }

    #[test]
    fn runtimes_that_stay_may_be_warm_and_shared() {
        for runtime in ["python", "node", "custom"] {
            let text = HEAD.replace("python", runtime) + "concurrency = 8\nmemory = \"128MiB\"\n";
            let manifest = Manifest::parse(&text).expect("it is valid");
            assert_eq!((manifest.reset, manifest.concurrency), (Reset::Warm, 8), "{runtime}");
        }
        let exec = HEAD.replace("python", "exec") + "concurrency = 2\n";
        assert!(Manifest::parse(&exec).is_err_and(|error| error.key == "concurrency"));
    }

    #[test]
    fn the_contract_example_is_accepted() {
        let text = r#"
            schema  = 1
            name    = "on-push"
            runtime = "python"
            handler = "main.handle"
            image   = "host"
            timeout = "10s"
            memory = "128MiB"
            cpu = 1.0
            pids = 64
            tmp = "16MiB"
            reset   = "warm"
            max_concurrency = 10
            concurrency = 1
            min_warm = 0
            on_lost = "retry"
            envelope = "raw"
            [retry]
            max_attempts = 5
            max_age = "1h"
            on = ["error", "timeout"]
            min_backoff = "2s"
            max_backoff = "1m"
            [on_success]
            function = "next"
            [on_failure]
            url = "https://example.com/hook?x=1"
            secret = "callback"
            [env]
            GREETING = "hi"
            TOKEN = { secret = "deploy-token" }
            [[trigger]]
            type = "webhook"
            path = "gh"
            adapter = "github"
            secret = "gh-hook"
            events = ["push"]
            branches = ["main"]
            match = { "repository.full_name" = "o/r" }
            [[trigger]]
            type = "webhook"
            path = "open"
            adapter = "none"
            public = true
            match = { object.kind = ["a", "b*"], "labels.id" = 7, draft = false }
        "#;
        let manifest = Manifest::parse(text).expect("it is valid");
        assert_eq!(manifest.triggers.len(), 2);
        assert_eq!(manifest.env.len(), 2);
        // As the ledger keeps it.
        let stored = serde_json::to_value(&manifest).expect("it serialises");
        assert_eq!(serde_json::from_value::<Manifest>(stored).expect("it reads back"), manifest);
    }

    #[test]
    fn errors_name_line_key_and_remedy() {
        insta::assert_snapshot!(
            [
                error("memroy = \"128MiB\"\n"),
                error("memory = \"128MB\"\n"),
                error("timeout = 10\n"),
                error("timeout = \"10sec\"\n"),
                error("memory = \"32MiB\"\n"),
                error("reset = \"cold\"\n"),
                error("concurrency = 2\nreset = \"fork\"\n"),
                error("concurrency = 0\n"),
                error("min_warm = 1\nreset = \"fresh\"\n"),
                error("min_warm = 4\nmax_concurrency = 3\n"),
                error("concurrency = 60\n"),
                error("concurrency = 2\nreset = \"fresh\"\n"),
                error("cpu = 0\n"),
                error("image = \"alpine\"\n"),
                error("[env]\nRUNLET_X = \"1\"\n"),
                error("[env]\nX = 3\n"),
                error("[[trigger]]\ntype = \"webhook\"\npath = \"../x\"\n"),
                error("[[trigger]]\ntype = \"webhook\"\npath = \"x\"\nadapter = \"github\"\n"),
                error("[retry]\nmax_attempts = 0\n"),
                error("[retry]\non = [\"lost\"]\n"),
                error("[retry]\non = [\"404\"]\n"),
                error("[retry]\nmin_backoff = \"10s\"\nmax_backoff = \"5s\"\n"),
                error("[retry]\nmax_age = \"2000d\"\n"),
                error("[on_success]\nfunction = \"f\"\n"),
                error("[on_success]\n"),
                error("[on_failure]\nurl = \"https://example.com\"\n"),
                error("[on_failure]\nurl = \"https://example.com\"\nfunction = \"g\"\n"),
                error("[on_failure]\nurl = \"https://u:p@example.com\"\nsecret = \"s\"\n"),
                error("[on_failure]\nurl = \"ftp://example.com\"\nsecret = \"s\"\n"),
                error("[on_failure]\nurl = \"example.com\"\nsecret = \"s\"\n"),
                error("[[trigger]]\ntype = \"cron\"\n"),
                error("[[trigger]]\ntype = \"queue\"\n"),
                error("[[trigger]]\ntype = \"cron\"\nschedule = \"@daily\"\noverlap = \"replace\"\n"),
                error("[[trigger]]\ntype = \"cron\"\nschedule = \"@daily\"\nmisfire = \"once\"\n"),
                error("[[trigger]]\ntype = \"cron\"\nschedule = \"@daily\"\nmisfire_limit = 0\n"),
                error("[[trigger]]\ntype = \"cron\"\nschedule = \"@daily\"\njitter = \"2d\"\n"),
                error("[[trigger]]\ntype = \"cron\"\nschedule = \"@daily\"\npath = \"x\"\n"),
                error("[[trigger]]\ntype = \"webhook\"\npath = \"x\"\nadapter = \"hmac\"\nsecret = \"s\"\nzone = \"UTC\"\n"),
                hook("adapter = \"bitbucket\"\nsecret = \"s\"\n"),
                hook("adapter = \"none\"\n"),
                hook("adapter = \"none\"\npublic = false\n"),
                hook("adapter = \"none\"\npublic = true\nsecret = \"s\"\n"),
                hook("adapter = \"gitlab\"\nsecret = \"s\"\npublic = true\n"),
                hook("adapter = \"gitlab\"\nsecret = \"s\"\nevents = [\"Push Hook\"]\n"),
                hook("adapter = \"github\"\nsecret = \"s\"\nmatch = { \"a..b\" = \"x\" }\n"),
                hook("adapter = \"github\"\nsecret = \"s\"\nmatch = { a = 1.5 }\n"),
                hook("adapter = \"github\"\nsecret = \"s\"\nmatch = { a = [] }\n"),
                hook("adapter = \"github\"\nsecret = \"s\"\nmatch = { a = [[1]] }\n"),
                hook("adapter = \"github\"\nsecret = \"s\"\nmatch = { a.b = 1, \"a.b\" = 2 }\n"),
                error("envelope = \"http\"\n"),
                error("[[trigger]]\ntype = \"queue\"\nqueue = \"A\"\n"),
                error("[[trigger]]\ntype = \"queue\"\nqueue = \"a\"\nbatch_size = 0\n"),
                error("[[trigger]]\ntype = \"queue\"\nqueue = \"a\"\nsubject = \"x.>\"\n"),
                error("[[trigger]]\ntype = \"queue\"\nqueue = \"a\"\nattributes = { kind = 7 }\n"),
                error("[[trigger]]\ntype = \"queue\"\nqueue = \"a\"\nschedule = \"@daily\"\n"),
                error("[[trigger]]\ntype = \"cron\"\nschedule = \"@daily\"\nbatch_size = 3\n"),
                error("= 3"),
            ]
            .join("\n")
        );
    }
}

//! `function.toml`: what a function says about itself.
//!
//! Parsing and every rule that needs nothing but the text are here; rules that need the files (is the handler there?)
//! are in `runlet-runtimes`, those that need the operator's configuration (may it use this secret?) are in the server.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::name::{FunctionName, HookPath, SecretName};
use crate::unit::{ByteSize, Span};

/// Name of the file in the function's directory.
pub const FILE: &str = "function.toml";

/// How code is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// A function in a Python module, in a process that serves many calls.
    Python,
    /// One process per invocation: event on stdin, result on stdout.
    Exec,
}

impl RuntimeKind {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Exec => "exec",
        }
    }

    /// Memory that the runtime itself needs before any code of the user runs.
    #[must_use]
    pub const fn floor(self) -> ByteSize {
        match self {
            Self::Python => ByteSize::mib(24),
            Self::Exec => ByteSize::mib(4),
        }
    }

    /// The reset policy when the function names none.
    #[must_use]
    pub const fn default_reset(self) -> Reset {
        match self {
            Self::Python => Reset::Warm,
            Self::Exec => Reset::Fresh,
        }
    }
}

/// What happens to a sandbox between two invocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reset {
    /// The same process serves the next invocation of the same revision.
    Warm,
    /// A new sandbox per invocation.
    Fresh,
}

impl Reset {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
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

/// Which adapter verifies and reads a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdapterKind {
    /// GitHub's `X-Hub-Signature-256`.
    Github,
    /// A hex HMAC-SHA256 of the raw body in `X-Signature-256` (with or without `sha256=`).
    Hmac,
}

impl AdapterKind {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Hmac => "hmac",
        }
    }
}

/// A webhook trigger: which deliveries on a path become invocations of the function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookTrigger {
    /// Path below `/hooks/{namespace}/`.
    pub path: HookPath,
    /// Who verifies the signature and reads the event's name.
    pub adapter: AdapterKind,
    /// The signing secret.
    pub secret: SecretName,
    /// Events it wants; empty means all.
    #[serde(default)]
    pub events: Vec<String>,
    /// Branches it wants (of push and pull request events); empty means all. `*` stands for any run of characters.
    #[serde(default)]
    pub branches: Vec<String>,
}

/// A trigger as the manifest declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TriggerSpec {
    /// A webhook.
    Webhook(WebhookTrigger),
}

/// A checked `function.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the function.
    pub name: FunctionName,
    /// How its code is run.
    pub runtime: RuntimeKind,
    /// python: `module.function`; exec: path of the executable in the directory.
    pub handler: String,
    /// The root file system; `host` is the only one yet.
    pub image: String,
    /// Limits of its sandboxes.
    pub limits: Limits,
    /// What happens to a sandbox between two invocations.
    pub reset: Reset,
    /// Most executions at a time.
    pub max_concurrency: u32,
    /// What becomes of accepted asynchronous work whose execution was lost.
    pub on_lost: OnLost,
    /// Environment of the code.
    pub env: BTreeMap<String, EnvValue>,
    /// Its triggers.
    pub triggers: Vec<TriggerSpec>,
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
    envelope: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, EnvValue>,
    #[serde(default)]
    trigger: Vec<RawTrigger>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTrigger {
    #[serde(rename = "type")]
    kind: String,
    path: Option<HookPath>,
    adapter: Option<String>,
    secret: Option<SecretName>,
    #[serde(default)]
    events: Vec<String>,
    #[serde(default)]
    branches: Vec<String>,
    #[serde(rename = "match")]
    fields: Option<toml::Table>,
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

impl Manifest {
    /// Reads and checks the text of a `function.toml`.
    ///
    /// # Errors
    /// [`ManifestError`] for the first rule that is broken, with line and key.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
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
        if raw.handler.is_empty() || raw.handler.contains('\0') {
            return self.fail("handler", "name the handler: `module.function` for python, a file for exec");
        }
        self.env(&raw.env)?;
        let triggers = raw
            .trigger
            .into_iter()
            .enumerate()
            .map(|(nth, trigger)| self.trigger(nth, trigger))
            .collect::<Result<_, _>>()?;
        Ok(Manifest {
            name: raw.name,
            runtime,
            handler: raw.handler,
            image: raw.image.unwrap_or_else(|| "host".to_owned()),
            limits,
            reset,
            max_concurrency,
            on_lost: raw.on_lost.unwrap_or_default(),
            env: raw.env,
            triggers,
        })
    }

    fn runtime(&self, text: &str) -> Result<RuntimeKind, ManifestError> {
        match text {
            "python" => Ok(RuntimeKind::Python),
            "exec" => Ok(RuntimeKind::Exec),
            "node" | "custom" => {
                self.fail("runtime", format!("`{text}` is not available in this version; write \"python\" or \"exec\""))
            }
            _ => self.fail("runtime", format!("`{text}` is not a runtime; write \"python\" or \"exec\"")),
        }
    }

    /// Keys of the contract whose other values a later version will take.
    fn not_built(&self, raw: &Raw) -> Result<(), ManifestError> {
        if raw.image.as_deref().is_some_and(|image| image != "host") {
            return self.fail("image", "only \"host\" is available in this version");
        }
        if raw.concurrency.is_some_and(|n| n != 1) {
            return self.fail("concurrency", "only 1 is available in this version; use `max_concurrency`");
        }
        if raw.min_warm.is_some_and(|n| n != 0) {
            return self.fail("min_warm", "only 0 is available in this version");
        }
        if raw.envelope.as_deref().is_some_and(|envelope| envelope != "raw") {
            return self.fail("envelope", "only \"raw\" is available in this version");
        }
        Ok(())
    }

    fn reset(&self, text: Option<&str>, runtime: RuntimeKind) -> Result<Reset, ManifestError> {
        match (text, runtime) {
            (None, _) => Ok(runtime.default_reset()),
            (Some("fresh"), _) => Ok(Reset::Fresh),
            (Some("warm"), RuntimeKind::Python) => Ok(Reset::Warm),
            (Some("warm"), RuntimeKind::Exec) => {
                self.fail("reset", "an exec function starts a process per invocation; write \"fresh\" or leave it out")
            }
            (Some("fork"), _) => {
                self.fail("reset", "\"fork\" is not available in this version; write \"warm\" or \"fresh\"")
            }
            (Some(other), _) => {
                self.fail("reset", format!("`{other}` is not a reset policy; write \"warm\" or \"fresh\""))
            }
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

    fn trigger(&self, nth: usize, raw: RawTrigger) -> Result<TriggerSpec, ManifestError> {
        let fail = |key: &str, message: &str| ManifestError {
            line: self.lines.of("trigger", nth, key),
            key: format!("trigger.{key}"),
            message: message.to_owned(),
        };
        match raw.kind.as_str() {
            "webhook" => {}
            "cron" | "queue" | "http" => return Err(fail("type", "only \"webhook\" is available in this version")),
            _ => return Err(fail("type", "this is no trigger type; write \"webhook\"")),
        }
        if raw.fields.is_some() {
            return Err(fail("match", "is not available in this version; use `events` and `branches`"));
        }
        let adapter = match raw.adapter.as_deref() {
            Some("github") => AdapterKind::Github,
            Some("hmac") => AdapterKind::Hmac,
            _ => return Err(fail("adapter", "write \"github\" or \"hmac\"")),
        };
        Ok(TriggerSpec::Webhook(WebhookTrigger {
            path: raw
                .path
                .ok_or_else(|| fail("path", "a webhook needs a path; its URL is /hooks/{namespace}/{path}"))?,
            adapter,
            secret: raw
                .secret
                .ok_or_else(|| fail("secret", "name the signing secret, as in the operator's [secrets]"))?,
            events: raw.events,
            branches: raw.branches,
        }))
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

    #[test]
    fn a_short_manifest_gets_the_defaults() {
        let manifest = Manifest::parse(HEAD).expect("it is valid");
        assert_eq!(manifest.limits, Limits::default());
        assert_eq!(manifest.reset, Reset::Warm);
        assert_eq!(manifest.max_concurrency, 10);
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
        "#;
        let manifest = Manifest::parse(text).expect("it is valid");
        assert_eq!(manifest.triggers.len(), 1);
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
                error("reset = \"fork\"\n"),
                error("cpu = 0\n"),
                error("image = \"alpine\"\n"),
                error("[env]\nRUNLET_X = \"1\"\n"),
                error("[env]\nX = 3\n"),
                error("[[trigger]]\ntype = \"webhook\"\npath = \"../x\"\n"),
                error("[[trigger]]\ntype = \"webhook\"\npath = \"x\"\nadapter = \"github\"\n"),
                error("[[trigger]]\ntype = \"cron\"\n"),
                error("[[trigger]]\ntype = \"webhook\"\nmatch = { \"repository.full_name\" = \"o/r\" }\n"),
                error("= 3"),
            ]
            .join("\n")
        );
    }
}

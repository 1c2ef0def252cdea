//! The table of keys: how each is read, checked and shown. File, environment and flags all go through it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use runlet_core::engine::Network;
use runlet_core::unit::{ByteSize, Span};

use super::Config;

/// What TOML type the value of a key has in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text in quotes.
    Text,
    /// A whole number.
    Number,
    /// A number with or without a point.
    Decimal,
    /// `true` or `false`.
    Switch,
}

impl Kind {
    /// How to write a value of it.
    pub(super) const fn remedy(self) -> &'static str {
        match self {
            Self::Text => "write a text in quotes",
            Self::Number => "write a whole number without quotes",
            Self::Decimal => "write a number without quotes",
            Self::Switch => "write true or false without quotes",
        }
    }
}

/// One key.
pub(super) struct Key {
    /// Its name in the file, with its table; the environment variable is `RUNLET_` and its upper case, `_` for the dot.
    pub name: &'static str,
    /// Its type in the file.
    pub kind: Kind,
    /// Reads, checks and stores a value.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
    /// The effective value, as it would be written; empty where nothing is set.
    pub show: fn(&Config) -> String,
}

impl Key {
    /// Name of its environment variable.
    pub(super) fn env(&self) -> String {
        format!("RUNLET_{}", self.name.to_ascii_uppercase().replace('.', "_"))
    }
}

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Whether keys of the table `name` exist.
pub(super) fn is_table(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

macro_rules! key {
    // A key of a table: its name has a dot.
    ($name:literal, $($field:ident).+, $kind:ident, $read:expr) => {
        key!($name, $($field).+, $kind, $read, ToString::to_string)
    };
    ($name:literal, $($field:ident).+, $kind:ident, $read:expr, $show:expr) => {
        Key {
            name: $name,
            kind: Kind::$kind,
            set: |config, text| {
                config.$($field).+ = $read(text)?;
                Ok(())
            },
            show: |config| $show(&config.$($field).+),
        }
    };
    ($name:ident, $kind:ident, $read:expr) => {
        key!($name, $kind, $read, ToString::to_string)
    };
    ($name:ident, $kind:ident, $read:expr, $show:expr) => {
        Key {
            name: stringify!($name),
            kind: Kind::$kind,
            set: |config, text| {
                config.$name = $read(text)?;
                Ok(())
            },
            show: |config| $show(&config.$name),
        }
    };
}

/// Every key but the secrets, in the order in which they are shown.
pub(super) const KEYS: &[Key] = &[
    key!(listen, Text, |text: &str| text.parse().map_err(|_| {
        format!("`{text}` is not an address; write an IP address and a port, for example \"127.0.0.1:8700\"")
    })),
    key!(behind_proxy, Switch, switch),
    key!(data_dir, Text, absolute, shown),
    key!(run_dir, Text, absolute, shown),
    key!(database_url, Text, |text: &str| text.parse().map(Some), optional),
    key!(postgres_bin, Text, some_path, shown_path),
    key!(user, Text, user),
    key!(server_name, Text, |text: &str| server_name(text).map(Some), optional),
    key!(cgroup_parent, Text, cgroup),
    key!(memory, Text, |text: &str| size(text, ByteSize::mib(32))),
    key!(max_sandboxes, Number, |text: &str| number(text, 1, 100_000)),
    key!(max_waiting, Number, |text: &str| number(text, 0, 1_000_000)),
    key!(max_queued, Number, |text: &str| number(text, 1, 100_000_000)),
    key!(idle_timeout, Text, span),
    key!(max_result, Text, |text: &str| size(text, ByteSize(1024))),
    key!(max_log, Text, |text: &str| size(text, ByteSize(0))),
    key!(spool_max, Text, |text: &str| size(text, ByteSize::mib(1))),
    key!(max_inflight_bytes, Text, |text: &str| size(text, ByteSize::mib(1))),
    key!(max_connections, Number, |text: &str| number(text, 1, 1_000_000)),
    key!(stop_grace, Text, span),
    key!(lease, Text, |text: &str| {
        let lease = span(text)?;
        if lease.0 < Duration::from_secs(1) {
            return Err("a lease below one second ends before its heartbeat; write at least \"1s\"".to_owned());
        }
        Ok::<_, String>(lease)
    }),
    key!(retention, Text, str::parse),
    key!(spill, Text, str::parse),
    key!(disk_floor, Text, |text: &str| {
        text.parse().map_err(|error: runlet_core::unit::BadUnit| format!("{error}; or write \"auto\""))
    }),
    key!(log_format, Text, |text: &str| text.parse()),
    key!("stems.python", stems.python, Number, |text: &str| number(text, 0, 1000)),
    key!("stems.node", stems.node, Number, |text: &str| number(text, 0, 1000)),
    key!("stems.exec", stems.exec, Number, |text: &str| number(text, 0, 1000)),
    key!("ci.network", ci.network, Text, network, |network: &Network| network.as_str().to_owned()),
    key!("ci.idle", ci.idle, Text, some_span),
    key!("ci.after", ci.after, Text, span),
    key!("ci.kill_grace", ci.kill_grace, Text, span),
    key!("ci.wait", ci.wait, Text, span),
    key!("ci.gitlab.memory", ci.gitlab.usual.memory, Text, |text: &str| size(text, ByteSize::mib(16))),
    key!("ci.gitlab.cpu", ci.gitlab.usual.cpu, Decimal, decimal),
    key!("ci.gitlab.pids", ci.gitlab.usual.pids, Number, |text: &str| number(text, 4, 1_000_000)),
    key!("ci.gitlab.tmp", ci.gitlab.usual.tmp, Text, |text: &str| size(text, ByteSize::mib(1))),
    key!("ci.gitlab.timeout", ci.gitlab.usual.timeout, Text, some_span),
    key!("ci.gitlab.max_memory", ci.gitlab.most.memory, Text, |text: &str| size(text, ByteSize::mib(16))),
    key!("ci.gitlab.max_cpu", ci.gitlab.most.cpu, Decimal, decimal),
    key!("ci.gitlab.max_pids", ci.gitlab.most.pids, Number, |text: &str| number(text, 4, 1_000_000)),
    key!("ci.gitlab.max_tmp", ci.gitlab.most.tmp, Text, |text: &str| size(text, ByteSize::mib(1))),
    key!("ci.gitlab.max_timeout", ci.gitlab.most.timeout, Text, some_span),
    key!("callbacks.allow", callbacks.allow, Text, |text: &str| {
        text.parse().map_err(|error: runlet_integrations::callback::BadNetworks| error.to_string())
    }),
    key!("callbacks.timeout", callbacks.timeout, Text, |text: &str| {
        let timeout = some_span(text)?;
        if timeout.0 > Duration::from_secs(120) {
            return Err("a receiver that takes longer holds others up; write at most \"2m\"".to_owned());
        }
        Ok::<_, String>(timeout)
    }),
    key!("tls.cert", tls_cert, Text, some_path, shown_path),
    key!("tls.key", tls_key, Text, some_path, shown_path),
    key!("metrics.public", metrics_public, Switch, switch, ToString::to_string),
];

fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

fn some_path(text: &str) -> Result<Option<PathBuf>, String> {
    absolute(text).map(Some)
}

fn shown_path(path: &Option<PathBuf>) -> String {
    path.as_deref().map(shown).unwrap_or_default()
}

fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("`{text}` is neither true nor false"))
}

fn optional<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if path.is_absolute() && plain && path.parent().is_some() {
        Ok(path)
    } else {
        Err(format!("`{text}` is not an absolute path without `..`; write one, for example \"/var/lib/runlet\""))
    }
}

fn user(text: &str) -> Result<String, String> {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let first = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if !first || text.len() > 32 || !text.bytes().all(ok) {
        return Err(format!("`{text}` is not the name of a system user; write one like \"runlet\""));
    }
    if text == "root" {
        return Err("the server gives root up after its start; name another user, for example \"runlet\"".to_owned());
    }
    Ok(text.to_owned())
}

fn server_name(text: &str) -> Result<String, String> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if (1..=64).contains(&text.len()) && text.bytes().all(ok) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a server name; use 1 to 64 characters of A-Z, a-z, 0-9, -, _ and ."))
    }
}

fn cgroup(text: &str) -> Result<String, String> {
    let ok = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@'))
    };
    match text.strip_prefix('/') {
        Some(rest) if text.len() <= 200 && rest.split('/').all(ok) => Ok(text.to_owned()),
        _ => {
            Err(format!("`{text}` is not a cgroup path; write one like \"/runlet\", absolute and without an end slash"))
        }
    }
}

fn size(text: &str, least: ByteSize) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|error: runlet_core::unit::BadUnit| error.to_string())?;
    if size < least { Err(format!("{size} is too little; write at least \"{least}\"")) } else { Ok(size) }
}

fn span(text: &str) -> Result<Span, String> {
    text.parse().map_err(|error: runlet_core::unit::BadUnit| error.to_string())
}

fn some_span(text: &str) -> Result<Span, String> {
    let span = span(text)?;
    if span.0.is_zero() { Err("no time at all is too little; write at least \"1s\"".to_owned()) } else { Ok(span) }
}

fn network(text: &str) -> Result<Network, String> {
    match text {
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        _ => Err(format!("`{text}` is no network; write \"none\", or \"host\", which separates jobs from nothing")),
    }
}

fn decimal(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.01..=1024.0).contains(&value) => Ok(value),
        _ => Err(format!("`{text}` is not possible here; write a number from 0.01 to 1024")),
    }
}

/// A share of the host.
pub(super) fn weight(text: &str) -> Result<u32, String> {
    number(text, 1, 1000)
}

fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(format!("`{text}` is not possible here; write a whole number from {least} to {most}")),
    }
}

//! The operator's configuration: one struct, its defaults, and the layers that change them.
//!
//! Defaults < file (TOML) < environment (`RUNLET_*`) < command-line flags. Every key is one row of [`keys::KEYS`], which says
//! how it is read, checked and shown, so that no layer knows a key that another does not. The value of a secret is not
//! here: [`secrets`] reads it, and nothing shows it.

pub(crate) mod ci;
mod error;
mod file;
mod keep;
mod keys;
mod load;
mod memory;
pub(crate) mod secrets;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use runlet_core::disk::Floor;
use runlet_core::name::{Namespace, SecretName};
use runlet_core::unit::{ByteSize, Span};
use runlet_executor::engine::StemCounts;
use runlet_integrations::callback::Networks;

pub(crate) use error::ConfigError;
pub(crate) use load::{Flags, check, load};

/// The effective configuration of a server.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Address of the TCP listener.
    pub listen: SocketAddr,
    /// Everything that must survive a restart.
    pub data_dir: PathBuf,
    /// State of live sandboxes.
    pub run_dir: PathBuf,
    /// The database; `None`: a private Postgres below `data_dir`.
    pub database_url: Option<DatabaseUrl>,
    /// Whether a proxy in front of the server speaks TLS for it.
    pub behind_proxy: bool,
    /// The system user that the server becomes.
    pub user: String,
    /// The cgroup under which all sandboxes live.
    pub cgroup_parent: String,
    /// Memory for sandboxes.
    pub memory: ByteSize,
    /// Most sandboxes at a time.
    pub max_sandboxes: u32,
    /// Most synchronous calls that wait for a sandbox.
    pub max_waiting: u32,
    /// Most accepted work that waits, per namespace.
    pub max_queued: u32,
    /// Sandboxes that are started ahead, per runtime.
    pub stems: StemCounts,
    /// An idle sandbox is destroyed after this time.
    pub idle_timeout: Span,
    /// Largest result of a call.
    pub max_result: ByteSize,
    /// Most output that is kept per execution.
    pub max_log: ByteSize,
    /// Most history of synchronous calls that waits for the database, bytes; then calls are refused.
    pub spool_max: ByteSize,
    /// Most bytes of request bodies in memory at a time.
    pub max_inflight_bytes: ByteSize,
    /// Most connections at a time, per listener.
    pub max_connections: u32,
    /// How long a stopping server waits for what still runs.
    pub stop_grace: Span,
    /// How long a claim on queued work lasts without a heartbeat.
    pub lease: Span,
    /// Name of this server in the ledger; `None`: made at the first start and kept in `data_dir`.
    pub server_name: Option<String>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Directory of the Postgres programs; `None`: the usual places are searched.
    pub postgres_bin: Option<PathBuf>,
    /// Jobs of CI systems.
    pub ci: ci::CiConfig,
    /// Callbacks.
    pub callbacks: CallbackConfig,
    /// The server's certificate; with its key.
    pub tls_cert: Option<PathBuf>,
    /// The key of the certificate.
    pub tls_key: Option<PathBuf>,
    /// Whether everybody may read the metrics.
    pub metrics_public: bool,
    /// How many days of history are kept.
    pub retention: keep::Days,
    /// From which size on bodies and output go to files.
    pub spill: keep::SpillOver,
    /// Free space of the data directory below which nothing new is accepted.
    pub disk_floor: Floor,
    /// What namespaces want otherwise: the `[namespaces.NAME]` tables.
    pub namespaces: BTreeMap<Namespace, keep::NamespaceEntry>,
    /// Where secrets are, and who may use them.
    pub secrets: BTreeMap<SecretName, secrets::SecretEntry>,
}

impl Config {
    /// Where certificate and key are, if the server speaks TLS.
    pub(crate) fn tls(&self) -> Option<crate::tls::Files> {
        Some(crate::tls::Files { cert: self.tls_cert.clone()?, key: self.tls_key.clone()? })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8700)),
            data_dir: PathBuf::from("/var/lib/runlet"),
            run_dir: PathBuf::from("/run/runlet"),
            database_url: None,
            behind_proxy: false,
            user: "runlet".to_owned(),
            cgroup_parent: "/runlet".to_owned(),
            memory: memory::for_sandboxes(),
            max_sandboxes: 256,
            max_waiting: 1024,
            max_queued: 10_000,
            stems: StemCounts::default(),
            idle_timeout: Span(Duration::from_secs(60)),
            max_result: ByteSize::mib(16),
            max_log: ByteSize::mib(64),
            spool_max: ByteSize::mib(256),
            max_inflight_bytes: ByteSize::mib(256),
            max_connections: 1024,
            stop_grace: Span(Duration::from_secs(10)),
            lease: Span(Duration::from_secs(15)),
            server_name: None,
            log_format: LogFormat::Pretty,
            postgres_bin: None,
            ci: ci::CiConfig::default(),
            callbacks: CallbackConfig { allow: Networks::default(), timeout: Span(Duration::from_secs(15)) },
            tls_cert: None,
            tls_key: None,
            metrics_public: false,
            retention: keep::Days(Some(30)),
            spill: keep::SpillOver::Usual,
            disk_floor: Floor::Usual,
            namespaces: BTreeMap::new(),
            secrets: BTreeMap::new(),
        }
    }
}

/// The table `[callbacks]`.
#[derive(Debug, Clone)]
pub(crate) struct CallbackConfig {
    /// Networks that callbacks may go to besides the public ones.
    pub allow: Networks,
    /// How long a receiver may take.
    pub timeout: Span,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{text}` is not a log format; write \"pretty\" or \"json\"")),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        })
    }
}

/// A database URL: it may hold a password, so that only its harmless parts are ever shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL, for the one place that connects.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Ok(Self(text.to_owned()))
        } else {
            Err("this is no Postgres URL; write postgres://user@host/database".to_owned())
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("postgres", ""));
        // Parameters may hold a password too: what follows the `?` is not shown.
        let rest = rest.split('?').next().unwrap_or_default();
        match rest.rsplit_once('@') {
            Some((login, place)) => {
                let user = login.split(':').next().unwrap_or_default();
                let hidden = if login.contains(':') { ":***" } else { "" };
                write!(f, "{scheme}://{user}{hidden}@{place}")
            }
            None => write!(f, "{scheme}://{rest}"),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let show = |text: &str| text.parse::<DatabaseUrl>().map(|url| format!("{url} {url:?}"));
        for text in ["postgres://u:hunter2@h/d", "postgresql://u:a@hunter2@h/d", "postgres://h/d?password=hunter2"] {
            let shown = show(text).expect("it is a URL");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert_eq!(show("postgres://u:p@h/d"), Ok("postgres://u:***@h/d postgres://u:***@h/d".to_owned()));
        assert!(show("mysql://h/d").is_err());
    }
}

//! Puts the layers together, and prints the result.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use runlet_core::engine::Network;

use super::error::{ConfigError, Source};
use super::keys::{self, KEYS, Key};
use super::{Config, file};

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    /// `--config FILE`
    pub config: Option<PathBuf>,
    /// Other flags: name of the key and its value.
    pub values: Vec<(&'static str, String)>,
}

/// The effective configuration and where each part of it comes from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What an operator should know, though nothing is broken.
    pub warnings: Vec<String>,
    sources: BTreeMap<&'static str, Source>,
}

/// Variables that begin with `RUNLET_` and are no keys.
const OTHER_VARIABLES: [&str; 10] = [
    "RUNLET_CA_FILE",
    "RUNLET_CI_LEASE",
    "RUNLET_CONFIG",
    "RUNLET_HOST",
    "RUNLET_LOG",
    "RUNLET_NAMESPACE",
    "RUNLET_TEST_SCALE",
    "RUNLET_TOKEN",
    "RUNLET_TOKEN_FILE",
    "RUNLET_JSON",
];

/// Loads the configuration: defaults < file < environment < flags.
///
/// # Errors
/// The first rule that is broken, with its place and the remedy.
pub(crate) fn load(flags: &Flags) -> Result<Loaded, ConfigError> {
    // A variable that is no UTF-8 cannot be one of ours.
    let env =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    layers(flags, &env.collect())
}

/// Checks the configuration that `serve` would use, and prints it with the source of each key. Secrets are checked for being
/// there and are shown by name only.
///
/// # Errors
/// The first rule that is broken, with its place and the remedy.
pub(crate) fn check(path: Option<&Path>) -> Result<String, ConfigError> {
    let mut loaded = load(&Flags { config: path.map(Path::to_owned), values: Vec::new() })?;
    let (_, warnings) = super::secrets::read(&loaded.config.secrets)?;
    loaded.warnings.extend(warnings);
    Ok(loaded.show())
}

fn layers(flags: &Flags, env: &BTreeMap<String, String>) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded { config: Config::default(), warnings: Vec::new(), sources: BTreeMap::new() };
    let from_flag = flags.config.clone().map(|path| (path, Source::Flag("--config".to_owned())));
    let from_env = || env.get("RUNLET_CONFIG").map(|path| (path.into(), Source::Env("RUNLET_CONFIG".to_owned())));
    if let Some((path, source)) = from_flag.or_else(from_env) {
        loaded.file(&path, &source)?;
    }
    for key in KEYS {
        let name = key.env();
        if let Some(text) = env.get(&name).filter(|text| !text.is_empty()) {
            loaded.set(key, text, Source::Env(name))?;
        }
    }
    for name in env.keys().filter(|name| name.starts_with("RUNLET_") && !OTHER_VARIABLES.contains(&name.as_str())) {
        if !KEYS.iter().any(|key| key.env() == *name) {
            loaded.warnings.push(format!("environment variable {name} is none that runlet knows: it has no effect"));
        }
    }
    for (name, text) in &flags.values {
        if let Some(key) = keys::find(name) {
            loaded.set(key, text, Source::Flag(format!("--{}", name.replace('_', "-"))))?;
        }
    }
    loaded.rules()?;
    if loaded.config.ci.network == Network::Host {
        let message = "ci.network = \"host\": jobs of CI systems see this machine's network, its loopback included; \
                       run only jobs that you trust";
        loaded.warnings.push(message.to_owned());
    }
    Ok(loaded)
}

impl Loaded {
    fn set(&mut self, key: &'static Key, text: &str, source: Source) -> Result<(), ConfigError> {
        (key.set)(&mut self.config, text).map_err(|message| ConfigError::new(source.clone(), key.name, message))?;
        self.sources.insert(key.name, source);
        Ok(())
    }

    fn file(&mut self, path: &Path, source: &Source) -> Result<(), ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| {
            ConfigError::new(
                source.clone(),
                "",
                format!("cannot read the configuration file {}: {error}", path.display()),
            )
        })?;
        let file = file::parse(path, &text)?;
        for entry in file.entries {
            self.set(entry.key, &entry.text, entry.source)?;
        }
        self.config.secrets = file.secrets.into_iter().collect();
        self.config.namespaces = file.namespaces.into_iter().collect();
        Ok(())
    }

    fn source(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or(Source::Default)
    }

    /// Rules that concern more than one key.
    fn rules(&self) -> Result<(), ConfigError> {
        let config = &self.config;
        if !config.listen.ip().is_loopback() && !config.behind_proxy && config.tls().is_none() {
            let message = format!(
                "{} can be reached from other machines, and tokens would go there unencrypted; set tls.cert and tls.key, or \
                 listen on 127.0.0.1, or put a proxy that speaks TLS in front and set behind_proxy = true",
                config.listen
            );
            return Err(ConfigError::new(self.source("listen"), "listen", message));
        }
        for (have, key, missing) in
            [(&config.tls_cert, "tls.cert", &config.tls_key), (&config.tls_key, "tls.key", &config.tls_cert)]
        {
            if have.is_some() && missing.is_none() {
                let other = if key == "tls.cert" { "tls.key" } else { "tls.cert" };
                return Err(ConfigError::new(self.source(key), key, format!("{other} is missing; TLS needs both")));
            }
        }
        if config.max_result.0 > config.max_inflight_bytes.0 {
            let message =
                format!("{} is more than max_inflight_bytes ({})", config.max_result, config.max_inflight_bytes);
            return Err(ConfigError::new(self.source("max_result"), "max_result", message));
        }
        let (usual, most) = (config.ci.gitlab.usual, config.ci.gitlab.most);
        let above = [
            ("ci.gitlab.memory", usual.memory > most.memory),
            ("ci.gitlab.cpu", usual.cpu > most.cpu),
            ("ci.gitlab.pids", usual.pids > most.pids),
            ("ci.gitlab.tmp", usual.tmp > most.tmp),
            ("ci.gitlab.timeout", usual.timeout > most.timeout),
        ];
        if let Some((key, _)) = above.into_iter().find(|(_, above)| *above) {
            let message = format!("this is more than {}", key.replace("gitlab.", "gitlab.max_"));
            return Err(ConfigError::new(self.source(key), key, message));
        }
        Ok(())
    }

    /// The effective configuration, a key a line, each with its source.
    fn show(&self) -> String {
        let mut out = String::new();
        for key in KEYS {
            let value = (key.show)(&self.config);
            let value = match (key.kind, value.as_str()) {
                (_, "") => "(not set)".to_owned(),
                (keys::Kind::Text, text) => format!("{text:?}"),
                (_, text) => text.to_owned(),
            };
            let _ = writeln!(out, "{:<18} = {value:<32} # {}", key.name, self.source(key.name));
        }
        for (name, entry) in &self.config.secrets {
            let namespaces: Vec<&str> = entry.namespaces.iter().map(|name| name.as_str()).collect();
            let _ =
                writeln!(out, "secret {name} from {}, for {} # {}", entry.place, namespaces.join(", "), entry.source);
        }
        for (name, entry) in &self.config.namespaces {
            let keep = entry.retention.unwrap_or(self.config.retention);
            let weight = entry.weight.unwrap_or(1);
            let _ = writeln!(out, "namespace {name} with retention = \"{keep}\", weight = {weight} # {}", entry.source);
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "warning: {warning}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_file(text: &str) -> Result<Loaded, ConfigError> {
        try_all(text, &[], &[])
    }

    fn try_all(text: &str, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Loaded, ConfigError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("runlet.toml");
        fs::write(&path, text).expect("written");
        let flags = Flags {
            config: Some(path.clone()),
            values: flags.iter().map(|(name, text)| (*name, (*text).to_owned())).collect(),
        };
        let env = env.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        layers(&flags, &env).map_err(|mut error| {
            // The directory differs in each run.
            if let Source::File(path, _) = &mut error.source {
                *path = PathBuf::from("runlet.toml");
            }
            error
        })
    }

    fn error(text: &str) -> String {
        try_file(text).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
    }

    #[test]
    fn later_layers_win_and_are_named() {
        let loaded = try_all(
            "listen = \"127.0.0.1:1\"\nmax_waiting = 7\nlease = \"2s\"\n",
            &[("RUNLET_LISTEN", "127.0.0.1:2"), ("RUNLET_MAX_WAITING", "8"), ("RUNLET_LISTN", "x")],
            &[("listen", "127.0.0.1:3")],
        )
        .expect("it is valid");
        assert_eq!(loaded.config.listen.port(), 3);
        assert_eq!(loaded.config.max_waiting, 8);
        assert_eq!(loaded.config.lease.0.as_secs(), 2);
        assert_eq!(loaded.source("listen"), Source::Flag("--listen".to_owned()));
        assert_eq!(loaded.source("max_waiting"), Source::Env("RUNLET_MAX_WAITING".to_owned()));
        assert!(matches!(loaded.source("lease"), Source::File(_, 3)));
        assert_eq!(loaded.warnings.len(), 1);
        assert!(loaded.show().contains("127.0.0.1:3"));
    }

    #[test]
    fn every_key_reads_back_what_it_shows() {
        let mut config = Config::default();
        for key in KEYS {
            let shown = (key.show)(&Config::default());
            if !shown.is_empty() {
                assert_eq!((key.set)(&mut config, &shown), Ok(()), "{}", key.name);
                assert_eq!((key.show)(&config), shown, "{}", key.name);
            }
        }
    }

    #[test]
    fn namespaces_may_keep_their_history_longer_or_shorter() {
        let text =
            "retention = \"14d\"\n[namespaces.ci]\nretention = \"2d\"\n[namespaces.audit]\nretention = \"off\"\n";
        let loaded = try_file(text).expect("it is valid");
        assert!(loaded.show().contains("namespace ci with retention = \"2d\""));
        let retention = loaded.config.retention();
        let of = |name: &str| retention.of(&name.parse().expect("a name"));
        assert_eq!((of("ci"), of("audit"), of("other")), (Some(2), None, Some(14)));
    }

    #[test]
    fn secrets_are_read() {
        let loaded =
            try_file("[secrets.gh-hook]\nfile = \"/etc/x\"\n[secrets.b]\nenv = \"B\"\nnamespaces = [\"a\", \"b\"]\n")
                .expect("it is valid");
        assert_eq!(loaded.config.secrets.len(), 2);
        assert!(loaded.show().contains("secret b from environment variable B, for a, b"));
    }

    #[test]
    fn errors_name_place_key_and_remedy() {
        insta::assert_snapshot!(
            [
                error("listne = \"127.0.0.1:1\"\n"),
                error("colour = 1\n"),
                error("listen = \"localhost:8700\"\n"),
                error("\nlisten = \"0.0.0.0:8700\"\n"),
                error("max_waiting = \"7\"\n"),
                error("max_waiting = -1\n"),
                error("behind_proxy = \"yes\"\n"),
                error("data_dir = \"runlet\"\n"),
                error("user = \"root\"\n"),
                error("memory = \"1GB\"\n"),
                error("lease = \"10ms\"\n"),
                error("cgroup_parent = \"runlet\"\n"),
                error("log_format = \"xml\"\n"),
                error("tls = true\n"),
                error("[tls]\ncrt = \"/etc/runlet/cert.pem\"\n"),
                error("[tls]\ncert = \"cert.pem\"\n"),
                error("listen = \"0.0.0.0:8700\"\n[tls]\ncert = \"/etc/runlet/cert.pem\"\n"),
                error("[tls]\nkey = \"/etc/runlet/key.pem\"\n"),
                error("[metrics]\npublic = \"yes\"\n"),
                error("database_url = \"mysql://u:p@h/d\"\n"),
                error("[secrets]\nx = \"value\"\n"),
                error("[secrets.x]\n"),
                error("[secrets.x]\nfile = \"/a\"\nenv = \"A\"\n"),
                error("[secrets.x]\nfile = \"a\"\n"),
                error("[secrets.x]\nvalue = \"hunter2\"\n"),
                error("[secrets.X]\nenv = \"A\"\n"),
                error("[secrets.x]\nenv = \"A\"\nnamespaces = []\n"),
                error("retention = \"36h\"\n"),
                error("retention = \"1d\"\n"),
                error("spill = \"1KiB\"\n"),
                error("disk_floor = \"5%\"\n"),
                error("[namespaces.a]\nkeep = 7\n"),
                error("[namespaces.a]\nretention = 7\n"),
                error("[namespaces]\na = 7\n"),
                error("= 3\n"),
            ]
            .join("\n")
        );
    }
}

//! The server under test: the release binary on its embedded default, in directories of its own.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use bytes::Bytes;
use hyper::StatusCode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::load::Target;
use crate::process::{self, Memory};

/// Signing secret of the hook.
pub(crate) const SECRET: &str = "bench-secret";

const PYTHON: [(&str, &str); 2] = [
    (
        "function.toml",
        "schema = 1\nname = \"echo-python\"\nruntime = \"python\"\nhandler = \"main.handle\"\nmax_concurrency = 4\nmemory = \"64MiB\"\n",
    ),
    ("main.py", "def handle(event, context):\n    return event\n"),
];
const NODE: [(&str, &str); 2] = [
    (
        "function.toml",
        "schema = 1\nname = \"echo-node\"\nruntime = \"node\"\nhandler = \"main.handle\"\nmax_concurrency = 4\nmemory = \"128MiB\"\n",
    ),
    ("main.js", "exports.handle = async (event, context) => event;\n"),
];
const TRUE: [(&str, &str); 2] = [
    ("function.toml", "schema = 1\nname = \"true\"\nruntime = \"exec\"\nhandler = \"true.sh\"\n"),
    ("true.sh", "#!/usr/bin/true\n"),
];
const HOOK: [(&str, &str); 2] = [
    (
        "function.toml",
        "schema = 1\nname = \"hook\"\nruntime = \"python\"\nhandler = \"main.handle\"\nmax_concurrency = 1\n[[trigger]]\ntype = \"webhook\"\npath = \"bench\"\nadapter = \"github\"\nsecret = \"bench\"\nevents = [\"push\"]\n",
    ),
    ("main.py", "def handle(event, context):\n    return None\n"),
];

/// Sandboxes that are started ahead: python, node, exec. Ten python functions are to be called first at once.
pub(crate) const STEMS: [u32; 3] = [12, 2, 4];

pub(crate) struct Server {
    child: Child,
    directory: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    token: String,
}

/// The program under test.
pub(crate) fn binary() -> String {
    std::env::var("RUNLET_BIN").unwrap_or_else(|_| "target/release/runlet".to_owned())
}

impl Server {
    /// Starts it and deploys what the benchmarks call.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let binary = binary();
        // Not below a directory that only root may enter: the server's own user must reach its part of it.
        let directory = tempfile::Builder::new().prefix("runlet-bench-").tempdir_in("/var/tmp")?;
        open_up(directory.path())?;
        let data = directory.path().join("data");
        let secret = directory.path().join("secret");
        std::fs::write(&secret, SECRET)?;
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
        let config = format!(
            "listen = \"127.0.0.1:0\"\nrun_dir = \"/run/runlet-bench\"\ncgroup_parent = \"/runlet-bench\"\nmax_queued = 1000000\nidle_timeout = \"10m\"\n[stems]\npython = {}\nnode = {}\nexec = {}\n[secrets.bench]\nfile = {:?}\nnamespaces = [\"default\"]\n",
            STEMS[0], STEMS[1], STEMS[2], secret
        );
        std::fs::write(directory.path().join("config.toml"), config)?;
        let mut child = Command::new(&binary)
            .args(["serve", "--config"])
            .arg(directory.path().join("config.toml"))
            .arg("--data-dir")
            .arg(&data)
            .env("RUNLET_LOG", "warn")
            .stdout(Stdio::piped())
            .kill_on_drop(false)
            .spawn()
            .with_context(|| format!("start {binary}"))?;
        let mut lines = BufReader::new(child.stdout.take().context("its stdout")?).lines();
        let address = loop {
            let line = lines.next_line().await?.context("the server ended before it was ready")?;
            if let Some(rest) = line.split("http://").nth(1) {
                break rest.split_whitespace().next().unwrap_or(rest).trim_end_matches('/').parse()?;
            }
        };
        let token = std::fs::read_to_string(data.join("admin.token"))?.trim().to_owned();
        let server = Self { child, directory, address, token };
        for files in [&PYTHON, &NODE, &TRUE, &HOOK] {
            server.deploy(&binary, files).await?;
        }
        Ok(server)
    }

    /// Runs a verb of the command line against it.
    pub(crate) async fn cli(&self, args: &[&str]) -> anyhow::Result<()> {
        let binary = binary();
        let mut command = Command::new(&binary);
        let status = command.args(args).env("RUNLET_DATA_DIR", self.data()).stdout(Stdio::null()).status().await?;
        anyhow::ensure!(status.success(), "{args:?} failed");
        Ok(())
    }

    /// Deploys a function of these files.
    pub(crate) async fn function(&self, files: &[(&str, &str)]) -> anyhow::Result<()> {
        self.deploy(&binary(), files).await
    }

    async fn deploy(&self, binary: &str, files: &[(&str, &str)]) -> anyhow::Result<()> {
        let source = tempfile::tempdir()?;
        for (name, text) in files {
            let path = source.path().join(name);
            std::fs::write(&path, text)?;
            let mode = if Path::new(name).extension().is_some_and(|kind| kind == "sh") { 0o755 } else { 0o644 };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
        let status = Command::new(binary)
            .arg("deploy")
            .arg(source.path())
            .env("RUNLET_DATA_DIR", self.data())
            .stdout(Stdio::null())
            .status()
            .await?;
        anyhow::ensure!(status.success(), "deploy failed");
        Ok(())
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The directory of its own Postgres's socket.
    pub(crate) fn socket(&self) -> anyhow::Result<PathBuf> {
        let entries = std::fs::read_dir(self.data().join("postgres"))?.flatten();
        entries
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|kind| kind == "sock"))
            .context("the private Postgres's socket directory")
    }

    /// Connections to its own Postgres.
    pub(crate) async fn database(&self, connections: u32) -> anyhow::Result<PgPool> {
        let socket = self.socket()?;
        let options = PgConnectOptions::new_without_pgpass().socket(socket).username("runlet").database("postgres");
        Ok(PgPoolOptions::new().max_connections(connections).connect_with(options).await?)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    pub(crate) fn memory(&self) -> anyhow::Result<Vec<Memory>> {
        Ok(process::memory(self.pid()))
    }

    /// Waits until all sandboxes that are to be started ahead are there.
    pub(crate) async fn stems_are_there(&self) -> anyhow::Result<()> {
        let mut capacity = self.call("", "");
        "/v1/capacity".clone_into(&mut capacity.path);
        let (mut last, mut same) = (0, 0);
        for _ in 0..600 {
            let body = capacity.get().await?;
            let told: serde_json::Value = serde_json::from_slice(&body)?;
            let stems = told["capacity"]["stems"].as_u64().unwrap_or_default();
            same = if stems == last { same + 1 } else { 0 };
            last = stems;
            // A rush of calls before makes more of them: it is over when none has come for half a second.
            if same >= 10 && stems >= u64::from(STEMS.iter().sum::<u32>()) {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        anyhow::bail!("the stems are not there after half a minute")
    }

    /// A synchronous call of a function.
    pub(crate) fn call(&self, function: &str, body: &'static str) -> Target {
        Target {
            address: self.address,
            path: format!("/v1/functions/{function}/invocations"),
            headers: vec![
                ("authorization".to_owned(), format!("Bearer {}", self.token)),
                ("content-type".to_owned(), "application/json".to_owned()),
            ],
            body: Bytes::from_static(body.as_bytes()),
            expect: StatusCode::OK,
            unique: None,
        }
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid())?), Signal::SIGTERM)?;
        let status = self.child.wait().await?;
        anyhow::ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

fn open_up(path: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711))
}

//! The private Postgres: a child process of the server, for those who name no database.
//!
//! It runs as the server's own unprivileged user, listens on a unix socket only, and dies with the server:
//! the parent-death signal (SIGINT: fast shutdown) is set after the child has its user id, by a parent of the same user id,
//! for the kernel checks the dying parent's right to signal. `setpriv` sets it and becomes the postmaster.
//!
//! Who may connect: the user it runs as, and root, both checked by the kernel (peer authentication), as role `runlet`.

mod cluster;

pub use cluster::look;

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::{Gid, Pid, Uid};
use sqlx::postgres::PgConnectOptions;

use super::StoreError;
use crate::backoff::Backoff;
use cluster::Cluster;

/// The role that owns everything in it.
const ROLE: &str = "runlet";

/// Only the name of the socket: there is no TCP port.
const PORT: u16 = 5432;

/// How long it may take to answer; after a crash it first reads its log again.
const START: Duration = Duration::from_secs(60);

/// How long the lock file of a postmaster that is just ending may stand in the way.
const LOCKED: Duration = Duration::from_secs(10);

/// A log larger than this is begun anew at the next start.
const LOG_BYTES: u64 = 8 << 20;

/// Where and as whom the private Postgres runs.
#[derive(Debug, Clone)]
pub struct PrivateOptions {
    /// Directory that holds `pg-<major>/` and `pg-<major>.sock/`; must be writable by the current user.
    pub base: PathBuf,
    /// Directory with `initdb` and `postgres`; `None`: the newest found in the usual places.
    pub bin_dir: Option<PathBuf>,
}

/// A running private Postgres. [`PrivatePostgres::stop`] ends it; so does the death of the thread that started it.
#[derive(Debug)]
pub struct PrivatePostgres {
    child: Child,
    socket_dir: PathBuf,
}

/// The user that a child runs as.
#[derive(Debug, Clone, Copy)]
struct RunAs {
    uid: u32,
    gid: u32,
}

/// Why a postmaster did not come up.
enum NotUp {
    /// Another one holds the directory, or held it a moment ago.
    Locked(String),
    /// Anything else.
    Failed(StoreError),
}

fn failed(what: impl Into<String>) -> StoreError {
    StoreError::Private(what.into())
}

impl PrivatePostgres {
    /// Makes the cluster if need be, starts it, and returns when it answers. Blocking: to be called by the main thread before the
    /// runtime starts, for the parent-death signal follows the thread that forks.
    ///
    /// # Errors
    /// With what Postgres said, and what to do.
    pub fn start(options: &PrivateOptions) -> Result<Self, StoreError> {
        let uid = Uid::effective();
        if uid.is_root() {
            return Err(failed(
                "Postgres refuses to run as root; start it after the server has taken its own user, or name another user for it",
            ));
        }
        Self::run(options, RunAs { uid: uid.as_raw(), gid: Gid::effective().as_raw() })
    }

    /// As [`PrivatePostgres::start`], by root for another user; for tests and tools that stay root.
    ///
    /// # Errors
    /// With what Postgres said, and what to do.
    pub fn start_as(options: &PrivateOptions, uid: u32, gid: u32) -> Result<Self, StoreError> {
        if uid == 0 {
            return Err(failed("Postgres refuses to run as root; name another user for it"));
        }
        Self::run(options, RunAs { uid, gid })
    }

    fn run(options: &PrivateOptions, user: RunAs) -> Result<Self, StoreError> {
        let cluster = Cluster::prepare(options, user)?;
        let locked_until = Instant::now() + LOCKED;
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        loop {
            match launch(&cluster, user) {
                Ok(child) => return Ok(Self { child, socket_dir: cluster.socket_dir }),
                Err(NotUp::Failed(error)) => return Err(error),
                Err(NotUp::Locked(said)) => {
                    cluster.remove_stale_locks();
                    if Instant::now() >= locked_until {
                        return Err(failed(format!(
                            "{said}; if another server uses {}, stop that one or give this one another data directory",
                            cluster.data.display()
                        )));
                    }
                    std::thread::sleep(backoff.pause());
                }
            }
        }
    }

    /// How to connect to it.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass().socket(&self.socket_dir).port(PORT).username(ROLE).database("postgres")
    }

    /// Process id of the postmaster.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has: nothing of the ledger works then.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fast shutdown; returns when it has ended.
    pub fn stop(mut self) {
        self.shut_down();
    }

    /// The directory of its socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Fast shutdown, then an immediate one, then the end by force.
    fn shut_down(&mut self) {
        let ladder = [(Signal::SIGINT, 30), (Signal::SIGQUIT, 10), (Signal::SIGKILL, 10)];
        for (signal, seconds) in ladder {
            // Reaped here or not at all: the pid cannot belong to anybody else.
            if self.ended().is_some() {
                return;
            }
            kill(&self.child, signal);
            let until = Instant::now() + Duration::from_secs(seconds);
            while self.ended().is_none() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn kill(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have ended meanwhile, which is what is wanted.
        let _ = signal::kill(Pid::from_raw(pid), signal);
    }
}

/// Starts the postmaster and waits until it answers.
fn launch(cluster: &Cluster, user: RunAs) -> Result<Child, NotUp> {
    let log = open_log(&cluster.log).map_err(NotUp::Failed)?;
    let log_from = log.metadata().map_or(0, |metadata| metadata.len());
    let stderr =
        log.try_clone().map_err(|error| NotUp::Failed(failed(format!("{}: {error}", cluster.log.display()))))?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT", "--"]).arg(cluster.bin_dir.join("postgres"));
    command.arg("-D").arg(&cluster.data).arg("-k").arg(&cluster.socket_dir);
    for setting in cluster::SETTINGS {
        command.args(["-c", setting]);
    }
    become_user(&mut command, user);
    let child = command.stdin(Stdio::null()).stdout(log).stderr(stderr).spawn();
    let mut child = child.map_err(|error| {
        NotUp::Failed(failed(format!("cannot run setpriv: {error}; install it (Debian: package util-linux)")))
    })?;
    let up = wait_until_up(&mut child, cluster, log_from);
    if up.is_err() && matches!(child.try_wait(), Ok(None)) {
        kill(&child, Signal::SIGQUIT);
        let _ = child.wait();
    }
    up.map(|()| child)
}

/// The user (the standard library drops root's other groups with it), a directory it may be in, and an environment that says
/// nothing about other databases.
fn become_user(command: &mut Command, user: RunAs) {
    if Uid::effective().is_root() {
        command.uid(user.uid).gid(user.gid);
    }
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").current_dir("/");
}

fn open_log(path: &Path) -> Result<File, StoreError> {
    let large = fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_BYTES);
    let opened = if large { File::create(path) } else { File::options().create(true).append(true).open(path) };
    opened.map_err(|error| failed(format!("cannot write its log {}: {error}", path.display())))
}

/// The postmaster writes how far it is into the eighth line of its lock file; that needs no connection.
fn wait_until_up(child: &mut Child, cluster: &Cluster, log_from: u64) -> Result<(), NotUp> {
    let until = Instant::now() + START;
    loop {
        let lock = fs::read_to_string(cluster.lock_file()).unwrap_or_default();
        let mut lines = lock.lines();
        let own = lines.next() == Some(child.id().to_string().as_str());
        if own && lines.nth(6).is_some_and(|status| status.trim() == "ready") {
            return Ok(());
        }
        let over = Instant::now() >= until;
        if over || !matches!(child.try_wait(), Ok(None)) {
            let said = last_words(&cluster.log, log_from);
            if said.contains("lock file \"") && said.contains("\" already exists") {
                return Err(NotUp::Locked(said));
            }
            let what = if over { "did not answer in time" } else { "ended at its start" };
            return Err(NotUp::Failed(failed(format!(
                "it {what}: {said}; its whole log is {}",
                cluster.log.display()
            ))));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The last lines of the log behind byte `from`, in one line.
fn last_words(log: &Path, from: u64) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(text.get(usize::try_from(from).unwrap_or(0)..).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(6)..).unwrap_or_default().join(" | ");
    if last.is_empty() { "it said nothing".to_owned() } else { last }
}

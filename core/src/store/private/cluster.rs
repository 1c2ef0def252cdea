//! The directory of the private Postgres: which binaries, which version, made how, locked by whom.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User, chown};

use super::{PORT, PrivateOptions, ROLE, RunAs, become_user, failed};
use crate::store::StoreError;

/// Settings of the postmaster, on top of the defaults of its version.
pub(super) const SETTINGS: [&str; 13] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "max_connections=64",
    "shared_buffers=32MB",
    "jit=off",
    "max_parallel_workers_per_gather=0",
    "max_wal_size=1GB",
    // A statement over all days of history locks every partition and its indexes.
    "max_locks_per_transaction=256",
    "checkpoint_completion_target=0.9",
    "logging_collector=off",
    "log_line_prefix=%m [%p] ",
    "timezone=UTC",
    "log_timezone=UTC",
];

/// Longest path of a unix socket.
const SOCKET_PATH: usize = 107;

/// A cluster that is ready to be started.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) bin_dir: PathBuf,
    pub(super) data: PathBuf,
    pub(super) socket_dir: PathBuf,
    pub(super) log: PathBuf,
}

impl Cluster {
    /// Finds the binaries and makes what is missing.
    pub(super) fn prepare(options: &PrivateOptions, user: RunAs) -> Result<Self, StoreError> {
        let base = &options.base;
        let (bin_dir, major) = choose(base, options.bin_dir.as_deref())?;
        let data = base.join(format!("pg-{major}"));
        let socket_dir = base.join(format!("pg-{major}.sock"));
        let socket = socket_dir.join(format!(".s.PGSQL.{PORT}"));
        if socket.as_os_str().len() > SOCKET_PATH {
            return Err(failed(format!(
                "the path of its socket, {}, is longer than {SOCKET_PATH} bytes; choose a shorter data directory",
                socket.display()
            )));
        }
        own_dir(&socket_dir, user)?;
        let cluster = Self { log: data.join("server.log"), bin_dir, data, socket_dir };
        if !cluster.data.join("PG_VERSION").exists() {
            cluster.init(base, user)?;
        }
        cluster.write_access(user)?;
        Ok(cluster)
    }

    /// Makes the cluster beside its place and moves it there, so that an interrupted start leaves nothing half made.
    fn init(&self, base: &Path, user: RunAs) -> Result<(), StoreError> {
        let new = base.join("pg.new");
        if new.exists() {
            fs::remove_dir_all(&new).map_err(|error| failed(format!("cannot remove {}: {error}", new.display())))?;
        }
        own_dir(&new, user)?;
        let mut command = Command::new(self.bin_dir.join("initdb"));
        command.arg("-D").arg(&new).args(["-U", ROLE, "--auth=peer", "--no-locale", "--encoding=UTF8"]);
        become_user(&mut command, user);
        let output = command
            .output()
            .map_err(|error| failed(format!("cannot run {}/initdb: {error}", self.bin_dir.display())))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            return Err(failed(format!(
                "initdb in {} failed: {}; every directory above it must be open to its user (mode 0711 or more)",
                base.display(),
                said.join(" | ")
            )));
        }
        fs::rename(&new, &self.data)
            .map_err(|error| failed(format!("cannot move {} to {}: {error}", new.display(), self.data.display())))
    }

    /// Who may connect: the kernel says who is at the other end of the socket.
    fn write_access(&self, user: RunAs) -> Result<(), StoreError> {
        let name = User::from_uid(Uid::from_raw(user.uid)).ok().flatten().map(|user| user.name).ok_or_else(|| {
            failed(format!(
                "user id {} has no name in /etc/passwd, and peer authentication goes by names; add the user",
                user.uid
            ))
        })?;
        let files = [
            ("pg_hba.conf", format!("local all {ROLE} peer map={ROLE}\n")),
            ("pg_ident.conf", format!("{ROLE} {name} {ROLE}\n{ROLE} root {ROLE}\n")),
        ];
        for (file, text) in files {
            let path = self.data.join(file);
            fs::write(&path, text).map_err(|error| failed(format!("cannot write {}: {error}", path.display())))?;
        }
        Ok(())
    }

    /// The lock file of the postmaster.
    pub(super) fn lock_file(&self) -> PathBuf {
        self.data.join("postmaster.pid")
    }

    /// Removes lock files (of the data and of the socket) that Postgres itself does not see through: their process is dead and not yet
    /// reaped, or its number now belongs to a process of the same user that is no Postgres of this directory.
    pub(super) fn remove_stale_locks(&self) {
        for lock in [self.lock_file(), self.socket_dir.join(format!(".s.PGSQL.{PORT}.lock"))] {
            let text = fs::read_to_string(&lock).unwrap_or_default();
            let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<u32>().ok()) else { continue };
            if self.is_stale(pid) {
                tracing::warn!(pid, lock = %lock.display(), "a lock file of a dead private Postgres is removed");
                let _ = fs::remove_file(&lock);
            }
        }
    }

    fn is_stale(&self, pid: u32) -> bool {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let stat = fs::read_to_string(proc.join("stat")).unwrap_or_default();
        let zombie = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
        let command = fs::read(proc.join("cmdline")).unwrap_or_default();
        let ours = command.split(|byte| *byte == 0).any(|part| part == self.data.as_os_str().as_encoded_bytes());
        zombie || (proc.exists() && !ours)
    }
}

/// A directory that only its user may enter.
fn own_dir(path: &Path, user: RunAs) -> Result<(), StoreError> {
    let cannot = |error: &dyn std::fmt::Display| failed(format!("cannot make {}: {error}", path.display()));
    if !path.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| cannot(&error))?;
    }
    if Uid::effective().is_root() {
        chown(path, Some(user.uid.into()), Some(user.gid.into())).map_err(|error| cannot(&error))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| cannot(&error))
}

/// What a server would use, without touching anything: the directory of the binaries and their major version.
///
/// # Errors
/// Where there are none, or none for the data that is there.
pub fn look(options: &PrivateOptions) -> Result<(PathBuf, u32), StoreError> {
    choose(&options.base, options.bin_dir.as_deref())
}

/// The binaries to use and their major version: those of the data that is there, else the newest.
fn choose(base: &Path, given: Option<&Path>) -> Result<(PathBuf, u32), StoreError> {
    let mut found: Vec<(u32, PathBuf)> =
        candidates(given).into_iter().filter_map(|dir| major(&dir).map(|major| (major, dir))).collect();
    // Stable: of the same version, the first place wins.
    found.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    let Some((newest, _)) = found.first().cloned() else {
        return Err(failed(match given {
            Some(dir) => format!("there are no initdb and postgres in {}", dir.display()),
            None => {
                "its binaries are not installed; install them (Debian: package postgresql), or name a database with \
                     --database-url"
                    .to_owned()
            }
        }));
    };
    let there = clusters(base);
    let Some(last) = there.iter().max() else {
        return found.into_iter().next().map(|(major, dir)| (dir, major)).ok_or_else(|| failed("no binaries"));
    };
    found.into_iter().find(|(major, _)| major == last).map(|(major, dir)| (dir, major)).ok_or_else(|| {
        failed(format!(
            "the data in {} was written by version {last} and the newest one installed is {newest}; install version {last} \
             (Debian: package postgresql-{last}), or move the data with pg_dump",
            base.join(format!("pg-{last}")).display()
        ))
    })
}

/// Major versions of the clusters in `base`.
fn clusters(base: &Path) -> Vec<u32> {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("pg-")?.parse().ok()).collect()
}

/// Directories that may hold the binaries: the given one alone, or the usual ones.
fn candidates(given: Option<&Path>) -> Vec<PathBuf> {
    if let Some(dir) = given {
        return vec![dir.to_owned()];
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    dirs.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    dirs
}

/// The major version of the binaries in `dir`, where both are there.
fn major(dir: &Path) -> Option<u32> {
    if !dir.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let digits = |c: char| !c.is_ascii_digit();
    text.split(digits).find(|part| !part.is_empty())?.parse().ok()
}

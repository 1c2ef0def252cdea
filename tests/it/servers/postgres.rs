//! A Postgres that belongs to none of the servers.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A Postgres on a unix socket, as long as this lives. Its user is `nobody`.
pub(super) struct Shared {
    base: tempfile::TempDir,
    bin: PathBuf,
}

fn as_nobody(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program.as_ref()).current_dir("/");
    command
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

impl Shared {
    pub(super) fn start() -> Self {
        let base =
            tempfile::Builder::new().prefix("runlet-shared-").tempdir_in("/var/tmp").expect("/var/tmp is writable");
        // Everybody may come to its socket; its data is its own.
        std::fs::set_permissions(base.path(), Permissions::from_mode(0o777)).expect("it is ours");
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let bin = versions.map(|entry| entry.path().join("bin")).find(|path| path.join("initdb").exists());
        let shared = Self { base, bin: bin.expect("Postgres is installed") };
        let data = shared.base.path().join("data");
        let mut initdb = as_nobody(shared.bin.join("initdb"));
        done(
            &initdb
                .args(["-N", "-U", "runlet", "--auth=trust", "--no-locale", "-E", "UTF8", "-D"])
                .arg(&data)
                .output()
                .expect("it is there"),
        );
        let options = format!(
            "-c listen_addresses= -c max_connections=200 -c unix_socket_directories={}",
            shared.base.path().display()
        );
        let log = shared.base.path().join("log");
        let mut start = as_nobody(shared.bin.join("pg_ctl"));
        start.arg("-D").arg(&data).arg("-w").arg("-l").arg(log).args(["-o", &options, "start"]);
        let status = start.stdout(std::process::Stdio::null()).status().expect("it is there");
        assert!(status.success(), "Postgres did not start");
        shared
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://runlet@localhost/postgres?host={}", self.base.path().display())
    }

    /// Lines of a query.
    #[track_caller]
    pub(super) fn psql(&self, query: &str) -> String {
        let mut psql = Command::new("psql");
        psql.args(["-X", "-q", "-A", "-t", "-U", "runlet", "-d", "postgres", "-c", query, "-h"]).arg(self.base.path());
        done(&psql.output().expect("psql is there"))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut stop = as_nobody(self.bin.join("pg_ctl"));
        let _ = stop.arg("-D").arg(self.base.path().join("data")).args(["-m", "immediate", "stop"]).output();
    }
}

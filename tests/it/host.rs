//! A server under test: its own directory, cgroup, Postgres and port. It ends with proof that nothing is left.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::disk::SmallDisk;
use super::http::{Address, Request};
use super::leaks::Traces;
use super::wait::{secs, until, until_some};

/// The secret that `gh-hook` names in every test.
pub(crate) const HOOK_SECRET: &str = "It's a Secret to Everybody";

/// How a server under test is set up.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    settings: String,
    tables: String,
    files: Vec<(String, Vec<u8>)>,
    alone: bool,
    stems: Option<Stems>,
    disk: Option<u32>,
    binary: Option<PathBuf>,
}

/// How many sandboxes are started ahead. Most tests have none: what they count is their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stems {
    pub(crate) python: u32,
    pub(crate) node: u32,
    pub(crate) exec: u32,
}

impl Builder {
    /// So many sandboxes are started ahead, and are there when [`Builder::start`] returns.
    pub(crate) fn stems(mut self, python: u32, node: u32, exec: u32) -> Self {
        self.stems = Some(Stems { python, node, exec });
        self
    }

    /// A line of the configuration file, above its tables.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push_str(&format!("{key} = {value}\n"));
        self
    }

    /// A further secret with this value, for these namespaces.
    pub(crate) fn secret(mut self, name: &str, namespaces: &[&str]) -> Self {
        self.tables.push_str(&format!("[secrets.{name}]\nfile = \"BASE/gh-hook\"\nnamespaces = {namespaces:?}\n"));
        self
    }

    /// A table of the configuration file; `BASE` in it is the host's directory.
    pub(crate) fn table(mut self, text: &str) -> Self {
        self.tables.push_str(text);
        self
    }

    /// A private file in the host's directory.
    pub(crate) fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), bytes.into()));
        self
    }

    /// A further secret with a value of its own, for the default namespace.
    pub(crate) fn own_secret(mut self, name: &str, value: &str) -> Self {
        self.tables.push_str(&format!("[secrets.{name}]\nfile = \"BASE/{name}\"\nnamespaces = [\"default\"]\n"));
        self.file(name, value)
    }

    /// No other test runs beside it: for counts that concern the whole machine.
    pub(crate) fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// The server is this binary, for example that of another release.
    pub(crate) fn binary(mut self, path: PathBuf) -> Self {
        self.binary = Some(path);
        self
    }

    /// The data directory is a file system of its own, of so many MiB.
    pub(crate) fn small_disk(mut self, mib: u32) -> Self {
        self.disk = Some(mib);
        self
    }

    pub(crate) fn start(self) -> TestHost {
        let turn = take_turn(self.alone);
        let base =
            tempfile::Builder::new().prefix("runlet-test-").tempdir_in("/var/tmp").expect("/var/tmp is writable");
        // The server's user and the sandboxes' users pass through it.
        std::fs::set_permissions(base.path(), Permissions::from_mode(0o711)).expect("it is ours");
        let id = base.path().file_name().and_then(OsStr::to_str).expect("it has a name").to_owned();
        let cgroup = id.replace('.', "-");
        let here = base.path().to_str().expect("its name is ASCII");
        // Not below `here`: a mount there would be taken for one that a sandbox has left.
        let disk = self.disk.map(|mib| SmallDisk::mount(PathBuf::from(format!("/var/tmp/disk-of-{cgroup}")), mib));
        let data = disk.as_ref().map_or_else(|| base.path().join("data"), |disk| disk.at.clone());
        let Stems { python, node, exec } = self.stems.unwrap_or(Stems { python: 0, node: 0, exec: 0 });
        // Another release may not know the table.
        let stems = match self.binary {
            None => format!("[stems]\npython = {python}\nnode = {node}\nexec = {exec}\n"),
            Some(_) => String::new(),
        };
        let config = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = \"{}\"\nrun_dir = \"{here}/run\"\ncgroup_parent = \"/{cgroup}\"\n{}{}\
             [secrets.gh-hook]\nfile = \"{here}/gh-hook\"\nnamespaces = [\"default\"]\n{}",
            data.display(),
            self.settings,
            stems,
            self.tables.replace("BASE", here),
        );
        private_file(&base.path().join("gh-hook"), HOOK_SECRET);
        for (name, bytes) in &self.files {
            private_file(&base.path().join(name), bytes);
        }
        private_file(&base.path().join("config.toml"), &config);
        let traces = Traces { cgroup, base: base.path().to_owned(), family: std::collections::BTreeSet::new() };
        let mut host = TestHost {
            disk,
            data,
            binary: self.binary,
            base,
            traces,
            environment: Vec::new(),
            server: None,
            address: None,
            token: String::new(),
            _turn: turn,
        };
        host.boot();
        if self.stems.is_some() {
            host.wait_stems(python + node + exec);
        }
        host
    }
}

pub(crate) fn private_file(path: &Path, text: impl AsRef<[u8]>) {
    std::fs::write(path, text).expect("it is writable");
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).expect("it is ours");
}

/// Tests share the machine; one that wants it alone waits for all the others, in whatever process they are.
fn take_turn(alone: bool) -> File {
    let file =
        File::options().create(true).append(true).open("/var/tmp/runlet-test.lock").expect("/var/tmp is writable");
    if alone { file.lock() } else { file.lock_shared() }.expect("locks work in /var/tmp");
    file
}

/// A running server and what it takes to talk to it.
#[derive(Debug)]
pub(crate) struct TestHost {
    disk: Option<SmallDisk>,
    data: PathBuf,
    binary: Option<PathBuf>,
    base: tempfile::TempDir,
    pub(crate) traces: Traces,
    /// Variables of the server's environment, from its next start on.
    pub(crate) environment: Vec<(String, String)>,
    server: Option<Child>,
    address: Option<SocketAddr>,
    token: String,
    _turn: File,
}

impl TestHost {
    pub(crate) fn start() -> Self {
        Builder::default().start()
    }

    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// A file that [`Builder::file`] has made.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    /// Its small disk.
    pub(crate) fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("the builder was asked for one")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data.clone()
    }

    /// The test's own directory: everybody may pass through it.
    pub(crate) fn base(&self) -> &Path {
        self.base.path()
    }

    /// A new directory that lives as long as the host does.
    pub(crate) fn scratch(&self) -> PathBuf {
        tempfile::Builder::new().tempdir_in(self.base.path()).expect("it is writable").keep()
    }

    /// What the server has written so far on stdout and stderr, in all its lives.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.base.path().join("server.log")).unwrap_or_default()).into_owned()
    }

    /// A command that would start another server on the same configuration.
    pub(crate) fn serve_command(&self) -> Command {
        let mut command = self.binary.as_deref().map_or_else(runlet, |path| environment(Command::new(path)));
        command
            .arg("serve")
            .arg("--config")
            .arg(self.base.path().join("config.toml"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// Starts the server and waits until it says that it is ready.
    fn boot(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.base.path().join("server.log"))
            .expect("it is writable");
        let before = self.log().len();
        let mut command = self.serve_command();
        let mut child =
            command.stdout(log.try_clone().expect("one more descriptor")).stderr(log).spawn().expect("it is built");
        let ready = until_some("the server says that it is ready", secs(90), || {
            let log = self.log();
            let new = log.get(before..).unwrap_or_default();
            let ready = new.split_once("runlet is ready on ").and_then(|(_, rest)| rest.split_once("://"));
            if let Some((_, rest)) = ready {
                return rest.split_once(' ').map(|(address, _)| Some(address.to_owned()));
            }
            child.try_wait().expect("it is our child").map(|_| None)
        });
        self.server = Some(child);
        let address = ready.unwrap_or_else(|| panic!("the server ended at start:\n{}", self.log_tail()));
        self.address = Some(address.trim().parse().expect("the ready line has an address"));
        self.token =
            std::fs::read_to_string(self.data_dir().join("admin.token")).expect("serve writes it").trim().to_owned();
    }

    /// Starts it again, after [`TestHost::stop`] or [`TestHost::kill9`].
    pub(crate) fn restart(&mut self) {
        assert!(self.server.is_none(), "it runs");
        self.boot();
    }

    /// Stops it politely and starts it again.
    pub(crate) fn restart_in_order(&mut self) {
        let status = self.stop();
        assert!(status.success(), "{status}");
        self.restart();
    }

    /// Waits until so many sandboxes have been started ahead, or more, where more were asked for at once of late.
    pub(crate) fn wait_stems(&self, count: u32) {
        until(&format!("{count} stems are there"), secs(60), || {
            self.get("/v1/capacity")["capacity"]["stems"].as_u64() >= Some(u64::from(count))
        });
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.as_ref().expect("it runs").id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).expect("a pid")), signal).expect("it is our child");
    }

    /// Waits until the server has ended by itself or by a signal sent before.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        let mut child = self.server.take().expect("it runs");
        until_some("the server ends", secs(60), || child.try_wait().expect("it is our child"))
    }

    /// The polite end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.traces.note_family(self.pid());
        self.signal(Signal::SIGTERM);
        self.wait_end()
    }

    /// The rude end: the server process alone, without warning.
    pub(crate) fn kill9(&mut self) {
        self.traces.note_family(self.pid());
        let mut child = self.server.take().expect("it runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// The last words of the server, for failures.
    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("it has started")
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A request over TCP with the admin's token.
    pub(crate) fn http(&self, method: &str, path: &str) -> Request {
        Request::new(Address::Tcp(self.address()), method, path).bearer(&self.token)
    }

    /// A request over the unix socket, as whoever runs the test.
    pub(crate) fn unix(&self, method: &str, path: &str) -> Request {
        Request::new(Address::Unix(self.data_dir().join("runlet.sock")), method, path)
    }

    /// Runs the CLI against this server, over its unix socket.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        self.cli_command(args).output().expect("it is built")
    }

    pub(crate) fn cli_command(&self, args: &[&str]) -> Command {
        let mut command = runlet();
        command.args(args).env("RUNLET_DATA_DIR", self.data_dir()).stdin(Stdio::null());
        command
    }

    /// Open descriptors of the server process.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// The data of the private Postgres.
    pub(crate) fn postgres_dir(&self) -> PathBuf {
        find(&self.data_dir(), "postmaster.pid").expect("the private Postgres runs")
    }

    /// The directory of the private Postgres's socket.
    pub(crate) fn postgres_socket(&self) -> PathBuf {
        find(&self.data_dir(), ".s.PGSQL.5432").expect("the private Postgres runs")
    }

    /// Lines of a query on the private Postgres, asked as the user that owns it.
    pub(crate) fn psql(&self, query: &str) -> String {
        let socket = self.postgres_socket();
        let output = Command::new("setpriv")
            .args(["--reuid=runlet", "--regid=runlet", "--clear-groups", "psql", "-X", "-q", "-A", "-t", "-h"])
            .arg(&socket)
            .args(["-d", "postgres", "-c", query])
            .current_dir("/")
            .output()
            .expect("setpriv and psql are there");
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// From the next start on the server is this binary; `None`: the one under test.
    pub(crate) fn use_binary(&mut self, path: Option<PathBuf>) {
        self.binary = path;
    }

    /// Writes all that is in the private Postgres to a file, as SQL.
    pub(crate) fn dump(&self, path: &Path) {
        let socket = find(&self.data_dir(), ".s.PGSQL.5432").expect("the private Postgres runs");
        let output = Command::new("setpriv")
            .args(["--reuid=runlet", "--regid=runlet", "--clear-groups", "pg_dump", "--inserts", "--no-owner", "-h"])
            .arg(&socket)
            .arg("postgres")
            .current_dir("/")
            .output()
            .expect("setpriv and pg_dump are there");
        assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(path, output.stdout).expect("it is writable");
    }

    /// Stops the server and proves that it left nothing. What every test ends with.
    pub(crate) fn finish(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if self.server.is_some() {
            let status = self.stop();
            assert!(status.success(), "the server ended with {status}:\n{}", self.log_tail());
        }
        self.traces.expect_none(secs(5));
        let builds = std::fs::read_dir(self.data_dir().join("ci/builds")).into_iter().flatten().flatten();
        let left: Vec<PathBuf> = builds.map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "directories of jobs are left behind: {left:?}");
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
            return;
        }
        // The test has failed: say what the server said, and leave the machine clean for the next one.
        let _ = writeln!(std::io::stderr(), "--- the server's last lines\n{}\n---", self.log_tail());
        if let Some(mut child) = self.server.take() {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
            let _ = kill(pid, Signal::SIGTERM);
            let end = std::time::Instant::now() + secs(20);
            while matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < end {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The binary under test with an environment of its own.
pub(crate) fn runlet() -> Command {
    environment(Command::new(env!("CARGO_BIN_EXE_runlet")))
}

/// The command with an environment of its own.
fn environment(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RUNLET_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
    command
}

/// The directory below `dir` that holds a file of that name.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        if dir.join(name).exists() {
            return Some(dir);
        }
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        dirs.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    None
}

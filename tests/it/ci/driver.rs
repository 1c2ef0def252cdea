//! One call of a driver: environment, process group, what its exit code means, and the ladder that ends it.
//!
//! Rules cite GitLab Runner's source (its release 19.4, repository gitlab-org/gitlab-runner) by file and function.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::context::{Context, End};

/// executors/custom/command/command.go, constants `BuildFailureExitCode` and `SystemFailureExitCode`. The stand-in uses other
/// numbers than the runner does today: the docs ask drivers not to rely on them (docs/executors/custom.md, "Build Failure").
pub(crate) const BUILD_FAILURE: i32 = 77;
pub(crate) const SYSTEM_FAILURE: i32 = 78;

/// How a call can go wrong, as the runner tells it apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The job's own fault, with this exit code.
    Build(i32),
    /// The driver's or the host's fault.
    System,
    /// An exit code that means nothing to the runner; -1 for a signal.
    Unknown(i32),
    /// It outlived SIGKILL.
    Abandoned,
    /// The program could not be started.
    NotStarted(String),
    /// The driver's `config` printed something else than JSON.
    BadConfig(String),
    /// The context had ended before the call.
    Ended(End),
}

/// Where bytes go.
pub(crate) type Sink = Arc<Mutex<Vec<u8>>>;

/// A call to be made.
pub(crate) struct Call<'a> {
    pub(crate) program: &'a str,
    pub(crate) args: Vec<OsString>,
    /// The whole environment, in order: a later entry wins over an earlier one of the same name, as Go's os/exec has it.
    pub(crate) env: &'a [(OsString, OsString)],
    pub(crate) dir: &'a Path,
    pub(crate) exit_code_file: &'a Path,
    pub(crate) stdout: Sink,
    pub(crate) stderr: Sink,
    pub(crate) graceful: Duration,
    pub(crate) force: Duration,
    /// User and group it runs as; the test's own where there is none.
    pub(crate) user: Option<(u32, u32)>,
}

impl Call<'_> {
    /// executors/custom/command/command.go, `command.Run`: start, then wait for the end or for the context.
    /// `started` is told the process id.
    pub(crate) fn run(&self, context: &Context, started: impl FnOnce(u32)) -> Result<(), Failure> {
        let mut child = self.start()?;
        started(child.id());
        // os/exec, `Cmd.Wait`: writers that are no files are fed by copies of the pipes, and the wait ends only when
        // these have seen their end. A driver that leaves a process behind holding them would hang the job.
        let copies = [
            copy(child.stdout.take().expect("it is a pipe"), &self.stdout),
            copy(child.stderr.take().expect("it is a pipe"), &self.stderr),
        ];
        let mut status = None;
        let mut over = |child: &mut Child| {
            status = status.or_else(|| child.try_wait().expect("it is our child"));
            status.filter(|_| copies.iter().all(JoinHandle::is_finished))
        };
        let end = loop {
            if let Some(status) = over(&mut child) {
                break Some(status);
            }
            if context.end().is_some() {
                break self.kill_and_wait(&mut child, &mut over);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let Some(status) = end else { return Err(Failure::Abandoned) };
        for copy in copies {
            copy.join().expect("it does not panic");
        }
        self.judge(status)
    }

    /// helpers/process/commander.go `NewOSCmd` (no stdin, so /dev/null) and helpers/process/job_unix.go `setProcessGroup`
    /// (the driver leads a process group of its own).
    fn start(&self) -> Result<Child, Failure> {
        let mut command = Command::new(self.program);
        command.args(&self.args).env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command.spawn().map_err(|error| Failure::NotStarted(error.to_string()))
    }

    /// helpers/process/killer.go `KillAndWait` and killer_unix.go `getPID`: SIGTERM to the group, the graceful time, SIGKILL
    /// to the group, the force time, then the process is abandoned.
    fn kill_and_wait(
        &self,
        child: &mut Child,
        over: &mut impl FnMut(&mut Child) -> Option<ExitStatus>,
    ) -> Option<ExitStatus> {
        let group = Pid::from_raw(-i32::try_from(child.id()).expect("a pid"));
        for (signal, patience) in [(Signal::SIGTERM, self.graceful), (Signal::SIGKILL, self.force)] {
            let _ = kill(group, signal);
            let end = Instant::now() + patience;
            while Instant::now() < end {
                if let Some(status) = over(child) {
                    return Some(status);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        None
    }

    /// executors/custom/command/command.go, `waitForCommand` and `parseBuildFailure`: the build failure code means the code in
    /// the file where there is one, and its first line must be an integer.
    fn judge(&self, status: ExitStatus) -> Result<(), Failure> {
        match status.code().unwrap_or(-1) {
            0 => Ok(()),
            BUILD_FAILURE => match std::fs::read_to_string(self.exit_code_file) {
                Err(_) => Err(Failure::Build(BUILD_FAILURE)),
                Ok(text) => match text.lines().next().unwrap_or_default().parse() {
                    Ok(code) => Err(Failure::Build(code)),
                    Err(_) => Err(Failure::Unknown(SYSTEM_FAILURE)),
                },
            },
            SYSTEM_FAILURE => Err(Failure::System),
            code => {
                assert!(code != -1 || status.signal().is_some());
                Err(Failure::Unknown(code))
            }
        }
    }
}

fn copy(mut from: impl Read + Send + 'static, to: &Sink) -> JoinHandle<()> {
    let to = Arc::clone(to);
    std::thread::spawn(move || {
        let mut piece = [0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            to.lock().expect("no panic holds it").extend(piece.get(..length).unwrap_or_default());
        }
    })
}

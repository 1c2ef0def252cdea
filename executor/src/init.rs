//! The init of a sandbox: pid 1 inside, a function of this binary that never executes another program.
//!
//! It runs in the process that libcontainer has put into all namespaces, without capabilities and behind the seccomp filter.
//! It starts programs when the shim says so (they inherit cgroup, namespaces, filter and ids by being its children), reaps
//! whatever is orphaned, and tells how programs ended. It is not dumpable, so no program in the sandbox can look into it or
//! change it, and signals from inside do not reach it. When its socket closes, it ends, and the kernel ends all the rest.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2, execve, pipe2, setsid};
use oci_spec::runtime::Spec;
use seccompiler::BpfProgram;

use crate::children;
use crate::host::sandbox::ProcessEnd;
use crate::sys::{fds, process};
use crate::wire::message::{Program, Spawn, ToInit};
use crate::wire::{Received, Seqpacket};

/// libcontainer's seam for "what runs in the container": our init, in place of an exec.
#[derive(Clone)]
pub(crate) struct InitExecutor {
    /// The seccomp filter.
    pub(crate) filter: BpfProgram,
    /// Number of init's socket in the shim, inherited over the clones.
    pub(crate) socket: i32,
}

impl Executor for InitExecutor {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let status = match enter(&self.filter, self.socket).and_then(|socket| Init::new(socket)?.run()) {
            Ok(()) => 0,
            Err(_) => 71, // EX_OSERR; the shim sees that init is gone and says so
        };
        process::exit_now(status)
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }
}

/// The last steps from a forked runtime to a confined init.
fn enter(filter: &BpfProgram, socket: i32) -> io::Result<Seqpacket> {
    let socket = Seqpacket::from_fd(fds::keep_only(socket)?);
    prctl::set_name(c"runlet-init")?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    prctl::set_dumpable(false)?;
    seccompiler::apply_filter(filter).map_err(io::Error::other)?;
    Ok(socket)
}

struct Init {
    socket: Seqpacket,
    children: SignalFd,
    programs: HashMap<Pid, u32>,
}

impl Init {
    fn new(socket: Seqpacket) -> io::Result<Self> {
        let children = children::watch()?;
        Ok(Self { socket, children, programs: HashMap::new() })
    }

    fn run(&mut self) -> io::Result<()> {
        // Number 0 is init itself: it is ready.
        self.socket.send(&Program::Started { number: 0 }, &[])?;
        loop {
            let (message, child) = self.wait()?;
            if child {
                while self.children.read_signal()?.is_some() {}
            }
            // Also without the signal: one may have been taken together with another.
            self.reap()?;
            if message {
                match self.socket.receive::<ToInit>()? {
                    None => return Ok(()),
                    Some(received) => self.obey(received)?,
                }
            }
        }
    }

    fn wait(&self) -> io::Result<(bool, bool)> {
        let mut polled = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
        ];
        loop {
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => break,
            }
        }
        let [message, child] = polled.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        Ok((message, child))
    }

    fn obey(&mut self, received: Received<ToInit>) -> io::Result<()> {
        match received.message {
            ToInit::Spawn(spawn) => {
                let number = spawn.number;
                let answer = match start(&spawn, received.fds) {
                    Ok(pid) => {
                        self.programs.insert(pid, number);
                        Program::Started { number }
                    }
                    Err((step, errno)) => {
                        let message = format!("{step}: {}", errno.desc());
                        Program::Failed { number, message, errno: errno as i32 }
                    }
                };
                self.socket.send(&answer, &[])
            }
            ToInit::Signal { number: 0, signal } => {
                if let Ok(signal) = Signal::try_from(signal) {
                    // From here, the first process of its pid namespace: everybody in it but ourselves.
                    let _ = kill(Pid::from_raw(-1), signal);
                }
                Ok(())
            }
            ToInit::Signal { number, signal } => {
                let target = self.programs.iter().find(|(_, known)| **known == number).map(|(pid, _)| *pid);
                if let (Some(pid), Ok(signal)) = (target, Signal::try_from(signal)) {
                    // The program leads a session of its own: its whole group is meant. It may just have ended.
                    let _ = kill(Pid::from_raw(-pid.as_raw()), signal);
                }
                Ok(())
            }
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        loop {
            let (pid, end) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => (pid, ProcessEnd::Exit(status)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, ProcessEnd::Signal(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(number) = self.programs.remove(&pid) {
                self.socket.send(&Program::Ended { number, end }, &[])?;
            }
        }
    }
}

/// Where a start failed, and why.
type Failure = (&'static str, Errno);

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// Starts a program; returns when it has been executed, or could not be.
fn start(spawn: &Spawn, given: Vec<OwnedFd>) -> Result<Pid, Failure> {
    for (path, content) in &spawn.files {
        write_file(path, content).map_err(|error| ("write its files", errno(&error)))?;
    }
    let (report, reporter) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|error| ("pipe", error))?;
    // `fork` checks for threads in /proc; init has none.
    match process::fork().map_err(|error| ("fork", error))? {
        ForkResult::Child => {
            let (step, errno) = become_program(spawn, given);
            let text = format!("{} {step}", errno as i32);
            let _ = File::from(reporter).write_all(text.as_bytes());
            process::exit_now(127)
        }
        ForkResult::Parent { child } => {
            drop((reporter, given));
            let mut text = String::new();
            File::from(report).read_to_string(&mut text).map_err(|error| ("read the report", errno(&error)))?;
            if text.is_empty() {
                return Ok(child);
            }
            let _ = waitpid(child, None);
            let number = text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(libc::EIO);
            let steps = [STEP_CHDIR, STEP_EXEC, STEP_PREPARE];
            let step = steps.into_iter().find(|step| text.ends_with(step)).unwrap_or(STEP_PREPARE);
            Err((step, Errno::from_raw(number)))
        }
    }
}

const STEP_PREPARE: &str = "prepare";
const STEP_CHDIR: &str = "enter the working directory";
const STEP_EXEC: &str = "execute";

fn write_file(path: &str, content: &str) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes())
}

/// In the child: everything up to exec. Returns only what went wrong.
fn become_program(spawn: &Spawn, given: Vec<OwnedFd>) -> Failure {
    let prepare = || -> io::Result<()> {
        setsid()?;
        process::default_signals();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        arrange(spawn, given)
    };
    if let Err(error) = prepare() {
        return (STEP_PREPARE, errno(&error));
    }
    if let Err(error) = nix::unistd::chdir(spawn.cwd.as_str()) {
        return (STEP_CHDIR, error);
    }
    (STEP_EXEC, execute(spawn))
}

/// Puts the given descriptors at 0, 1, 2 and (with a channel) 3; all others close on exec.
fn arrange(spawn: &Spawn, given: Vec<OwnedFd>) -> io::Result<()> {
    let expected = usize::from(spawn.stdin) + 2 + usize::from(spawn.channel);
    if given.len() != expected {
        return Err(Errno::EBADMSG.into());
    }
    let mut wanted = given;
    if !spawn.stdin {
        wanted.insert(0, File::open("/dev/null")?.into());
    }
    // First out of the way of 0 to 3, then into place.
    let moved = wanted
        .iter()
        .map(|fd| nix::fcntl::fcntl(fd.as_raw_fd(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(10)))
        .collect::<Result<Vec<_>, _>>()?;
    for (target, source) in (0_i32..).zip(&moved) {
        dup2(*source, target)?;
    }
    // The originals must not be closed by their destructors: their numbers may be 0 to 3 by now.
    std::mem::forget(wanted);
    fds::close_on_exec_from(if spawn.channel { 4 } else { 3 })
}

fn execute(spawn: &Spawn) -> Errno {
    let texts = |list: Vec<String>| list.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
    let env = spawn.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (Ok(argv), Ok(env)) = (texts(spawn.argv.clone()), texts(env)) else { return Errno::EINVAL };
    let Some(program) = spawn.argv.first().filter(|program| !program.is_empty()) else { return Errno::ENOENT };
    let path = spawn.env.get("PATH").map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
    let candidates: Vec<String> = if program.contains('/') {
        vec![program.clone()]
    } else {
        path.split(':').map(|directory| format!("{directory}/{program}")).collect()
    };
    let mut failure = Errno::ENOENT;
    for candidate in candidates {
        let Ok(candidate) = CString::new(candidate) else { return Errno::EINVAL };
        let Err(error) = execve(&candidate, &argv, &env);
        // As execvp: go on only where nothing is there, and tell a denial rather than an absence.
        match error {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => failure = error,
            _ => return error,
        }
    }
    failure
}

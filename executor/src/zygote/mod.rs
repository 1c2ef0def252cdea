//! The zygote: the one process of runlet that stays root. Single-threaded, started before the server has threads, executed
//! once from a sealed copy of the binary. It forks a shim per sandbox and cleans up behind shims that died.
//!
//! libcontainer is only ever called in the shims: in a threaded process it deadlocks (`docs/decisions/0002-zygote.md`).

mod reconcile;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use crate::cgroup::{Cgroup, Hierarchies};
use crate::children;
use crate::host::HostOptions;
use crate::rootfs::Layout;
use crate::seccomp;
use crate::shim::{self, Inherited};
use crate::sys::memory::give_back_program;
use crate::sys::process;
use crate::wire::message::{Create, Hello, VERSION, Welcome};
use crate::wire::{Received, Seqpacket};

/// How long a new zygote waits for the shims of an earlier one to end.
const TAKEOVER: Duration = Duration::from_secs(15);

struct Zygote {
    inherited: Inherited,
    server: Seqpacket,
    children: SignalFd,
    shims: HashMap<Pid, String>,
    lock: File,
}

/// Runs the zygote; its socket is fd 0. Returns when the server and all shims are gone.
#[must_use]
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the zygote has no logger: it must stay single-threaded and small")]
            {
                eprintln!("runlet zygote: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let server = Seqpacket::from_fd(io::stdin().as_fd().try_clone_to_owned()?);
    nix::unistd::dup2(std::os::fd::AsRawFd::as_raw_fd(&File::open("/dev/null")?), 0)?;
    // A terminal's Ctrl-C is for the server; it tells us by closing the socket.
    let _ = nix::unistd::setsid();
    prctl::set_name(c"runlet-zygote")?;
    prctl::set_child_subreaper(true)?;
    let Some(Received { message: hello, .. }) = server.receive::<Hello>()? else { return Ok(()) };
    let (inherited, lock, reaped) = match prepare(&hello) {
        Ok(prepared) => prepared,
        Err(reason) => return server.send(&Welcome::Failed(reason), &[]),
    };
    let children = children::watch()?;
    server.send(&Welcome::Ready { reaped }, &[])?;
    give_back_program();
    Zygote { inherited, server, children, shims: HashMap::new(), lock }.run()
}

fn prepare(hello: &Hello) -> Result<(Inherited, File, Vec<String>), String> {
    if hello.version != VERSION {
        return Err(format!("the server speaks version {}, this binary {VERSION}", hello.version));
    }
    let options: &HostOptions = &hello.options;
    let what = |step: &'static str| move |error: io::Error| format!("{step}: {error}");
    let layout = Layout::new(options);
    let filter = seccomp::compile().map_err(|error| format!("compile the seccomp filter: {error}"))?;
    probe_seccomp(&filter)?;
    for directory in ["/run/runlet", "/run/runlet/uids"] {
        std::fs::create_dir_all(directory).map_err(what("make /run/runlet"))?;
    }
    std::fs::create_dir_all(&options.run_dir).map_err(what("make the run directory"))?;
    let lock = take_lock(&layout)?;
    let hierarchies = Hierarchies::find().map_err(what("read the mounts"))?;
    let inherited = Inherited {
        swap: Cgroup::swap(&hierarchies),
        hierarchies,
        cgroup_parent: options.cgroup_parent.trim_end_matches('/').to_owned(),
        filter,
        host_network: options.host_network,
        uid_hint: std::process::id().wrapping_mul(61),
        layout,
    };
    let reaped = reconcile::reconcile(&inherited).map_err(what("clean up behind an earlier life"))?;
    inherited.layout.prepare().map_err(what("prepare the root file system"))?;
    Ok((inherited, lock, reaped))
}

/// One zygote per run directory: the shims of an earlier one hold nothing of ours once the lock is free.
fn take_lock(layout: &Layout) -> Result<File, String> {
    let path = layout.lock();
    let file = File::create(&path).map_err(|error| format!("open {}: {error}", path.display()))?;
    let until = Instant::now() + TAKEOVER;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => {
                return Err(format!(
                    "{} is locked by another runlet ({error}); stop it, or give this one a `run_dir` of its own",
                    path.display()
                ));
            }
        }
    }
}

/// Loads the filter in a child and looks whether it is in force: without it the engine does not start.
fn probe_seccomp(filter: &seccompiler::BpfProgram) -> Result<(), String> {
    let refused = "this kernel does not load the seccomp filter; it needs CONFIG_SECCOMP_FILTER";
    match process::fork().map_err(|error| format!("fork: {error}"))? {
        ForkResult::Child => {
            let loaded = prctl::set_no_new_privs().is_ok() && seccompiler::apply_filter(filter).is_ok();
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let in_force = status.lines().any(|line| line == "Seccomp:\t2");
            process::exit_now(i32::from(!(loaded && in_force)))
        }
        ForkResult::Parent { child } => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            _ => Err(refused.to_owned()),
        },
    }
}

impl Zygote {
    fn run(mut self) -> io::Result<()> {
        let mut serving = true;
        while serving || !self.shims.is_empty() {
            let request = self.wait(serving)?;
            self.reap()?;
            if request {
                serving = self.obey()?;
            }
        }
        self.inherited.hierarchies.cgroup(&self.inherited.cgroup_parent).remove();
        drop(self.lock);
        Ok(())
    }

    /// Waits for a request or the end of a child; whether it is a request.
    fn wait(&self, serving: bool) -> io::Result<bool> {
        let mut polled = [
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.server.as_fd(), PollFlags::POLLIN),
        ];
        let watched = polled.len() - usize::from(!serving);
        match poll(polled.get_mut(..watched).unwrap_or_default(), PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while self.children.read_signal()?.is_some() {}
        Ok(serving && polled[1].revents().is_some_and(|events| !events.is_empty()))
    }

    /// Takes one request; whether the server is still there.
    fn obey(&mut self) -> io::Result<bool> {
        let received = match self.server.receive::<Create>() {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(false),
            // What cannot be read has no control socket to answer on; the server sees its own end close.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(true),
            Err(error) => return Err(error),
        };
        let Received { message: create, fds } = received;
        let Ok([control, timer]) = <[_; 2]>::try_from(fds) else { return Ok(true) };
        if !is_name(&create.name) {
            return Ok(true);
        }
        self.inherited.uid_hint = self.inherited.uid_hint.wrapping_add(1);
        match process::fork() {
            Ok(ForkResult::Child) => {
                let Self { inherited, server, children, lock, .. } = self;
                // The shim outlives the zygote's duties: it must hold neither its socket nor its lock.
                let ours =
                    [server.as_fd(), children.as_fd(), lock.as_fd()].map(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd));
                for fd in ours {
                    let _ = nix::unistd::close(fd);
                }
                let done = shim::run(inherited, &create, Seqpacket::from_fd(control), timer);
                process::exit_now(i32::from(done.is_err()))
            }
            Ok(ForkResult::Parent { child }) => {
                self.shims.insert(child, create.name);
                Ok(true)
            }
            // Dropping the control socket tells the server.
            Err(_) => Ok(true),
        }
    }

    /// Reaps shims, and orphans of shims that died. Behind a shim that did not end well everything is swept.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            let (pid, clean) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) => (pid, status == 0),
                Ok(WaitStatus::Signaled(pid, ..)) => (pid, false),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(name) = self.shims.remove(&pid)
                && !clean
            {
                let cgroup = self.inherited.hierarchies.cgroup(&self.inherited.cgroup_parent).child(&name);
                shim::sweep(&self.inherited, &name, &cgroup);
            }
        }
    }
}

/// Names become file names and cgroup names: the server may not send a path.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

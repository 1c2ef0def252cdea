//! The shim: one single-threaded root process per sandbox. It creates the sandbox, owns its deadline, carries requests to its
//! init, and sees to it that afterwards nothing is left.
//!
//! ```text
//!   forked ──build──► running ──Kill | deadline | server gone | init died──► ending ──► Gone, exit
//!      └── failed: CreateFailed, exit
//! ```

mod build;
mod end;
mod peer;
mod specialise;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use runlet_core::limits::Limits;
use seccompiler::BpfProgram;

use crate::cgroup::{Cgroup, Hierarchies, Swap};
use crate::children;
use crate::host::sandbox::EndCause;
use crate::meter;
use crate::rootfs::Layout;
use crate::spec;
use crate::wire::message::{Create, FromShim, Program, ToInit, ToShim};
use crate::wire::{Received, Seqpacket};
pub(crate) use end::sweep;
use peer::Peer;

/// How long the end of a sandbox may take before its remains are reported as they are.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// What every shim inherits from the zygote.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The zygote's directories.
    pub(crate) layout: Layout,
    /// Cgroup file systems of the host.
    pub(crate) hierarchies: Hierarchies,
    /// Parent of all sandboxes' cgroups, absolute.
    pub(crate) cgroup_parent: String,
    /// How swap can be limited.
    pub(crate) swap: Swap,
    /// The seccomp filter.
    pub(crate) filter: BpfProgram,
    /// Where to look for a free uid range first.
    pub(crate) uid_hint: u32,
    /// Whether sandboxes may see the host's network.
    pub(crate) host_network: bool,
}

/// A running sandbox, from its shim.
struct Shim<'a> {
    inherited: &'a Inherited,
    name: String,
    control: Peer<FromShim>,
    init: Peer<ToInit>,
    init_pid: Pid,
    netns: Option<u64>,
    cgroup: Cgroup,
    timer: OwnedFd,
    children: SignalFd,
    cause: Option<EndCause>,
    /// Whether it belongs to a revision, or to somebody's lease.
    taken: bool,
    limits: Limits,
}

/// Runs a shim from fork to exit; to be called in a child of the zygote.
pub(crate) fn run(inherited: &Inherited, create: &Create, control: Seqpacket, timer: OwnedFd) -> io::Result<()> {
    let _ = prctl::set_name(c"runlet-shim");
    nix::unistd::setsid()?;
    let children = children::watch()?;
    let mut control = Peer::new(control)?;
    let cgroup = inherited.hierarchies.cgroup(&inherited.cgroup_parent).child(&create.name);
    let built = match build::build(inherited, create) {
        Ok(built) => built,
        Err(reason) => {
            sweep(inherited, &create.name, &cgroup);
            return control.send(FromShim::CreateFailed(reason), Vec::new());
        }
    };
    let mut shim = Shim {
        inherited,
        name: create.name.clone(),
        control,
        init: Peer::new(built.socket)?,
        init_pid: built.init,
        netns: built.netns,
        cgroup,
        timer,
        children,
        cause: None,
        taken: create.revision.is_some() || create.work,
        limits: create.limits,
    };
    // A server that is gone already is noticed by the loop.
    let _ = shim.control.send(FromShim::Created, meter::open(&shim.cgroup).unwrap_or_default());
    shim.serve()?;
    shim.finish()
}

/// Which descriptors have something.
struct Ready {
    control: bool,
    init: bool,
    deadline: bool,
}

impl Shim<'_> {
    /// Serves until init has ended.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            if self.reap()? {
                return Ok(());
            }
            let ready = self.wait()?;
            if ready.init && self.relay().is_err() {
                self.end(EndCause::Died);
            }
            if ready.deadline && self.deadline_passed() {
                self.end(EndCause::Deadline);
            }
            if ready.control && self.obey().is_err() {
                self.end(EndCause::ServerGone);
            }
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let mut polled = [
            self.control.poll_fd(),
            self.init.poll_fd(),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
        ];
        let ending = self.cause.is_some();
        // Once the end is decided only the death of init matters: the other sockets would wake us for ever.
        let watched = if ending { polled.split_at_mut(3).1 } else { &mut polled[..] };
        match poll(watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while self.children.read_signal()?.is_some() {}
        let has = |index: usize| {
            !ending && polled.get(index).and_then(|fd| fd.revents()).is_some_and(|events| !events.is_empty())
        };
        Ok(Ready { control: has(0), init: has(1), deadline: has(2) })
    }

    /// Decides the end, once, and kills init: the kernel kills all else in the pid namespace with it.
    fn end(&mut self, cause: EndCause) {
        if self.cause.is_none() {
            self.cause = Some(cause);
            // Not reaped yet, so the pid is still its own.
            let _ = kill(self.init_pid, Signal::SIGKILL);
        }
    }

    /// Reaps every child; whether init was among them.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) if pid == self.init_pid => {
                    self.cause.get_or_insert(EndCause::Died);
                    return Ok(true);
                }
                Ok(WaitStatus::StillAlive) => return Ok(false),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The server may have moved the deadline since the timer woke us: only a tick that can still be read counts.
    fn deadline_passed(&self) -> bool {
        use std::os::fd::AsRawFd as _;
        let mut ticks = [0; 8];
        nix::unistd::read(self.timer.as_raw_fd(), &mut ticks).is_ok_and(|n| n == 8)
    }

    /// Carries what init says to the server.
    fn relay(&mut self) -> io::Result<()> {
        self.init.flush()?;
        while let Some(Received { message, .. }) = self.init.receive::<Program>()? {
            // A server that does not take it is noticed when its socket ends.
            let _ = self.control.send(FromShim::Program(message), Vec::new());
        }
        Ok(())
    }

    fn obey(&mut self) -> io::Result<()> {
        self.control.flush()?;
        while let Some(Received { message, fds }) = self.control.receive::<ToShim>()? {
            let answer = match message {
                ToShim::Spawn(spawn) => {
                    let number = spawn.number;
                    self.init.send(ToInit::Spawn(spawn), fds).err().map(|error| {
                        let errno = error.raw_os_error().unwrap_or(libc::EIO);
                        FromShim::Program(Program::Failed { number, message: error.to_string(), errno })
                    })
                }
                ToShim::Signal { number, signal } => {
                    let _ = self.init.send(ToInit::Signal { number, signal }, Vec::new());
                    None
                }
                ToShim::Specialise(wanted) => Some(FromShim::Specialised(self.specialise(&wanted).err())),
                ToShim::Resize(limits) => {
                    let resized = spec::resources(&limits, self.inherited.swap)
                        .map_err(|error| error.to_string())
                        .and_then(|resources| self.cgroup.resize(limits.memory.0, &resources));
                    Some(FromShim::Resized(resized.err()))
                }
                ToShim::Oom => Some(FromShim::Oom(self.cgroup.oom_kills() > 0)),
                ToShim::Usage => Some(FromShim::Usage(self.cgroup.usage())),
                ToShim::Kill => {
                    self.end(EndCause::Killed);
                    return Ok(());
                }
            };
            if let Some(answer) = answer {
                self.control.send(answer, Vec::new())?;
            }
        }
        Ok(())
    }
}

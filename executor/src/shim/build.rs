//! From a request to a running init.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;
use runlet_core::engine::Network;

use super::Inherited;
use crate::init::InitExecutor;
use crate::spec::{self, SpecInput};
use crate::sys::net::loopback_up;
use crate::uid_range::UidRange;
use crate::wire::Seqpacket;
use crate::wire::message::{Create, Program};

/// Where all servers of a host lock uid ranges.
const UID_LOCKS: &str = "/run/runlet/uids";
/// How long init may take from start to its first message.
const INIT_PATIENCE: Duration = Duration::from_secs(10);

/// A sandbox whose init waits for programs.
pub(super) struct Built {
    pub(super) socket: Seqpacket,
    pub(super) init: Pid,
    /// Inode of its network namespace, if it has one.
    pub(super) netns: Option<u64>,
}

/// Creates and starts the sandbox. The reason of a failure is text for the operator.
pub(super) fn build(inherited: &Inherited, create: &Create) -> Result<Built, String> {
    let what = |step: &'static str| move |error: io::Error| format!("{step}: {error}");
    if create.network == Network::Host && !inherited.host_network {
        return Err("the network of the host was not granted when the server was started".to_owned());
    }
    let range = UidRange::take(Path::new(UID_LOCKS), inherited.uid_hint).map_err(what("take a uid range"))?;
    let root = inherited.layout.stage_root(create, range.first).map_err(what("stage"))?;
    let bundle = inherited.layout.bundles().join(&create.name);
    std::fs::create_dir(&bundle).map_err(what("make the bundle"))?;
    let cgroup = format!("{}/{}", inherited.cgroup_parent, create.name);
    let (_, open_files_max) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| error.to_string())?;
    let input = SpecInput {
        root: &root,
        cgroup: &cgroup,
        first_uid: range.first,
        limits: &create.limits,
        swap: inherited.swap,
        open_files_max,
        network: create.network,
    };
    let spec = spec::build(&input).map_err(|error| error.to_string())?;
    spec.save(bundle.join("config.json")).map_err(|error| format!("write the spec: {error}"))?;
    // The range stays taken until this process ends: its lock is a descriptor that nobody closes before.
    std::mem::forget(range);
    let built = start(inherited, create, &bundle)?;
    confined(built.init)?;
    Ok(built)
}

fn start(inherited: &Inherited, create: &Create, bundle: &Path) -> Result<Built, String> {
    let (socket, inner) = Seqpacket::pair().map_err(|error| error.to_string())?;
    let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let nulls =
        [null(), null(), null()].into_iter().collect::<io::Result<Vec<_>>>().map_err(|error| error.to_string())?;
    let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(nulls).map_err(|_| "three descriptors".to_owned())?;
    let executor = InitExecutor { filter: inherited.filter.clone(), socket: inner.as_raw_fd() };
    let mut container = ContainerBuilder::new(create.name.clone(), SyscallType::default())
        .with_root_path(inherited.layout.state())
        .map_err(|error| chain(&error))?
        .with_executor(executor)
        .with_stdin(stdin)
        .with_stdout(stdout)
        .with_stderr(stderr)
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|error| chain(&error))?;
    let init = container.pid().ok_or("libcontainer names no init")?;
    drop(inner);
    let netns = match create.network {
        Network::None => Some(prepare_network(init).map_err(|error| format!("prepare the network: {error}"))?),
        Network::Host => None,
    };
    container.start().map_err(|error| chain(&error))?;
    wait_for_init(&socket)?;
    Ok(Built { socket, init, netns })
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The network namespace exists and no code runs in it yet: bring `lo` up from outside. Returns its inode.
fn prepare_network(init: Pid) -> io::Result<u64> {
    let ours = File::open("/proc/self/ns/net")?;
    let theirs = File::open(format!("/proc/{init}/ns/net"))?;
    let inode = theirs.metadata()?.ino();
    setns(theirs.as_fd(), CloneFlags::CLONE_NEWNET)?;
    let up = loopback_up();
    setns(ours.as_fd(), CloneFlags::CLONE_NEWNET)?;
    up.map(|()| inode)
}

fn wait_for_init(socket: &Seqpacket) -> Result<(), String> {
    let patience = PollTimeout::try_from(INIT_PATIENCE).map_err(|error| error.to_string())?;
    let mut polled = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut polled, patience).map_err(|error| error.to_string())?;
    if ready == 0 {
        return Err("init did not answer in time".to_owned());
    }
    match socket.receive::<Program>() {
        Ok(Some(received)) if matches!(received.message, Program::Started { number: 0 }) => Ok(()),
        Ok(Some(_)) => Err("init said something else than that it is ready".to_owned()),
        Ok(None) => Err("init ended before it was ready: the seccomp filter may be refused by this kernel".to_owned()),
        Err(error) => Err(format!("read from init: {error}")),
    }
}

/// Looks from outside whether init is as confined as it must be; a sandbox that is not is never used.
fn confined(init: Pid) -> Result<(), String> {
    let status = std::fs::read_to_string(format!("/proc/{init}/status")).map_err(|error| error.to_string())?;
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).unwrap_or_default();
    let wanted = [("Seccomp:", "2"), ("NoNewPrivs:", "1")];
    let capabilities = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"].map(|key| (key, "0000000000000000"));
    for (key, want) in wanted.into_iter().chain(capabilities) {
        if value(key) != want {
            return Err(format!("init is not confined: {key} {} where {want} is needed", value(key)));
        }
    }
    Ok(())
}

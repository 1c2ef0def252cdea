//! The server's side of what needs root: the zygote and, through it, the sandboxes.

mod driver;
mod image;
pub mod sandbox;
pub mod socket;

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use crate::sys::watch::watch;
use crate::wire::message::{Create, Hello, VERSION, Welcome};
use crate::wire::{Received, Seqpacket};
use image::sealed_copy;
use sandbox::{Sandbox, SandboxError, SandboxRequest};

/// Where the zygote works.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostOptions {
    /// Directory for state of this server's sandboxes, below one that everybody may traverse.
    pub run_dir: PathBuf,
    /// Directory with unpacked revisions, one directory per digest (its hex), written by the server's user.
    pub revisions_dir: PathBuf,
    /// Cgroup under which all sandboxes of this server live, absolute, for example `/runlet`.
    pub cgroup_parent: String,
    /// Directory on disk for what leased sandboxes write; root's alone.
    pub work_dir: PathBuf,
    /// Whether sandboxes may see the host's network.
    pub host_network: bool,
}

/// The zygote as a fresh child process; made by root before any thread exists, then handed to [`Host::new`] inside the runtime.
#[derive(Debug)]
pub struct Zygote {
    socket: Seqpacket,
    child: Child,
    reaped: Vec<String>,
}

impl Zygote {
    /// Copies this binary to a sealed memfd, starts it as zygote, waits until it has reconciled what an earlier life
    /// left and has shown that a seccomp filter can be loaded.
    ///
    /// # Errors
    /// What is missing on this host, and what to do.
    pub fn start(options: &HostOptions) -> Result<Self, String> {
        let (socket, theirs) = Seqpacket::pair().map_err(|error| format!("make a socket: {error}"))?;
        let image = sealed_copy().map_err(|error| format!("copy the binary to a sealed memfd: {error}"))?;
        let child = Command::new(format!("/proc/self/fd/{}", image.as_raw_fd()))
            .arg0("runlet")
            .arg("zygote")
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::from(theirs.into_fd()))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("start the zygote: {error}"))?;
        let hello = Hello { version: VERSION, options: options.clone() };
        socket.send(&hello, &[]).map_err(|error| format!("talk to the zygote: {error}"))?;
        match socket.receive::<Welcome>() {
            Ok(Some(Received { message: Welcome::Ready { reaped }, .. })) => Ok(Self { socket, child, reaped }),
            Ok(Some(Received { message: Welcome::Failed(reason), .. })) => Err(reason),
            Ok(None) => Err("the zygote ended before it was ready".to_owned()),
            Err(error) => Err(format!("listen to the zygote: {error}")),
        }
    }

    /// Names of the sandboxes that an earlier life had left on the host and that are gone now.
    #[must_use]
    pub fn reaped(&self) -> &[String] {
        &self.reaped
    }
}

/// The zygote as the server sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: AsyncFd<Seqpacket>,
    child: Mutex<Option<Child>>,
    /// Makes names unique within this life of the server; the zygote has swept those of earlier lives.
    counter: AtomicU64,
    drivers: tokio_util::task::TaskTracker,
}

impl Host {
    /// Takes over the zygote; to be called within the runtime.
    ///
    /// # Errors
    /// When the socket cannot be registered with the runtime.
    pub fn new(zygote: Zygote) -> io::Result<Self> {
        zygote.socket.set_nonblocking()?;
        let inner = Inner {
            socket: watch(zygote.socket)?,
            child: Mutex::new(Some(zygote.child)),
            counter: AtomicU64::new(0),
            drivers: tokio_util::task::TaskTracker::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes a sandbox; nothing runs in it yet but its init.
    ///
    /// # Errors
    /// [`SandboxError::Create`] with the reason.
    pub async fn create(&self, request: SandboxRequest) -> Result<Sandbox, SandboxError> {
        let failed = |error: io::Error| SandboxError::Create(error.to_string());
        let number = self.inner.counter.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{number}", request.runtime.as_str(), std::process::id());
        let (control, theirs) = Seqpacket::pair().map_err(failed)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
            .map_err(|error| failed(error.into()))?;
        let create = Create {
            name: name.clone(),
            namespace: request.namespace,
            revision: request.revision,
            runtime: request.runtime,
            limits: request.limits,
            network: request.network,
            work: request.work,
            cache: request.cache,
        };
        let fds = [theirs.as_fd(), timer.as_fd()];
        self.inner
            .socket
            .async_io(Interest::WRITABLE, |socket| socket.send(&create, &fds))
            .await
            .map_err(|_| SandboxError::ZygoteGone)?;
        drop(theirs);
        driver::open(name, control, timer, &self.inner.drivers).await
    }

    /// Waits until the zygote is gone: the server cannot go on then.
    pub async fn lost(&self) {
        // The zygote says nothing after its welcome: anything readable is its end.
        let _ = self.inner.socket.readable().await;
    }

    /// Waits until every sandbox's handle has been dropped and everything of it is gone.
    pub async fn drained(&self) {
        self.inner.drivers.close();
        self.inner.drivers.wait().await;
    }

    /// Ends the zygote: to be called last, after [`Host::drained`]. Returns when it has ended.
    pub async fn close(self) {
        let child = self.inner.child.lock().await.take();
        // The other end of the zygote's socket must be closed for it to end; all clones share this one.
        let _ = nix::sys::socket::shutdown(self.inner.socket.get_ref().as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(mut child) = child {
            let _ = tokio::task::spawn_blocking(move || child.wait()).await;
        }
    }
}

/// A span as the kernel's timers take it; zero would disarm, so it becomes the shortest span there is.
fn timer_span(span: std::time::Duration) -> TimeSpec {
    TimeSpec::from(span.max(std::time::Duration::from_nanos(1)))
}

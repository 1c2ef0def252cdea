//! Directories on disk for leased sandboxes: one to work in, which goes away with the sandbox, and caches, which stay.
//!
//! ```text
//! <work_dir>                0700 root
//!   builds/<sandbox>        owned by the sandbox's own ids; removed behind it
//!   cache/<namespace>/<name>   owned by ids that no process has; mounted with the ids of the sandbox that uses it
//! ```
//! A cache is used by one sandbox after the other and by several at a time, each with ids of its own: the mount maps them.
//! Two sandboxes with the same cache see each other's writes at once, as two processes in one directory do.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, pipe};
use runlet_core::name::Namespace;

use crate::sys::{idmap, process};
use crate::uid_range;

/// Where the working directory is, inside.
pub(crate) const BUILDS: &str = "builds";
/// Where the cache is, inside.
pub(crate) const CACHE: &str = "cache";

/// Directories that programs expect to be able to write to, made in the working directory.
const INSIDE: [&str; 2] = [".home", ".tmp"];

/// The directory below which all of it is.
#[derive(Debug, Clone)]
pub(crate) struct Work(PathBuf);

impl Work {
    /// Below `root`.
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self(root)
    }

    /// Working directories, one per sandbox.
    pub(crate) fn builds(&self) -> PathBuf {
        self.0.join(BUILDS)
    }

    /// Makes what is missing.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        for directory in [self.0.clone(), self.builds(), self.0.join(CACHE)] {
            make(&directory, 0o700)?;
        }
        Ok(())
    }

    /// Makes the working directory of a sandbox and mounts it into the root file system at `root`.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn mount_builds(&self, sandbox: &str, first_id: u32, root: &Path) -> io::Result<()> {
        let directory = self.builds().join(sandbox);
        make(&directory, 0o755)?;
        for name in INSIDE {
            let inside = directory.join(name);
            make(&inside, 0o700)?;
            chown(&inside, Some(first_id), Some(first_id))?;
        }
        chown(&directory, Some(first_id), Some(first_id))?;
        idmap::attach(&idmap::detached(open(&directory)?.as_fd(), None)?, &root.join(BUILDS))
    }

    /// Mounts a cache into the root file system at `root`, its owner's ids being those of the sandbox.
    ///
    /// # Errors
    /// The step that failed; `InvalidInput` for a name that is none.
    pub(crate) fn mount_cache(&self, of: &Namespace, name: &str, first_id: u32, root: &Path) -> io::Result<()> {
        if !is_name(name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no name of a cache"));
        }
        let directory = self.0.join(CACHE).join(of.as_str());
        make(&directory, 0o700)?;
        let directory = directory.join(name);
        make(&directory, 0o755)?;
        chown(&directory, Some(uid_range::AT_REST), Some(uid_range::AT_REST))?;
        let users = mapping(uid_range::AT_REST, first_id)?;
        let tree = idmap::detached(open(&directory)?.as_fd(), Some(users.as_fd()))
            .map_err(|error| io::Error::new(error.kind(), format!("map the ids of the cache: {error}")))?;
        idmap::attach(&tree, &root.join(CACHE))
    }

    /// Removes the working directory of a sandbox; no process of it may be alive.
    pub(crate) fn remove(&self, sandbox: &str) {
        let _ = fs::remove_dir_all(self.builds().join(sandbox));
    }
}

/// Whether `name` can be that of a cache.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The directory itself: nobody but root could have put a link there, and none is followed.
fn open(path: &Path) -> io::Result<fs::File> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// A user namespace, in which nobody lives, that says: ids from `on_disk` on are ids from `first` on.
fn mapping(on_disk: u32, first: u32) -> io::Result<fs::File> {
    let (ready, readied) = pipe()?;
    let (done, finished) = pipe()?;
    match process::fork()? {
        ForkResult::Child => {
            drop((ready, finished));
            let made = unshare(CloneFlags::CLONE_NEWUSER).is_ok();
            let told = made && nix::unistd::write(&readied, b"x").is_ok();
            drop(readied);
            // Until the other side has what it wants, or is gone.
            let _ = nix::unistd::read(std::os::fd::AsRawFd::as_raw_fd(&done), &mut [0]);
            process::exit_now(i32::from(!told))
        }
        ForkResult::Parent { child } => {
            drop((readied, done));
            let map = || -> io::Result<fs::File> {
                if nix::unistd::read(std::os::fd::AsRawFd::as_raw_fd(&ready), &mut [0])? == 0 {
                    return Err(io::Error::other("no user namespace could be made"));
                }
                let line = format!("{on_disk} {first} {}\n", uid_range::SIZE);
                fs::write(format!("/proc/{child}/uid_map"), &line)?;
                fs::write(format!("/proc/{child}/gid_map"), &line)?;
                fs::File::open(format!("/proc/{child}/ns/user"))
            };
            let mapped = map();
            drop(finished);
            let _ = waitpid(child, None);
            mapped
        }
    }
}

//! Root file systems. The `host` image: the host's programs read-only, everything else the sandbox's own.
//!
//! The skeleton (mount points, a small /etc) is made once, by the zygote. For each sandbox the shim binds it, the host's
//! directories, the code and the runner together at the stage, in a mount namespace of its own: nothing of it is visible on the
//! host, and it goes away with the shim.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use runlet_core::engine::Network;
use runlet_core::manifest::RuntimeKind;
use runlet_core::name::RevisionDigest;

use crate::host::HostOptions;
use crate::sys::mount::seal_tree;
use crate::wire::message::Create;
use crate::work::{self, Work};

/// Where the code of a function is, inside.
pub(crate) const CODE: &str = "var/task";
/// Where the runner of its runtime is, inside.
pub(crate) const RUNNER: &str = "run/runlet";

/// Directories that hold programs. On a merged-/usr host all but /usr are symlinks, which are copied as such.
const PROGRAMS: [&str; 6] = ["usr", "bin", "sbin", "lib", "lib64", "lib32"];
/// Mount points and directories of the skeleton.
const DIRECTORIES: [&str; 15] = [
    "proc",
    "dev",
    "tmp",
    "etc",
    "var",
    "var/task",
    "var/tmp",
    "run",
    "run/runlet",
    "root",
    "home",
    "mnt",
    "opt",
    work::BUILDS,
    work::CACHE,
];
/// Files and directories of /etc that programs need and that hold nothing private.
const ETC_COPIES: [&str; 8] =
    ["alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "protocols", "services"];
/// What /etc holds in every sandbox.
const ETC_FILES: [(&str, &str); 6] = [
    ("passwd", "root:x:0:0:root:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"),
    ("group", "root:x:0:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost runlet\n::1 localhost\n"),
    ("hostname", "runlet\n"),
    ("resolv.conf", ""),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

/// The directories of a server's zygote.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    run_dir: PathBuf,
    revisions_dir: PathBuf,
    work: Work,
}

impl Layout {
    /// The layout that the options ask for.
    #[must_use]
    pub(crate) fn new(options: &HostOptions) -> Self {
        Self {
            run_dir: options.run_dir.clone(),
            revisions_dir: options.revisions_dir.clone(),
            work: Work::new(options.work_dir.clone()),
        }
    }

    /// Directories on disk of leased sandboxes.
    #[must_use]
    pub(crate) const fn work(&self) -> &Work {
        &self.work
    }

    /// State directories of libcontainer, one per sandbox.
    #[must_use]
    pub(crate) fn state(&self) -> PathBuf {
        self.run_dir.join("state")
    }

    /// Bundles, one per sandbox.
    #[must_use]
    pub(crate) fn bundles(&self) -> PathBuf {
        self.run_dir.join("bundles")
    }

    /// Exit records that no server has taken yet.
    #[must_use]
    pub(crate) fn exits(&self) -> PathBuf {
        self.run_dir.join("exits")
    }

    /// Where root file systems are staged, each in the mount namespace of its shim.
    #[must_use]
    pub(crate) fn stage(&self) -> PathBuf {
        self.run_dir.join("stage")
    }

    /// The lock that says that a zygote works here.
    #[must_use]
    pub(crate) fn lock(&self) -> PathBuf {
        self.run_dir.join("lock")
    }

    fn skeleton(&self) -> PathBuf {
        self.run_dir.join("skeleton")
    }

    fn runner(&self, runtime: RuntimeKind) -> PathBuf {
        self.run_dir.join("runners").join(runtime.as_str())
    }

    /// Makes all directories, the skeleton and the runners anew. No sandbox may be alive.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        for directory in [self.skeleton(), self.run_dir.join("runners")] {
            match fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        make_dir(&self.run_dir, 0o711)?;
        // libcontainer resolves the stage as the sandbox's root user, who is nobody on the host: it must be traversable.
        make_dir(&self.stage(), 0o755)?;
        for private in [self.state(), self.bundles(), self.exits()] {
            make_dir(&private, 0o700)?;
        }
        self.work.prepare()?;
        self.make_skeleton()?;
        for runtime in RuntimeKind::ALL {
            let directory = self.runner(runtime);
            make_dir(&directory, 0o755)?;
            for (name, content) in runlet_runtimes::runner_files(runtime) {
                write_file(&directory.join(name), content)?;
            }
        }
        Ok(())
    }

    fn make_skeleton(&self) -> io::Result<()> {
        let root = self.skeleton();
        make_dir(&root, 0o755)?;
        for directory in DIRECTORIES {
            make_dir(&root.join(directory), 0o755)?;
        }
        for name in PROGRAMS {
            let host = Path::new("/").join(name);
            match fs::symlink_metadata(&host) {
                Ok(meta) if meta.is_symlink() => symlink(fs::read_link(&host)?, root.join(name))?,
                Ok(meta) if meta.is_dir() => make_dir(&root.join(name), 0o755)?,
                _ => {}
            }
        }
        let etc = root.join("etc");
        for (name, text) in ETC_FILES {
            write_file(&etc.join(name), text.as_bytes())?;
        }
        for name in ETC_COPIES {
            copy_public(&Path::new("/etc").join(name), &etc.join(name))?;
        }
        make_dir(&etc.join("ssl"), 0o755)?;
        for name in ["certs", "openssl.cnf"] {
            copy_public(&Path::new("/etc/ssl").join(name), &etc.join("ssl").join(name))?;
        }
        Ok(())
    }

    /// Moves this process to a mount namespace of its own and puts the root file system of a sandbox together at the stage.
    ///
    /// # Errors
    /// The step that failed.
    pub(crate) fn stage_root(&self, create: &Create, first_id: u32) -> io::Result<PathBuf> {
        unshare(CloneFlags::CLONE_NEWNS).map_err(|error| step("unshare the mount namespace", error))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
            .map_err(|error| step("make the mounts private", error))?;
        let stage = self.stage();
        bind(&self.skeleton(), &stage)?;
        for name in PROGRAMS {
            let host = Path::new("/").join(name);
            if fs::symlink_metadata(&host).is_ok_and(|meta| meta.is_dir()) {
                bind(&host, &stage.join(name))?;
            }
        }
        bind(&self.runner(create.runtime), &stage.join(RUNNER))?;
        if create.network == Network::Host {
            for name in ["etc/resolv.conf", "etc/hosts"] {
                let host = Path::new("/").join(name);
                if host.is_file() {
                    bind(&host, &stage.join(name))?;
                }
            }
        }
        if let Some(revision) = &create.revision {
            self.bind_code(revision, &stage.join(CODE))?;
        }
        seal_tree(&stage)
            .map_err(|error| io::Error::new(error.kind(), format!("seal the root file system: {error}")))?;
        // Behind the seal: what is mounted now can be written to.
        if create.work {
            self.work.mount_builds(&create.name, first_id, &stage)?;
        }
        if let Some(cache) = &create.cache {
            self.work.mount_cache(&create.namespace, cache, first_id, &stage)?;
        }
        Ok(stage)
    }

    /// The directory of an unpacked revision. The server's user writes the revisions; it must not be able to point us elsewhere,
    /// so the last component may be no symlink.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn open_code(&self, revision: &RevisionDigest) -> io::Result<fs::File> {
        let source = self.revisions_dir.join(revision.hex());
        fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&source)
            .map_err(|error| io::Error::new(error.kind(), format!("open revision {}: {error}", revision.short())))
    }

    fn bind_code(&self, revision: &RevisionDigest, target: &Path) -> io::Result<()> {
        let directory = self.open_code(revision)?;
        bind(Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())), target)
    }
}

fn step(what: &str, error: nix::errno::Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|error| step(&format!("bind {} to {}", source.display(), target.display()), error))
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Copies files that everybody on the host may read; others, and what is missing, are left out. Symlinks stay symlinks.
fn copy_public(source: &Path, target: &Path) -> io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(source) else { return Ok(()) };
    let mode = meta.permissions().mode();
    if meta.is_symlink() {
        symlink(fs::read_link(source)?, target)
    } else if meta.is_dir() && mode & 0o005 == 0o005 {
        make_dir(target, 0o755)?;
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            copy_public(&entry.path(), &target.join(entry.file_name()))?;
        }
        Ok(())
    } else if meta.is_file() && mode & 0o004 != 0 {
        write_file(target, &fs::read(source)?)
    } else {
        Ok(())
    }
}

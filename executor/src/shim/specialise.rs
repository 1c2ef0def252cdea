//! A sandbox that was started ahead becomes a revision's: its code is mounted into the running sandbox, its limits are set.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use runlet_core::limits::Limits;
use runlet_core::unit::ByteSize;

use super::Shim;
use crate::rootfs::CODE;
use crate::spec;
use crate::sys::{idmap, process};
use crate::wire::message::Specialise;

impl Shim<'_> {
    /// Gives the sandbox to a revision. That works once: whoever has been given it, or was to be, keeps it.
    pub(super) fn specialise(&mut self, wanted: &Specialise) -> Result<(), String> {
        if std::mem::replace(&mut self.taken, true) {
            return Err("it belongs to somebody already".to_owned());
        }
        let what = |step: &'static str| move |error: io::Error| format!("{step}: {error}");
        let Limits { memory, cpu, pids, tmp, .. } = wanted.limits;
        let old = std::mem::replace(&mut self.limits, wanted.limits);
        if (memory, pids) != (old.memory, old.pids) || cpu.to_bits() != old.cpu.to_bits() {
            let resources = spec::resources(&wanted.limits, self.inherited.swap).map_err(|error| error.to_string())?;
            self.cgroup.resize(memory.0, &resources)?;
        }
        let code = self.inherited.layout.open_code(&wanted.revision).map_err(|error| error.to_string())?;
        let code = idmap::sealed(code.as_fd()).map_err(what("clone the mount of the code"))?;
        let scratch = (tmp != old.tmp).then_some(tmp);
        let arrange = || -> io::Result<()> {
            idmap::attach(&code, &Path::new("/").join(CODE))?;
            scratch.map_or(Ok(()), resize_scratch)
        };
        self.inside(arrange).map_err(what("mount the code"))
    }

    /// Does something in the sandbox's mount namespace. Nobody's code has run in there yet: its paths are what we made them.
    fn inside(&self, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let ours = File::open("/proc/self/ns/mnt")?;
        let theirs = File::open(format!("/proc/{}/ns/mnt", self.init_pid))?;
        setns(theirs.as_fd(), CloneFlags::CLONE_NEWNS)?;
        let done = act();
        if setns(ours.as_fd(), CloneFlags::CLONE_NEWNS).is_err() {
            // Nothing of this host is within reach any more: the zygote sweeps behind a shim that fails.
            process::exit_now(1);
        }
        done
    }
}

/// Sets the size of the places that can be written to.
fn resize_scratch(size: ByteSize) -> io::Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    for place in ["/tmp", "/dev/shm"] {
        mount(None::<&str>, place, None::<&str>, flags, Some(format!("size={}", size.0).as_str()))?;
    }
    Ok(())
}

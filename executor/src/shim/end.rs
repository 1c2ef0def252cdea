//! The end of a sandbox: the bill, the sweep, the audit, the report.

use std::io;
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use nix::sys::wait::waitpid;
use runlet_core::execution::Remains;

use super::{END_PATIENCE, Inherited, Shim};
use crate::cgroup::Cgroup;
use crate::host::sandbox::{EndCause, SandboxEnd};
use crate::wire::message::FromShim;

/// How long a server that does not read may hold the report back.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);

/// Removes what a sandbox called `name` may have left on the host. Idempotent. Its processes are killed first.
pub(crate) fn sweep(inherited: &Inherited, name: &str, cgroup: &Cgroup) {
    let _ = cgroup.kill_all(END_PATIENCE);
    cgroup.remove();
    for directory in [inherited.layout.state(), inherited.layout.bundles()] {
        let _ = std::fs::remove_dir_all(directory.join(name));
    }
    inherited.layout.work().remove(name);
}

impl Shim<'_> {
    /// Init is dead and reaped, and with it everything in its pid namespace.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let oom = self.cgroup.oom_kills() > 0;
        let usage = self.cgroup.usage();
        sweep(self.inherited, &self.name, &self.cgroup);
        // Whoever else was our child (libcontainer's helpers) is dead by now.
        while waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid().is_some()) {}
        let end = SandboxEnd { cause: self.cause.unwrap_or(EndCause::Died), oom, usage, remains: self.remains() };
        let record = self.inherited.layout.exits().join(format!("{}.json", self.name));
        std::fs::write(&record, serde_json::to_vec(&end)?)?;
        if self.report(end).is_ok() {
            let _ = std::fs::remove_file(record);
        }
        Ok(())
    }

    /// Looks at the host for anything of this sandbox. The zygote lives in the host's mount namespace; we do not.
    fn remains(&self) -> Remains {
        let zygote = nix::unistd::getppid();
        let mounts = std::fs::read_to_string(format!("/proc/{zygote}/mountinfo")).unwrap_or_default();
        let count = |needle: &str| mounts.lines().filter(|line| line.contains(needle)).count();
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let stage = self.inherited.layout.stage();
        Remains {
            processes: small(self.cgroup.processes().len()),
            cgroups: small(self.cgroup.count()),
            mounts: small(count(&self.name) + count(&stage.to_string_lossy())),
            netns: small(self.netns.map_or(0, |inode| count(&format!("net:[{inode}]")))),
        }
    }

    fn report(&mut self, end: SandboxEnd) -> io::Result<()> {
        self.control.send(FromShim::Gone(end), Vec::new())?;
        let until = Instant::now() + REPORT_PATIENCE;
        while !self.control.is_flushed() {
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            poll(&mut [self.control.poll_fd()], PollTimeout::from(100_u8))?;
            self.control.flush()?;
        }
        Ok(())
    }
}

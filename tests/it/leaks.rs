//! What a server must not leave behind, asked of the kernel and never of the server.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::wait;

/// What belongs to one server: everything below its cgroup and everything that names its directory.
#[derive(Debug, Clone)]
pub(crate) struct Traces {
    /// Cgroup parent without the leading `/`.
    pub(crate) cgroup: String,
    /// The directory that holds its data and its run directory.
    pub(crate) base: PathBuf,
    /// Processes that descended from its server, in all its lives.
    pub(crate) family: BTreeSet<Relative>,
}

/// A process that cannot be confused with a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Relative {
    pid: u32,
    start: u64,
}

/// A line of /proc/<pid>/stat: parent, start time, and whether it is more than a zombie.
fn stat(pid: u32) -> Option<(u32, u64, bool)> {
    let text = proc_text(pid, "stat");
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?, *fields.first()? != "Z"))
}

/// The numeric directories of /proc.
fn pids() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn proc_text(pid: u32, file: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// The children of a process, with their names.
pub(crate) fn children(of: u32) -> Vec<(u32, String)> {
    let mine = pids().into_iter().filter(|pid| parent(*pid) == Some(of));
    mine.map(|pid| (pid, proc_text(pid, "comm").trim().to_owned())).collect()
}

/// The parent of a process.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    stat(pid).map(|(parent, ..)| parent)
}

/// Network namespaces that any process is in, and those that a mount keeps.
pub(crate) fn network_namespaces() -> BTreeSet<String> {
    let of_process = |pid| Some(std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?.to_string_lossy().into_owned());
    let mut all: BTreeSet<String> = pids().into_iter().filter_map(of_process).collect();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("it is readable");
    all.extend(
        mounts
            .lines()
            .filter(|line| line.contains(" nsfs "))
            .filter_map(|line| Some(line.split(' ').nth(3)?.to_owned())),
    );
    all
}

impl Traces {
    /// Writes down `server` and all that descends from it now.
    pub(crate) fn note_family(&mut self, server: u32) {
        let all: Vec<(u32, u32, u64)> =
            pids().into_iter().filter_map(|pid| stat(pid).map(|(parent, start, _)| (pid, parent, start))).collect();
        let mut known = BTreeSet::from([server]);
        let mut before = 0;
        while known.len() > before {
            before = known.len();
            known.extend(
                all.iter().filter(|(_, parent, _)| known.contains(parent)).map(|(pid, ..)| *pid).collect::<Vec<_>>(),
            );
        }
        let relatives = all.iter().filter(|(pid, ..)| known.contains(pid));
        self.family.extend(relatives.map(|(pid, _, start)| Relative { pid: *pid, start: *start }));
    }

    /// Those written down that still run.
    fn survivors(&self) -> Vec<String> {
        let alive = |one: &&Relative| stat(one.pid).is_some_and(|(_, start, lives)| start == one.start && lives);
        self.family
            .iter()
            .filter(alive)
            .map(|one| format!("relative {}: {}", one.pid, proc_text(one.pid, "comm")))
            .collect()
    }

    /// Processes inside its sandboxes' cgroups.
    pub(crate) fn sandboxed(&self) -> Vec<u32> {
        let below = format!(":/{}/", self.cgroup);
        pids().into_iter().filter(|pid| proc_text(*pid, "cgroup").contains(&below)).collect()
    }

    /// Kills every process in its sandboxes; returns those.
    pub(crate) fn kill_sandboxed(&self) -> Vec<u32> {
        let pids = self.sandboxed();
        for pid in &pids {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(*pid).expect("a pid"));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        pids
    }

    /// Every process of it: in its cgroups, started with its directory, or holding a mount of it.
    fn processes(&self) -> Vec<String> {
        let base = self.base.to_string_lossy();
        let own = std::process::id();
        let mut found = Vec::new();
        for pid in pids().into_iter().filter(|pid| *pid != own) {
            let command = proc_text(pid, "cmdline");
            let here = proc_text(pid, "cgroup").contains(&format!(":/{}/", self.cgroup));
            if here || command.contains(&*base) || proc_text(pid, "mountinfo").contains(&*base) {
                found.push(format!("process {pid}: {command}"));
            }
        }
        found
    }

    /// Cgroup directories below its parent, in every hierarchy; the parent itself may stay.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies =
            std::fs::read_dir(root).expect("cgroups are mounted").filter_map(|entry| Some(entry.ok()?.path()));
        let parents =
            hierarchies.filter(|path| path.is_dir()).chain([root.to_owned()]).map(|path| path.join(&self.cgroup));
        parents.flat_map(|parent| directories(&parent)).collect()
    }

    /// Mounts of it in this mount namespace.
    fn mounts(&self) -> Vec<String> {
        let base = self.base.to_string_lossy();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("it is readable");
        mounts.lines().filter(|line| line.contains(&*base)).map(|line| format!("mount {line}")).collect()
    }

    /// Everything of it that is there.
    pub(crate) fn all(&self) -> Vec<String> {
        let mut found = self.processes();
        found.extend(self.survivors());
        found.extend(self.cgroups().iter().map(|path| format!("cgroup {}", path.display())));
        found.extend(self.mounts());
        found
    }

    /// Fails unless everything is gone within `patience`, and tells what is not.
    #[track_caller]
    pub(crate) fn expect_none(&self, patience: Duration) {
        let end = std::time::Instant::now() + patience;
        let mut left = self.all();
        while !left.is_empty() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            left = self.all();
        }
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        self.remove_parents();
    }

    /// Waits until no process is in a sandbox and no sandbox has a cgroup.
    pub(crate) fn wait_no_sandbox(&self, patience: Duration) {
        wait::until("every sandbox is gone", patience, || self.sandboxed().is_empty() && self.cgroups().is_empty());
    }

    /// The empty parent groups are ours: no other server has their name.
    fn remove_parents(&self) {
        let root = Path::new("/sys/fs/cgroup");
        for entry in std::fs::read_dir(root).expect("cgroups are mounted").flatten() {
            let _ = std::fs::remove_dir(entry.path().join(&self.cgroup));
        }
        let _ = std::fs::remove_dir(root.join(&self.cgroup));
    }
}

fn directories(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}

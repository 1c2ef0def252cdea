//! Cgroups of sandboxes: where they are, what they tell, how they go away. Written for v1, v1 hybrid and v2.
//!
//! libcontainer makes them and sets the first limits; everything afterwards is done here through libcgroups and plain files.

mod resize;

use std::io;
use std::path::{Path, PathBuf};

use libcgroups::common::{AnyCgroupManager, CgroupConfig, CgroupManager as _, ControllerOpt, create_cgroup_manager};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;
use runlet_core::execution::Usage;

/// Where the cgroup file systems of this host are mounted.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchies {
    /// v1 mounts: their controllers and the mount point.
    v1: Vec<(Vec<String>, PathBuf)>,
    /// The v2 mount, alone or beside v1 ones (hybrid).
    v2: Option<PathBuf>,
}

/// How swap can be limited on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Swap {
    /// Not at all: the kernel does not count it.
    Uncounted,
    /// Together with memory (v1).
    WithMemory,
    /// By a limit of its own (v2).
    Alone,
}

/// The cgroup of one sandbox (or the parent of all), in every hierarchy.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    hierarchies: Hierarchies,
    /// Absolute path below each mount point, without the leading slash.
    path: PathBuf,
}

impl Hierarchies {
    /// Reads the mounts of this process.
    ///
    /// # Errors
    /// When /proc/self/mountinfo cannot be read.
    pub(crate) fn find() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self { v1: Vec::new(), v2: None };
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let (Some(point), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else { continue };
            match kind {
                "cgroup2" => found.v2 = Some(PathBuf::from(point)),
                "cgroup" => {
                    let options = right.split(' ').nth(2).unwrap_or_default();
                    let controllers = options.split(',').map(str::to_owned).collect();
                    found.v1.push((controllers, PathBuf::from(point)));
                }
                _ => {}
            }
        }
        found
    }

    /// The cgroup at the absolute path `path` (for example `/runlet/sandbox-1`).
    #[must_use]
    pub(crate) fn cgroup(&self, path: &str) -> Cgroup {
        Cgroup { hierarchies: self.clone(), path: PathBuf::from(path.trim_start_matches('/')) }
    }
}

impl Cgroup {
    /// Directory in the v1 hierarchy of `controller`, or in v2 where v1 has none.
    fn of(&self, controller: &str) -> Option<PathBuf> {
        let v1 = self.hierarchies.v1.iter().find(|(controllers, _)| controllers.iter().any(|name| name == controller));
        v1.map(|(_, point)| point).or(self.hierarchies.v2.as_ref()).map(|point| point.join(&self.path))
    }

    /// The directories that exist.
    fn directories(&self) -> Vec<PathBuf> {
        let points = self.hierarchies.v1.iter().map(|(_, point)| point).chain(&self.hierarchies.v2);
        points.map(|point| point.join(&self.path)).filter(|path| path.is_dir()).collect()
    }

    fn read(&self, controller: &str, v1: &str, v2: &str) -> Option<String> {
        let directory = self.of(controller)?;
        std::fs::read_to_string(directory.join(v1)).or_else(|_| std::fs::read_to_string(directory.join(v2))).ok()
    }

    /// How often the kernel has killed in it for lack of memory.
    #[must_use]
    pub(crate) fn oom_kills(&self) -> u64 {
        let text = self.read("memory", "memory.oom_control", "memory.events").unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// CPU time and peak memory so far, as far as the kernel tells.
    #[must_use]
    pub(crate) fn usage(&self) -> Usage {
        let number = |text: String| text.trim().parse::<i64>().ok();
        let cpu_v1 = self.of("cpuacct").and_then(|dir| std::fs::read_to_string(dir.join("cpuacct.usage")).ok());
        let cpu_us = match cpu_v1 {
            Some(nanoseconds) => number(nanoseconds).map(|ns| ns / 1_000),
            None => {
                self.of("cpu").and_then(|dir| std::fs::read_to_string(dir.join("cpu.stat")).ok()).and_then(|text| {
                    text.lines().find_map(|line| line.strip_prefix("usage_usec ")).and_then(|us| us.trim().parse().ok())
                })
            }
        };
        let memory_peak = self.read("memory", "memory.max_usage_in_bytes", "memory.peak").and_then(number);
        Usage { cpu_us, memory_peak, ..Usage::default() }
    }

    /// The files that tell CPU time and peak memory; `None` where the kernel has none.
    #[must_use]
    pub(crate) fn meters(&self) -> Option<(PathBuf, PathBuf)> {
        let there = |controller: &str, names: [&str; 2]| {
            let directory = self.of(controller)?;
            names.into_iter().map(|name| directory.join(name)).find(|path| path.exists())
        };
        let cpu = there("cpuacct", ["cpuacct.usage", "cpu.stat"]).or_else(|| there("cpu", ["cpu.stat", "cpu.stat"]))?;
        Some((cpu, there("memory", ["memory.max_usage_in_bytes", "memory.peak"])?))
    }

    /// Processes in it and below it, by any hierarchy.
    #[must_use]
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for directory in self.directories() {
            collect_processes(&directory, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// How many of its directories exist.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.directories().len()
    }

    /// Kills every process in it and waits until none is left, `patience` at most. Returns whether none is.
    #[must_use]
    pub(crate) fn kill_all(&self, patience: std::time::Duration) -> bool {
        let until = std::time::Instant::now() + patience;
        loop {
            let processes = self.processes();
            if processes.is_empty() {
                return true;
            }
            for pid in processes {
                // The process may have ended since: that is what is wanted.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            if std::time::Instant::now() > until {
                return false;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// Removes its directories, the deepest first. A directory that is busy for a moment is tried again.
    pub(crate) fn remove(&self) {
        for directory in self.directories() {
            for _ in 0..50 {
                match remove_tree(&directory) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        std::thread::sleep(std::time::Duration::from_millis(2));
                    }
                    _ => break,
                }
            }
        }
    }

    /// Names of the cgroups directly below it.
    #[must_use]
    pub(crate) fn children(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .directories()
            .iter()
            .filter_map(|directory| std::fs::read_dir(directory).ok())
            .flat_map(|entries| entries.flatten().filter(|entry| entry.path().is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The child called `name`.
    #[must_use]
    pub(crate) fn child(&self, name: &str) -> Self {
        Self { hierarchies: self.hierarchies.clone(), path: self.path.join(name) }
    }

    /// Sets limits live.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn apply(&self, resources: &LinuxResources) -> Result<(), String> {
        let manager: AnyCgroupManager = create_cgroup_manager(CgroupConfig {
            cgroup_path: Path::new("/").join(&self.path),
            systemd_cgroup: false,
            container_name: self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        })
        .map_err(|error| error.to_string())?;
        let options = ControllerOpt { resources, disable_oom_killer: false, oom_score_adj: None, freezer_state: None };
        manager.apply(&options).map_err(|error| error.to_string())
    }

    /// Changes limits of a cgroup with processes in it.
    ///
    /// # Errors
    /// That more memory is in use than there would be, or what the kernel said.
    pub(crate) fn resize(&self, memory: u64, resources: &LinuxResources) -> Result<(), String> {
        resize::memory(&self.of("memory").ok_or("there is no memory controller")?, memory)?;
        self.apply(resources)
    }

    /// How swap can be limited on this host.
    #[must_use]
    pub(crate) fn swap(hierarchies: &Hierarchies) -> Swap {
        let v1 = hierarchies.v1.iter().find(|(controllers, _)| controllers.iter().any(|name| name == "memory"));
        let counted = match v1 {
            Some((_, point)) => point.join("memory.memsw.limit_in_bytes").exists(),
            // A kernel with swap counts it in v2 unless it was told not to. That none is in use now says nothing about later.
            None => {
                let told = std::fs::read_to_string("/proc/cmdline").is_ok_and(|line| line.contains("swapaccount=0"));
                Path::new("/proc/swaps").exists() && !told
            }
        };
        match (counted, v1) {
            (false, _) => Swap::Uncounted,
            (true, Some(_)) => Swap::WithMemory,
            (true, None) => Swap::Alone,
        }
    }
}

fn collect_processes(directory: &Path, found: &mut Vec<i32>) {
    if let Ok(text) = std::fs::read_to_string(directory.join("cgroup.procs")) {
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    }
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect_processes(&entry.path(), found);
        }
    }
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_pure_hosts_are_understood() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let cgroup = Hierarchies::parse(hybrid).cgroup("/runlet/a");
        assert_eq!(cgroup.of("memory"), Some(PathBuf::from("/sys/fs/cgroup/memory/runlet/a")));
        assert_eq!(cgroup.of("cpuacct"), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/runlet/a")));
        let pure = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let cgroup = Hierarchies::parse(pure).cgroup("/runlet/a");
        assert_eq!(cgroup.of("memory"), Some(PathBuf::from("/sys/fs/cgroup/runlet/a")));
    }
}

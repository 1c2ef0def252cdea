//! The OCI spec of a sandbox: the sealed profile as data.
//!
//! The zygote's side builds it from a typed request; no spec and no host path ever comes from the server. There is no seccomp
//! section: the filter is loaded by init (see [`crate::seccomp`]). There is no sysfs: nothing that runs here needs it.

use std::collections::HashMap;
use std::path::Path;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder, LinuxDeviceCgroupBuilder,
    LinuxIdMappingBuilder, LinuxMemoryBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
    Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use runlet_core::engine::Network;
use runlet_core::limits::Limits;

use crate::cgroup::Swap;
use crate::uid_range;

/// Period of the CPU quota, microseconds.
const CPU_PERIOD: u64 = 100_000;
/// Open files a process in a sandbox may have, where the host allows as many.
const OPEN_FILES: u64 = 4096;

/// Parts of /proc that tell about the host or let one write to it.
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];
/// Parts that may be read and not written; devices work all the same.
const READ_ONLY: [&str; 6] = ["/dev", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a spec is made from.
#[derive(Debug)]
pub(crate) struct SpecInput<'a> {
    /// Where the root file system is staged.
    pub(crate) root: &'a Path,
    /// Absolute path of the sandbox's cgroup.
    pub(crate) cgroup: &'a str,
    /// Host id that is 0 inside.
    pub(crate) first_uid: u32,
    /// Limits.
    pub(crate) limits: &'a Limits,
    /// How swap can be limited on this host.
    pub(crate) swap: Swap,
    /// Most open files this process could grant.
    pub(crate) open_files_max: u64,
    /// What of the network it sees.
    pub(crate) network: Network,
}

/// Builds the spec.
///
/// # Errors
/// When a builder misses a field: a fault of this file.
pub(crate) fn build(input: &SpecInput<'_>) -> Result<Spec, OciSpecError> {
    let ids =
        LinuxIdMappingBuilder::default().host_id(input.first_uid).container_id(0_u32).size(uid_range::SIZE).build()?;
    use LinuxNamespaceType as Ns;
    let namespaces = [Ns::User, Ns::Pid, Ns::Mount, Ns::Ipc, Ns::Uts, Ns::Cgroup, Ns::Network]
        .into_iter()
        // Without one of its own it stays in ours, which is the host's.
        .filter(|kind| *kind != Ns::Network || input.network == Network::None)
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build())
        .collect::<Result<Vec<_>, _>>()?;
    let paths = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    let linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .uid_mappings(vec![ids])
        .gid_mappings(vec![ids])
        .cgroups_path(input.cgroup)
        .resources(resources(input.limits, input.swap)?)
        .rootfs_propagation("private")
        .masked_paths(paths(&MASKED))
        .readonly_paths(paths(&READ_ONLY))
        .build()?;
    SpecBuilder::default()
        .version("1.0.2")
        .hostname("runlet")
        .root(RootBuilder::default().path(input.root).readonly(true).build()?)
        .mounts(mounts(input.limits)?)
        .process(process(input.open_files_max)?)
        .linux(linux)
        .build()
}

/// Limits as the kernel takes them.
///
/// # Errors
/// When a builder misses a field: a fault of this file.
pub(crate) fn resources(limits: &Limits, swap: Swap) -> Result<LinuxResources, OciSpecError> {
    let bytes = i64::try_from(limits.memory.0).unwrap_or(i64::MAX);
    let mut memory = LinuxMemoryBuilder::default().limit(bytes);
    let mut resources = LinuxResourcesBuilder::default();
    match swap {
        Swap::Uncounted => {}
        // Memory and swap together: no swap at all.
        Swap::WithMemory => memory = memory.swap(bytes),
        // libcgroups takes a difference of 0 for "not set" here, which would be swap without a bound.
        Swap::Alone => resources = resources.unified(HashMap::from([("memory.swap.max".to_owned(), "0".to_owned())])),
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most 1024 CPUs of 100,000 microseconds")]
    let quota = ((limits.cpu * 100_000.0) as i64).max(1_000);
    resources
        .memory(memory.build()?)
        .cpu(LinuxCpuBuilder::default().quota(quota).period(CPU_PERIOD).build()?)
        .pids(LinuxPidsBuilder::default().limit(i64::from(limits.pids)).build()?)
        .devices(vec![LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?])
        .build()
}

fn mounts(limits: &Limits) -> Result<Vec<Mount>, OciSpecError> {
    let mount = |target: &str, kind: &str, options: Vec<String>| {
        MountBuilder::default().destination(target).typ(kind).source(kind).options(options).build()
    };
    let options = |list: &[&str]| list.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>();
    let scratch = |mode: &str| {
        let mut all = options(&["nosuid", "nodev"]);
        all.extend([format!("mode={mode}"), format!("size={}", limits.tmp.0), "nr_inodes=16384".to_owned()]);
        all
    };
    Ok(vec![
        mount("/proc", "proc", options(&["nosuid", "noexec", "nodev"]))?,
        mount("/dev", "tmpfs", options(&["nosuid", "noexec", "mode=755", "size=64k"]))?,
        mount("/dev/shm", "tmpfs", scratch("1777"))?,
        mount("/tmp", "tmpfs", scratch("1777"))?,
    ])
}

fn process(open_files_max: u64) -> Result<Process, OciSpecError> {
    // Absent capabilities would mean all of them: five empty sets, always.
    let none = Capabilities::default;
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(none())
        .effective(none())
        .inheritable(none())
        .permitted(none())
        .ambient(none())
        .build()?;
    let limit = |kind, value: u64| -> Result<PosixRlimit, OciSpecError> {
        PosixRlimitBuilder::default().typ(kind).soft(value).hard(value).build()
    };
    let rlimits = vec![
        limit(PosixRlimitType::RlimitNofile, OPEN_FILES.min(open_files_max))?,
        limit(PosixRlimitType::RlimitCore, 0)?,
    ];
    ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(0_u32).gid(0_u32).umask(0o022_u32).build()?)
        // Never executed: init is a function of this binary. libcontainer wants a program and a PATH all the same.
        .args(vec!["runlet-init".to_owned()])
        .env(vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned()])
        .cwd("/")
        .capabilities(capabilities)
        .rlimits(rlimits)
        .no_new_privileges(true)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sealed_profile_is_what_it_was() {
        let input = SpecInput {
            root: Path::new("/run/runlet/stage"),
            cgroup: "/runlet/sandbox",
            first_uid: 0x7000_0000,
            limits: &Limits::default(),
            swap: Swap::WithMemory,
            open_files_max: 20_000,
            network: Network::None,
        };
        insta::assert_json_snapshot!(build(&input).expect("it builds"));
    }
}

//! What this kernel offers for sandboxes. Looks only: nothing is made, and libcontainer is not asked.
//!
//! Each probe is a function of what the kernel tells (texts of `/proc` and `/sys`), so that hosts that are not at hand can be tested.

use std::path::Path;
use std::process::{Command, Stdio};

use runlet_core::finding::Finding;

use crate::sys::mount::seal_tree;

/// What every sandbox needs bounded.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// The namespaces of a sandbox, as they are named in `/proc/self/ns`.
const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];

/// Looks at everything.
#[must_use]
pub fn host() -> Vec<Finding> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mountinfo = read("/proc/self/mountinfo");
    vec![
        root(nix::unistd::Uid::effective().is_root()),
        kernel(read("/proc/sys/kernel/osrelease").trim(), seal_tree(Path::new("/nonexistent")).err()),
        namespaces(|name| Path::new("/proc/self/ns").join(name).exists()),
        user_namespaces(read("/proc/sys/user/max_user_namespaces").trim(), made_namespaces()),
        cgroups(&mountinfo, &read("/proc/cgroups"), |point| read(&format!("{point}/cgroup.controllers"))),
        cgroups_writable(&mountinfo),
        proc_visible(&mountinfo),
        seccomp(&read("/proc/sys/kernel/seccomp/actions_avail")),
        overlay(&read("/proc/filesystems")),
    ]
}

fn root(root: bool) -> Finding {
    if root {
        return Finding::ok("root", "this runs as root, as the server does at its start");
    }
    Finding::degraded(
        "root",
        "this does not run as root",
        "the server needs root at its start, and some points below may look worse than they are",
        "run `sudo runlet doctor`",
    )
}

fn kernel(release: &str, mount_setattr: Option<std::io::Error>) -> Finding {
    const NAME: &str = "kernel";
    if mount_setattr.is_some_and(|error| error.raw_os_error() == Some(libc::ENOSYS)) {
        return Finding::missing(
            NAME,
            format!("Linux {release} has no mount_setattr"),
            "the root file system of a sandbox cannot be made read-only, and mounts cannot be id-mapped",
            "use Linux 5.12 or newer, or let the container that runlet runs in make this call",
        );
    }
    Finding::ok(NAME, format!("Linux {release}, with mount_setattr (read-only and id-mapped mounts)"))
}

fn namespaces(there: impl Fn(&str) -> bool) -> Finding {
    const NAME: &str = "namespaces";
    let lacking: Vec<&str> = NAMESPACES.into_iter().filter(|name| !there(name)).collect();
    if lacking.is_empty() {
        return Finding::ok(NAME, NAMESPACES.join(", "));
    }
    Finding::missing(
        NAME,
        format!("this kernel has no namespaces of the kind {}", lacking.join(", ")),
        "no sandbox can be made",
        "use a kernel with CONFIG_NAMESPACES and the kinds above",
    )
}

/// Whether a process in namespaces of its own can be made; `None` where there is no program to try it with.
fn made_namespaces() -> Option<Result<(), String>> {
    let flags =
        ["--user", "--map-root-user", "--mount", "--pid", "--ipc", "--uts", "--net", "--cgroup", "--fork", "true"];
    let output = Command::new("unshare").args(flags).stdin(Stdio::null()).output().ok()?;
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Some(if output.status.success() { Ok(()) } else { Err(told) })
}

fn user_namespaces(most: &str, made: Option<Result<(), String>>) -> Finding {
    const NAME: &str = "user namespaces";
    let effect = "no sandbox can be made: each has a user namespace of its own";
    if most == "0" {
        let remedy = "sysctl -w user.max_user_namespaces=15000, and the same in /etc/sysctl.d";
        return Finding::missing(NAME, "user.max_user_namespaces is 0", effect, remedy);
    }
    match made {
        Some(Err(told)) => Finding::missing(
            NAME,
            format!("one could not be made: {told}"),
            effect,
            "let the container or security module (AppArmor, SELinux) that runlet runs under make namespaces",
        ),
        Some(Ok(())) => Finding::ok(NAME, "one was made and is gone again"),
        None => Finding::ok(NAME, format!("up to {most}; not tried, for there is no `unshare` here")),
    }
}

/// A mount as `mountinfo` tells it.
struct Mount<'a> {
    point: &'a str,
    options: &'a str,
    kind: &'a str,
    super_options: &'a str,
}

fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (own, rest) = line.split_once(" - ")?;
        let mut own = own.split(' ').skip(4);
        let mut rest = rest.split(' ');
        let (point, options) = (own.next()?, own.next()?);
        Some(Mount { point, options, kind: rest.next()?, super_options: rest.nth(1)? })
    })
}

fn cgroups(mountinfo: &str, table: &str, controllers: impl Fn(&str) -> String) -> Finding {
    const NAME: &str = "cgroups";
    let v2 = mounts(mountinfo).find(|mount| mount.kind == "cgroup2").map(|mount| mount.point.to_owned());
    let v1: Vec<&str> = mounts(mountinfo)
        .filter(|mount| mount.kind == "cgroup")
        .flat_map(|mount| mount.super_options.split(','))
        .filter(|name| table.lines().any(|line| line.split('\t').next() == Some(*name)))
        .collect();
    let of_v2 = v2.as_deref().map(&controllers).unwrap_or_default();
    let has = |name: &&str| v1.contains(name) || of_v2.split_whitespace().any(|have| have == *name);
    let version = match (&v2, v1.is_empty()) {
        (None, true) => "none",
        (None, false) => "v1",
        (Some(_), true) => "v2",
        (Some(_), false) => "v1 and v2 (hybrid)",
    };
    let lacking: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !has(name)).collect();
    if lacking.is_empty() {
        return Finding::ok(NAME, format!("{version}, with {}", CONTROLLERS.join(", ")));
    }
    Finding::missing(
        NAME,
        format!("{version}, without {}", lacking.join(", ")),
        "sandboxes cannot be limited, and what cannot be limited is not run",
        "mount the hierarchy (`mount -t cgroup2 none /sys/fs/cgroup`), or switch the controllers on at boot \
         (cgroup_enable=memory)",
    )
}

fn cgroups_writable(mountinfo: &str) -> Finding {
    const NAME: &str = "cgroup file system";
    let read_only = |mount: &Mount<'_>| mount.options.split(',').any(|option| option == "ro");
    match mounts(mountinfo).find(|mount| mount.kind.starts_with("cgroup") && read_only(mount)) {
        None => Finding::ok(NAME, "writable"),
        Some(mount) => Finding::missing(
            NAME,
            format!("{} is mounted read-only", mount.point),
            "no cgroup can be made for a sandbox",
            "start the container that runlet runs in with a writable cgroup file system (privileged, or \
             --cgroupns=private with a writable mount), and set cgroup_parent",
        ),
    }
}

/// A new `/proc` may be mounted in a user namespace only where nothing of the host's one is hidden.
fn proc_visible(mountinfo: &str) -> Finding {
    const NAME: &str = "/proc";
    let hidden: Vec<&str> = mounts(mountinfo)
        .map(|mount| mount.point)
        .filter(|point| point.starts_with("/proc/") && *point != "/proc/sys/fs/binfmt_misc")
        .collect();
    if hidden.is_empty() {
        return Finding::ok(NAME, "nothing of it is masked");
    }
    Finding::missing(
        NAME,
        format!("parts of it are masked: {}", hidden.join(", ")),
        "the kernel lets no sandbox mount a /proc of its own",
        "start the container that runlet runs in with an unmasked /proc (Docker: --security-opt systempaths=unconfined; \
         Kubernetes: procMount: Unmasked)",
    )
}

fn seccomp(actions: &str) -> Finding {
    const NAME: &str = "seccomp";
    let has = |name: &str| actions.split_whitespace().any(|action| action == name);
    if has("kill_process") && has("errno") {
        return Finding::ok(NAME, "filters, with kill_process and errno");
    }
    Finding::missing(
        NAME,
        "this kernel takes no filters",
        "no code is run without its filter of system calls",
        "use a kernel with CONFIG_SECCOMP_FILTER",
    )
}

fn overlay(filesystems: &str) -> Finding {
    const NAME: &str = "overlayfs";
    if filesystems.lines().any(|line| line.split_whitespace().last() == Some("overlay")) {
        return Finding::ok(NAME, "known to the kernel");
    }
    Finding::degraded(
        NAME,
        "not known to the kernel",
        "image = \"host\" needs none; images of layers would",
        "modprobe overlay",
    )
}

#[cfg(test)]
mod tests {
    use runlet_core::finding::Health;

    use super::*;

    const HYBRID: &str = "\
        30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        31 24 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
        33 24 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const TABLE: &str = "#subsys_name\thierarchy\nmemory\t4\npids\t8\ncpu\t1\ncpuacct\t2\n";
    const PURE: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn cgroups_are_known_in_all_their_versions() {
        let look = |mountinfo, v2: &str| cgroups(mountinfo, TABLE, |_| v2.to_owned());
        assert_eq!(look(HYBRID, "").health, Health::Ok);
        assert_eq!(look(PURE, "cpuset cpu memory pids\n").found, "v2, with memory, pids, cpu");
        let lacking = look(PURE, "cpu pids\n");
        assert_eq!((lacking.health, lacking.found.as_str()), (Health::Missing, "v2, without memory"));
        assert_eq!(look("", "").found, "none, without memory, pids, cpu");
    }

    #[test]
    fn what_containers_take_away_is_named() {
        assert_eq!(cgroups_writable(PURE).health, Health::Ok);
        assert_eq!(cgroups_writable(&PURE.replace("rw,nosuid", "ro,nosuid")).health, Health::Missing);
        assert_eq!(proc_visible(PURE).health, Health::Ok);
        let masked = proc_visible("40 30 0:50 / /proc/kcore rw - tmpfs tmpfs rw\n");
        assert_eq!(masked.health, Health::Missing);
        assert!(masked.found.contains("/proc/kcore"));
        assert_eq!(user_namespaces("0", Some(Ok(()))).health, Health::Missing);
        assert_eq!(user_namespaces("15000", Some(Err("Operation not permitted".to_owned()))).health, Health::Missing);
        assert_eq!(user_namespaces("15000", None).health, Health::Ok);
    }

    #[test]
    fn old_kernels_are_named() {
        let nosys = || Some(std::io::Error::from_raw_os_error(libc::ENOSYS));
        assert_eq!(kernel("5.10.0", nosys()).health, Health::Missing);
        assert_eq!(kernel("6.1.0", Some(std::io::Error::from_raw_os_error(libc::ENOENT))).health, Health::Ok);
        assert_eq!(namespaces(|name| name != "user").health, Health::Missing);
        assert_eq!(seccomp("kill_process kill_thread trap errno allow").health, Health::Ok);
        assert_eq!(seccomp("").health, Health::Missing);
        assert_eq!(overlay("nodev\tproc\n").health, Health::Degraded);
        assert_eq!(overlay("nodev\tproc\nnodev\toverlay\n").health, Health::Ok);
    }

    #[test]
    fn this_machine_can_run_sandboxes() {
        let missing: Vec<_> = host().into_iter().filter(|finding| finding.health == Health::Missing).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

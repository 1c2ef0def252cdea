//! How much memory this host can give to sandboxes: three quarters of what there is, or of what a cgroup leaves us.

use std::fs;
use std::path::{Path, PathBuf};

use runlet_core::unit::ByteSize;

/// What is assumed where the kernel does not tell.
const FALLBACK: u64 = 512 << 20;

/// The default for the key `memory`, in whole mebibytes.
pub(super) fn for_sandboxes() -> ByteSize {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let limit =
        fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| own_limit(&text, Path::new("/sys/fs/cgroup")));
    let least = total.into_iter().chain(limit).min().unwrap_or(FALLBACK);
    ByteSize::mib(((least >> 20) / 4 * 3).max(32))
}

/// `MemTotal` of /proc/meminfo, bytes.
fn total(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The tightest memory limit of our own cgroups, v1 or v2: a parent's limit binds too.
fn own_limit(cgroups: &str, root: &Path) -> Option<u64> {
    let mut tightest = None;
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (top, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let leaf: PathBuf = top.join(path.trim_start_matches('/'));
        for dir in leaf.ancestors().take_while(|dir| dir.starts_with(&top)) {
            // `max` and a missing file are no number, and so no limit.
            let limit = fs::read_to_string(dir.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok());
            tightest = tightest.into_iter().chain(limit).min();
        }
    }
    tightest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        assert_eq!(total("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(2048 * 1024));
        assert_eq!(total("nothing"), None);
    }

    #[test]
    fn the_tightest_limit_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, text).expect("written");
        };
        put("a/memory.max", "1000\n");
        put("a/b/memory.max", "max\n");
        put("memory/x/memory.limit_in_bytes", "2000\n");
        assert_eq!(own_limit("0::/a/b\n", dir.path()), Some(1000));
        assert_eq!(own_limit("3:memory:/x\n1:name=systemd:/a\n", dir.path()), Some(2000));
        assert_eq!(own_limit("0::/c\n", dir.path()), None);
    }
}

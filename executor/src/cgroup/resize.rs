//! Memory limits that change under processes.

use std::fs;
use std::io;
use std::path::Path;

use runlet_core::unit::ByteSize;

/// Sets the memory limit of the cgroup in `directory`, which has processes.
///
/// v1 has two limits, of memory and of memory with swap, and refuses a moment at which the first is above the second: upwards the
/// second goes first, downwards the first. v2 kills when a limit is below what is in use: so that is looked at before.
///
/// # Errors
/// That more is in use than there would be, or what the kernel said.
pub(super) fn memory(directory: &Path, limit: u64) -> Result<(), String> {
    let used = in_use(directory);
    if used.is_some_and(|used| used > limit) {
        let used = ByteSize(used.unwrap_or_default());
        return Err(format!("{used} of memory are in use there now, more than {}", ByteSize(limit)));
    }
    let write = |file: &str| {
        fs::write(directory.join(file), limit.to_string()).map_err(|error| match error.raw_os_error() {
            Some(libc::EBUSY) => format!("more memory than {} is in use there now", ByteSize(limit)),
            _ => format!("write {limit} to {file}: {error}"),
        })
    };
    if directory.join("memory.max").exists() {
        return write("memory.max");
    }
    let (plain, with_swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
    if !directory.join(with_swap).exists() {
        return write(plain);
    }
    let before = number(&directory.join(plain)).map_err(|error| format!("read {plain}: {error}"))?;
    if limit > before {
        write(with_swap)?;
        write(plain)
    } else {
        write(plain)?;
        write(with_swap)
    }
}

/// Memory that the kernel cannot take back at once; `None` where it does not tell.
fn in_use(directory: &Path) -> Option<u64> {
    let current = directory.join("memory.current");
    let usage = if current.exists() { current } else { directory.join("memory.usage_in_bytes") };
    let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
    let row = |name: &str| {
        stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
    };
    let cached = row("total_inactive_file").or_else(|| row("inactive_file")).unwrap_or(0)
        + row("total_active_file").or_else(|| row("active_file")).unwrap_or(0);
    Some(number(&usage).ok()?.saturating_sub(cached))
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the files of a cgroup, which takes anything.
    fn pretend(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    #[test]
    fn what_is_in_use_is_what_cannot_be_taken_back() {
        let two = pretend(&[
            ("memory.current", "1000\n"),
            ("memory.max", "2000\n"),
            ("memory.stat", "anon 500\ninactive_file 300\nactive_file 100\n"),
        ]);
        assert_eq!(in_use(two.path()), Some(600));
        let refused = memory(two.path(), 599).unwrap_err();
        assert!(refused.contains("600B of memory are in use there now, more than 599B"), "{refused}");
        assert_eq!(number(&two.path().join("memory.max")).unwrap(), 2000);
        memory(two.path(), 600).unwrap();
        assert_eq!(number(&two.path().join("memory.max")).unwrap(), 600);
        // v1 counts the same for a cgroup and for all below it.
        let one = pretend(&[
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.limit_in_bytes", "2000\n"),
            ("memory.memsw.limit_in_bytes", "2000\n"),
            ("memory.stat", "inactive_file 1\nactive_file 1\ntotal_inactive_file 300\ntotal_active_file 100\n"),
        ]);
        assert!(memory(one.path(), 599).is_err());
        memory(one.path(), 3000).unwrap();
        for file in ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] {
            assert_eq!(number(&one.path().join(file)).unwrap(), 3000);
        }
    }
}

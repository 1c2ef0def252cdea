//! CPU and memory of a process and all its descendants, from /proc.

use std::collections::HashMap;

/// Memory of one process.
pub(crate) struct Memory {
    pub(crate) name: String,
    pub(crate) rss_mb: f64,
    pub(crate) pss_mb: f64,
}

struct Stat {
    parent: u32,
    ticks: u64,
    name: String,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // After the name: state is 0, ppid 1, utime 11, stime 12, cutime 13, cstime 14.
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    let name = head.split_once('(')?.1.to_owned();
    Some(Stat { parent: u32::try_from(number(1)?).ok()?, ticks, name })
}

/// The process `root` and everything below it.
fn tree(root: u32) -> Vec<(u32, Stat)> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: HashMap<u32, Stat> = pids
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect();
    let below = |pid: u32| {
        let mut at = pid;
        for _ in 0..64 {
            if at == root {
                return true;
            }
            match all.get(&at) {
                Some(stat) if stat.parent != 0 => at = stat.parent,
                _ => return false,
            }
        }
        false
    };
    let wanted: Vec<u32> = all.keys().copied().filter(|pid| below(*pid)).collect();
    let mut found: Vec<(u32, Stat)> = wanted.into_iter().filter_map(|pid| Some((pid, stat(pid)?))).collect();
    found.sort_by_key(|(pid, _)| *pid);
    found
}

/// CPU time of the tree so far, microseconds, with that of its children that have ended.
pub(crate) fn cpu_us(root: u32) -> f64 {
    let ticks: u64 = tree(root).iter().map(|(_, stat)| stat.ticks).sum();
    // USER_HZ is 100 on every Linux that runlet runs on.
    ticks as f64 * 10_000.0
}

/// Memory of each process of the tree.
pub(crate) fn memory(root: u32) -> Vec<Memory> {
    tree(root)
        .into_iter()
        .filter_map(|(pid, stat)| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let kb = |key: &str| {
                let line = text.lines().find(|line| line.starts_with(key))?;
                line.split_whitespace().nth(1)?.parse::<f64>().ok()
            };
            Some(Memory { name: stat.name, rss_mb: kb("Rss:")? / 1024.0, pss_mb: kb("Pss:")? / 1024.0 })
        })
        .collect()
}

//! The meter of a sandbox: files of its cgroup that the shim has opened, read by the server between two calls.
//!
//! Two reads a call: CPU time, of which the call is billed what has come since the call before, and peak memory, which the kernel is told
//! to forget after a call that raised it. Where the kernel cannot forget, only a call that sets a new peak has a known one.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use runlet_core::execution::Usage;

use crate::cgroup::Cgroup;

/// Nothing was read yet.
const NOTHING: i64 = -1;

/// The files, and what they said last.
#[derive(Debug)]
pub(crate) struct Meter {
    cpu: File,
    peak: File,
    /// Whether the kernel can forget the peak.
    forgets: bool,
    /// CPU time at the end of the last call, microseconds.
    spent: AtomicI64,
    /// What the peak was after it was last forgotten, or else when it was last read.
    floor: AtomicI64,
}

/// Opens the files of a cgroup; `None` where the kernel has none.
pub(crate) fn open(cgroup: &Cgroup) -> Option<Vec<OwnedFd>> {
    let (cpu, peak) = cgroup.meters()?;
    let readable = |path: &Path| File::open(path).ok();
    let writable = |path: &Path| File::options().read(true).write(true).open(path).ok();
    let peak = writable(&peak).or_else(|| readable(&peak))?;
    Some(vec![readable(&cpu)?.into(), peak.into()])
}

impl Meter {
    /// The meter of the descriptors that [`open`] gave; `None` if they are not those.
    pub(crate) fn new(fds: Vec<OwnedFd>) -> Option<Self> {
        let [cpu, peak] = <[OwnedFd; 2]>::try_from(fds).ok()?;
        let (cpu, peak) = (File::from(cpu), File::from(peak));
        // Nothing has run in it that anybody would want to know the peak of.
        let forgets = peak.write_at(b"0", 0).is_ok();
        Some(Self { cpu, peak, forgets, spent: AtomicI64::new(0), floor: AtomicI64::new(NOTHING) })
    }

    /// What was used since this was asked last, or since the sandbox was made.
    pub(crate) fn bill(&self) -> Usage {
        let cpu_us = cpu(&self.cpu).map(|total| total - self.spent.swap(total, Ordering::Relaxed));
        Usage { cpu_us, memory_peak: self.peak(), ..Usage::default() }
    }

    fn peak(&self) -> Option<i64> {
        let peak = number(&self.peak)?;
        let floor = self.floor.load(Ordering::Relaxed);
        if peak != floor {
            let forgotten = self.forgets && self.peak.write_at(b"0", 0).is_ok();
            let now = if forgotten { number(&self.peak).unwrap_or(NOTHING) } else { peak };
            self.floor.store(now, Ordering::Relaxed);
            return Some(peak);
        }
        // It has not risen: either it was forgotten before the call, and this is what the call had, or it is an older one.
        self.forgets.then_some(peak)
    }

    /// What the last call has used of all that the sandbox has, which ended under it. Its peak is known if it is the highest.
    pub(crate) fn rest(&self, total: Usage) -> Usage {
        let spent = self.spent.load(Ordering::Relaxed);
        let floor = self.floor.load(Ordering::Relaxed);
        Usage {
            cpu_us: total.cpu_us.map(|total| total - spent),
            memory_peak: total.memory_peak.filter(|peak| *peak > floor),
            ..total
        }
    }
}

/// CPU time, microseconds: v2 says it in the first line of a table, v1 in nanoseconds.
fn cpu(file: &File) -> Option<i64> {
    let mut bytes = [0; 64];
    let text = text(file, &mut bytes)?;
    match text.strip_prefix("usage_usec ") {
        Some(rest) => rest.split_once('\n')?.0.parse().ok(),
        None => text.trim_end().parse::<i64>().ok().map(|nanoseconds| nanoseconds / 1_000),
    }
}

fn number(file: &File) -> Option<i64> {
    text(file, &mut [0; 32])?.trim_end().parse().ok()
}

fn text<'a>(file: &File, bytes: &'a mut [u8]) -> Option<&'a str> {
    let length = file.read_at(bytes, 0).ok()?;
    std::str::from_utf8(bytes.get(..length)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        file
    }

    #[test]
    fn both_kinds_of_files_are_read() {
        assert_eq!(cpu(&file("1234567\n")), Some(1234));
        assert_eq!(cpu(&file(&format!("usage_usec 1234\nuser_usec 1000\n{}", "x 1\n".repeat(40)))), Some(1234));
        assert_eq!(number(&file("4096\n")), Some(4096));
        assert_eq!(number(&file("max\n")), None);
    }

    #[test]
    fn a_peak_that_cannot_be_forgotten_is_told_once() {
        let meter = Meter {
            cpu: file("1000000\n"),
            peak: file("100\n"),
            forgets: false,
            spent: AtomicI64::new(0),
            floor: AtomicI64::new(NOTHING),
        };
        let first = meter.bill();
        assert_eq!((first.cpu_us, first.memory_peak), (Some(1000), Some(100)));
        let second = meter.bill();
        assert_eq!((second.cpu_us, second.memory_peak), (Some(0), None), "the peak is that of the call before");
        meter.peak.write_all_at(b"200\n", 0).unwrap();
        assert_eq!(meter.bill().memory_peak, Some(200));
    }
}

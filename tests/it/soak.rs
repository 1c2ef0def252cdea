//! Many sandboxes and many warm calls: whatever the host counts stays as it was. `make verify-soak` does it in full size, for
//! 50 minutes at most.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::host::TestHost;
use super::leaks;
use super::wait::{scaled, secs, until};

/// Calls at a time.
const LANES: usize = 4;
/// Sandboxes that are started ahead, for python: as many as first calls come at once. Those for exec, of which each call takes one, are
/// fewer than that, and none in the small form: a rush of calls makes more of them, and is forgotten after a minute only.
const PYTHON: u32 = 4;

/// What must not grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    server_fds: usize,
    zygote_fds: usize,
    mounts: usize,
    cgroups: usize,
    network_namespaces: usize,
    uid_ranges: usize,
}

/// Memory of server and zygote, KiB.
#[derive(Debug, Clone, Copy)]
struct Memory {
    server: u64,
    zygote: u64,
}

fn zygote(host: &TestHost) -> u32 {
    let found = leaks::children(host.pid()).into_iter().find(|(_, name)| name == "runlet-zygote");
    found.expect("the server has a zygote").0
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

/// Ranges of user ids that somebody holds: their files are locked.
fn uid_ranges() -> usize {
    let files = std::fs::read_dir("/run/runlet/uids").expect("there are ranges").flatten();
    let held = |path: &std::path::Path| {
        let file = std::fs::File::open(path).expect("it is readable");
        matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
    };
    files.filter(|entry| held(&entry.path())).count()
}

fn counts(host: &TestHost) -> Counts {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("it is readable");
    Counts {
        server_fds: host.descriptors(),
        zygote_fds: descriptors(zygote(host)),
        mounts: mounts.lines().count(),
        cgroups: host.traces.cgroups().len(),
        network_namespaces: leaks::network_namespaces().len(),
        uid_ranges: uid_ranges(),
    }
}

fn memory(host: &TestHost) -> Memory {
    let of = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    Memory { server: of(host.pid()), zygote: of(zygote(host)) }
}

/// Calls `function` so often, several at a time, until `until` at most; how often it did.
fn calls(host: &TestHost, function: &str, times: usize, until: Instant) -> usize {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < times && Instant::now() < until {
                    host.call(function, &json!(1)).expect(200);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    done.into_inner()
}

/// Waits until nothing but so many stems is there.
fn quiet(host: &TestHost, stems: u32) {
    until("only stems are left", secs(150), || {
        let capacity = &host.get("/v1/capacity")["capacity"];
        capacity["sandboxes"] == stems && capacity["stems"] == stems
    });
}

#[test]
fn after_many_sandboxes_and_calls_the_host_is_as_it_was() {
    let exec = scaled(0, 2);
    let host = TestHost::builder().set("idle_timeout", "\"1s\"").stems(PYTHON, 0, exec).alone().start();
    host.shell("fresh", "", "cat");
    host.python("warm", "max_concurrency = 4\n", "def handle(event, context):\n    return event\n");
    let span = scaled(secs(30), Duration::from_secs(25 * 60));
    // What is kept for good is made by the first ones.
    calls(&host, "fresh", scaled(10, 500), Instant::now() + span);
    calls(&host, "warm", scaled(500, 50_000), Instant::now() + span);
    quiet(&host, PYTHON + exec);
    let (before, memory_before) = (counts(&host), memory(&host));
    let sandboxes = calls(&host, "fresh", scaled(40, 10_000), Instant::now() + span);
    let warm = calls(&host, "warm", scaled(1_500, 1_000_000), Instant::now() + span);
    quiet(&host, PYTHON + exec);
    // Connections of the test and of the database close a moment later.
    until("descriptors and all else are as before", secs(60), || {
        let now = counts(&host);
        now.server_fds <= before.server_fds + 2 && Counts { server_fds: before.server_fds, ..now } == before
    });
    let (after, memory_after) = (counts(&host), memory(&host));
    let bound = |kib: u64| kib + kib / 4 + 16 * 1024;
    assert!(memory_after.server <= bound(memory_before.server), "{memory_before:?} {memory_after:?}");
    assert!(memory_after.zygote <= bound(memory_before.zygote), "{memory_before:?} {memory_after:?}");
    if let Some(path) = std::env::var_os("RUNLET_VERIFY_TABLE") {
        let mut text = format!("{sandboxes} sandboxes made and destroyed, {warm} warm calls, {LANES} at a time.\n\n");
        text.push_str("| | before | after |\n|---|---|---|\n");
        let rows = [
            ("descriptors of the server", before.server_fds, after.server_fds),
            ("descriptors of the zygote", before.zygote_fds, after.zygote_fds),
            ("mounts of the host", before.mounts, after.mounts),
            ("cgroups", before.cgroups, after.cgroups),
            ("network namespaces", before.network_namespaces, after.network_namespaces),
            ("uid ranges held", before.uid_ranges, after.uid_ranges),
        ];
        for (what, before, after) in rows {
            let _ = writeln!(text, "| {what} | {before} | {after} |");
        }
        let _ = writeln!(text, "| RSS of the server, KiB | {} | {} |", memory_before.server, memory_after.server);
        let _ = writeln!(text, "| RSS of the zygote, KiB | {} | {} |", memory_before.zygote, memory_after.zygote);
        std::fs::write(path, text).expect("it is writable");
    }
    host.finish();
}

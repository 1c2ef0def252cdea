//! A disk that gets full: below the floor nothing new is taken and what runs goes on; when it is full for real, nothing accepted is lost.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::calls::GITHUB_TRIGGER;
use super::host::TestHost;
use super::wait::{secs, until};

/// A small file system, with the data directory of a server on it.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    pub(crate) at: PathBuf,
}

impl SmallDisk {
    pub(crate) fn mount(at: PathBuf, mib: u32) -> Self {
        std::fs::create_dir(&at).expect("it is not there yet");
        let size = format!("size={mib}m,mode=0711");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "runlet-test"]).arg(&at).status();
        assert!(done.expect("mount is there").success(), "root may mount a tmpfs");
        Self { at }
    }

    /// Fills it but for about `mib`.
    fn fill(&self, mib: u64) {
        let file = std::fs::File::create(self.at.join("ballast")).expect("it is writable");
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
        // The server writes meanwhile: what was free a moment ago may not be any more.
        until("the ballast has found room", secs(10), || {
            let free = nix::sys::statvfs::statvfs(&self.at).expect("it is mounted");
            let free = free.blocks_available() * free.fragment_size();
            let size = i64::try_from(free.saturating_sub(mib << 20)).expect("it is small").max(1);
            match nix::fcntl::fallocate(descriptor, nix::fcntl::FallocateFlags::empty(), 0, size) {
                Err(nix::errno::Errno::ENOSPC) => false,
                done => done.map(|()| true).expect("a tmpfs can do it"),
            }
        });
    }

    fn free(&self) {
        std::fs::remove_file(self.at.join("ballast")).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: after a failed test something may still use it.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        let _ = std::fs::remove_dir(&self.at);
    }
}

const WAIT: &str =
    "import time\n\ndef handle(event, context):\n    print('x' * 200000)\n    time.sleep(event)\n    return 1\n";

#[test]
fn below_the_floor_new_work_is_refused_and_what_runs_goes_on_record() {
    let host = TestHost::builder().set("disk_floor", "\"64MiB\"").small_disk(320).start();
    host.python("f", GITHUB_TRIGGER, WAIT);
    host.call("f", &json!(0)).expect(200);
    let running = host.submit("f", &json!(3));
    let waiting = host.submit("f", &json!(0));
    host.in_state(&running, "running");
    host.disk().fill(32);
    until("the floor is noticed", secs(5), || host.call("f", &json!(0)).status == 503);
    let async_call = host.call_request("f").header("Prefer", "respond-async").json(&json!(0));
    let archive = host.http("PUT", "/v1/functions/g").header("Content-Type", "application/x-tar").body("x");
    for request in [host.call_request("f"), async_call, host.github("push", "d", b"{}"), archive] {
        let answer = request.send().expect(503);
        assert_eq!(answer.code(), "disk_low", "{}", answer.text());
        assert_eq!(answer.header("Retry-After"), Some("60"));
    }
    assert_eq!(host.get("/v1/deliveries")["deliveries"], json!([]), "a refused delivery is not on record");
    // What was accepted before is done and on record, output included.
    for id in [&running, &waiting] {
        let settled = host.settled(id);
        assert_eq!(settled["state"], "succeeded", "{settled}");
        let execution = settled["executions"][0].as_str().expect("an id");
        assert_eq!(host.logs(execution, "stdout").len(), 200_001);
    }
    let size = host.get("/v1/history/size");
    assert!(size["history"]["disk_free"].as_u64() < size["history"]["disk_floor"].as_u64(), "{size}");
    host.disk().free();
    until("it takes work again by itself", secs(5), || host.call("f", &json!(0)).status == 200);
    host.github("push", "d", b"{}").send().expect(202);
    host.finish();
}

#[test]
fn a_disk_that_is_really_full_loses_nothing_that_was_accepted() {
    let host = TestHost::builder().set("disk_floor", "\"0B\"").small_disk(320).start();
    host.python("f", "max_concurrency = 2\n", WAIT);
    let mut accepted: Vec<String> = (0..8).map(|_| host.submit("f", &json!(0.2))).collect();
    host.disk().fill(0);
    // Bodies of their own, so that the disk is hit at once: some may still fit.
    let mut refused = 0;
    for n in 0..40 {
        let event = json!(format!("{n}{}", "y".repeat(300_000)));
        let answer = host.call_request("f").header("Prefer", "respond-async").json(&event).send();
        match answer.status {
            202 => accepted.push(answer.json()["invocation"]["id"].as_str().expect("an id").to_owned()),
            503 => refused += 1,
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!(refused > 0, "the disk was full");
    host.disk().free();
    until("it takes work again by itself", secs(30), || host.call("f", &json!(0)).status == 200);
    for id in &accepted {
        let settled = host.settled(id);
        assert!(settled["state"] == "succeeded" || settled["outcome"]["kind"] == "error", "{settled}");
    }
    host.finish();
}

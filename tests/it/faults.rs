//! Faults of what the server stands on: its shims, its zygote, its Postgres.

use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::calls::GITHUB_TRIGGER;
use super::host::TestHost;
use super::leaks::{children, parent};
use super::wait::{secs, until};

const SLEEP: &str =
    "import time\n\ndef handle(event, context):\n    print('go')\n    time.sleep(event)\n    return context.attempt\n";

fn kill_9(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("it runs");
}

/// The private Postgres is away and cannot come back.
pub(crate) struct Outage {
    control: PathBuf,
    away: PathBuf,
}

impl Outage {
    pub(crate) fn begin(host: &TestHost) -> Self {
        // Without its control file Postgres cannot start again.
        let control = host.postgres_dir().join("global/pg_control");
        let away = control.with_extension("away");
        std::fs::rename(&control, &away).expect("root may");
        kill_9(child(host, "postgres"));
        Self { control, away }
    }

    /// The server may start it again.
    pub(crate) fn end(self) {
        std::fs::rename(&self.away, &self.control).expect("root may");
    }
}

/// The child of the server whose name begins with `name`.
fn child(host: &TestHost, name: &str) -> u32 {
    let all = children(host.pid());
    all.iter().find(|(_, comm)| comm.starts_with(name)).unwrap_or_else(|| panic!("no {name} among {all:?}")).0
}

#[test]
fn a_dead_shim_ends_its_sandbox_and_the_work_is_done_again() {
    let host = TestHost::start();
    host.python("f", "timeout = \"1m\"\n", SLEEP);
    let id = host.submit("f", &json!(1.5));
    let execution = host.in_state(&id, "running")["executions"][0].as_str().expect("an id").to_owned();
    let piece = host.http("GET", &format!("/v1/executions/{execution}/logs?wait=20s")).send().expect(200);
    assert_eq!(piece.body, b"go\n");
    let inside = host.traces.sandboxed();
    // The shim is the first of the ancestors that is not in the sandbox's own pid namespace.
    let init = inside.iter().copied().find(|pid| parent(*pid).is_some_and(|parent| !inside.contains(&parent)));
    let shim = init.and_then(parent).expect("the sandbox has an init, and that a shim");
    assert_ne!(shim, host.pid());
    kill_9(shim);
    until("all that was inside is dead", secs(5), || !inside.iter().any(|pid| host.traces.sandboxed().contains(pid)));
    let settled = host.settled(&id);
    assert_eq!((&settled["state"], &settled["attempts"]), (&json!("succeeded"), &json!(2)), "{settled}");
    assert_eq!(host.execution(&execution)["outcome"]["kind"], "lost");
    host.finish();
}

#[test]
fn without_its_zygote_the_server_ends_and_says_so() {
    let mut host = TestHost::start();
    host.python("f", "timeout = \"1m\"\n", SLEEP);
    let id = host.submit("f", &json!(0.5));
    host.in_state(&id, "running");
    host.traces.note_family(host.pid());
    kill_9(child(&host, "runlet"));
    let status = host.wait_end();
    assert_eq!(status.code(), Some(1), "{status}");
    assert!(host.log().contains("zygote"), "{}", host.log());
    host.restart();
    assert_eq!(host.settled(&id)["state"], "succeeded");
    host.finish();
}

#[test]
fn while_its_postgres_is_away_nothing_is_accepted_and_then_all_goes_on() {
    let host = TestHost::start();
    host.python("f", GITHUB_TRIGGER, "def handle(event, context):\n    return 1\n");
    host.call("f", &json!(null)).expect(200);
    let outage = Outage::begin(&host);
    let asynchronous = host.call_request("f").header("Prefer", "respond-async");
    for request in [host.github("push", "d", b"{}"), asynchronous, host.http("GET", "/v1/functions")] {
        let answer = request.send().expect(503);
        assert_eq!(answer.code(), "store_down");
        assert!(answer.header("Retry-After").is_some());
    }
    host.http("GET", "/healthz").send().expect(503);
    outage.end();
    until("deliveries are accepted again", secs(60), || host.github("push", "d", b"{}").send().status == 202);
    until("it is healthy", secs(10), || host.http("GET", "/healthz").send().status == 200);
    until("calls work", secs(10), || host.call("f", &json!(null)).status == 200);
    let deliveries = host.get("/v1/deliveries")["deliveries"].as_array().map(Vec::len);
    assert_eq!(deliveries, Some(1), "a delivery that got a 503 is not on record");
    let id = host.get("/v1/deliveries")["deliveries"][0]["invocations"][0].as_str().expect("an id").to_owned();
    assert_eq!(host.settled(&id)["state"], "succeeded");
    host.finish();
}

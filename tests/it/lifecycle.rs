//! Start, drop of privileges, stop and sudden death of the server.

use std::collections::BTreeMap;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use super::host::{TestHost, runlet};
use super::leaks::network_namespaces;
use super::wait::{secs, until};

const SLEEP: &str = "import time\n\ndef handle(event, context):\n    time.sleep(event)\n    return 1\n";

/// `/proc/<pid>/status` by key.
fn status(pid: u32) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn the_server_gives_up_its_privileges() {
    let host = TestHost::start();
    let uid = Command::new("id").args(["-u", "runlet"]).output().expect("id is there").stdout;
    let uid = String::from_utf8_lossy(&uid).trim().to_owned();
    assert_ne!(uid, "0");
    let status = status(host.pid());
    assert_eq!(status["Uid"], [uid.as_str(); 4].join("\t"));
    assert!(!status["Gid"].split('\t').any(|gid| gid == "0"), "{}", status["Gid"]);
    assert!(!status["Groups"].split(' ').any(|gid| gid == "0"), "{}", status["Groups"]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set].trim_start_matches('0'), "", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    host.finish();
}

#[test]
fn without_seccomp_it_does_not_start() {
    let mut host = TestHost::start();
    assert!(host.stop().success());
    let serve = host.serve_command();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/security/no_seccomp.py");
    let output = Command::new("/usr/bin/python3")
        .arg(script)
        .arg(serve.get_program())
        .args(serve.get_args())
        .envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .output()
        .expect("python3 is there");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("does not load the seccomp filter"), "{told}");
    host.finish();
}

#[test]
fn a_soft_stop_lets_running_calls_end() {
    let mut host = TestHost::start();
    host.python("f", "", SLEEP);
    host.call("f", &json!(0)).expect(200);
    let request = host.call_request("f").json(&json!(2));
    let (answer, ended) = std::thread::scope(|scope| {
        let call = scope.spawn(|| request.send());
        let running =
            || host.get("/v1/executions?state=running")["executions"].as_array().is_some_and(|list| list.len() == 1);
        until("the call runs", secs(20), running);
        let ended = host.stop();
        (call.join().expect("it does not panic"), ended)
    });
    assert_eq!(answer.expect(200).text(), "1");
    assert!(ended.success(), "{ended}");
    host.finish();
}

#[test]
fn a_stop_does_not_wait_for_ever_and_accepted_work_goes_on_after_it() {
    let mut host = TestHost::builder().set("stop_grace", "\"1s\"").start();
    host.python("f", "timeout = \"1m\"\n", SLEEP);
    host.python("quick", "", SLEEP);
    let long = host.submit("f", &json!(30));
    host.in_state(&long, "running");
    let start = std::time::Instant::now();
    assert!(host.stop().success());
    assert!(start.elapsed() < secs(10), "{:?}", start.elapsed());
    host.traces.expect_none(secs(5));
    host.restart();
    // It was accepted: it is run again, or it says how it ended; it is never forgotten.
    let after = host.invocation(&long);
    assert!(["queued", "running"].iter().any(|state| after["state"] == *state), "{after}");
    host.http("POST", &format!("/v1/invocations/{long}/cancel")).send().expect(200);
    host.settled(&long);
    host.call("quick", &json!(0)).expect(200);
    host.finish();
}

#[test]
fn kill_9_leaves_no_postgres_and_the_next_start_reconciles() {
    let mut host = TestHost::start();
    host.python("f", "timeout = \"1m\"\n", SLEEP);
    host.python("once", "timeout = \"1m\"\non_lost = \"fail\"\n", SLEEP);
    host.call("f", &json!(0)).expect(200);
    let retried = host.submit("f", &json!(2));
    let failed = host.submit("once", &json!(50));
    host.in_state(&retried, "running");
    host.in_state(&failed, "running");
    let lost = host.invocation(&retried)["executions"][0].as_str().expect("an id").to_owned();
    let postgres = std::fs::read_to_string(host.postgres_dir().join("postmaster.pid")).expect("it runs");
    let postgres: u32 = postgres.lines().next().and_then(|line| line.parse().ok()).expect("a pid");
    host.kill9();
    until("the private Postgres is gone", secs(5), || !std::path::Path::new(&format!("/proc/{postgres}")).exists());
    host.restart();
    let settled = host.settled(&retried);
    assert_eq!((&settled["state"], &settled["attempts"]), (&json!("succeeded"), &json!(2)), "{settled}");
    assert_eq!(host.execution(&lost)["state"], "lost");
    let settled = host.settled(&failed);
    assert_eq!((&settled["state"], &settled["outcome"]["kind"]), (&json!("failed"), &json!("lost")), "{settled}");
    host.finish();
}

#[test]
fn kill_9_of_the_server_ends_what_ran_in_its_sandboxes() {
    let mut host = TestHost::start();
    host.shell("daemon", "timeout = \"1m\"\n", "setsid sh -c 'sleep 3600' & sleep 3600");
    let id = host.submit("daemon", &json!(null));
    host.in_state(&id, "running");
    host.kill9();
    host.restart();
    host.http("POST", &format!("/v1/invocations/{id}/cancel")).send().expect(200);
    host.settled(&id);
    host.traces.wait_no_sandbox(secs(10));
    host.finish();
}

#[test]
fn many_sandboxes_leave_no_descriptor_and_no_namespace() {
    let host = TestHost::builder().alone().start();
    let before = network_namespaces();
    host.shell("f", "", "true");
    for _ in 0..5 {
        host.call("f", &json!(null)).expect(200);
    }
    host.traces.wait_no_sandbox(secs(5));
    let descriptors = host.descriptors();
    for _ in 0..super::wait::scaled(40, 1000) {
        host.call("f", &json!(null)).expect(200);
    }
    host.traces.wait_no_sandbox(secs(5));
    until("the descriptors are back", secs(5), || host.descriptors() <= descriptors + 2);
    host.finish();
    until("the network namespaces are back", secs(5), || network_namespaces().len() <= before.len());
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let host = TestHost::start();
    let output = host.serve_command().output().expect("it is built");
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains(&host.pid().to_string()), "it names the server that is there: {message}");
    host.http("GET", "/healthz").send().expect(200);
    host.finish();
}

#[test]
fn mistakes_in_the_configuration_are_named_before_anything_starts() {
    let dir = tempfile::tempdir_in("/var/tmp").expect("it is writable");
    let config = dir.path().join("config.toml");
    let cases: [(&str, &[&str]); 5] = [
        ("lisen = \"127.0.0.1:0\"\n", &["config.toml:1", "lisen"]),
        ("listen = \"0.0.0.0:0\"\n", &["behind_proxy"]),
        ("memory = \"1GB\"\n", &["config.toml:1", "memory", "GiB"]),
        ("[secrets.x]\nfile = \"/nowhere/at/all\"\n", &["secrets.x", "/nowhere/at/all"]),
        ("[secrets.x]\nnamespaces = [\"default\"]\n", &["secrets.x", "file", "env"]),
    ];
    for (text, words) in cases {
        std::fs::write(&config, text).expect("it is writable");
        let mut command = runlet();
        let output =
            command.args(["serve", "--config"]).arg(&config).arg("--data-dir").arg(dir.path().join("data")).output();
        let output = output.expect("it is built");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{text}");
        for word in words {
            assert!(message.contains(word), "no {word:?} in: {message}");
        }
    }
}

#[test]
fn a_second_signal_skips_the_grace() {
    let mut host = TestHost::builder().set("stop_grace", "\"60s\"").start();
    host.python("f", "timeout = \"5m\"\n", SLEEP);
    let id = host.submit("f", &json!(200));
    host.in_state(&id, "running");
    host.signal(Signal::SIGTERM);
    until("it takes no new calls", secs(10), || {
        host.http("GET", "/healthz").try_send().map_or(true, |answer| answer.status == 503)
    });
    host.signal(Signal::SIGTERM);
    let start = std::time::Instant::now();
    host.wait_end();
    assert!(start.elapsed() < secs(15), "{:?}", start.elapsed());
    host.traces.expect_none(secs(5));
}

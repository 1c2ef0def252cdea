//! From one release to the next, on the same data: `make verify-upgrade` builds the previous release and names its binary in
//! `RUNLET_PREVIOUS`. Small, with rows of that release from a file, it is `core/tests/store/upgrade.rs`.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use super::calls::GITHUB_TRIGGER;
use super::host::{Builder, TestHost};

const ECHO: &str = "def handle(event, context):\n    print('old', event)\n    return {'event': event}\n";
const SLOW: &str = "import time\n\ndef handle(event, context):\n    time.sleep(event)\n    return context.attempt\n";

fn previous() -> PathBuf {
    std::env::var_os("RUNLET_PREVIOUS").expect("tests/verify.sh upgrade names the previous release's binary").into()
}

/// What the previous release leaves behind.
struct Left {
    execution: String,
    delivery: String,
    failed: String,
    queued: Vec<String>,
    token: String,
    invocation: Value,
}

fn work(host: &TestHost) -> Left {
    host.python("echo", GITHUB_TRIGGER, ECHO);
    host.python("slow", "max_concurrency = 1\n", SLOW);
    host.python("bad", "", "def handle(event, context):\n    raise ValueError('old')\n");
    host.shell("sh", "", "cat; echo to-stderr >&2");
    let answer = host.call("echo", &json!({"n": 1})).expect(200);
    let execution = host.executed(&answer);
    assert_eq!(host.call_request("sh").body("x").send().expect(200).body, b"x");
    host.call("bad", &json!(1)).expect(502);
    let failed = host.get("/v1/executions?function=bad")["executions"][0]["id"].as_str().expect("an id").to_owned();
    let delivery = host.github("push", "d-1", b"{\"ref\": \"refs/heads/main\"}").send().expect(202).json();
    host.settled(delivery["invocations"][0]["id"].as_str().expect("an id"));
    let token =
        host.http("POST", "/v1/tokens").json(&json!({"name": "old", "role": "invoker"})).send().expect(201).json();
    // More than can end before it stops.
    let queued = (0..6).map(|_| host.submit("slow", &json!(2))).collect();
    Left {
        invocation: host.invocation(execution["invocation"].as_str().expect("an id")),
        execution: execution["id"].as_str().expect("an id").to_owned(),
        delivery: delivery["delivery"].as_str().expect("an id").to_owned(),
        failed,
        queued,
        token: token["secret"].as_str().expect("it is told once").to_owned(),
    }
}

/// Everything is there, and works.
fn check(host: &TestHost, left: &Left) {
    let id = left.invocation["id"].as_str().expect("an id");
    assert_eq!(host.invocation(id), left.invocation);
    assert_eq!(host.get(&format!("/v1/invocations/{id}/result")), json!({"event": {"n": 1}}));
    assert_eq!(host.get(&format!("/v1/invocations/{id}/payload")), json!({"n": 1}));
    assert_eq!(host.logs(&left.execution, "stdout"), b"old {'n': 1}\n");
    let failed = host.execution(&left.failed);
    assert_eq!((&failed["outcome"]["kind"], &failed["outcome"]["error"]["message"]), (&json!("error"), &json!("old")));
    let body = host.http("GET", &format!("/v1/deliveries/{}/body", left.delivery)).send().expect(200).body;
    assert_eq!(body, b"{\"ref\": \"refs/heads/main\"}");
    for id in &left.queued {
        assert_eq!(host.settled(id)["state"], "succeeded");
    }
    // Functions that nobody has deployed again, by all doors, with a token of before.
    assert_eq!(host.value("echo", &json!(2)), json!({"event": 2}));
    assert_eq!(host.call_request("sh").anonymous().bearer(&left.token).body("y").send().expect(200).body, b"y");
    let repeated = host.github("push", "d-1", b"{\"ref\": \"refs/heads/main\"}").send().expect(202).json();
    assert_eq!(repeated["invocations"][0]["repeated"], true);
    let fresh = host.github("push", "d-2", b"{}").send().expect(202).json();
    assert_eq!(host.settled(fresh["invocations"][0]["id"].as_str().expect("an id"))["state"], "succeeded");
}

#[test]
#[ignore = "needs the previous release's binary: make verify-upgrade"]
fn the_next_release_takes_over_all_data_and_work() {
    let mut host = Builder::default().binary(previous()).start();
    let left = work(&host);
    if let Some(path) = std::env::var_os("RUNLET_DUMP") {
        host.dump(&PathBuf::from(path));
    }
    host.stop();
    host.use_binary(None);
    host.restart();
    check(&host, &left);
    host.stop();
    // There is no way back, and it is said.
    host.use_binary(Some(previous()));
    let refused = host.serve_command().stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("it is built");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("newer than this binary knows"), "{said}");
    host.use_binary(None);
    host.restart();
    check(&host, &left);
    host.finish();
}

#[test]
#[ignore = "needs the previous release's binary: make verify-upgrade"]
fn the_previous_release_works_on_the_next_ones_schema() {
    let host = Builder::default().binary(previous()).start();
    let left = work(&host);
    let applied: i64 = host.psql("SELECT max(version) FROM _sqlx_migrations").parse().expect("a number");
    let mut files: Vec<PathBuf> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"))
        .expect("it is there")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    for file in files {
        let name = file.file_name().and_then(|name| name.to_str()).expect("ASCII").to_owned();
        let version: i64 = name.split('_').next().and_then(|number| number.parse().ok()).expect("a number");
        if version > applied {
            host.psql(&std::fs::read_to_string(&file).expect("it is readable"));
        }
    }
    check(&host, &left);
    host.finish();
}

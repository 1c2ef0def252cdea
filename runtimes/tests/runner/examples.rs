//! The examples that a newcomer deploys, run as they are.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use runlet_runtimes::archive::{normalise, pack};
use serde_json::{Value, json};

use crate::peer::Runner;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_example_can_be_deployed() {
    let directories = std::fs::read_dir(root().join("examples")).expect("it is there");
    let mut count = 0;
    for example in directories.map(|found| found.expect("it is readable").path()).filter(|path| path.is_dir()) {
        let packed = pack(&example).expect("an example has no mistakes");
        let name = normalise(&packed).expect("the server agrees").manifest.name;
        assert_eq!(example.file_name().and_then(|name| name.to_str()), Some(name.as_str()));
        count += 1;
    }
    assert!(count >= 2);
}

#[test]
fn on_push_reads_a_real_push() {
    let code = std::fs::read_to_string(root().join("examples/on-push/main.py")).expect("it is there");
    let push = std::fs::read(root().join("tests/fixtures/webhooks/github/push.json")).expect("it is there");
    let want: Value = serde_json::from_slice(&push).expect("it is JSON");
    let mut runner = Runner::ready(&code);
    let output = runner.collect_output();
    let result = runner.call_with("json", &push).json();
    assert_eq!(result["repository"], want["repository"]["full_name"]);
    assert_eq!(result["ref"], want["ref"]);
    assert_eq!(result["head"], want["after"]);
    assert_eq!(result["delivery"], "dlv_1");
    // A branch that is deleted has no commits and no head.
    let gone = json!({"ref": "refs/heads/x", "repository": {"full_name": "o/r"}, "pusher": {"name": "p"},
        "commits": [], "head_commit": null});
    assert_eq!(runner.call(&gone).json()["commits"], 0);
    assert_eq!(runner.bye(), Some(0));
    let said = String::from_utf8(output().stdout).expect("it is text");
    assert!(said.starts_with(&format!("{}: 1 commit(s) to", result["repository"].as_str().expect("text"))), "{said}");
}

#[test]
fn hello_sh_always_answers_with_json() {
    let script = root().join("examples/hello-sh/hello.sh");
    for (event, name) in [
        (r#"{"name": "newcomer"}"#, "newcomer"),
        ("{\n  \"name\":\n  \"Ada L.\"\n}\n", "Ada L."),
        (r#"{"name": "a\"b $(id)"}"#, "a"),
        ("", "world"),
        ("null", "world"),
    ] {
        let mut child = Command::new(&script)
            .env_clear()
            .envs([("PATH", "/usr/bin:/bin"), ("GREETING", "Hello"), ("RUNLET_FUNCTION", "hello-sh")])
            .envs([("RUNLET_EXECUTION", "exe_1"), ("RUNLET_ATTEMPT", "1")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it is executable");
        child.stdin.take().expect("it is a pipe").write_all(event.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success());
        let answer: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        assert_eq!(answer, json!({"greeting": format!("Hello, {name}!"), "function": "hello-sh"}), "{event:?}");
        assert!(output.stderr.starts_with(b"execution exe_1, attempt 1, "));
    }
}

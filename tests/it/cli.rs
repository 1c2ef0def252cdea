//! The command line: what each verb prints on stdout and on stderr, and its exit code.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::calls::{python_manifest, write_function};
use super::host::{TestHost, runlet};

const CODE: &str = r#"
import sys, time

def handle(event, context):
    print("hello from", context.function)
    print("to stderr", file=sys.stderr)
    if event and event.get("raise"):
        raise ValueError("as asked")
    time.sleep((event or {}).get("sleep", 0))
    return {"you sent": event}
"#;

/// What a person sees, with everything that differs from run to run replaced.
fn shown(host: &TestHost, output: &Output) -> String {
    let text = format!(
        "exit {}\n--- stdout\n{}--- stderr\n{}",
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    text.replace(&host.address().to_string(), "ADDRESS").replace(host.data_dir().to_str().expect("ASCII"), "DATA")
}

/// Checks against the stored snapshot of that name.
macro_rules! snapshot {
    ($name:expr, $text:expr) => {
        let mut settings = insta::Settings::clone_current();
        settings.add_filter(r"(inv|exe|dlv|trg|tok)_[0-9a-z]{26}", "${1}_ID");
        settings.add_filter(r"rl_[0-9a-z]{52}", "rl_SECRET");
        settings.add_filter(r"sha256:[0-9a-f]{64}", "sha256:DIGEST");
        settings.add_filter(r"\b[0-9a-f]{12}\b", "DIGEST");
        settings.add_filter(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00| UTC)?", "TIME");
        settings.add_filter(r"\b\d+(\.\d+)?\s?(us|µs|ms|s)\b( ago)?", "SPAN");
        settings.add_filter(r"\b(python|exec)-\d+-\d+", "SANDBOX");
        settings.add_filter(r"/var/tmp/runlet-test-[^\s]+", "PATH");
        settings.add_filter(r"memory peak: +[0-9.]+ .iB", "memory peak:  SIZE");
        settings.add_filter(r" {2,}", "  ");
        settings.add_filter(r"(?m) +$", "");
        settings.set_prepend_module_to_snapshot(false);
        settings.bind(|| insta::assert_snapshot!($name, $text));
    };
}

fn run(host: &TestHost, name: &str, args: &[&str]) -> Output {
    let output = host.cli(args);
    snapshot!(name, shown(host, &output));
    output
}

#[test]
fn what_a_newcomer_types() {
    let host = TestHost::start();
    let dir = host.scratch();
    let trigger = format!("{}events = [\"push\"]\n", super::calls::GITHUB_TRIGGER);
    write_function(&dir, &[("function.toml", &python_manifest("hello", &trigger)), ("main.py", CODE)]);
    let dir = dir.to_str().expect("ASCII");
    run(&host, "functions_none", &["functions"]);
    run(&host, "deploy_new", &["deploy", dir]);
    run(&host, "deploy_unchanged", &["deploy", dir]);
    run(&host, "functions", &["functions"]);
    run(&host, "invoke", &["invoke", "hello", "--data", r#"{"n": 1}"#]);
    run(&host, "invoke_failed", &["invoke", "hello", "--data", r#"{"raise": true}"#]);
    run(&host, "invoke_unknown", &["invoke", "helo"]);
    run(&host, "invoke_bad_json", &["invoke", "hello", "--data", "{"]);
    run(&host, "executions", &["executions"]);
    run(&host, "executions_failed", &["executions", "--state", "failed", "--since", "1h", "--limit", "5"]);
    let execution = host.get("/v1/executions?state=failed")["executions"][0]["id"].as_str().expect("an id").to_owned();
    run(&host, "logs", &["logs", &execution]);
    run(&host, "logs_both", &["logs", &execution, "--stream", "both"]);
    run(&host, "show_execution", &["show", &execution]);
    run(&host, "rm", &["rm", "hello"]);
    run(&host, "rm_again", &["rm", "hello"]);
    host.finish();
}

#[test]
fn every_verb_speaks_json() {
    let host = TestHost::start();
    host.python("hello", "", CODE);
    let json = |args: &[&str]| -> Value {
        let output = host.cli(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    };
    assert_eq!(json(&["functions", "--json"])["functions"][0]["name"], "hello");
    let submitted = json(&["invoke", "hello", "--async", "--json", "--data", "{}"]);
    let id = submitted["invocation"]["id"].as_str().expect("an id").to_owned();
    host.settled(&id);
    assert_eq!(json(&["show", &id, "--json"])["invocation"]["state"], "succeeded");
    assert_eq!(json(&["executions", "--json"])["executions"][0]["invocation"], id.as_str());
    assert_eq!(json(&["deliveries", "--json"])["deliveries"], json!([]));
    let made = json(&["token", "create", "t", "--role", "viewer", "--json"]);
    assert!(made["secret"].as_str().is_some_and(|secret| secret.starts_with("rl_")));
    assert!(json(&["token", "ls", "--json"])["tokens"].as_array().is_some_and(|tokens| !tokens.is_empty()));
    host.finish();
}

#[test]
fn events_come_from_arguments_files_and_stdin() {
    let host = TestHost::start();
    host.python("echo", "", "def handle(event, context):\n    return event\n");
    let file = host.scratch().join("event.json");
    std::fs::write(&file, r#"{"from":"file"}"#).expect("it is writable");
    let from_file = host.cli(&["invoke", "echo", "--data", &format!("@{}", file.display())]);
    assert_eq!(from_file.stdout, br#"{"from":"file"}"#);
    let mut child =
        host.cli_command(&["invoke", "echo", "--data", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let child = child.as_mut().expect("it is built");
    child.stdin.take().expect("it is a pipe").write_all(b"raw bytes").expect("it reads");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("it is a pipe"), &mut said).expect("text");
    assert_eq!(said, "\"cmF3IGJ5dGVz\"", "a body that is no JSON comes as base64");
    assert!(child.wait().expect("it is ours").success());
    assert_eq!(host.cli(&["invoke", "echo"]).stdout, b"null");
    host.finish();
}

#[test]
fn the_async_door_prints_the_id_alone() {
    let host = TestHost::start();
    host.python("hello", "timeout = \"1m\"\n", CODE);
    let output = host.cli(&["invoke", "hello", "--async", "--data", r#"{"sleep": 50}"#]);
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(id.starts_with("inv_") && id.len() == 30, "{id:?}");
    let execution = host.in_state(&id, "running")["executions"][0].as_str().expect("an id").to_owned();
    let piece = host.http("GET", &format!("/v1/executions/{execution}/logs?wait=20s")).send().expect(200);
    assert_eq!(piece.body, b"hello from hello\n");
    run(&host, "cancel", &["cancel", &id]);
    host.settled(&id);
    run(&host, "cancel_again", &["cancel", &id]);
    assert_eq!(host.cli(&["logs", &id]).stdout, b"hello from hello\n");
    host.finish();
}

#[test]
fn logs_follow_until_the_end() {
    let host = TestHost::start();
    let code = "import time\n\ndef handle(event, context):\n    for n in range(5):\n        print(n, flush=True)\n        time.sleep(0.2)\n";
    host.python("slow", "", code);
    let id = host.submit("slow", &json!(null));
    host.in_state(&id, "running");
    let output = host.cli(&["logs", "-f", &id]);
    assert_eq!(output.stdout, b"0\n1\n2\n3\n4\n");
    assert!(output.status.success());
    host.finish();
}

#[test]
fn who_cannot_reach_a_server_is_told_what_to_type() {
    let host = TestHost::start();
    let nowhere = |command: &mut Command| {
        let output = command.arg("functions").output().expect("it is built");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, message) = nowhere(runlet().env("RUNLET_DATA_DIR", "/var/tmp/no-runlet-here"));
    assert_eq!(code, Some(69), "{message}");
    assert!(message.contains("/var/tmp/no-runlet-here/runlet.sock") && message.contains("runlet serve"), "{message}");
    let (code, message) = nowhere(runlet().env("RUNLET_HOST", "http://127.0.0.1:1"));
    assert_eq!(code, Some(69), "{message}");
    let (code, message) = nowhere(runlet().env("RUNLET_HOST", "https://127.0.0.1:1"));
    assert_eq!(code, Some(69), "{message}");
    assert!(message.contains("https://127.0.0.1:1"), "{message}");
    let url = format!("http://{}", host.address());
    let (code, message) = nowhere(runlet().env("RUNLET_HOST", &url));
    assert_eq!(code, Some(13), "{message}");
    assert!(message.contains("RUNLET_TOKEN"), "{message}");
    let (code, _) = nowhere(runlet().env("RUNLET_HOST", &url).env("RUNLET_TOKEN", host.token()));
    assert_eq!(code, Some(0));
    let usage = runlet().args(["invoke"]).output().expect("it is built");
    assert_eq!(usage.status.code(), Some(2));
    host.finish();
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let host = TestHost::start();
    host.python("big", "", "def handle(event, context):\n    return 'x' * 5_000_000\n");
    let mut child = host
        .cli_command(&["invoke", "big"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is built");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
    host.finish();
}

#[test]
fn doctor_tells_what_the_host_offers_with_and_without_a_server() {
    let host = TestHost::start();
    let look = |args: &[&str]| {
        let output = host.cli(args);
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).expect("JSON"))
    };
    let (code, with) = look(&["doctor", "--json"]);
    assert_eq!((code, &with["fit"]), (Some(0), &json!(true)), "{with}");
    let point = |findings: &Value, name: &str| {
        let all = findings["findings"].as_array().expect("a list").clone();
        all.into_iter().find(|finding| finding["point"] == name).unwrap_or_else(|| panic!("no {name} in {findings}"))
    };
    for name in ["kernel", "namespaces", "user namespaces", "cgroups", "seccomp", "/proc", "postgres", "disk", "listen"]
    {
        assert_eq!(point(&with, name)["health"], "ok", "{with}");
    }
    assert!(point(&with, "server")["found"].as_str().is_some_and(|found| found.contains("is well")), "{with}");

    let output = runlet().args(["doctor", "--data-dir", "/var/tmp/no-runlet-here"]).output().expect("it is built");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("none runs"), "{text}");
    let bad = host.scratch().join("bad.toml");
    std::fs::write(&bad, "listen = \"0.0.0.0:80\"\n").expect("writable");
    let (code, without) = look(&["doctor", "--json", "--config", bad.to_str().expect("ASCII")]);
    assert_eq!((code, &without["fit"]), (Some(69), &json!(false)), "{without}");
    assert_eq!(point(&without, "configuration")["health"], "missing");
    host.finish();
}

#[test]
fn shells_get_scripts_that_they_can_read() {
    for shell in ["bash", "zsh", "fish"] {
        let output = runlet().args(["completions", shell]).output().expect("it is built");
        let script = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && script.contains("rollback") && script.contains("doctor"), "{shell}");
    }
    // Bash is on every machine: it reads the script, and completes a verb by it.
    let complete = r#"source <("$0" completions bash); COMP_WORDS=(runlet rollb); COMP_CWORD=1; _runlet runlet rollb runlet; echo "${COMPREPLY[@]}""#;
    let output =
        Command::new("bash").args(["-c", complete, env!("CARGO_BIN_EXE_runlet")]).output().expect("bash is there");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "rollback",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

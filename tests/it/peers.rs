//! Senders by others: their libraries sign, their examples are sent, and the real server takes or refuses them.
//!
//! The programs are in `tests/peers`; they fail by themselves at the first answer that is not what it has to be.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::calls::GITHUB_TRIGGER;
use super::host::{HOOK_SECRET, TestHost};
use super::wait::{secs, until};

/// Two keys, as while one is changed for the other.
const KEYS: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\nwhsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// A signing token, and a token for a GitLab that does not sign yet.
pub(crate) const GITLAB: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\na plain token";

const KIND: &str = "def handle(event, context):\n    return context.cause.normalised['kind']\n";
const TYPE: &str = "def handle(event, context):\n    return event['type']\n";

/// The directory of the programs, with the packages that they need.
pub(crate) fn installed() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is below the target directory");
    let peers = target.join("peers");
    let installed = Command::new(here.join("install.sh")).arg(&peers).status().expect("bash is there");
    assert!(installed.success(), "tests/peers/install.sh failed");
    peers
}

/// Runs a program of `tests/peers` against the host; returns what it says it has done.
fn run(host: &TestHost, program: &str, secret: &str, args: &[PathBuf]) -> Value {
    let peers = installed();
    let interpreter = if program.ends_with(".py") { "/usr/bin/python3" } else { "node" };
    let output = Command::new(interpreter)
        .arg(peers.join(program))
        .args(args)
        .env("PYTHONPATH", peers.join("python"))
        .env("RUNLET_URL", format!("http://{}", host.address()))
        .env("RUNLET_TOKEN", host.token())
        .env("HOOK_SECRET", secret)
        .env("GITLAB_SECRET", GITLAB)
        .output()
        .expect("the interpreter is there");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it says what it has done")
}

/// Waits until all that was accepted has run, and runs of `function` were as many as said and went well.
fn all_ran(host: &TestHost, function: &str, runs: &Value) {
    until("the queue is empty", secs(120), || host.psql("SELECT count(*) FROM queue") == "0");
    let states = host.psql(&format!(
        "SELECT state || ' ' || count(*) FROM invocations WHERE function = '{function}' GROUP BY state ORDER BY state"
    ));
    assert_eq!(states, format!("succeeded {runs}"));
}

#[test]
fn githubs_examples_signed_by_githubs_library() {
    let host = TestHost::start();
    host.python("on-hook", GITHUB_TRIGGER, KIND);
    let done = run(&host, "github.mjs", HOOK_SECRET, &[]);
    let (sent, pings) = (done["sent"].as_u64().expect("a number"), done["pings"].as_u64().expect("a number"));
    assert!(sent > 300, "the examples are there: {done}");
    all_ran(&host, "on-hook", &(sent - pings).into());
    let verdicts = host.psql("SELECT verdict || ' ' || count(*) FROM deliveries GROUP BY verdict ORDER BY verdict");
    assert_eq!(verdicts, format!("accepted {}\nbad_signature {sent}\nignored {pings}", sent - pings));
    host.finish();
}

#[test]
fn standard_webhooks_and_gitlab_signed_by_the_official_libraries() {
    let host = TestHost::builder().own_secret("keys", KEYS).own_secret("gitlab", GITLAB).start();
    let trigger = |path: &str, adapter: &str, secret: &str| {
        format!("[[trigger]]\ntype = \"webhook\"\npath = \"{path}\"\nadapter = \"{adapter}\"\nsecret = \"{secret}\"\n")
    };
    let paid = format!("{}events = [\"invoice.paid\"]\n", trigger("standard", "standard-webhooks", "keys"));
    host.python("on-message", &paid, TYPE);
    host.python("on-gitlab", &trigger("gl", "gitlab", "gitlab"), KIND);

    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/webhooks/gitlab"));
    let more = std::env::var_os("RUNLET_TEST_PAYLOADS").map(|dir| PathBuf::from(dir).join("gitlab"));
    let payloads: Vec<PathBuf> = [Some(own), more].into_iter().flatten().collect();
    let python = run(&host, "standard.py", KEYS, &payloads);
    assert!(python["gitlab"].as_u64().is_some_and(|sent| sent >= 20), "the payloads are there: {python}");
    all_ran(&host, "on-gitlab", &python["gitlab"]);
    let node = run(&host, "standard.mjs", KEYS, &[]);
    let runs = python["run"].as_u64().zip(node["run"].as_u64()).map(|(python, node)| python + node);
    all_ran(&host, "on-message", &runs.into());
    host.finish();
}

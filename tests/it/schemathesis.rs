//! The API against its own document, by a peer: PyPI's schemathesis makes requests of all kinds, as each role and as nobody.
//!
//! No answer may be a fault of the server, have a status or a content type that is not described, or a body of another shape.
//! 10 seconds here; `make verify-api` takes 60 for each role and writes the table.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::json;

use super::host::TestHost;
use super::wait::scaled;

const VERSION: &str = "4.32.5";
const ROLES: [&str; 6] = ["none", "ci", "viewer", "invoker", "deployer", "admin"];
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

/// Where the tool is: installed into a directory of its own below `target` at the first use.
fn tool() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("schemathesis-{VERSION}"));
    let done = dir.join("installed");
    if !done.exists() {
        let _ = std::fs::remove_dir_all(&dir);
        let setup = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/setup.sh");
        run(Command::new(setup).args(["install", "tests"]));
        let quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--root-user-action=ignore"];
        let mut pip = python(&dir);
        pip.env_remove("PYTHONPATH");
        pip.args(["-m", "pip", "install"]).args(quiet).args(["--only-binary", ":all:", "--target"]).arg(&dir);
        run(pip.arg(format!("schemathesis=={VERSION}")));
        std::fs::write(done, "").expect("it is writable");
    }
    dir
}

/// Python, with what is installed in this directory.
fn python(dir: &Path) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/api");
    command.env("PYTHONPATH", format!("{}:{ours}", dir.display())).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("SCHEMATHESIS_HOOKS", "schemathesis_bodies").env("PYTHONHASHSEED", "0").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Starts a round of requests as this role; its report goes to `report`.
fn start(host: &TestHost, role: &str, report: &Path) -> Child {
    let url = format!("http://{}", host.address());
    let mut command = python(&tool());
    command.args(["-c", "import schemathesis.cli; schemathesis.cli.schemathesis()"]).args([
        "run",
        &format!("{url}/v1/openapi.json"),
        "--url",
        &url,
        "--checks",
        CHECKS,
        "--continue-on-failure",
    ]);
    command.args(["--no-color", "--warnings", "off", "--suppress-health-check", "all", "--request-timeout", "90"]);
    command.args(scaled(
        &["--phases", "coverage,fuzzing", "--generation-deterministic", "--max-time", "4"][..],
        &["--phases", "examples,coverage,fuzzing,stateful", "--generation-database", "none", "--max-time", "60"][..],
    ));
    if role != "none" {
        let made = host.http("POST", "/v1/tokens").json(&json!({"name": format!("a {role}"), "role": role})).send();
        let secret = made.expect(201).json()["secret"].as_str().expect("it is shown once").to_owned();
        command.args(["-H", &format!("Authorization: Bearer {secret}")]);
    }
    let file = std::fs::File::create(report).expect("it is writable");
    command.current_dir(report.parent().expect("it has one"));
    command.stdout(file.try_clone().expect("one more descriptor")).stderr(file).spawn().expect("it is installed")
}

#[test]
fn no_request_of_a_peer_gets_an_answer_that_is_not_described() {
    let host = TestHost::start();
    host.python("f", super::calls::GITHUB_TRIGGER, "def handle(event, context):\n    return event\n");
    let revision = host.get("/v1/functions/f")["function"]["revision"].clone();
    let alias = host.http("PUT", "/v1/functions/f/aliases/live").json(&json!({"revisions": [{"revision": revision}]}));
    alias.send().expect(201);
    host.call("f", &json!(1)).expect(200);
    host.github("push", "p", b"{}").send().expect(202);
    tool();
    let dir = host.scratch();
    // In the small size all at once, for most of the time goes into starting Python.
    let at_a_time = scaled(ROLES.len(), 1);
    let mut table = "| Role | Requests | Result | Seconds |\n|---|---|---|---|\n".to_owned();
    for roles in ROLES.chunks(at_a_time) {
        let begin = Instant::now();
        let rounds: Vec<_> = roles
            .iter()
            .map(|role| {
                let report = dir.join(format!("{role}.txt"));
                (*role, start(&host, role, &report), report)
            })
            .collect();
        for (role, mut round, report) in rounds {
            let status = round.wait().expect("it is our child");
            let text = std::fs::read_to_string(&report).expect("it was written");
            assert!(status.success(), "as {role}:\n{text}");
            let requests = text.lines().find_map(|line| Some(line.trim().split_once(" generated")?.0));
            let result =
                text.lines().rev().find(|line| line.contains("====") && line.contains(" in ")).unwrap_or_default();
            let _ = writeln!(
                table,
                "| {role} | {} | {} | {} |",
                requests.unwrap_or("?"),
                result.trim_matches(|c: char| c == '=' || c == ' '),
                begin.elapsed().as_secs()
            );
        }
    }
    if let Some(path) = std::env::var_os("RUNLET_VERIFY_TABLE") {
        std::fs::write(path, table).expect("it is writable");
    }
    host.finish();
}

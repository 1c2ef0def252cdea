//! Deploying: same content, same revision; and errors that name file, line or key and what to write instead.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::json;

use super::calls::{python_manifest, write_function};
use super::host::TestHost;

const CODE: &str = "def handle(event, context):\n    return 1\n";

#[test]
fn the_same_content_is_the_same_revision() {
    let host = TestHost::start();
    let first = host.deploy(&[("function.toml", &python_manifest("f", "")), ("main.py", CODE), ("lib/x.py", "")]);
    let revision = |host: &TestHost| host.get("/v1/functions/f")["function"]["revision"].clone();
    let digest = revision(&host);
    // Another directory, another time, a directory that packing passes over: the content is what counts.
    let second = host.scratch();
    write_function(&second, &[("main.py", CODE), ("lib/x.py", ""), ("function.toml", &python_manifest("f", ""))]);
    std::fs::create_dir(second.join("__pycache__")).expect("it is writable");
    std::fs::write(second.join("__pycache__/main.pyc"), "x").expect("it is writable");
    let output = host.cli(&["deploy", second.to_str().expect("ASCII"), "--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("--json prints JSON");
    assert_eq!(answer["new_revision"], false, "{answer}");
    assert_eq!(revision(&host), digest);
    std::fs::write(first.join("main.py"), CODE.replace('1', "2")).expect("it is writable");
    assert!(host.cli(&["deploy", first.to_str().expect("ASCII")]).status.success());
    assert_ne!(revision(&host), digest);
    assert_eq!(host.value("f", &json!(null)), json!(2));
    host.finish();
}

/// Deploys `dir`, which must be refused with all of `words` in the message.
fn refused(host: &TestHost, dir: &Path, words: &[&str]) {
    let output = host.cli(&["deploy", dir.to_str().expect("ASCII")]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{words:?} was accepted");
    assert!(output.stdout.is_empty());
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

#[test]
fn mistakes_are_named_with_place_and_remedy() {
    let host = TestHost::start();
    let dir = host.scratch();
    let manifest = |text: &str| write_function(&dir, &[("function.toml", text), ("main.py", CODE)]);
    let cases: [(&str, &[&str]); 11] = [
        ("memroy = \"128MiB\"\n", &["function.toml:5", "memroy", "memory"]),
        ("timeout = \"10sec\"\n", &["function.toml:5", "timeout", "10s"]),
        ("memory = \"128MB\"\n", &["function.toml:5", "memory", "128MiB"]),
        ("memory = \"32MiB\"\n", &["function.toml:5", "memory", "tmp", "40MiB"]),
        ("image = \"alpine\"\n", &["function.toml:5", "image", "host"]),
        ("[env]\nRUNLET_X = \"1\"\n", &["function.toml:6", "RUNLET_X"]),
        ("[env]\nX = { secret = \"nowhere\" }\n", &["nowhere", "secrets"]),
        ("[[trigger]]\ntype = \"cron\"\n", &["function.toml:5", "schedule", "0 3 * * *"]),
        ("[[trigger]]\ntype = \"queue\"\n", &["function.toml:5", "queue", "runlet queue ls"]),
        ("[[trigger]]\ntype = \"pigeon\"\n", &["function.toml:6", "webhook", "cron", "queue"]),
        ("[[trigger]]\ntype = \"webhook\"\npath = \"../x\"\n", &["function.toml:7", "path"]),
    ];
    for (rest, words) in cases {
        manifest(&python_manifest("f", rest));
        refused(&host, &dir, words);
    }
    for name in ["F", "-f", "a_b", "../f", "", "$(id)"] {
        manifest(&python_manifest(name, ""));
        refused(&host, &dir, &["function.toml:2", "name", "a-z"]);
    }
    assert_eq!(host.get("/v1/functions")["functions"], json!([]), "nothing was deployed");
    host.finish();
}

#[test]
fn a_handler_that_is_not_there_is_named() {
    let host = TestHost::start();
    let dir = host.scratch();
    write_function(&dir, &[("function.toml", &python_manifest("f", "")), ("mian.py", CODE)]);
    refused(&host, &dir, &["handler", "main.py", "mian.py"]);
    let exec = "schema = 1\nname = \"f\"\nruntime = \"exec\"\nhandler = \"run.sh\"\n";
    let dir = host.scratch();
    write_function(&dir, &[("function.toml", exec)]);
    refused(&host, &dir, &["handler", "run.sh"]);
    write_function(&dir, &[("run.sh", "echo\n")]);
    std::fs::set_permissions(dir.join("run.sh"), std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    refused(&host, &dir, &["run.sh", "chmod +x"]);
    refused(&host, &host.scratch(), &["function.toml"]);
    refused(&host, &dir.join("nowhere"), &["nowhere"]);
    host.finish();
}

#[test]
fn paths_that_leave_the_directory_are_refused_by_the_cli_and_by_the_server() {
    let host = TestHost::start();
    let dir = host.scratch();
    write_function(&dir, &[("function.toml", &python_manifest("f", "")), ("main.py", CODE)]);
    symlink("../../../../etc/passwd", dir.join("passwd")).expect("it is writable");
    refused(&host, &dir, &["passwd"]);
    // A client that does not check: the server does.
    let script = include_str!("../security/hostile_archives.py");
    let made = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(host.scratch())
        .output()
        .expect("python3 is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let archives: Vec<String> = String::from_utf8_lossy(&made.stdout).lines().map(str::to_owned).collect();
    assert!(archives.len() >= 10);
    for archive in archives {
        let body = std::fs::read(&archive).expect("it was made");
        let answer = host.http("PUT", "/v1/functions/f").header("Content-Type", "application/x-tar").body(body).send();
        assert!(matches!(answer.status, 413 | 422), "{archive}: {} {}", answer.status, answer.text());
    }
    assert_eq!(host.get("/v1/functions")["functions"], json!([]), "nothing was deployed");
    let good = host.http("PUT", "/v1/functions/other").body(tar_of(&dir)).send().expect(422);
    assert!(good.text().contains("other"), "the name in the URL must be the manifest's: {}", good.text());
    host.finish();
}

/// A plain archive of a function, made by tar itself.
fn tar_of(dir: &Path) -> Vec<u8> {
    let output =
        std::process::Command::new("tar").arg("-C").arg(dir).args(["-cf", "-", "function.toml", "main.py"]).output();
    output.expect("tar is there").stdout
}

#[test]
fn two_functions_share_a_hook_only_with_the_same_secret() {
    let host = TestHost::builder().secret("other-hook", &["default"]).start();
    let trigger = |adapter: &str, secret: &str| {
        format!("[[trigger]]\ntype = \"webhook\"\npath = \"gh\"\nadapter = \"{adapter}\"\nsecret = \"{secret}\"\n")
    };
    host.python("a", &trigger("github", "gh-hook"), CODE);
    host.python("b", &trigger("github", "gh-hook"), CODE);
    let dir = host.scratch();
    for rest in [trigger("github", "other-hook"), trigger("hmac", "gh-hook")] {
        write_function(&dir, &[("function.toml", &python_manifest("c", &rest)), ("main.py", CODE)]);
        refused(&host, &dir, &["gh"]);
    }
    let both = host.github("push", "both", b"{}").send().expect(202).json();
    assert_eq!(both["invocations"].as_array().map(Vec::len), Some(2), "{both}");
    for invocation in both["invocations"].as_array().expect("a list") {
        host.settled(invocation["id"].as_str().expect("an id"));
    }
    host.finish();
}

#[test]
fn a_removed_function_is_gone_and_its_history_stays() {
    let host = TestHost::start();
    host.python("f", super::calls::GITHUB_TRIGGER, CODE);
    host.call("f", &json!(null)).expect(200);
    assert!(host.cli(&["rm", "f"]).status.success());
    assert_eq!(host.call("f", &json!(null)).expect(404).code(), "not_found");
    host.github("push", "x", b"{}").send().expect(404);
    assert!(!host.cli(&["rm", "f"]).status.success());
    assert_eq!(host.get("/v1/executions")["executions"].as_array().map(Vec::len), Some(1));
    host.finish();
}

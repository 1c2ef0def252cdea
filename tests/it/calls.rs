//! What nearly every test does with a server: deploy, call, wait, read logs and history.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use super::host::{HOOK_SECRET, TestHost};
use super::http::{Answer, Request};
use super::wait::{secs, until_some};

/// The trigger that most webhook tests use: path `gh`, adapter `github`, secret `gh-hook`.
pub(crate) const GITHUB_TRIGGER: &str =
    "[[trigger]]\ntype = \"webhook\"\npath = \"gh\"\nadapter = \"github\"\nsecret = \"gh-hook\"\n";

/// A manifest for `main.handle` in python; `rest` follows its head.
pub(crate) fn python_manifest(name: &str, rest: &str) -> String {
    format!("schema = 1\nname = \"{name}\"\nruntime = \"python\"\nhandler = \"main.handle\"\n{rest}")
}

/// Writes a function's directory; files that begin with `#!` become executable.
pub(crate) fn write_function(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("it is writable");
        std::fs::write(&path, text).expect("it is writable");
        if text.starts_with("#!") {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        }
    }
}

/// Hex HMAC-SHA256 of `body`, as GitHub sends it.
pub(crate) fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key will do");
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

impl TestHost {
    /// Deploys a directory with these files by the CLI, and returns that directory.
    #[track_caller]
    pub(crate) fn deploy(&self, files: &[(&str, &str)]) -> PathBuf {
        let dir = self.scratch();
        write_function(&dir, files);
        let output = self.cli(&["deploy", dir.to_str().expect("ASCII")]);
        assert!(output.status.success(), "deploy: {}", String::from_utf8_lossy(&output.stderr));
        dir
    }

    /// Deploys a python function with this code in `main.py`.
    #[track_caller]
    pub(crate) fn python(&self, name: &str, rest: &str, code: &str) {
        self.deploy(&[("function.toml", &python_manifest(name, rest)), ("main.py", code)]);
    }

    /// Deploys a node function with this code in `main.js`.
    #[track_caller]
    pub(crate) fn node(&self, name: &str, rest: &str, code: &str) {
        let manifest = format!("schema = 1\nname = \"{name}\"\nruntime = \"node\"\nhandler = \"main.handler\"\n{rest}");
        self.deploy(&[("function.toml", &manifest), ("main.js", code)]);
    }

    /// Deploys a shell script as an `exec` function.
    #[track_caller]
    pub(crate) fn shell(&self, name: &str, rest: &str, script: &str) {
        let manifest = format!("schema = 1\nname = \"{name}\"\nruntime = \"exec\"\nhandler = \"run.sh\"\n{rest}");
        self.deploy(&[("function.toml", &manifest), ("run.sh", &format!("#!/bin/sh\n{script}\n"))]);
    }

    /// The request of a call; add headers or a body, then send it.
    pub(crate) fn call_request(&self, name: &str) -> Request {
        self.http("POST", &format!("/v1/functions/{name}/invocations"))
    }

    /// Calls and waits for the answer.
    pub(crate) fn call(&self, name: &str, event: &Value) -> Answer {
        self.call_request(name).json(event).send()
    }

    /// Calls; the result must be JSON and the call a success.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, event: &Value) -> Value {
        self.call(name, event).expect(200).json()
    }

    /// Submits asynchronously; returns the invocation's id.
    #[track_caller]
    pub(crate) fn submit(&self, name: &str, event: &Value) -> String {
        let answer = self.call_request(name).header("Prefer", "respond-async").json(event).send().expect(202);
        answer.json()["invocation"]["id"].as_str().expect("a 202 names the invocation").to_owned()
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        self.http("GET", path).send().expect(200).json()
    }

    #[track_caller]
    pub(crate) fn invocation(&self, id: &str) -> Value {
        self.get(&format!("/v1/invocations/{id}"))["invocation"].clone()
    }

    #[track_caller]
    pub(crate) fn execution(&self, id: &str) -> Value {
        self.get(&format!("/v1/executions/{id}"))["execution"].clone()
    }

    /// The record of the execution that an answer names.
    #[track_caller]
    pub(crate) fn executed(&self, answer: &Answer) -> Value {
        self.execution(&execution_id(answer))
    }

    /// The invocation once it is terminal.
    #[track_caller]
    pub(crate) fn settled(&self, id: &str) -> Value {
        until_some(&format!("{id} becomes terminal"), secs(90), || {
            let invocation = self.get(&format!("/v1/invocations/{id}?wait=5s"))["invocation"].clone();
            is_terminal(&invocation).then_some(invocation)
        })
    }

    /// The invocation once it is in `state`.
    #[track_caller]
    pub(crate) fn in_state(&self, id: &str, state: &str) -> Value {
        until_some(&format!("{id} becomes {state}"), secs(60), || {
            let invocation = self.invocation(id);
            (invocation["state"] == state).then_some(invocation)
        })
    }

    /// All of one stream of an execution, fetched in pieces until its end.
    #[track_caller]
    pub(crate) fn logs(&self, execution: &str, stream: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let path = format!("/v1/executions/{execution}/logs?stream={stream}&offset={}&wait=5s", bytes.len());
            let piece = self.http("GET", &path).send().expect(200);
            assert_eq!(piece.header("Runlet-Log-Offset"), Some(bytes.len().to_string().as_str()));
            bytes.extend(&piece.body);
            assert_eq!(piece.header("Runlet-Log-Next"), Some(bytes.len().to_string().as_str()));
            if piece.header("Runlet-Log-End") == Some("true") {
                return bytes;
            }
        }
    }

    /// A webhook as GitHub sends it, signed with the test's secret.
    pub(crate) fn github(&self, event: &str, delivery: &str, body: &[u8]) -> Request {
        self.http("POST", "/hooks/gh")
            .anonymous()
            .header("Content-Type", "application/json")
            .header("User-Agent", "GitHub-Hookshot/test")
            .header("X-GitHub-Event", event)
            .header("X-GitHub-Delivery", delivery)
            .header("X-Hub-Signature-256", signature(HOOK_SECRET, body))
            .body(body)
    }
}

pub(crate) fn is_terminal(invocation: &Value) -> bool {
    ["succeeded", "failed", "cancelled", "expired"].iter().any(|state| invocation["state"] == *state)
}

/// The execution that an answer names: in a header of a success, in the problem document of a failure.
#[track_caller]
pub(crate) fn execution_id(answer: &Answer) -> String {
    if let Some(id) = answer.header("Runlet-Execution") {
        return id.to_owned();
    }
    answer.json()["execution"].as_str().unwrap_or_else(|| panic!("no execution in {}", answer.text())).to_owned()
}

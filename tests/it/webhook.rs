//! Webhooks: what is signed runs once and is kept byte for byte; what is not is refused and still on record.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::json;

use super::calls::{GITHUB_TRIGGER, python_manifest, signature};
use super::host::{HOOK_SECRET, TestHost};
use super::wait::scaled;

const ECHO: &str = "def handle(event, context):\n    return {'event': event, 'kind': context.cause.kind}\n";

/// A host with `on-hook`, which takes every event on path `gh` and returns it.
fn host() -> TestHost {
    let host = TestHost::start();
    host.python("on-hook", GITHUB_TRIGGER, ECHO);
    host
}

/// Payloads as GitHub sends them: ours, and those of a larger collection where one is named.
fn payloads() -> Vec<(String, Vec<u8>)> {
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/webhooks/github"));
    let more = std::env::var_os("RUNLET_TEST_PAYLOADS").map(|dir| PathBuf::from(dir).join("github"));
    let mut found = Vec::new();
    for dir in [Some(own), more].into_iter().flatten() {
        for entry in std::fs::read_dir(&dir).expect("the directory of payloads is there").flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let name = path.file_stem().expect("it has a name").to_string_lossy().replace('-', "_");
                found.push((name, std::fs::read(&path).expect("it is readable")));
            }
        }
    }
    assert!(found.len() >= 5, "there are payloads to send");
    found
}

#[test]
fn githubs_published_vector_is_accepted() {
    let host = host();
    let body = b"Hello, World!";
    let published = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(signature(HOOK_SECRET, body), published);
    // The vector's body is no JSON: the signature is right, so it is refused for that and nothing else.
    assert_eq!(host.github("push", "vector", body).send().expect(400).code(), "bad_json");
    let wrong = published.replace("757", "756");
    let request = host.http("POST", "/hooks/gh").anonymous().header("X-GitHub-Event", "push").body(&body[..]);
    assert_eq!(request.header("X-Hub-Signature-256", wrong).send().expect(401).code(), "bad_signature");
    host.finish();
}

#[test]
fn every_payload_is_accepted_and_kept_byte_for_byte() {
    let host = host();
    for (number, (event, body)) in payloads().into_iter().enumerate() {
        let answer = host.github(&event, &format!("all-{number}"), &body).send();
        let expected = if event == "ping" { 200 } else { 202 };
        assert_eq!(answer.status, expected, "{event}: {}", answer.text());
        let delivery = answer.json()["delivery"].as_str().expect("it is on record").to_owned();
        let kept = host.http("GET", &format!("/v1/deliveries/{delivery}/body")).send().expect(200);
        assert!(kept.body == body, "{event}: the stored body differs");
        let record = &host.get(&format!("/v1/deliveries/{delivery}"))["delivery"];
        assert_eq!(record["event"], event.as_str());
        assert_eq!(record["body_size"], body.len());
        let fingerprint = record["headers"]["x-hub-signature-256"].as_str().unwrap_or_default();
        assert!(fingerprint.starts_with("hmac-sha256:"), "credential headers are fingerprinted: {fingerprint}");
    }
    host.finish();
}

#[test]
fn one_flipped_bit_is_refused_and_on_record() {
    let host = host();
    for (number, (event, body)) in payloads().into_iter().enumerate() {
        let mut flipped = body.clone();
        let at = (number * 7919) % flipped.len();
        flipped[at] ^= 1 << (number % 8);
        let delivery = format!("flip-{number}");
        let answer = host.github(&event, &delivery, &body).body(flipped).send();
        assert_eq!((answer.status, answer.code().as_str()), (401, "bad_signature"), "{event}");
    }
    let listed = host.get("/v1/deliveries?limit=1000");
    let verdicts = listed["deliveries"].as_array().expect("a list");
    assert_eq!(verdicts.len(), payloads().len(), "each refusal is on record");
    assert!(verdicts.iter().all(|delivery| delivery["verdict"] == "bad_signature"));
    assert_eq!(host.get("/v1/executions")["executions"], json!([]), "nothing ran");
    host.finish();
}

#[test]
fn a_push_runs_the_function_and_is_on_record() {
    let host = host();
    let body = br#"{"ref":"refs/heads/main","repository":{"full_name":"o/r"}}"#;
    let answer = host.github("push", "d-1", body).send().expect(202).json();
    let accepted = &answer["invocations"][0];
    assert_eq!(accepted["function"], "on-hook");
    assert_eq!(accepted["repeated"], false);
    let id = accepted["id"].as_str().expect("an id");
    let invocation = host.settled(id);
    assert_eq!(invocation["state"], "succeeded", "{invocation}");
    assert_eq!(invocation["cause"]["kind"], "webhook");
    assert_eq!(invocation["cause"]["delivery"], answer["delivery"]);
    let shown = invocation["cause"]["headers"].to_string();
    assert!(!shown.contains("signature"), "no credential reaches the code: {shown}");
    let result = host.get(&format!("/v1/invocations/{id}/result"));
    assert_eq!(result["event"]["repository"]["full_name"], "o/r");
    assert_eq!(result["kind"], "webhook");
    assert_eq!(host.http("GET", &format!("/v1/invocations/{id}/payload")).send().expect(200).body, body);
    host.finish();
}

#[test]
fn the_form_encoding_carries_the_same_event() {
    let host = host();
    let body = b"payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%2C%22n%22%3A%22a+b%22%7D";
    let request =
        host.http("POST", "/hooks/gh").anonymous().header("Content-Type", "application/x-www-form-urlencoded");
    let request = request.header("X-GitHub-Event", "push").header("X-Hub-Signature-256", signature(HOOK_SECRET, body));
    let answer = request.body(&body[..]).send().expect(202).json();
    let id = answer["invocations"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(host.settled(&id)["state"], "succeeded");
    let result = host.get(&format!("/v1/invocations/{id}/result"));
    assert_eq!(result["event"], json!({"ref": "refs/heads/main", "n": "a b"}));
    host.finish();
}

#[test]
fn what_no_rule_wants_is_ignored_with_the_reason() {
    let host = TestHost::start();
    host.python(
        "on-main",
        &format!("{GITHUB_TRIGGER}events = [\"push\"]\nbranches = [\"main\", \"release/*\"]\n"),
        ECHO,
    );
    let push = |branch: &str| format!(r#"{{"ref":"refs/heads/{branch}","repository":{{"full_name":"o/r"}}}}"#);
    for (event, body) in
        [("issues", "{}".to_owned()), ("push", push("topic")), ("push", r#"{"ref":"refs/tags/main"}"#.to_owned())]
    {
        let answer = host.github(event, &format!("{event}-{}", body.len()), body.as_bytes()).send().expect(200).json();
        let reason = answer["ignored"].as_str().unwrap_or_default();
        assert!(!reason.is_empty(), "{event} {body}: {answer}");
        let record = host.get(&format!("/v1/deliveries/{}", answer["delivery"].as_str().expect("an id")));
        assert_eq!(record["delivery"]["verdict"], "ignored");
        assert_ne!(record["delivery"]["reasons"], json!([]));
    }
    host.github("push", "m", push("main").as_bytes()).send().expect(202);
    host.github("push", "r", push("release/1").as_bytes()).send().expect(202);
    let ping = host.github("ping", "p", br#"{"zen":"Keep it simple.","hook_id":1}"#).send().expect(200).json();
    assert!(ping["delivery"].is_string(), "{ping}");
    host.finish();
}

#[test]
fn concurrent_repeats_of_a_delivery_run_once() {
    let host = host();
    let body = br#"{"ref":"refs/heads/main"}"#;
    let repeats = scaled(20, 100);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let sends: Vec<_> = (0..repeats).map(|_| scope.spawn(|| host.github("push", "same", body).send())).collect();
        sends.into_iter().map(|send| send.join().expect("it does not panic").expect(202).json()).collect()
    });
    let ids: BTreeSet<_> = answers.iter().map(|answer| answer["invocations"][0]["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "one invocation");
    let new = answers.iter().filter(|answer| answer["invocations"][0]["repeated"] == false).count();
    assert_eq!(new, 1, "one of them made it");
    let id = answers[0]["invocations"][0]["id"].as_str().expect("an id");
    assert_eq!(host.settled(id)["attempts"], 1);
    assert_eq!(host.get("/v1/executions")["executions"].as_array().map(Vec::len), Some(1));
    // It has succeeded: the same id is still a repeat.
    assert_eq!(host.github("push", "same", body).send().expect(202).json()["invocations"][0]["repeated"], true);
    host.finish();
}

#[test]
fn a_delivery_that_failed_for_good_runs_again() {
    let host = TestHost::start();
    host.python("on-hook", GITHUB_TRIGGER, "def handle(event, context):\n    raise ValueError('no')\n");
    let body = br#"{"ref":"refs/heads/main"}"#;
    let send = || host.github("push", "again", body).send().expect(202).json()["invocations"][0].clone();
    let first = send();
    assert_eq!(host.settled(first["id"].as_str().expect("an id"))["state"], "failed");
    let second = send();
    assert_eq!(second["repeated"], false);
    assert_ne!(first["id"], second["id"]);
    host.settled(second["id"].as_str().expect("an id"));
    host.finish();
}

#[test]
fn wrong_requests_get_their_own_refusal() {
    let host = host();
    assert_eq!(host.http("POST", "/hooks/nothing").body("{}").send().expect(404).code(), "not_found");
    assert_eq!(host.http("POST", "/hooks/elsewhere/gh").body("{}").send().expect(404).code(), "not_found");
    assert_eq!(host.get("/v1/deliveries")["deliveries"], json!([]), "unknown paths store nothing");
    let wrong_method = host.http("GET", "/hooks/gh").send().expect(405);
    assert_eq!(wrong_method.header("Allow"), Some("POST"));
    assert_eq!(host.github("push", "j", b"{\"ref\": ").send().expect(400).code(), "bad_json");
    let unsigned = host.http("POST", "/hooks/gh").header("X-GitHub-Event", "push").body("{}");
    assert_eq!(unsigned.send().expect(401).code(), "bad_signature");
    for bad in ["", "sha256=", "sha256=00", "sha1=757107ea0eb2509fc211221cce984b8a37570b6d"] {
        let request =
            host.http("POST", "/hooks/gh").header("X-GitHub-Event", "push").header("X-Hub-Signature-256", bad);
        assert_eq!(request.body("{}").send().expect(401).code(), "bad_signature", "{bad:?}");
    }
    let upper = signature(HOOK_SECRET, b"{}").to_ascii_uppercase().replace("SHA256", "sha256");
    let request = host.http("POST", "/hooks/gh").header("X-GitHub-Event", "push").header("X-Hub-Signature-256", upper);
    request.body("{}").send().expect(401);
    // 25 MiB is the bound; a body just over it is refused, whether it says its length or not.
    let big = vec![b' '; (25 << 20) + 1];
    assert_eq!(host.github("push", "big", &big).send().expect(413).code(), "too_large");
    assert_eq!(host.github("push", "big", &big).chunked().send().expect(413).code(), "too_large");
    host.finish();
}

#[test]
fn the_generic_adapter_takes_any_sender() {
    let host = TestHost::start();
    let trigger = "[[trigger]]\ntype = \"webhook\"\npath = \"any/thing\"\nadapter = \"hmac\"\nsecret = \"gh-hook\"\n";
    host.deploy(&[("function.toml", &python_manifest("generic", trigger)), ("main.py", ECHO)]);
    let body = br#"{"n":1}"#;
    let hex = signature(HOOK_SECRET, body);
    for value in [hex.clone(), hex.replace("sha256=", "")] {
        let request =
            host.http("POST", "/hooks/default/any/thing").anonymous().header("Content-Type", "application/json");
        let answer = request.header("X-Signature-256", value).body(&body[..]).send().expect(202).json();
        let id = answer["invocations"][0]["id"].as_str().expect("an id").to_owned();
        assert_eq!(host.settled(&id)["state"], "succeeded");
    }
    host.finish();
}

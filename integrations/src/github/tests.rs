//! The adapter against payloads as GitHub sends them (`tests/fixtures/webhooks/github`) and as nobody should.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use runlet_core::id::TriggerId;
use runlet_core::manifest::{AdapterKind, WebhookTrigger};
use runlet_core::name::{FunctionName, HookPath, SecretName};
use runlet_core::store::function::HookTrigger;
use runlet_triggers::webhook::{Examined, examine};
use serde_json::json;

use super::*;
use crate::signature::sign;

const KEY: &str = "It's a Secret to Everybody";

/// Name of the event and the payload, for every file.
fn fixtures() -> BTreeMap<String, Bytes> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/webhooks/github");
    let files = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let payloads = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().replace('-', "_");
    payloads.map(|path| (name(&path), Bytes::from(std::fs::read(&path).unwrap()))).collect()
}

fn headers(event: &str, content_type: &str, signature: &str) -> Headers {
    [
        ("X-GitHub-Event", event),
        ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("X-Hub-Signature-256", signature),
        ("Content-Type", content_type),
    ]
    .into_iter()
    .collect()
}

fn trigger() -> HookTrigger {
    HookTrigger {
        id: TriggerId::new(),
        function: FunctionName::new("f").unwrap(),
        spec: WebhookTrigger {
            path: HookPath::new("gh").unwrap(),
            adapter: AdapterKind::Github,
            secret: SecretName::new("gh-hook").unwrap(),
            events: Vec::new(),
            branches: Vec::new(),
        },
    }
}

fn ask(headers: &Headers, body: &Bytes) -> Examined {
    examine(&Github, &Secret::new(KEY), &Request { headers, body }, &[trigger()])
}

fn read(event: &str, payload: serde_json::Value) -> Event {
    let (headers, body) = (headers(event, "application/json", ""), Bytes::from(payload.to_string()));
    Github.read(&Request { headers: &headers, body: &body }).unwrap()
}

fn form(payload: &[u8]) -> Bytes {
    let encoded: String = payload.iter().map(|byte| format!("%{byte:02X}")).collect();
    Bytes::from(format!("payload={encoded}"))
}

#[test]
fn every_fixture_is_accepted_as_json_and_as_a_form() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 8, "the fixtures are gone");
    for (name, payload) in &fixtures {
        let as_json = ask(&headers(name, "application/json", &format!("sha256={}", sign(KEY, payload))), payload);
        let body = form(payload);
        let signature = format!("sha256={}", sign(KEY, &body));
        let as_form = ask(&headers(name, "application/x-www-form-urlencoded; charset=utf-8", &signature), &body);
        assert_eq!(as_json, as_form, "{name}");
        match as_json {
            Examined::Ping(event) => assert_eq!(event.label.event.as_deref(), Some("ping")),
            Examined::Event { event, wanted, .. } => {
                assert_ne!(name, "ping");
                assert_eq!(wanted, [0], "{name}");
                assert_eq!(event.label.provider_id.as_deref(), Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"));
                assert!(event.normalised.unwrap().repository.is_some(), "{name}");
            }
            Examined::Refused(refusal) => panic!("{name}: {refusal}"),
        }
    }
}

#[test]
fn a_form_that_is_signed_over_its_decoded_payload_is_refused() {
    let payload = b"{}";
    let signature = format!("sha256={}", sign(KEY, payload));
    let refused = ask(&headers("push", form::CONTENT_TYPE, &signature), &form(payload));
    assert!(matches!(refused, Examined::Refused(Refusal::Signature(_))), "{refused:?}");
}

#[test]
fn sha1_alone_is_refused_with_the_remedy() {
    let headers: Headers = [("X-Hub-Signature", "sha1=7d38cdd689735b008b3c702edd92eea23791c5f6")].into_iter().collect();
    let Examined::Refused(refusal) = ask(&headers, &Bytes::from_static(b"{}")) else { panic!("accepted") };
    assert!(refusal.to_string().contains("only the SHA-1 signature"), "{refusal}");
}

#[test]
fn signed_bodies_that_are_no_payload_are_refused_as_bodies() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[1]", "application/json"),
        (b"{\"ref\": \"a\", \"ref\": \"b\"}", "application/json"),
        (b"{\"a\": \"\xff\"}", "application/json"),
        (b"{}", "application/x-www-form-urlencoded"),
        (b"payload=%7B%7", "application/x-www-form-urlencoded"),
        (b"{}", "multipart/form-data; boundary=x"),
    ];
    for (body, content_type) in cases {
        let signature = format!("sha256={}", sign(KEY, body));
        let refused = ask(&headers("push", content_type, &signature), &Bytes::copy_from_slice(body));
        assert!(matches!(refused, Examined::Refused(Refusal::Body(_))), "{body:?}: {refused:?}");
    }
}

#[test]
fn headers_that_name_it_must_be_words_and_come_once() {
    let body = Bytes::from_static(b"{}");
    let signature = format!("sha256={}", sign(KEY, &body));
    for extra in [("x-github-event", "push"), ("x-github-delivery", "again"), ("content-type", "application/json")] {
        let twice: Headers = headers("push", "application/json", &signature)
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name, value.as_str())))
            .chain([extra])
            .collect();
        assert!(matches!(ask(&twice, &body), Examined::Refused(Refusal::Header(_))), "{extra:?}");
    }
    let spaced = ask(&headers("pu sh", "application/json", &signature), &body);
    assert!(matches!(spaced, Examined::Refused(Refusal::Header(_))));
    let unknown = ask(&headers("brand_new_event", "application/json", &signature), &body);
    assert!(matches!(unknown, Examined::Event { .. }), "unknown events are events");
}

#[test]
fn branches_are_those_of_pushes_and_pull_requests() {
    let cases = [
        ("push", json!({"ref": "refs/heads/feature/x"}), Some("feature/x")),
        ("push", json!({"ref": "refs/tags/v1"}), None),
        ("push", json!({"ref": 7}), None),
        ("pull_request", json!({"pull_request": {"base": {"ref": "main"}, "head": {"ref": "fix"}}}), Some("main")),
        ("pull_request_review", json!({"pull_request": {"base": {"ref": "main"}}}), Some("main")),
        ("issues", json!({"ref": "refs/heads/main"}), None),
    ];
    for (event, payload, branch) in cases {
        assert_eq!(read(event, payload.clone()).branch.as_deref(), branch, "{event} {payload}");
    }
}

#[test]
fn pushes_and_pull_requests_are_normalised() {
    let normalised = |name: &str| {
        let payload = fixtures().remove(name).unwrap();
        serde_json::to_value(read(name, serde_json::from_slice(&payload).unwrap()).normalised).unwrap()
    };
    let push = json!({
        "provider": "github",
        "kind": "push",
        "repository": "binkkatal/sample_app",
        "ref": "refs/heads/master",
        "branch": "master",
        "sha": "fd489864e7642b48eaad6e3f155c10e46810ec72",
        "author": "binkkatal",
    });
    assert_eq!(normalised("push"), push);
    let pull_request = json!({
        "provider": "github",
        "kind": "pull_request",
        "repository": "baxterthehacker/public-repo",
        "ref": "refs/heads/changes",
        "branch": "master",
        "sha": "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c",
        "author": "baxterthehacker",
        "pull_request": 1,
    });
    assert_eq!(normalised("pull_request"), pull_request);
}

#[test]
fn tags_and_removed_branches_are_told_apart() {
    let zeros = "0".repeat(40);
    let removed = read("push", json!({"ref": "refs/heads/old", "after": zeros, "deleted": true}));
    assert_eq!(removed.branch.as_deref(), Some("old"));
    assert_eq!(removed.normalised.unwrap().sha, None);
    let tag =
        read("push", json!({"ref": "refs/tags/v1", "after": "ab12", "pusher": {"name": "ann"}})).normalised.unwrap();
    assert_eq!((tag.kind.as_str(), tag.sha.as_deref(), tag.author.as_deref()), ("tag", Some("ab12"), Some("ann")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flipped_bit_in_any_fixture_is_refused(at: prop::sample::Index, place: prop::sample::Index, bit in 0..8u8) {
        let fixtures: Vec<(String, Bytes)> = fixtures().into_iter().collect();
        let (name, payload) = &fixtures[at.index(fixtures.len())];
        let signature = format!("sha256={}", sign(KEY, payload));
        let mut body = payload.to_vec();
        body[place.index(payload.len())] ^= 1 << bit;
        let refused = ask(&headers(name, "application/json", &signature), &Bytes::from(body));
        prop_assert!(matches!(refused, Examined::Refused(Refusal::Signature(_))));
    }

    #[test]
    fn any_bytes_are_survived(body: Vec<u8>, form in any::<bool>()) {
        let content_type = if form { form::CONTENT_TYPE } else { "application/json" };
        let headers = headers("push", content_type, "");
        let _ = Github.read(&Request { headers: &headers, body: &Bytes::from(body) });
    }
}

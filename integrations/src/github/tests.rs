//! The adapter against payloads as GitHub sends them (`tests/fixtures/webhooks/github`) and as nobody should.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use runlet_core::clock;
use runlet_core::id::TriggerId;
use runlet_core::manifest::{AdapterKind, WebhookTrigger};
use runlet_core::name::{FunctionName, HookPath, SecretName};
use runlet_core::store::function::HookTrigger;
use runlet_triggers::webhook::{Examined, Normalised, examine};
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
            secret: Some(SecretName::new("gh-hook").unwrap()),
            events: Vec::new(),
            branches: Vec::new(),
            fields: BTreeMap::new(),
        },
    }
}

fn ask(headers: &Headers, body: &Bytes) -> Examined {
    examine(&Github, &Secret::new(KEY), &Request { headers, body, at: clock::now() }, &[trigger()])
}

fn read(event: &str, payload: serde_json::Value) -> Event {
    let (headers, body) = (headers(event, "application/json", ""), Bytes::from(payload.to_string()));
    Github.read(&Request { headers: &headers, body: &body, at: clock::now() }).unwrap()
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

/// The shape of each fixture, as functions get it.
#[test]
fn every_fixture_has_its_shape() {
    let shapes: BTreeMap<String, Option<Normalised>> = fixtures()
        .into_iter()
        .map(|(name, payload)| {
            let normalised = read(&name, serde_json::from_slice(&payload).unwrap()).normalised;
            (name, normalised)
        })
        .collect();
    insta::assert_json_snapshot!(shapes);
}

#[test]
fn events_without_a_fixture_are_normalised_too() {
    let shape = |event: &str, mut payload: serde_json::Value| {
        payload["sender"] = json!({"login": "ann"});
        let mut shape = serde_json::to_value(read(event, payload).normalised).unwrap();
        for known in ["provider", "event"] {
            shape.as_object_mut().unwrap().remove(known);
        }
        shape
    };
    let user = |login: &str| json!({"login": login});
    let run = json!({
        "head_branch": "main", "head_sha": "a1", "status": "completed", "conclusion": "failure", "html_url": "u",
        "actor": user("bob"), "pull_requests": [{"number": 3}, {"number": 4}],
    });
    let pipeline = json!({"kind": "pipeline", "branch": "main", "sha": "a1", "status": "failure", "url": "u", "author": "bob", "pull_request": 3});
    let mut job = pipeline.clone();
    job["kind"] = json!("job");
    assert_eq!(shape("check_suite", json!({"check_suite": run})), pipeline);
    assert_eq!(shape("workflow_job", json!({"workflow_job": run})), job);
    let check = json!({"head_sha": "a2", "status": "queued", "check_suite": run});
    let expected =
        json!({"kind": "job", "branch": "main", "sha": "a2", "status": "queued", "author": "bob", "pull_request": 3});
    assert_eq!(shape("check_run", json!({"check_run": check})), expected);
    let comment = json!({"user": user("eve"), "html_url": "c"});
    let on_issue = json!({"action": "created", "issue": {"number": 7, "user": user("bob")}, "comment": comment});
    let expected = json!({"kind": "comment", "action": "created", "issue": 7, "author": "eve", "url": "c"});
    assert_eq!(shape("issue_comment", on_issue), expected);
    let on_pull = json!({"issue": {"number": 8, "pull_request": {"url": "x"}}, "comment": comment});
    assert_eq!(
        shape("issue_comment", on_pull),
        json!({"kind": "comment", "pull_request": 8, "author": "eve", "url": "c"})
    );
    let review = json!({
        "pull_request": {"number": 9, "head": {"ref": "fix", "sha": "a3"}, "base": {"ref": "main"}},
        "review": {"user": user("eve"), "state": "approved"},
    });
    let expected = json!({
        "kind": "review", "pull_request": 9, "ref": "refs/heads/fix", "branch": "main", "sha": "a3", "author": "eve",
        "status": "approved",
    });
    assert_eq!(shape("pull_request_review", review), expected);
    let deployed = json!({"deployment": {"sha": "a4"}, "deployment_status": {"state": "success", "target_url": "t"}});
    let expected = json!({"kind": "deployment", "sha": "a4", "status": "success", "url": "t", "author": "ann"});
    assert_eq!(shape("deployment_status", deployed), expected);
    let queued =
        json!({"merge_group": {"head_sha": "a5", "head_ref": "refs/heads/q/1", "base_ref": "refs/heads/main"}});
    let expected =
        json!({"kind": "merge_group", "sha": "a5", "ref": "refs/heads/q/1", "branch": "main", "author": "ann"});
    assert_eq!(shape("merge_group", queued), expected);
    let dispatch = shape("workflow_dispatch", json!({"ref": "refs/heads/main"}));
    assert_eq!(
        dispatch,
        json!({"kind": "workflow_dispatch", "ref": "refs/heads/main", "branch": "main", "author": "ann"})
    );
    assert_eq!(
        shape("brand_new", json!({"deployment": 7, "issue": []})),
        json!({"kind": "brand_new", "author": "ann"})
    );
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
        let _ = Github.read(&Request { headers: &headers, body: &Bytes::from(body), at: clock::now() });
    }
}

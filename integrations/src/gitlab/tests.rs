//! The adapter against payloads as GitLab sends them (`tests/fixtures/webhooks/gitlab`) and as nobody should.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use runlet_core::clock;
use runlet_triggers::webhook::Normalised;
use serde_json::json;

use super::*;

const TOKEN_SECRET: &str = "a token with spaces";
const KEY: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn fixtures() -> BTreeMap<String, Bytes> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/webhooks/gitlab");
    let files = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let payloads = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    payloads.map(|path| (name(&path), Bytes::from(std::fs::read(&path).unwrap()))).collect()
}

/// The header that GitLab sends with a fixture.
fn hook(name: &str) -> &'static str {
    match name {
        "push-event" => "Push Hook",
        "tag-event" => "Tag Push Hook",
        "merge-request-event" => "Merge Request Hook",
        "comment-merge-request-event" => "Note Hook",
        "pipeline-event" => "Pipeline Hook",
        "job-event" => "Job Hook",
        "issue-event" => "Issue Hook",
        "release-event" => "Release Hook",
        "deployment-event" => "Deployment Hook",
        "wikipage-event" => "Wiki Page Hook",
        _ => "System Hook",
    }
}

fn verify(secret: &str, pairs: &[(&str, String)], body: &Bytes) -> Result<(), String> {
    let headers: Headers = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let request = Request { headers: &headers, body, at: clock::now() };
    Gitlab.verify(&request, &Secret::new(secret)).map_err(|refusal| refusal.to_string())
}

fn read(header: Option<&str>, payload: &[u8]) -> Event {
    let headers: Headers = header.map(|value| ("X-Gitlab-Event", value)).into_iter().collect();
    let body = Bytes::copy_from_slice(payload);
    Gitlab.read(&Request { headers: &headers, body: &body, at: clock::now() }).unwrap()
}

fn signed(body: &[u8]) -> Vec<(&'static str, String)> {
    signed::sign(KEY, "f5e5f430", clock::now().timestamp(), body)
}

fn token(value: &str) -> (&'static str, String) {
    ("X-Gitlab-Token", value.to_owned())
}

/// The shape of each fixture, as functions get it.
#[test]
fn every_fixture_has_its_shape() {
    let shape = |(name, payload): (String, Bytes)| {
        let normalised = read(Some(hook(&name)), &payload).normalised;
        (name, normalised)
    };
    let shapes: BTreeMap<String, Option<Normalised>> = fixtures().into_iter().map(shape).collect();
    assert!(shapes.len() >= 10, "the fixtures are gone");
    insta::assert_json_snapshot!(shapes);
}

#[test]
fn the_token_has_to_be_the_whole_secret() {
    let body = Bytes::from_static(b"{}");
    assert_eq!(verify(TOKEN_SECRET, &[token(TOKEN_SECRET)], &body), Ok(()));
    assert_eq!(verify("old\nnew\n", &[token("new")], &body), Ok(()), "two while it is changed");
    for wrong in ["", "a token", "a token with spaces ", "A token with spaces", "old\nnew"] {
        let error = verify(TOKEN_SECRET, &[token(wrong)], &body).unwrap_err();
        assert!(error.contains("does not hold the hook's secret"), "{wrong}: {error}");
        assert!(verify("old\nnew", &[token(wrong)], &body).is_err());
    }
    assert!(verify(TOKEN_SECRET, &[], &body).unwrap_err().contains("is missing"));
    let twice = [token(TOKEN_SECRET), token(TOKEN_SECRET)];
    assert!(verify(TOKEN_SECRET, &twice, &body).unwrap_err().contains("came 2 times"));
    assert!(verify("", &[token("")], &body).unwrap_err().contains("is empty"));
}

#[test]
fn a_signature_that_is_there_has_to_be_good() {
    let both = format!("{TOKEN_SECRET}\n{KEY}");
    for (name, body) in fixtures() {
        assert_eq!(verify(KEY, &signed(&body), &body), Ok(()), "{name}");
        assert_eq!(verify(&both, &signed(&body), &body), Ok(()), "{name}");
    }
    let body = Bytes::from_static(b"{}");
    let good_token = token(TOKEN_SECRET);
    let with_token = |mut headers: Vec<(&'static str, String)>| {
        headers.push(good_token.clone());
        headers
    };
    // A good token does not help a signature that is bad, broken, unreadable or for another body.
    let mut empty = signed(&body);
    empty[2].1.clear();
    let mut alone = signed(&body);
    alone.drain(..2);
    for bad in [signed(b"{ }"), empty, alone] {
        assert!(verify(&both, &with_token(bad), &body).is_err());
    }
    // A hook that knows only a token cannot take what is signed; one that knows only a key takes nothing unsigned.
    let error = verify(TOKEN_SECRET, &with_token(signed(&body)), &body).unwrap_err();
    assert!(error.contains("holds no signing token"), "{error}");
    let error = verify(KEY, &[token(KEY)], &body).unwrap_err();
    assert!(error.contains("signed deliveries only"), "{error}");
    assert_eq!(verify(&both, &[good_token], &body), Ok(()), "senders that do not sign yet");
    assert!(verify(&both, &[token(KEY)], &body).is_err(), "a key is no token");
}

#[test]
fn secrets_are_looked_at_before_they_are_used() {
    for good in [TOKEN_SECRET, KEY, &format!("{KEY}\n{TOKEN_SECRET}")] {
        assert_eq!(Gitlab.usable(&Secret::new(good)), Ok(()));
    }
    for bad in ["", "\n", "whsec_short", &format!("{TOKEN_SECRET}\nwhsec_")] {
        assert!(Gitlab.usable(&Secret::new(bad)).is_err(), "{bad}");
    }
}

#[test]
fn names_and_ids_come_from_headers_and_system_hooks_name_themselves() {
    let label = |pairs: &[(&str, &str)]| Gitlab.label(&pairs.iter().copied().collect());
    let name = |value: &str| label(&[("X-Gitlab-Event", value)]).map(|label| label.event);
    for (header, event) in [
        ("Push Hook", "push"),
        ("Tag Push Hook", "tag_push"),
        ("Confidential Issue Hook", "confidential_issue"),
        ("Resource Access Token Hook", "resource_access_token"),
        ("Something New", "something_new"),
    ] {
        assert_eq!(name(header), Ok(Some(event.to_owned())));
    }
    assert!(name("").is_err() && name("Push\tHook").is_err() && name(&"a".repeat(200)).is_err());
    let id = |pairs: &[(&str, &str)]| label(pairs).unwrap().provider_id;
    assert_eq!(id(&[("Idempotency-Key", "i"), ("webhook-id", "w")]).as_deref(), Some("w"));
    assert_eq!(id(&[("Idempotency-Key", "i"), ("X-Gitlab-Event-UUID", "u")]).as_deref(), Some("i"));
    assert_eq!(id(&[("X-Gitlab-Event-UUID", "u"), ("X-Gitlab-Webhook-UUID", "v")]), None);

    let event = |header, payload: &[u8]| read(header, payload).label.event;
    assert_eq!(event(Some("System Hook"), br#"{"event_name": "project_create"}"#).as_deref(), Some("project_create"));
    assert_eq!(event(Some("System Hook"), br#"{"object_kind": "merge_request"}"#).as_deref(), Some("merge_request"));
    assert_eq!(event(Some("System Hook"), br#"{"event_name": "two words"}"#).as_deref(), Some("system"));
    assert_eq!(event(Some("Push Hook"), br#"{"object_kind": "other"}"#).as_deref(), Some("push"));
    assert_eq!(event(None, br#"{"object_kind": "push"}"#).as_deref(), Some("push"));
}

#[test]
fn refs_and_removed_branches_are_told_apart() {
    let shape = |header: &str, payload: serde_json::Value| {
        let event = read(Some(header), payload.to_string().as_bytes());
        (event.branch, event.normalised.unwrap())
    };
    let zeros = "0".repeat(40);
    let (branch, removed) =
        shape("Push Hook", json!({"ref": "refs/heads/old", "before": "a1", "after": zeros, "checkout_sha": null}));
    assert_eq!((branch.as_deref(), removed.sha, removed.before.as_deref()), (Some("old"), None, Some("a1")));
    let (branch, job) = shape("Job Hook", json!({"ref": "v1", "tag": true, "sha": "a2", "build_status": "failed"}));
    assert_eq!((branch, job.tag.as_deref(), job.status.as_deref()), (None, Some("v1"), Some("failed")));
    let attributes = json!({"object_attributes": {"ref": "refs/merge-requests/1/head", "sha": "a3", "tag": false}});
    let (branch, pipeline) = shape("Pipeline Hook", attributes);
    assert_eq!((branch, pipeline.reference.as_deref()), (None, Some("refs/merge-requests/1/head")));
}

#[test]
fn whatever_is_json_is_an_event() {
    for body in [&b"[]"[..], b"7", b"null", br#"{"project": 7, "user": [], "object_attributes": "x", "tag": {}}"#] {
        let event = read(Some("Push Hook"), body);
        assert_eq!(event.normalised.unwrap().provider, "gitlab");
    }
    let headers: Headers = [("X-Gitlab-Event", "Push Hook")].into_iter().collect();
    for body in [&b""[..], b"{", b"payload=%7B%7D"] {
        let refused = Gitlab.read(&Request { headers: &headers, body: &Bytes::from_static(body), at: clock::now() });
        assert!(matches!(refused, Err(Refusal::Body(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_flipped_bit_in_any_fixture_is_refused(at: prop::sample::Index, place: prop::sample::Index, bit in 0..8u8) {
        let fixtures: Vec<(String, Bytes)> = fixtures().into_iter().collect();
        let (_, payload) = &fixtures[at.index(fixtures.len())];
        let mut body = payload.to_vec();
        body[place.index(payload.len())] ^= 1 << bit;
        prop_assert!(verify(KEY, &signed(payload), &Bytes::from(body)).is_err());
    }
}

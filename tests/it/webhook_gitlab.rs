//! GitLab and public hooks: what they are told, what reaches the code, and what a deploy refuses.

use serde_json::{Value, json};

use super::calls::{python_manifest, write_function};
use super::host::TestHost;
use super::http::Request;
use super::peers::GITLAB;

const PUSH: &[u8] = include_bytes!("../fixtures/webhooks/gitlab/push-event.json");

fn trigger(rest: &str) -> String {
    format!("[[trigger]]\ntype = \"webhook\"\npath = \"gl\"\n{rest}")
}

fn gitlab(host: &TestHost, hook: &str, id: &str, body: &[u8]) -> Request {
    let request = host.http("POST", "/hooks/gl").anonymous().header("Content-Type", "application/json");
    let request = request.header("X-Gitlab-Event", hook).header("X-Gitlab-Token", "a plain token");
    request.header("Idempotency-Key", id).body(body)
}

/// The id of the one invocation that an answer names.
fn invocation(answer: &Value) -> String {
    answer["invocations"][0]["id"].as_str().expect("an invocation").to_owned()
}

#[test]
fn a_push_reaches_python_and_programs_in_the_shape_of_all_forges() {
    let host = TestHost::builder().own_secret("gitlab", GITLAB).start();
    let trigger = trigger("adapter = \"gitlab\"\nsecret = \"gitlab\"\nevents = [\"push\"]\nbranches = [\"mas*\"]\n");
    host.python("a-python", &trigger, "def handle(event, context):\n    return context.cause.normalised\n");
    let script = "python3 -c 'import json, os; e = os.environ
file = json.load(open(e[\"RUNLET_CONTEXT\"]))[\"cause\"][\"normalised\"]
print(json.dumps([file, {k[13:].lower(): v for k, v in e.items() if k.startswith(\"RUNLET_EVENT_\")}]))'";
    host.shell("b-program", &trigger, script);
    let answer = gitlab(&host, "Push Hook", "one", PUSH).send().expect(202).json();
    let expected = json!({
        "provider": "gitlab", "kind": "push", "event": "push", "repository": "mike/diaspora",
        "ref": "refs/heads/master", "branch": "master", "sha": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7",
        "before": "95790bf891e76fee5e1747ab589903a6a1f80f22", "author": "John Smith",
    });
    for (number, function) in ["a-python", "b-program"].into_iter().enumerate() {
        let accepted = &answer["invocations"][number];
        assert_eq!(accepted["function"], function);
        let id = accepted["id"].as_str().expect("an id");
        let settled = host.settled(id);
        assert_eq!(settled["state"], "succeeded", "{settled}");
        assert_eq!(settled["cause"]["normalised"], expected);
        assert!(!settled["cause"]["headers"].to_string().contains("token"), "no credential reaches the code");
        let result = host.get(&format!("/v1/invocations/{id}/result"));
        let expected = if number == 0 { expected.clone() } else { json!([expected, expected]) };
        assert_eq!(result, expected, "{function}");
    }
    // The same id is a repeat, by the header that GitLab repeats; its other ids are not.
    assert_eq!(gitlab(&host, "Push Hook", "one", PUSH).send().expect(202).json()["invocations"][0]["repeated"], true);
    let ignored = gitlab(&host, "Tag Push Hook", "two", PUSH).send().expect(200).json();
    assert!(
        ignored["ignored"].as_str().is_some_and(|why| why.contains("event tag_push is not in [push]")),
        "{ignored}"
    );
    assert_eq!(gitlab(&host, "Push Hook", "three", b"{").send().expect(400).code(), "bad_json");
    host.finish();
}

#[test]
fn a_public_hook_takes_what_anybody_sends() {
    let host = TestHost::start();
    host.python(
        "open",
        &trigger("adapter = \"none\"\npublic = true\nevents = [\"hello\"]\nmatch = { n = [1, 2] }\n"),
        "def handle(event, context):\n    return [event, context.cause.normalised]\n",
    );
    let send = |event: &str, body: &str| {
        let request = host.http("POST", "/hooks/gl").anonymous().header("X-Event", event);
        request
            .header("Content-Type", "application/json")
            .header("X-Delivery", format!("{event}-{}", body.len()))
            .body(body)
    };
    let accepted = send("hello", "{\"n\": 2}").send().expect(202).json();
    let id = invocation(&accepted);
    assert_eq!(host.settled(&id)["state"], "succeeded");
    assert_eq!(host.get(&format!("/v1/invocations/{id}/result")), json!([{"n": 2}, null]));
    let ignored = send("hello", "{\"n\":  3}").send().expect(200).json();
    assert_eq!(ignored["ignored"], "open: n is 3, and only [1, 2] is wanted");
    send("hello", "{\"n\": ").send().expect(400);
    host.finish();
}

#[test]
fn a_hook_that_could_not_be_checked_is_not_deployed() {
    let host = TestHost::start();
    for (rest, expected) in [
        ("adapter = \"none\"\n", "write `public = true` if that is wanted"),
        ("adapter = \"none\"\npublic = true\nsecret = \"gh-hook\"\n", "checks no signature"),
        (
            "adapter = \"gitlab\"\nsecret = \"gh-hook\"\npublic = true\n",
            "only hooks with the adapter \"none\" are public",
        ),
        ("adapter = \"gitlab\"\n", "name the signing secret"),
        ("adapter = \"standard-webhooks\"\nsecret = \"gh-hook\"\n", "is no key of Standard Webhooks"),
        ("adapter = \"gitlab\"\nsecret = \"nowhere\"\n", "secret `nowhere` is not configured"),
    ] {
        let dir = host.scratch();
        write_function(
            &dir,
            &[("function.toml", &python_manifest("f", &trigger(rest))), ("main.py", "def handle(e, c):\n    pass\n")],
        );
        let output = host.cli(&["deploy", dir.to_str().expect("ASCII")]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{rest}: {said}");
        assert!(!said.contains("It's a Secret"), "no part of a secret is told");
    }
    assert_eq!(host.http("POST", "/hooks/gl").body("{}").send().expect(404).code(), "not_found");
    host.finish();
}

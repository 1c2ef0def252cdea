//! Which revision runs: aliases, rollback, and changes that ask for a version first.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::calls::{GITHUB_TRIGGER, python_manifest, write_function};
use super::host::TestHost;

fn code(says: &str) -> String {
    format!("def handle(event, context):\n    return ['{says}', context.revision]\n")
}

/// Deploys `f` that says this; its revision.
fn deploy(host: &TestHost, says: &str, rest: &str) -> String {
    host.python("f", rest, &code(says));
    revision(host)
}

fn revision(host: &TestHost) -> String {
    host.get("/v1/functions/f")["function"]["revision"].as_str().expect("a digest").to_owned()
}

/// What a call of this name says; the record must name the same revision as the code saw.
fn says(host: &TestHost, name: &str) -> String {
    let answer = host.call(name, &json!(null)).expect(200);
    let value = answer.json();
    assert_eq!(host.executed(&answer)["revision"], value[1], "which revision ran is on record");
    value[0].as_str().expect("text").to_owned()
}

fn set(host: &TestHost, alias: &str, shares: &Value) -> super::http::Answer {
    host.http("PUT", &format!("/v1/functions/f/aliases/{alias}")).json(&json!({ "revisions": shares })).send()
}

#[test]
fn an_alias_keeps_its_revision_whatever_is_deployed() {
    let host = TestHost::start();
    let one = deploy(&host, "one", "");
    let typed = host.cli(&["alias", "set", "f@live", "current"]);
    assert!(typed.status.success(), "{}", String::from_utf8_lossy(&typed.stderr));
    let two = deploy(&host, "two", "");
    assert_eq!((says(&host, "f"), says(&host, "f@live")), ("two".to_owned(), "one".to_owned()));
    assert_eq!(says(&host, &format!("f@{one}")), "one");
    let typed = host.cli(&["invoke", "f@live"]);
    assert!(String::from_utf8_lossy(&typed.stdout).contains("one"));

    let submitted = host.submit("f@live", &json!(null));
    let invocation = host.settled(&submitted);
    assert_eq!((&invocation["revision"], &invocation["state"]), (&json!(one), &json!("succeeded")));

    let listed = host.get("/v1/functions/f/revisions");
    let rows: Vec<_> = listed["revisions"].as_array().expect("a list").iter().collect();
    assert_eq!((&rows[0]["revision"], &rows[0]["current"]), (&json!(two), &json!(true)));
    assert_eq!((&rows[1]["revision"], &rows[1]["aliases"]), (&json!(one), &json!(["live"])));
    let page = host.get("/v1/functions/f/revisions?limit=1");
    let next = page["next"].as_str().expect("there is more");
    assert_eq!(host.get(&format!("/v1/functions/f/revisions?before={next}"))["revisions"][0]["revision"], one.as_str());

    assert!(host.cli(&["alias", "rm", "f@live"]).status.success());
    assert_eq!(host.call("f@live", &json!(null)).expect(404).code(), "not_found");
    assert_eq!(host.get("/v1/functions/f/aliases")["aliases"], json!([]));
    host.finish();
}

#[test]
fn weights_share_the_calls_out() {
    let host = TestHost::start();
    let one = deploy(&host, "one", "");
    let two = deploy(&host, "two", "");
    let shares = json!([{"revision": one, "weight": 3}, {"revision": two, "weight": 1}]);
    set(&host, "canary", &shares).expect(201);
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..200 {
        *counts.entry(says(&host, "f@canary")).or_default() += 1;
    }
    // 150 and 50 are to be expected; 6 standard deviations on either side.
    assert!((113..=187).contains(&counts["one"]) && counts["one"] + counts["two"] == 200, "{counts:?}");
    let typed = host.cli(&["alias", "ls", "f"]);
    let told = String::from_utf8_lossy(&typed.stdout).into_owned();
    assert!(told.contains("canary") && told.contains("75.0 %") && told.contains("25.0 %"), "{told}");
    host.finish();
}

#[test]
fn what_an_alias_cannot_point_at_is_named() {
    let host = TestHost::start();
    let one = deploy(&host, "one", "");
    let nowhere = format!("sha256:{}", "0".repeat(64));
    for (shares, status) in [
        (json!([]), 422),
        (json!([{"revision": one}, {"revision": one}]), 422),
        (json!([{"revision": one, "weight": 0}]), 422),
        (json!([{"revision": "one"}]), 422),
        (json!([{"revision": nowhere}]), 404),
    ] {
        set(&host, "live", &shares).expect(status);
    }
    host.python("g", "", &code("g"));
    let foreign = host.get("/v1/functions/g")["function"]["revision"].clone();
    set(&host, "live", &json!([{"revision": foreign}])).expect(404);
    host.call(&format!("f@{}", foreign.as_str().expect("text")), &json!(null)).expect(404);
    host.call("f@nope", &json!(null)).expect(404);
    host.call("f@Nope", &json!(null)).expect(422);
    host.http("GET", "/v1/functions/none/aliases").send().expect(404);
    host.http("GET", "/v1/functions/none/revisions").send().expect(404);
    host.http("DELETE", "/v1/functions/f/aliases/none").send().expect(404);
    host.finish();
}

#[test]
fn a_rollback_flips_the_pointer_and_the_triggers() {
    let host = TestHost::start();
    let one = deploy(&host, "one", "");
    deploy(&host, "two", GITHUB_TRIGGER);
    let three = deploy(&host, "three", GITHUB_TRIGGER);
    let back = |args: &[&str]| {
        let output = host.cli(args);
        (
            output.status.code(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    };
    let (code, text) = back(&["rollback", "f"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(says(&host, "f"), "two");
    let (code, _) = back(&["rollback", "f"]);
    assert_eq!((code, says(&host, "f")), (Some(0), "one".to_owned()));
    assert_eq!(host.github("push", "x", b"{}").send().status, 404, "the first revision had no hook");
    let (code, text) = back(&["rollback", "f"]);
    assert_eq!(code, Some(17), "there is nothing before it: {text}");
    let (code, text) = back(&["rollback", "f", "--to", &three[7..15]]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(says(&host, "f"), "three");
    let ping = host.github("ping", "y", b"{}").send();
    assert_eq!(ping.status, 200, "its hook is back");
    let (code, _) = back(&["rollback", "f", "--to", "ffffffff"]);
    assert_eq!(code, Some(15));
    // After a rollback to a named one, the next goes to where it came from.
    assert_eq!((back(&["rollback", "f"]).0, says(&host, "f")), (Some(0), "one".to_owned()));
    assert_eq!(revision(&host), one);
    host.finish();
}

#[test]
fn a_rollback_to_a_hook_that_others_took_is_refused() {
    let host = TestHost::builder().secret("other-hook", &["default"]).start();
    deploy(&host, "one", GITHUB_TRIGGER);
    let two = deploy(&host, "two", "");
    let other = "[[trigger]]\ntype = \"webhook\"\npath = \"gh\"\nadapter = \"github\"\nsecret = \"other-hook\"\n";
    host.python("g", other, &code("g"));
    assert_eq!(host.http("POST", "/v1/functions/f/rollback").send().expect(409).code(), "conflict");
    assert_eq!(revision(&host), two, "nothing was changed");
    host.finish();
}

#[test]
fn changes_can_ask_for_a_version_first() {
    let host = TestHost::start();
    let one = deploy(&host, "one", "");
    let etag = host.http("GET", "/v1/functions/f").send().expect(200).header("ETag").expect("it has one").to_owned();
    assert_eq!(etag, format!("\"{one}\""));
    deploy(&host, "two", "");
    let tar = {
        let dir = host.scratch();
        write_function(&dir, &[("function.toml", &python_manifest("f", "")), ("main.py", &code("three"))]);
        let files = ["function.toml", "main.py"];
        std::process::Command::new("tar")
            .arg("-C")
            .arg(&dir)
            .args(["-cf", "-"])
            .args(files)
            .output()
            .expect("tar")
            .stdout
    };
    let put =
        |name: &str, value: &str| host.http("PUT", "/v1/functions/f").header(name, value).body(tar.clone()).send();
    assert_eq!(put("If-Match", &etag).expect(412).code(), "precondition_failed");
    put("If-None-Match", "*").expect(412);
    put("If-Match", "nonsense").expect(422);
    let back = host.http("POST", "/v1/functions/f/rollback").header("If-Match", &etag).send();
    assert_eq!(back.expect(412).code(), "precondition_failed");
    host.http("DELETE", "/v1/functions/f").header("If-Match", &etag).send().expect(412);
    assert_eq!(says(&host, "f"), "two", "nothing was changed");
    let now = host.http("GET", "/v1/functions/f").send().header("ETag").expect("it has one").to_owned();
    let deployed = put("If-Match", &now).expect(201);
    assert_eq!(says(&host, "f"), "three");
    assert_ne!(deployed.header("ETag"), Some(now.as_str()));

    let alias = |name: &str, value: &str, share: &str| {
        let request = host.http("PUT", "/v1/functions/f/aliases/live").header(name, value);
        request.json(&json!({"revisions": [{"revision": share}]})).send()
    };
    alias("If-Match", "*", &one).expect(412);
    let made = alias("If-None-Match", "*", &one).expect(201);
    alias("If-None-Match", "*", &one).expect(412);
    let version = made.header("ETag").expect("it has one").to_owned();
    let moved = alias("If-Match", &version, &revision(&host)).expect(200);
    alias("If-Match", &version, &one).expect(412);
    host.http("DELETE", "/v1/functions/f/aliases/live").header("If-Match", &version).send().expect(412);
    let last = moved.header("ETag").expect("it has one").to_owned();
    host.http("DELETE", "/v1/functions/f/aliases/live").header("If-Match", &last).send().expect(204);
    host.finish();
}

//! Asynchronous work that fails: tried again as the function says, a dead letter after that, redriven or dropped; put off and put first.

use std::time::Duration;

use chrono::DateTime;
use serde_json::{Value, json};

use super::host::TestHost;
use super::metrics::Page;
use super::wait::{secs, until, until_some};

/// Fails as the event says: for so many attempts, or by taking too long.
const CODE: &str = r#"
import time

def handle(event, context):
    if context.attempt <= event.get("fail", 0):
        raise ValueError("not yet: attempt %d" % context.attempt)
    time.sleep(event.get("sleep", 0))
    cause = context.cause
    return {"attempt": context.attempt, "kind": cause.kind, "n": event.get("n")}
"#;

const RETRY: &str = "[retry]\nmax_attempts = 4\nmin_backoff = \"100ms\"\nmax_backoff = \"1s\"\n";

fn cli_json(host: &TestHost, args: &[&str]) -> Value {
    let output = host.cli(&[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn line(host: &TestHost, args: &[&str]) -> String {
    let output = host.cli(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn executions(host: &TestHost, invocation: &Value) -> Vec<Value> {
    let ids = invocation["executions"].as_array().expect("a list");
    ids.iter().map(|id| host.execution(id.as_str().expect("an id"))).collect()
}

fn moment(value: &Value) -> DateTime<chrono::FixedOffset> {
    DateTime::parse_from_rfc3339(value.as_str().expect("a moment")).expect("RFC 3339")
}

#[test]
fn a_failure_is_tried_again_until_it_succeeds_and_a_wait_covers_that() {
    let host = TestHost::start();
    host.python("f", RETRY, CODE);
    let id = host.submit("f", &json!({"fail": 2}));
    let waited = host.get(&format!("/v1/invocations/{id}?wait=60s"))["invocation"].clone();
    assert_eq!((&waited["state"], &waited["attempts"]), (&json!("succeeded"), &json!(3)), "{waited}");
    assert_eq!(host.get(&format!("/v1/invocations/{id}/result")), json!({"attempt": 3, "kind": "http", "n": null}));
    let tries = executions(&host, &waited);
    let states: Vec<&str> = tries.iter().map(|one| one["state"].as_str().expect("a state")).collect();
    assert_eq!(states, ["failed", "failed", "succeeded"]);
    for (pair, least) in tries.windows(2).zip([100, 200]) {
        let pause = moment(&pair[1]["created_at"]) - moment(&pair[0]["finished_at"]);
        assert!(pause.num_milliseconds() >= least, "{pause}");
    }
    // Not one of them is a dead letter, and a synchronous call is never run again.
    assert_eq!(host.get("/v1/dead_letters")["dead_letters"], json!([]));
    assert_eq!(host.call("f", &json!({"fail": 2})).expect(502).code(), "function_error");
    until("its history is written", secs(10), || host.psql("SELECT count(*) FROM executions") == "4");
    assert_eq!(host.psql("SELECT count(*) FROM queue"), "0");
    host.finish();
}

#[test]
fn only_the_failures_that_are_named_are_tried_again() {
    let host = TestHost::start();
    let retry = "timeout = \"500ms\"\n[retry]\nmax_attempts = 2\non = [\"timeout\"]\nmin_backoff = \"50ms\"\n";
    host.python("f", retry, CODE);
    host.python("plain", "", CODE);
    let error = host.submit("f", &json!({"fail": 9}));
    let late = host.submit("f", &json!({"sleep": 60}));
    let plain = host.submit("plain", &json!({"fail": 9}));
    let attempts = |id: &str| {
        let settled = host.settled(id);
        assert_eq!((&settled["state"], &settled["dead_letter"]), (&json!("failed"), &json!(true)), "{settled}");
        settled["attempts"].clone()
    };
    assert_eq!([attempts(&error), attempts(&late), attempts(&plain)], [json!(1), json!(2), json!(1)]);
    host.finish();
}

#[test]
fn what_failed_for_good_is_a_dead_letter_until_it_is_redriven_or_dropped() {
    let host = TestHost::start();
    host.python("f", RETRY, "def handle(event, context):\n    raise ValueError('broken')\n");
    let ids: Vec<String> = (0..5).map(|n| host.submit("f", &json!({"n": n}))).collect();
    for id in &ids {
        let settled = host.settled(id);
        assert_eq!((&settled["attempts"], &settled["dead_letter"]), (&json!(4), &json!(true)));
    }
    let letters = cli_json(&host, &["dead-letters", "--function", "f", "--outcome", "error"]);
    assert_eq!(letters["dead_letters"].as_array().map(Vec::len), Some(5), "{letters}");
    Page::of(&host).expect("runlet_dead_letters", &[], 5.0);
    assert_eq!(cli_json(&host, &["dead-letters", "--outcome", "oom"])["dead_letters"], json!([]));
    // One by its id, one dropped, the others by what they have in common.
    host.python("f", RETRY, CODE);
    line(&host, &["dead-letter", "drop", &ids[0]]);
    let again = cli_json(&host, &["dead-letter", "redrive", &ids[1]])["invocation"].clone();
    assert_eq!((&again["of"], &again["function"]), (&json!(ids[1]), &json!("f")));
    let settled = host.settled(again["id"].as_str().expect("an id"));
    assert_eq!((&settled["state"], &settled["cause"]["kind"]), (&json!("succeeded"), &json!("rerun")), "{settled}");
    assert_eq!((&settled["cause"]["of"], &settled["cause"]["lineage"]["root"]), (&json!(ids[1]), &json!(ids[1])));
    let result = host.get(&format!("/v1/invocations/{}/result", settled["id"].as_str().expect("an id")));
    assert_eq!(result, json!({"attempt": 1, "kind": "rerun", "n": 1}));
    let second = host.http("POST", &format!("/v1/dead_letters/{}/redrive", ids[1])).send().expect(404);
    assert_eq!(second.code(), "not_found");
    let rest = cli_json(&host, &["dead-letter", "redrive", "--all", "--function", "f", "--since", "1h"]);
    assert_eq!(rest["redriven"].as_array().map(Vec::len), Some(3), "{rest}");
    for one in rest["redriven"].as_array().expect("a list") {
        assert_eq!(host.settled(one["id"].as_str().expect("an id"))["state"], "succeeded");
    }
    assert_eq!(host.get("/v1/dead_letters")["dead_letters"], json!([]));
    assert_eq!(host.invocation(&ids[4])["dead_letter"], false);
    // What cannot run again stays, with the reason.
    host.python("gone", "", "def handle(event, context):\n    raise ValueError('broken')\n");
    let lost = host.submit("gone", &json!({}));
    host.settled(&lost);
    line(&host, &["rm", "gone"]);
    let refused = host.http("POST", "/v1/dead_letters/redrive").send().expect(200).json();
    assert_eq!(refused["refused"][0]["invocation"], json!(lost), "{refused}");
    assert!(refused["refused"][0]["reason"].as_str().is_some_and(|reason| reason.contains("gone")), "{refused}");
    assert_eq!(host.get("/v1/dead_letters")["dead_letters"][0]["invocation"], json!(lost));
    host.finish();
}

#[test]
fn what_is_too_old_is_not_tried_again_and_expires_in_the_queue() {
    let host = TestHost::start();
    let retry =
        "max_concurrency = 1\ntimeout = \"1m\"\n[retry]\nmax_attempts = 9\nmax_age = \"1s\"\nmin_backoff = \"20s\"\n";
    host.python("f", retry, CODE);
    let id = host.submit("f", &json!({"fail": 9}));
    let settled = host.settled(&id);
    assert_eq!(
        (&settled["state"], &settled["attempts"]),
        (&json!("failed"), &json!(1)),
        "the next try would be too late"
    );
    let blocker = host.submit("f", &json!({"sleep": 30}));
    host.in_state(&blocker, "running");
    let waiting = host.submit("f", &json!({}));
    let expired = host.settled(&waiting);
    assert_eq!((&expired["state"], &expired["dead_letter"]), (&json!("expired"), &json!(true)), "{expired}");
    line(&host, &["cancel", &blocker]);
    let letters = host.get("/v1/dead_letters")["dead_letters"].clone();
    assert_eq!(letters.as_array().map(Vec::len), Some(2), "what is cancelled is none: {letters}");
    assert_eq!(letters[0]["outcome"], Value::Null);
    host.finish();
}

#[test]
fn what_is_too_old_when_its_memory_comes_free_expires() {
    let host = TestHost::builder().set("memory", "\"320MiB\"").start();
    host.python("holder", "memory = \"256MiB\"\ntimeout = \"1m\"\n", CODE);
    host.python("late", "memory = \"256MiB\"\n[retry]\nmax_attempts = 3\nmax_age = \"1s\"\n", CODE);
    let caller = std::thread::scope(|scope| {
        let call = scope.spawn(|| host.call("holder", &json!({"sleep": 30})));
        until("the call runs", secs(30), || {
            host.get("/v1/executions?function=holder&state=running")["executions"][0].is_object()
        });
        let waiting = host.submit("late", &json!({}));
        let expired = host.settled(&waiting);
        assert_eq!((&expired["state"], &expired["dead_letter"]), (&json!("expired"), &json!(true)), "{expired}");
        assert_eq!(expired["attempts"], 1, "it was in line: {expired}");
        let message = expired["outcome"]["error"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("its deadline passed before it could start"), "{expired}");
        let running = host.get("/v1/executions?function=holder")["executions"][0]["invocation"].clone();
        line(&host, &["cancel", running.as_str().expect("an id")]);
        call.join().expect("it ends")
    });
    assert_eq!(caller.status, 409, "{}", caller.json());
    host.finish();
}

#[test]
fn work_is_put_off_and_cancelled_while_it_waits_for_its_time_or_its_next_try() {
    let host = TestHost::start();
    host.python("f", "[retry]\nmin_backoff = \"1h\"\nmax_backoff = \"2h\"\n", CODE);
    let later = line(&host, &["invoke", "f", "--data", "{}", "--async", "--delay", "2s"]);
    let never = line(&host, &["invoke", "f", "--data", "{}", "--async", "--at", "2027-01-31T12:00:00Z"]);
    let why = host.get(&format!("/v1/invocations/{never}/explain"))["explanation"]["reason"].clone();
    assert!(
        why.as_str().is_some_and(|why| why.starts_with("it is not to start before 2027-01-31 12:00:00 UTC")),
        "{why}"
    );
    line(&host, &["cancel", &never]);
    let cancelled = host.settled(&never);
    assert_eq!((&cancelled["state"], &cancelled["attempts"]), (&json!("cancelled"), &json!(0)));
    let failing = host.submit("f", &json!({"fail": 1}));
    until("it waits for its next try", secs(30), || {
        let now = host.invocation(&failing);
        now["state"] == "queued" && now["attempts"] == 1
    });
    let why = host.get(&format!("/v1/invocations/{failing}/explain"))["explanation"]["reason"].clone();
    assert!(
        why.as_str().is_some_and(
            |why| why.starts_with("attempt 1 ended with outcome error; the next one is not to start before")
        ),
        "{why}"
    );
    line(&host, &["cancel", &failing]);
    let cancelled = host.settled(&failing);
    let seen = (&cancelled["state"], &cancelled["attempts"], &cancelled["dead_letter"]);
    assert_eq!(seen, (&json!("cancelled"), &json!(1), &json!(false)));
    let settled = host.settled(&later);
    let begun = &executions(&host, &settled)[0];
    let waited = moment(&begun["created_at"]) - moment(&settled["created_at"]);
    assert!((2000..10_000).contains(&waited.num_milliseconds()), "{waited}");
    for (header, value) in
        [("Runlet-Delay", "soon"), ("Runlet-Not-Before", "2999-01-01T00:00:00Z"), ("Runlet-Priority", "101")]
    {
        let request = host.call_request("f").header("Prefer", "respond-async").header(header, value);
        assert_eq!(request.json(&json!({})).send().expect(422).code(), "invalid", "{header}");
        assert_eq!(host.call_request("f").header(header, "1").json(&json!({})).send().expect(422).code(), "invalid");
    }
    host.finish();
}

#[test]
fn a_higher_priority_goes_first() {
    let host = TestHost::start();
    host.python("f", "max_concurrency = 1\ntimeout = \"1m\"\n", CODE);
    let blocker = host.submit("f", &json!({"sleep": 40}));
    host.in_state(&blocker, "running");
    let mut ids = Vec::new();
    for priority in ["-5", "0", "7"] {
        ids.push(line(&host, &["invoke", "f", "--data", "{}", "--async", "--priority", priority]));
    }
    line(&host, &["cancel", &blocker]);
    let started = |id: &String| moment(&executions(&host, &host.settled(id))[0]["started_at"]);
    let started: Vec<_> = ids.iter().map(started).collect();
    assert!(started[2] < started[1] && started[1] < started[0], "{started:?}");
    host.finish();
}

#[test]
fn a_repeated_key_tells_what_became_of_the_first_one() {
    let host = TestHost::start();
    host.python("f", RETRY, CODE);
    let send = || {
        let request = host.call_request("f").header("Prefer", "respond-async").header("Idempotency-Key", "k");
        request.json(&json!({"fail": 1, "n": 7})).send().expect(202).json()["invocation"].clone()
    };
    let first = send();
    assert_eq!(first["repeated"], false);
    host.settled(first["id"].as_str().expect("an id"));
    let again = send();
    assert_eq!((&again["id"], &again["repeated"], &again["state"]), (&first["id"], &json!(true), &json!("succeeded")));
    assert_eq!(again["result"], json!({"attempt": 2, "kind": "http", "n": 7}));
    host.finish();
}

#[test]
fn an_invocation_runs_again_by_the_revision_that_is_wanted() {
    let host = TestHost::start();
    host.python("f", "", "def handle(event, context):\n    return 'old'\n");
    let old = host.submit("f", &json!({"n": 1}));
    let digest = host.settled(&old)["revision"].as_str().expect("a digest").to_owned();
    host.python("f", "", CODE);
    let result = |id: &str| {
        let settled = host.settled(id);
        assert_eq!(settled["cause"]["of"], json!(old));
        host.get(&format!("/v1/invocations/{id}/result"))
    };
    assert_eq!(result(&line(&host, &["rerun", &old]))["n"], 1);
    assert_eq!(result(&line(&host, &["rerun", &old, "--revision", "same"])), "old");
    assert_eq!(result(&line(&host, &["rerun", &old, "--revision", &digest])), "old");
    let slow = host.submit("f", &json!({"sleep": 9}));
    assert_eq!(host.http("POST", &format!("/v1/invocations/{slow}/rerun")).send().expect(409).code(), "conflict");
    line(&host, &["cancel", &slow]);
    // Who repeats a repeat still finds the first one.
    let second = line(&host, &["rerun", &old]);
    host.settled(&second);
    let third = line(&host, &["rerun", &second]);
    let lineage = host.settled(&third)["cause"]["lineage"].clone();
    assert_eq!((&lineage["parent"], &lineage["root"]), (&json!(second), &json!(old)));
    host.finish();
}

#[test]
fn a_try_that_waits_outlives_the_server() {
    let mut host = TestHost::start();
    host.python("f", "[retry]\nmin_backoff = \"3s\"\n", CODE);
    let id = host.submit("f", &json!({"fail": 1}));
    until_some("the first attempt has failed", secs(30), || (host.invocation(&id)["attempts"] == 1).then_some(()));
    until("it waits", secs(30), || host.invocation(&id)["state"] == "queued");
    host.kill9();
    host.restart();
    let settled = host.settled(&id);
    assert_eq!((&settled["state"], &settled["attempts"]), (&json!("succeeded"), &json!(2)));
    let pause =
        moment(&executions(&host, &settled)[1]["created_at"]) - moment(&executions(&host, &settled)[0]["finished_at"]);
    assert!(pause.to_std().is_ok_and(|pause| pause >= Duration::from_secs(3)), "{pause}");
    host.finish();
}

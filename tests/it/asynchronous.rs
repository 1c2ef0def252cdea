//! Asynchronous calls: 202 after the commit, wait, result, cancel, and keys that make a repeat harmless.

use std::collections::BTreeSet;

use serde_json::json;

use super::host::TestHost;
use super::wait::secs;

const CODE: &str = "import time\n\ndef handle(event, context):\n    print('go', flush=True)\n    time.sleep(event['sleep'])\n    return {'n': event.get('n'), 'attempt': context.attempt}\n";

#[test]
fn accepted_work_runs_and_its_result_is_kept() {
    let host = TestHost::start();
    host.python("f", "", CODE);
    let request = host.call_request("f").header("Prefer", "respond-async").json(&json!({"sleep": 0, "n": 7}));
    let answer = request.send().expect(202);
    let invocation = answer.json()["invocation"].clone();
    let id = invocation["id"].as_str().expect("an id");
    assert_eq!(answer.header("Location"), Some(format!("/v1/invocations/{id}").as_str()));
    assert_eq!(answer.header("Preference-Applied"), Some("respond-async"));
    assert_eq!((&invocation["function"], &invocation["repeated"]), (&json!("f"), &json!(false)));
    let settled = host.settled(id);
    assert_eq!(settled["state"], "succeeded");
    assert_eq!(settled["attempts"], 1);
    let result = host.http("GET", &format!("/v1/invocations/{id}/result")).send().expect(200);
    assert_eq!(result.header("Content-Type"), Some("application/json"));
    assert_eq!(result.json(), json!({"n": 7, "attempt": 1}));
    host.finish();
}

#[test]
fn a_running_one_is_cancelled_and_nothing_of_it_is_left() {
    let host = TestHost::start();
    host.python("f", "timeout = \"1m\"\n", CODE);
    let id = host.submit("f", &json!({"sleep": 3600}));
    host.in_state(&id, "running");
    let cancelled = host.http("POST", &format!("/v1/invocations/{id}/cancel")).send().expect(200);
    assert_eq!(cancelled.json()["invocation"]["id"], id.as_str());
    let settled = host.settled(&id);
    assert_eq!((&settled["state"], &settled["outcome"]["kind"]), (&json!("cancelled"), &json!("cancelled")));
    host.traces.wait_no_sandbox(secs(5));
    let again = host.http("POST", &format!("/v1/invocations/{id}/cancel")).send().expect(409);
    assert_eq!(again.code(), "conflict");
    host.finish();
}

#[test]
fn a_waiting_one_is_cancelled_and_never_starts() {
    let host = TestHost::start();
    host.python("f", "timeout = \"1m\"\nmax_concurrency = 1\n", CODE);
    let running = host.submit("f", &json!({"sleep": 3600}));
    host.in_state(&running, "running");
    let waiting = host.submit("f", &json!({"sleep": 0}));
    let why = host.get(&format!("/v1/invocations/{waiting}/explain"));
    assert!(why["explanation"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{why}");
    host.http("POST", &format!("/v1/invocations/{waiting}/cancel")).send().expect(200);
    let settled = host.settled(&waiting);
    assert_eq!((&settled["state"], &settled["attempts"]), (&json!("cancelled"), &json!(0)));
    host.http("POST", &format!("/v1/invocations/{running}/cancel")).send().expect(200);
    host.settled(&running);
    host.finish();
}

#[test]
fn a_key_makes_a_repeat_harmless() {
    let host = TestHost::start();
    host.python("f", "", CODE);
    let send = |key: &str| {
        let request = host.call_request("f").header("Prefer", "respond-async").header("Idempotency-Key", key);
        request.json(&json!({"sleep": 0})).send().expect(202).json()["invocation"].clone()
    };
    let ids: BTreeSet<String> = std::thread::scope(|scope| {
        let sends: Vec<_> = (0..20).map(|_| scope.spawn(|| send("k-1")["id"].to_string())).collect();
        sends.into_iter().map(|send| send.join().expect("it does not panic")).collect()
    });
    assert_eq!(ids.len(), 1);
    let other = send("k-2");
    assert_eq!(other["repeated"], false);
    let again = send("k-2");
    assert_eq!((&again["id"], &again["function"], &again["repeated"]), (&other["id"], &json!("f"), &json!(true)));
    host.settled(other["id"].as_str().expect("an id"));
    host.finish();
}

#[test]
fn a_failed_one_has_no_result_and_says_how_it_failed() {
    let host = TestHost::start();
    host.python("f", "", CODE);
    let id = host.submit("f", &json!({"wrong": 1}));
    let settled = host.settled(&id);
    assert_eq!((&settled["state"], &settled["attempts"]), (&json!("failed"), &json!(1)));
    assert_eq!(settled["outcome"]["error"]["type"], "KeyError");
    assert_eq!(host.http("GET", &format!("/v1/invocations/{id}/result")).send().expect(404).code(), "not_found");
    host.finish();
}

#[test]
fn many_at_once_are_all_done() {
    let host = TestHost::start();
    host.python("f", "max_concurrency = 4\n", CODE);
    let ids: Vec<String> = (0..100).map(|n| host.submit("f", &json!({"sleep": 0, "n": n}))).collect();
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(host.settled(id)["state"], "succeeded");
        assert_eq!(host.get(&format!("/v1/invocations/{id}/result"))["n"], n);
    }
    host.finish();
}

#[test]
fn work_that_starts_at_once_overtakes_none_that_waits() {
    let host = TestHost::start();
    host.python("f", "max_concurrency = 1\n", CODE);
    // The first one makes the sandbox; from then on the server knows the function.
    let first = host.submit("f", &json!({"sleep": 0}));
    assert_eq!(host.settled(&first)["state"], "succeeded");
    let mut ids = Vec::new();
    for pause in [0.0, 0.02] {
        ids.extend((0..15).map(|_| host.submit("f", &json!({"sleep": pause}))));
    }
    for id in &ids {
        assert_eq!(host.settled(id)["state"], "succeeded");
    }
    let list = host.get("/v1/executions?limit=100");
    let mut begun: Vec<_> = list["executions"].as_array().unwrap().iter().collect();
    begun.sort_by_key(|one| one["started_at"].as_str().unwrap().to_owned());
    let order: Vec<_> = begun.iter().map(|one| one["invocation"].as_str().unwrap()).collect();
    assert_eq!(order[1..], ids, "in the order in which they were accepted");
    assert!(begun.iter().all(|one| one["attempt"] == 1));
    host.finish();
}

#[test]
fn work_beyond_a_functions_limit_waits_in_the_queue_unclaimed() {
    let mut host = TestHost::start();
    host.python("f", "max_concurrency = 2\n", CODE);
    let ids: Vec<String> = (0..30).map(|n| host.submit("f", &json!({"sleep": 0.3, "n": n}))).collect();
    let begun = |state: &str| {
        let list = host.get(&format!("/v1/executions?state={state}&limit=1000"));
        list["executions"].as_array().map_or(0, Vec::len)
    };
    super::wait::until("the first ones are done", secs(30), || {
        let begun = begun("starting") + begun("running");
        assert!(begun <= 4, "{begun} executions are begun where 2 may run: what cannot start yet stays in the queue");
        super::calls::is_terminal(&host.invocation(&ids[5]))
    });
    // So a crash costs an attempt to those that ran, and to no other.
    host.kill9();
    host.restart();
    let settled: Vec<_> = ids.iter().map(|id| host.settled(id)).collect();
    assert!(settled.iter().all(|one| one["state"] == "succeeded"));
    let repeated = settled.iter().filter(|one| one["attempts"] != 1).count();
    assert!(repeated <= 4, "{repeated} were begun again");
    host.finish();
}

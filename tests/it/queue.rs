//! Queues from outside: messages published by API and command line, run in sandboxes, retried, put aside, in order, through crashes.

mod brokers;
mod ends;
mod many;

use serde_json::{Value, json};

use super::host::TestHost;
use super::wait::{secs, until, until_some};

/// Returns what it was given; fails where the event says so.
const ECHO: &str = "\
def handle(event, context):
    if isinstance(event, dict) and event.get('fail'):
        raise ValueError('no ' + str(event.get('n')))
    return {'event': event, 'facts': context.cause.normalised}
";

/// A queue trigger; `rest` are further keys of it.
fn trigger(queue: &str, rest: &str) -> String {
    format!("[[trigger]]\ntype = \"queue\"\nqueue = \"{queue}\"\n{rest}")
}

impl TestHost {
    /// Publishes lines; returns the ids.
    #[track_caller]
    fn publish_lines(&self, queue: &str, lines: &[Value]) -> Vec<Value> {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let request = self.http("POST", &format!("/v1/queues/{queue}/messages"));
        let answer = request.header("Content-Type", "application/x-ndjson").body(body.as_bytes()).send().expect(202);
        answer.json()["messages"].as_array().expect("a list").clone()
    }

    #[track_caller]
    fn queue(&self, queue: &str) -> Value {
        self.get(&format!("/v1/queues/{queue}"))["queue"].clone()
    }

    /// Waits until nothing of a queue waits or is in flight, and returns it.
    #[track_caller]
    fn drained(&self, queue: &str) -> Value {
        until_some(&format!("{queue} is dealt with"), secs(180), || {
            let queue = self.queue(queue);
            let left = ["ready", "delayed", "behind", "in_flight"].iter().any(|state| queue["depth"][*state] != 0);
            (!left).then_some(queue)
        })
    }

    /// What the invocations of messages returned, in the order in which they were made.
    fn results(&self) -> Vec<Value> {
        let rows = self.psql(
            "SELECT convert_from(result, 'UTF8') FROM invocations WHERE cause_kind = 'queue' AND state = 'succeeded' ORDER BY id",
        );
        rows.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[track_caller]
    fn queue_cli(&self, args: &[&str]) -> String {
        let output = self.cli(&[&["queue"][..], args].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// A row of the table of `make verify-brokers`.
fn verified(what: &str, messages: usize, repeated: usize, note: &str) {
    use std::io::Write as _;
    let Some(path) = std::env::var_os("RUNLET_VERIFY_TABLE") else { return };
    let mut table = std::fs::File::options().append(true).create(true).open(path).expect("the table is writable");
    if table.metadata().expect("it is there").len() == 0 {
        writeln!(table, "| what | messages | lost | ran twice | |\n|---|---|---|---|---|")
            .expect("the table is writable");
    }
    writeln!(table, "| {what} | {messages} | 0 | {repeated} | {note} |").expect("the table is writable");
}

#[test]
fn a_message_becomes_an_invocation_and_is_gone() {
    let host = TestHost::start();
    host.python("f", &trigger("orders", ""), ECHO);
    let id =
        host.queue_cli(&["publish", "orders", "--data", "{\"n\":1}", "--attribute", "kind=new", "--priority", "3"]);
    assert!(id.starts_with("msg_"), "{id}");
    host.drained("orders");
    let result = host.results().pop().expect("it ran");
    assert_eq!(result["event"], json!({"n": 1}));
    let facts = &result["facts"];
    assert_eq!((&facts["message"], &facts["attempt"], &facts["queue"]), (&json!(id), &json!(1), &json!("orders")));
    assert_eq!((&facts["attributes"], &facts["priority"]), (&json!({"kind": "new"}), &json!(3)));
    let invocation = host.psql("SELECT cause->>'kind' || ' ' || state || ' ' || priority_was FROM (SELECT cause, state, '3' AS priority_was FROM invocations) i");
    assert_eq!(invocation, "queue succeeded 3");
    // Bytes that are no JSON come as base64, as everywhere.
    host.http("POST", "/v1/queues/orders/messages")
        .header("Content-Type", "image/png")
        .body(b"\x89\xff")
        .send()
        .expect(202);
    host.drained("orders");
    assert_eq!(host.results().pop().expect("it ran")["event"], "if8=");
    let list = host.queue_cli(&["ls"]);
    assert!(list.contains("orders") && list.contains(" f "), "{list}");
    assert!(String::from_utf8_lossy(&host.cli(&["triggers"]).stdout).contains("queue orders"));
    let page = host.http("GET", "/metrics").send().expect(200).text();
    assert!(page.contains("runlet_messages_total{fate=\"done\"} 2"), "{page}");
    assert!(page.contains("runlet_queue_messages{namespace=\"default\",queue=\"orders\",state=\"ready\"} 0"), "{page}");
    host.finish();
}

#[test]
fn what_cannot_be_published_is_told() {
    let host = TestHost::start();
    host.http("PUT", "/v1/queues/q").send().expect(201);
    host.http("PUT", "/v1/queues/q").send().expect(200);
    host.http("PUT", "/v1/queues/Q").send().expect(422);
    let send = |kind: &str, body: &[u8], query: &str| {
        let request = host.http("POST", &format!("/v1/queues/q/messages{query}"));
        request.header("Content-Type", kind).body(body).send()
    };
    assert_eq!(host.http("POST", "/v1/queues/none/messages").body(b"1").send().expect(404).code(), "not_found");
    assert_eq!(send("application/json", b"{", "").expect(400).code(), "bad_json");
    assert_eq!(send("text/plain", &vec![b'x'; (1 << 20) + 1], "").expect(413).code(), "too_large");
    for query in ["?priority=10", "?delay=soon", "?attributes=7", "?colour=red", "?delay=500d"] {
        assert_eq!(send("text/plain", b"x", query).expect(422).code(), "invalid", "{query}");
    }
    let lines = send("application/x-ndjson", b"{\"body\": 1}\n{\"body\": 2, \"prioritty\": 1}\n", "").expect(422);
    assert!(lines.text().contains("line 2"), "{}", lines.text());
    assert_eq!(send("application/x-ndjson", b"\n", "").expect(422).code(), "invalid");
    // All or none: the first line of the broken request is not there.
    assert_eq!(host.queue("q")["depth"]["ready"], 0);
    assert_eq!(host.cli(&["queue", "publish", "none", "--data", "1"]).status.code(), Some(15));
    host.http("DELETE", "/v1/queues/q").send().expect(204);
    host.http("GET", "/v1/queues/q").send().expect(404);
    host.finish();
}

#[test]
fn a_poison_message_is_put_aside_and_blocks_nothing() {
    let host = TestHost::start();
    host.python("f", &trigger("q", "max_attempts = 3\nbackoff = \"20ms\"\n"), ECHO);
    let poison = json!({"body": {"n": 0, "fail": true}, "key": "k"});
    let fine = |n: u32, key: &str| json!({"body": {"n": n}, "key": key});
    let ids = host.publish_lines("q", &[poison, fine(1, "k"), fine(2, "k"), fine(3, "other")]);
    let queue = host.drained("q");
    assert_eq!(queue["depth"]["dead"], 1);
    let done: Vec<Value> = host.results().iter().map(|result| result["event"]["n"].clone()).collect();
    assert_eq!(done.len(), 3, "{done:?}");
    let of_key: Vec<&Value> = done.iter().filter(|n| **n != 3).collect();
    assert_eq!(of_key, [&json!(1), &json!(2)], "the key goes on behind it, in order");
    let dead = host.get("/v1/queues/q/messages?state=dead")["messages"][0].clone();
    assert_eq!((&dead["id"], &dead["attempts"]), (&ids[0]["id"], &json!(3)));
    assert!(dead["reason"].as_str().is_some_and(|reason| reason.contains("ValueError: no 0")), "{dead}");
    assert!(host.queue_cli(&["dead", "q"]).contains("ValueError"));
    let failed = host.psql("SELECT count(*) FROM invocations WHERE cause_kind = 'queue' AND state = 'failed'");
    assert_eq!(failed, "3", "each attempt is an invocation on record");
    // The fault is mended: the dead letter goes again.
    host.python("f", &trigger("q", ""), "def handle(event, context):\n    return {'event': event}\n");
    assert!(host.queue_cli(&["redrive", "q"]).starts_with("1 "));
    assert_eq!(host.drained("q")["depth"]["dead"], 0);
    assert_eq!(host.results().last().expect("it ran")["event"]["n"], 0);
    host.finish();
}

#[test]
fn batches_fill_up_and_only_what_failed_comes_back() {
    let host = TestHost::start();
    let code = "\
def handle(event, context):
    failed = [m['id'] for m in event['messages'] if m['body'] % 3 == 0 and m['attempt'] == 1]
    return {'batchItemFailures': [{'itemIdentifier': id} for id in failed], 'bodies': [m['body'] for m in event['messages']]}
";
    host.http("PUT", "/v1/queues/q").send().expect(201);
    host.queue_cli(&["pause", "q", "--note", "filling"]);
    host.python("f", &trigger("q", "batch_size = 10\nbatch_window = \"300ms\"\nbackoff = \"10ms\"\n"), code);
    let lines: Vec<Value> = (1..=20).map(|n| json!({"body": n})).collect();
    host.publish_lines("q", &lines);
    assert!(host.queue_cli(&["ls"]).contains("filling"));
    assert_eq!(host.queue("q")["depth"]["ready"], 20, "nothing is taken from a paused queue");
    host.queue_cli(&["resume", "q"]);
    host.drained("q");
    let bodies: Vec<Vec<u64>> = host
        .results()
        .iter()
        .map(|result| serde_json::from_value(result["bodies"].clone()).expect("numbers"))
        .collect();
    assert_eq!(bodies[0], (1..=10).collect::<Vec<u64>>());
    assert_eq!(bodies[1], (11..=20).collect::<Vec<u64>>());
    let mut again: Vec<u64> = bodies[2..].concat();
    again.sort_unstable();
    assert_eq!(again, [3, 6, 9, 12, 15, 18], "those that failed, once more");
    host.finish();
}

#[test]
fn filters_decide_who_gets_a_message() {
    let host = TestHost::start();
    let name = "def handle(event, context):\n    return {'by': context.function, 'event': event}\n";
    host.python("big", &trigger("q", "match = { size = \"big*\" }\n"), name);
    host.python("refunds", &trigger("q", "attributes = { kind = \"refund\" }\n"), name);
    host.publish_lines(
        "q",
        &[
            json!({"body": {"size": "bigger"}}),
            json!({"body": {"size": "small"}, "attributes": {"kind": "refund"}}),
            json!({"body": {"size": "small"}}),
            json!({"body_base64": "eA==", "content_type": "text/plain"}),
        ],
    );
    let queue = host.drained("q");
    let mut by: Vec<String> = host.results().iter().map(|result| result["by"].to_string()).collect();
    by.sort_unstable();
    assert_eq!(by, ["\"big\"", "\"refunds\""]);
    assert_eq!(queue["depth"]["dead"], 1, "a body that a filter cannot look into is kept");
    let page = host.http("GET", "/metrics").send().expect(200).text();
    assert!(page.contains("runlet_messages_total{fate=\"unwanted\"} 1"), "{page}");
    host.finish();
}

#[test]
fn delay_priority_and_dedup_do_what_they_say() {
    let host = TestHost::start();
    host.http("PUT", "/v1/queues/q").send().expect(201);
    let published = host.publish_lines(
        "q",
        &[
            json!({"body": "low"}),
            json!({"body": "high", "priority": 9}),
            json!({"body": "late", "delay": "1500ms", "priority": 9}),
            json!({"body": "once", "dedup": "d"}),
            json!({"body": "twice", "dedup": "d"}),
        ],
    );
    assert_eq!((&published[4]["repeated"], &published[4]["id"]), (&json!(true), &published[3]["id"]));
    let again = host.publish_lines("q", &[json!({"body": "thrice", "dedup": "d"})]);
    assert_eq!((&again[0]["repeated"], &again[0]["id"]), (&json!(true), &published[3]["id"]));
    assert_eq!((&host.queue("q")["depth"]["ready"], &host.queue("q")["depth"]["delayed"]), (&json!(3), &json!(1)));
    let peeked = host.queue_cli(&["peek", "q", "--state", "delayed"]);
    assert!(peeked.contains("late"), "{peeked}");
    host.python("f", &format!("max_concurrency = 1\n{}", trigger("q", "max_in_flight = 1\n")), ECHO);
    host.drained("q");
    let order: Vec<Value> = host.results().iter().map(|result| result["event"].clone()).collect();
    assert_eq!(order, [json!("high"), json!("low"), json!("once"), json!("late")]);
    host.queue_cli(&["pause", "q"]);
    host.publish_lines("q", &[json!({"body": 1}), json!({"body": 2, "delay": "1h"})]);
    assert!(host.queue_cli(&["purge", "q"]).starts_with("2 "));
    assert_eq!(host.cli(&["queue", "rm", "q"]).status.code(), Some(17), "a trigger takes from it");
    host.finish();
}

#[test]
fn a_cloud_event_comes_in_both_ways_and_goes_to_the_code_as_one() {
    let host = TestHost::start();
    let hook = "envelope = \"cloudevents\"\n[[trigger]]\ntype = \"webhook\"\npath = \"ce\"\nadapter = \"cloudevents\"\nsecret = \"gh-hook\"\n";
    host.python("f", &format!("{hook}{}", trigger("q", "")), "def handle(event, context):\n    return event\n");
    let send = |headers: &[(&str, &str)], body: &str, token: &str| {
        let request = host.http("POST", "/hooks/ce").anonymous().header("Authorization", format!("Bearer {token}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, *value));
        request.body(body.as_bytes()).send()
    };
    let secret = super::host::HOOK_SECRET;
    let head = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/shop"), ("ce-type", "paid")];
    let binary: Vec<(&str, &str)> =
        head.into_iter().chain([("ce-subject", "Euro%20%E2%82%AC"), ("Content-Type", "application/json")]).collect();
    let of = |answer: super::http::Answer| {
        let id = answer.json()["invocations"][0]["id"].as_str().expect("an id").to_owned();
        assert_eq!(host.settled(&id)["state"], "succeeded");
        host.get(&format!("/v1/invocations/{id}/result"))
    };
    let one = of(send(&binary, "{\"n\": 1}", secret).expect(202));
    let expected = json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "paid", "subject": "Euro €",
        "datacontenttype": "application/json", "data": {"n": 1}});
    assert_eq!(one, expected);
    assert_eq!(send(&binary, "{\"n\": 1}", secret).expect(202).json()["invocations"][0]["repeated"], true);
    let mut document = expected.clone();
    document["id"] = json!("2");
    let structured = [("Content-Type", "application/cloudevents+json")];
    assert_eq!(of(send(&structured, &document.to_string(), secret).expect(202)), document);
    send(&binary, "{}", "wrong").expect(401);
    send(&[("Content-Type", "application/cloudevents-batch+json")], "[]", secret).expect(422);
    let broken: Vec<(&str, &str)> = head.into_iter().chain([("ce-subject", "%C0%A0")]).collect();
    send(&broken, "", secret).expect(422);
    send(&[("Content-Type", "application/json")], "{}", secret).expect(422);
    // What comes by another door is made one.
    host.publish_lines("q", &[json!({"body": {"n": 3}})]);
    host.drained("q");
    let made = host.results().pop().expect("it ran");
    assert_eq!(
        (&made["type"], &made["data"], &made["specversion"]),
        (&json!("runlet.queue"), &json!({"n": 3}), &json!("1.0"))
    );
    host.finish();
}

#[test]
fn who_may_what_with_queues() {
    let host = TestHost::start();
    host.http("PUT", "/v1/queues/q").send().expect(201);
    let token = |role: &str| {
        let body = json!({"name": role, "role": role});
        host.http("POST", "/v1/tokens").json(&body).send().expect(201).json()["secret"]
            .as_str()
            .expect("one")
            .to_owned()
    };
    let (viewer, invoker) = (token("viewer"), token("invoker"));
    let send =
        |token: &str, method: &str, path: &str| host.http(method, path).anonymous().bearer(token).body(b"1").send();
    send(&viewer, "GET", "/v1/queues/q/messages").expect(200);
    send(&viewer, "POST", "/v1/queues/q/messages").expect(403);
    send(&invoker, "POST", "/v1/queues/q/messages").expect(202);
    for (method, path) in [("POST", "/v1/queues/q/purge"), ("PUT", "/v1/queues/r"), ("POST", "/v1/queues/q/pause")] {
        send(&invoker, method, path).expect(403);
    }
    until("it is there", secs(5), || host.queue("q")["depth"]["ready"] == 1);
    host.finish();
}

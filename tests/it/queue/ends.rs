//! Ends that are published to queues: to one that is built in, and to brokers, from which another function takes them, over TLS.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::edge::Authority;
use super::brokers::{Nats, Rabbit, broker, config, peer};
use super::*;

const CODE: &str =
    "def handle(event, context):\n    if event.get('fail'):\n        raise ValueError('no')\n    return event\n";

/// Shows what came, and where from.
const SEEN: &str = "def handle(event, context):\n    return [event['type'], event['data']['event'], context.cause.lineage, context.cause.normalised['attributes']]\n";

/// What the only invocation of `g` that succeeded has returned.
fn seen(host: &TestHost) -> Value {
    let id = until_some("it is taken", secs(60), || {
        let list = host.get("/v1/executions?function=g&state=succeeded");
        list["executions"][0]["invocation"].as_str().map(str::to_owned)
    });
    host.get(&format!("/v1/invocations/{id}/result"))
}

/// The notes of the tries of a callback.
fn notes(host: &TestHost, id: &str) -> Vec<String> {
    let answer = host.http("GET", &format!("/v1/callbacks/{id}")).send();
    if answer.status != 200 {
        return Vec::new();
    }
    let tries = answer.json()["callback"]["history"].as_array().cloned().unwrap_or_default();
    tries.iter().map(|one| one["note"].as_str().expect("text").to_owned()).collect()
}

/// What `g` has to have seen of the end of `id`, an invocation of `f`.
#[track_caller]
fn expect_end(seen: &Value, id: &str, event: &str) {
    assert_eq!(seen[0], format!("invocation.{event}"), "{seen}");
    assert_eq!(seen[2], json!({"parent": id, "root": id, "depth": 1, "functions": ["f"]}), "{seen}");
    assert_eq!((&seen[3]["runlet.event"], &seen[3]["runlet.function"]), (&json!(event), &json!("f")), "{seen}");
    assert_eq!(seen[3]["runlet.invocation"], *id, "{seen}");
}

#[test]
fn ends_are_published_to_a_queue_once_and_no_loop_goes_on() {
    let host = TestHost::start();
    let told = "[on_success]\nqueue = \"ends\"\n[on_failure]\nqueue = \"ends\"\n";
    host.python("f", told, CODE);
    host.python("g", &trigger("ends", "attributes = { \"runlet.event\" = \"failed\" }\n"), SEEN);
    let good = host.submit("f", &json!({"n": 1}));
    let bad = host.submit("f", &json!({"fail": 2}));
    expect_end(&seen(&host), &bad, "failed");
    host.drained("ends");
    assert_eq!(host.psql("SELECT count(*) FROM invocations WHERE function = 'g'"), "1", "the other is not wanted");
    for id in [&good, &bad] {
        assert_eq!(notes(&host, id), ["published"]);
    }
    // A function that takes what it has told would go on for ever.
    host.python("around", &format!("[on_success]\nqueue = \"round\"\n{}", trigger("round", "")), CODE);
    let first = host.submit("around", &json!({"n": 1}));
    let dead = until_some("it is a dead letter", secs(30), || {
        let dead = host.get("/v1/queues/round/messages?state=dead")["messages"][0].clone();
        dead.is_object().then_some(dead)
    });
    assert_eq!(dead["reason"], "this is a loop: around -> around; it is not gone round again");
    assert_eq!(host.psql("SELECT count(*) FROM invocations WHERE function = 'around'"), "1", "{first}");
    // Without its queue an end cannot be told, which is on record; made again, it can.
    host.cli(&["rm", "g"]);
    host.http("DELETE", "/v1/queues/ends").send().expect(204);
    let lost = host.submit("f", &json!({"n": 3}));
    until("it is given up", secs(30), || !notes(&host, &lost).is_empty());
    assert_eq!(notes(&host, &lost), ["there is no queue `ends`; make it, then retry this callback"]);
    host.cli(&["queue", "create", "ends"]);
    host.http("POST", &format!("/v1/callbacks/{lost}/retry")).send().expect(200);
    until("it is published", secs(30), || notes(&host, &lost).len() == 2);
    assert_eq!(host.queue("ends")["depth"]["ready"], 1);
    host.finish();
}

/// A file with the authority that the server's user can read.
fn readable(dir: &Path, name: &str, authority: &Authority) -> String {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::fs::write(dir.join(name), authority.read("ca")).expect("writable");
    dir.join(name).display().to_string()
}

/// Ends of `f` go to `to` at a broker, whence `g` takes them. `stranger` is the same broker, its certificate is of another authority.
fn there_and_back(host: &TestHost, to: &str, from: &str) {
    host.python("g", &trigger(from, "source = \"secure\"\n"), SEEN);
    host.python("h", &trigger(from, "source = \"stranger\"\n"), SEEN);
    host.python("f", &format!("[on_success]\nqueue = \"{to}\"\nbroker = \"secure\"\n"), CODE);
    let id = host.submit("f", &json!({"text": "€"}));
    let seen = seen(host);
    expect_end(&seen, &id, "succeeded");
    assert_eq!(seen[1], json!({"text": "€"}));
    assert_eq!(notes(host, &id), ["published"]);
    until("the strange certificate is told", secs(30), || {
        let broker = broker(host, "h");
        let error = broker["error"].as_str().unwrap_or_default().to_lowercase();
        broker["state"] == "failing" && error.contains("certificate")
    });
    // What is not there takes nothing, and is asked again.
    host.python("f", "[on_success]\nqueue = \"nobody.takes\"\nbroker = \"secure\"\n", CODE);
    let lost = host.submit("f", &json!({}));
    until("it has been tried", secs(30), || !notes(host, &lost).is_empty());
    assert!(notes(host, &lost)[0].starts_with("could not publish to `nobody.takes`: "), "{:?}", notes(host, &lost));
    assert_eq!(host.get(&format!("/v1/callbacks/{lost}"))["callback"]["state"], "waiting");
    for function in ["f", "g", "h"] {
        host.cli(&["rm", function]);
    }
}

fn secure(url: &str, dir: &Path, authority: &Authority) -> TestHost {
    let with = |name: &str, ca: String| format!("{}ca = \"{ca}\"\n", config(name, url));
    TestHost::builder()
        .own_secret("broker", "wonder")
        .table(&with("secure", readable(dir, "ca", authority)))
        .table(&with("stranger", readable(dir, "other", &Authority::new())))
        .start()
}

#[test]
fn ends_go_to_nats_and_come_back_over_tls() {
    let (dir, authority) = (tempfile::tempdir_in("/var/tmp").expect("writable"), Authority::new());
    let nats = Nats::with_tls(dir.path().to_owned(), &authority);
    let host = secure(&format!("tls://localhost:{}", nats.port), dir.path(), &authority);
    peer("publish.py", &["nats", &format!("nats://127.0.0.1:{}", nats.port), "DONE", "done.none", "0", "0"]);
    there_and_back(&host, "done.f", "DONE");
    host.finish();
}

#[test]
fn ends_go_to_rabbitmq_and_come_back_over_tls() {
    let (dir, authority) = (tempfile::tempdir_in("/var/tmp").expect("writable"), Authority::new());
    let rabbit = Rabbit::with_tls(dir.path().to_owned(), &authority);
    let host = secure(&format!("amqps://localhost:{}", rabbit.tls_port()), dir.path(), &authority);
    let plain = format!("amqp://runlet:wonder@127.0.0.1:{}", rabbit.port);
    peer("publish.py", &["rabbitmq", &plain, "done", "", "0", "0"]);
    there_and_back(&host, "done", "done");
    host.finish();
}

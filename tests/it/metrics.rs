//! The page for Prometheus: right after known work, well formed, and for the operator's people only.

use serde_json::{Value, json};

use super::calls::GITHUB_TRIGGER;
use super::edge::{hear, peer};
use super::faults::Outage;
use super::host::TestHost;
use super::http::Answer;
use super::wait::{secs, until};

/// A page as the reference parser reads it.
pub(crate) struct Page(Vec<Value>);

impl Page {
    fn read(answer: &Answer) -> Self {
        assert_eq!(answer.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let read = hear(&mut peer("scrape.py"), &answer.body);
        assert_eq!(read["problems"], json!([]), "{}", answer.text());
        Self(read["samples"].as_array().expect("a list").clone())
    }

    pub(crate) fn of(host: &TestHost) -> Self {
        Self::read(&host.http("GET", "/metrics").send().expect(200))
    }

    /// The sum of the series of this name that have these labels; `None` if there is no such series.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits =
            |sample: &&Value| sample[0] == name && labels.iter().all(|(label, value)| sample[1][*label] == **value);
        let found: Vec<f64> = self.0.iter().filter(fits).filter_map(|sample| sample[2].as_f64()).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    #[track_caller]
    pub(crate) fn expect(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let found = self.value(name, labels);
        assert_eq!(found, Some(value), "{name} {labels:?}");
    }
}

#[test]
fn the_page_counts_what_was_done() {
    let host = TestHost::start();
    host.python("py", GITHUB_TRIGGER, "def handle(event, context):\n    return event\n");
    host.python("bad", "", "def handle(event, context):\n    raise ValueError('no')\n");
    host.shell("sh", "", "exit 3");
    for _ in 0..3 {
        host.call("py", &json!(1)).expect(200);
    }
    host.call("bad", &json!(1)).expect(502);
    host.call("sh", &json!(1)).expect(502);
    host.settled(&host.submit("py", &json!(1)));
    let body = br#"{"ref":"refs/heads/main"}"#;
    let hooked = host.github("push", "m-1", body).send().expect(202).json();
    host.settled(hooked["invocations"][0]["id"].as_str().expect("an id"));
    host.github("push", "m-1", body).send().expect(202);
    host.github("push", "m-2", body).header("X-Hub-Signature-256", "sha256=00").send().expect(401);
    host.http("BREW", "/healthz").send().expect(405);
    host.http("GET", "/v1/functions/nothing").send().expect(404);
    // The end of the last one is counted before it is told; its sandbox is parked a moment later.
    until("the sandbox is parked", secs(5), || {
        Page::of(&host).value("runlet_sandboxes", &[("state", "parked")]) >= Some(1.0)
    });

    let page = Page::of(&host);
    let own = ("namespace", "default");
    page.expect("runlet_executions_total", &[own, ("function", "py"), ("outcome", "ok")], 5.0);
    page.expect("runlet_executions_total", &[own, ("function", "bad"), ("outcome", "error")], 1.0);
    page.expect("runlet_executions_total", &[own, ("function", "sh"), ("outcome", "exit")], 1.0);
    page.expect("runlet_executions_total", &[], 7.0);
    page.expect("runlet_execution_starts_total", &[], 7.0);
    assert!(page.value("runlet_execution_starts_total", &[("kind", "warm")]) >= Some(2.0));
    assert!(page.value("runlet_execution_starts_total", &[("kind", "cold")]) >= Some(3.0));
    for stage in ["admission", "place", "run", "record"] {
        page.expect("runlet_stage_duration_seconds_count", &[("stage", stage)], 7.0);
    }
    for (verdict, count) in [("accepted", 1.0), ("duplicate", 1.0)] {
        page.expect("runlet_deliveries_total", &[("verdict", verdict)], count);
    }
    let call = [("route", "/v1/functions/{name}/invocations"), ("method", "POST")];
    page.expect("runlet_http_requests_total", &[call[0], call[1], ("status", "200")], 3.0);
    page.expect("runlet_http_requests_total", &[call[0], call[1], ("status", "502")], 2.0);
    page.expect("runlet_http_request_duration_seconds_count", &call, 6.0);
    page.expect("runlet_http_requests_total", &[("method", "other"), ("status", "405")], 1.0);
    page.expect("runlet_http_requests_total", &[("route", "/v1/functions/{name}"), ("status", "404")], 1.0);
    page.expect("runlet_queue_invocations", &[("state", "waiting")], 0.0);
    page.expect("runlet_queue_oldest_seconds", &[], 0.0);
    page.expect("runlet_postgres_up", &[], 1.0);
    page.expect("runlet_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    for positive in [
        "runlet_sandbox_memory_bytes",
        "runlet_sandbox_memory_limit_bytes",
        "runlet_sandboxes_limit",
        "runlet_postgres_connections",
        "runlet_postgres_acquire_duration_seconds_count",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        assert!(page.value(positive, &[]) > Some(0.0), "{positive}");
    }
    for present in ["runlet_spool_records", "runlet_spool_bytes", "runlet_calls_waiting", "process_cpu_seconds_total"] {
        assert!(page.value(present, &[]).is_some(), "{present}");
    }
    host.finish();
}

#[test]
fn what_waits_is_seen_waiting() {
    let host = TestHost::start();
    host.python("f", "max_concurrency = 1\n", "import time\n\ndef handle(event, context):\n    time.sleep(event)\n");
    let ids: Vec<String> = [20, 0, 0].iter().map(|seconds| host.submit("f", &json!(seconds))).collect();
    host.in_state(&ids[0], "running");
    until("the page says so", secs(10), || {
        let page = Page::of(&host);
        let queue = |state| page.value("runlet_queue_invocations", &[("state", state)]);
        queue("waiting") == Some(2.0)
            && queue("claimed") == Some(1.0)
            && page.value("runlet_queue_oldest_seconds", &[]) > Some(0.5)
            && page.value("runlet_sandboxes", &[("state", "in_use")]) == Some(1.0)
    });
    // Those that wait first: the end of the one that runs would let them start.
    for id in ids.iter().rev() {
        host.http("POST", &format!("/v1/invocations/{id}/cancel")).send().expect(200);
    }
    host.finish();
}

#[test]
fn the_page_is_for_the_operators_people() {
    let host = TestHost::start();
    let token = |namespace: &str, role: &str| {
        let request = host.unix("POST", "/v1/tokens").header("Runlet-Namespace", namespace);
        let made =
            request.json(&json!({ "name": format!("{namespace}-{role}"), "role": role })).send().expect(201).json();
        made["secret"].as_str().expect("a secret").to_owned()
    };
    let ask = |secret: &str| host.http("GET", "/metrics").anonymous().bearer(secret).send();
    host.http("GET", "/metrics").anonymous().send().expect(401);
    ask("rl_wrong").expect(401);
    ask(&token("default", "viewer")).expect(200);
    let other = ask(&token("team", "admin")).expect(403);
    assert!(other.text().contains("namespace `default`"), "{}", other.text());
    host.unix("GET", "/metrics").send().expect(200);
    host.finish();

    let open = TestHost::builder().table("[metrics]\npublic = true\n").start();
    Page::read(&open.http("GET", "/metrics").anonymous().send().expect(200));
    open.http("GET", "/v1/functions").anonymous().send().expect(401);
    open.finish();
}

#[test]
fn an_outage_of_the_database_is_on_the_page() {
    let host = TestHost::builder().table("[metrics]\npublic = true\n").start();
    let outage = Outage::begin(&host);
    until("the page says so", secs(20), || Page::of(&host).value("runlet_postgres_up", &[]) == Some(0.0));
    outage.end();
    until("the page says that it is over", secs(30), || Page::of(&host).value("runlet_postgres_up", &[]) == Some(1.0));
    host.finish();
}

//! Schedules, end to end: ticks of a real clock, of a clock that is set, of two servers, and of a server that was away.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::calls::python_manifest;
use super::host::TestHost;
use super::wait::{secs, until, until_some};

mod clock;
mod many;
mod overlap;

const ECHO: &str = "def handle(event, context):\n    return {'event': event, 'kind': context.cause.kind, 'trigger': context.cause.trigger}\n";

/// A cron trigger that fires every second, unless `rest` says something else.
fn every_second(rest: &str) -> String {
    let schedule = if rest.contains("schedule") { "" } else { "schedule = \"* * * * * *\"\nseconds = true\n" };
    format!("[[trigger]]\ntype = \"cron\"\n{schedule}{rest}")
}

impl TestHost {
    fn trigger(&self, function: &str) -> Value {
        self.get(&format!("/v1/triggers?function={function}"))["triggers"][0].clone()
    }

    /// The ticks of a function's only trigger, newest first.
    fn ticks(&self, function: &str) -> Vec<Value> {
        let id = self.trigger(function)["id"].as_str().expect("it has a trigger").to_owned();
        self.get(&format!("/v1/triggers/{id}/ticks?limit=1000"))["ticks"].as_array().expect("a list").clone()
    }

    /// Its ticks with this fate, once there are `n`.
    #[track_caller]
    fn ticks_of_fate(&self, function: &str, fate: &str, n: usize) -> Vec<Value> {
        until_some(&format!("{n} ticks of {function} are {fate}"), secs(60), || {
            let ticks: Vec<Value> = self.ticks(function).into_iter().filter(|tick| tick["fate"] == fate).collect();
            (ticks.len() >= n).then_some(ticks)
        })
    }
}

fn invocation_of(tick: &Value) -> String {
    tick["invocation"].as_str().expect("it has one").to_owned()
}

#[test]
fn a_schedule_fires_and_says_so() {
    let host = TestHost::start();
    host.python("f", &every_second("data = { city = \"Bern\" }\n"), ECHO);
    let mut ticks = host.ticks_of_fate("f", "fired", 3);
    let trigger = host.trigger("f");
    let id = trigger["id"].as_str().expect("an id").to_owned();
    ticks.reverse();
    for tick in ticks.iter().take(3) {
        let invocation = host.settled(&invocation_of(tick));
        assert_eq!((&invocation["state"], &invocation["cause"]["kind"]), (&json!("succeeded"), &json!("cron")));
        let result = host.get(&format!("/v1/invocations/{}/result", invocation_of(tick)));
        let event = &result["event"];
        assert_eq!(event["fires_at"], tick["fires_at"], "the tick it is for");
        assert_eq!(
            (&event["zone"], &event["missed"], &event["data"]),
            (&json!("UTC"), &json!(false), &json!({"city": "Bern"}))
        );
        assert_eq!((&result["kind"], &result["trigger"]), (&json!("cron"), &json!(id)));
    }
    let list = host.cli(&["triggers"]);
    let list = String::from_utf8_lossy(&list.stdout);
    assert!(list.contains("cron * * * * * * (UTC)") && list.contains(&id), "{list}");
    let ticks = host.cli(&["trigger", "ticks", "f", "--limit", "2"]);
    assert!(String::from_utf8_lossy(&ticks.stdout).contains(" fired "), "{ticks:?}");
    host.finish();
}

#[test]
fn a_pause_holds_and_says_why() {
    let host = TestHost::start();
    host.python("f", &every_second(""), ECHO);
    host.ticks_of_fate("f", "fired", 1);
    let paused = host.cli(&["trigger", "pause", "f", "--note", "moving house"]);
    assert!(paused.status.success(), "{}", String::from_utf8_lossy(&paused.stderr));
    let trigger = host.trigger("f");
    assert_eq!(trigger["paused"]["note"], "moving house");
    assert!(trigger["next_at"].is_null());
    let list = host.cli(&["triggers"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains("moving house"));
    // A deploy changes nothing about it, even with another schedule.
    host.python("f", &every_second("schedule = \"*/2 * * * * *\"\nseconds = true\n"), ECHO);
    let before = host.ticks("f").len();
    host.python("g", &every_second(""), ECHO);
    host.ticks_of_fate("g", "fired", 3);
    assert_eq!(host.ticks("f").len(), before, "another one fired three times meanwhile");
    assert_eq!(host.trigger("f")["paused"]["note"], "moving house");
    let resumed = host.cli(&["trigger", "resume", "f"]);
    assert!(String::from_utf8_lossy(&resumed.stdout).contains(" is on, next at "), "{resumed:?}");
    until("it fires again", secs(30), || host.ticks("f").len() > before);
    let missed = host.ticks("f").iter().filter(|tick| tick["fate"] == "missed").count();
    assert_eq!(missed, 0, "ticks of a pause are not missed ones");
    let webhook = "[[trigger]]\ntype = \"webhook\"\npath = \"x\"\nadapter = \"hmac\"\nsecret = \"gh-hook\"\n";
    host.python("hook", webhook, ECHO);
    let id = host.trigger("hook")["id"].as_str().expect("an id").to_owned();
    host.http("POST", &format!("/v1/triggers/{id}/pause")).send().expect(422);
    assert_eq!(host.cli(&["trigger", "pause", "hook"]).status.code(), Some(15), "it has no schedule");
    host.http("GET", "/v1/triggers/trg_06fcy5swzhp7d2w7k3s6cdyj1m").send().expect(404);
    host.finish();
}

#[test]
fn a_schedule_that_cannot_be_is_refused_with_its_field() {
    let host = TestHost::start();
    let told = |rest: &str| {
        let dir = host.scratch();
        let manifest = python_manifest("f", &format!("[[trigger]]\ntype = \"cron\"\n{rest}"));
        super::calls::write_function(&dir, &[("function.toml", &manifest), ("main.py", ECHO)]);
        let output = host.cli(&["deploy", dir.to_str().expect("ASCII")]);
        assert!(!output.status.success(), "{rest}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (rest, word) in [
        ("schedule = \"0 0 30 2 *\"\n", "day of month"),
        ("schedule = \"*/0 * * * *\"\n", "minute"),
        ("schedule = \"0 25 * * *\"\n", "hour"),
        ("schedule = \"@daily\"\nzone = \"Mars/Olympus\"\n", "trigger.zone"),
        ("schedule = \"* * * * * *\"\n", "seconds = true"),
        ("", "trigger.schedule"),
    ] {
        let error = told(rest);
        assert!(error.contains(word), "{rest}: {error}");
    }
    assert_eq!(host.get("/v1/triggers")["triggers"], json!([]));
    host.finish();
}

#[test]
fn next_ticks_are_told_without_a_server() {
    let next = |args: &[&str]| super::host::runlet().args(["cron", "next"]).args(args).output().expect("it is built");
    let spring = next(&["30 2 * * *", "--zone", "Europe/Berlin", "--from", "2026-03-28T12:00:00Z", "-n", "2"]);
    assert_eq!(
        String::from_utf8_lossy(&spring.stdout),
        "LOCAL                         UTC\nSun 2026-03-29 03:00:00 CEST  2026-03-29T01:00:00Z\nMon 2026-03-30 02:30:00 CEST  2026-03-30T00:30:00Z\n"
    );
    let json = next(&["*/20 * * * * *", "--seconds", "--from", "2026-01-01T00:00:00Z", "-n", "1", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["ticks"][0]["utc"], "2026-01-01T00:00:20Z");
    let bad = next(&["0 0 31 2 *"]);
    assert!(!bad.status.success());
    assert!(String::from_utf8_lossy(&bad.stderr).contains("day of month"), "{bad:?}");
}

#[test]
fn jitter_moves_starts_and_not_ticks() {
    let host = TestHost::start();
    host.python("f", &every_second("jitter = \"900ms\"\noverlap = \"allow\"\n"), ECHO);
    let ticks = host.ticks_of_fate("f", "fired", 3);
    let moments: BTreeSet<&str> = ticks.iter().filter_map(|tick| tick["fires_at"].as_str()).collect();
    assert_eq!(moments.len(), ticks.len());
    for tick in ticks.iter().skip(1) {
        assert_eq!(host.settled(&invocation_of(tick))["state"], "succeeded");
    }
    host.finish();
}

//! Many messages, many servers, crashes, and a transaction that keeps vacuum from clearing up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::super::wait::scaled;
use super::*;

/// Runs long enough that two of a key at a time would be seen.
const SLOW: &str = "import time\n\ndef handle(event, context):\n    time.sleep(0.002)\n    return event\n";

/// Lines of `keys` keys, `each` of each, interleaved.
pub(super) fn keyed(keys: u32, each: u32) -> Vec<Value> {
    let line = |n: u32, key: u32| json!({"body": {"key": key, "n": n}, "key": format!("k{key}")});
    (0..each).flat_map(|n| (0..keys).map(move |key| line(n, key))).collect()
}

/// Checks that all were done, those of a key one at a time and in order; returns how many ran more than once.
pub(super) fn in_order(host: &TestHost, keys: u32, each: u32) -> usize {
    let rows = host.psql(
        "SELECT extract(epoch FROM x.started_at)::text || ' ' || extract(epoch FROM x.finished_at)::text || ' ' || convert_from(i.payload, 'UTF8')
         FROM executions x JOIN invocations i ON i.id = x.invocation
         WHERE i.cause_kind = 'queue' AND x.outcome = 'ok' ORDER BY x.started_at",
    );
    let mut seen: BTreeMap<u64, (i64, f64)> = BTreeMap::new();
    let mut done: BTreeSet<(u64, i64)> = BTreeSet::new();
    let mut repeated = 0;
    for row in rows.lines() {
        let mut parts = row.splitn(3, ' ');
        let mut moment = || parts.next().expect("a moment").parse::<f64>().expect("a number");
        let (started, finished) = (moment(), moment());
        let event: Value = serde_json::from_str(parts.next().expect("a body")).expect("JSON");
        let (key, n) = (event["key"].as_u64().expect("a key"), event["n"].as_i64().expect("a number"));
        repeated += usize::from(!done.insert((key, n)));
        let (last, ended) = seen.get(&key).copied().unwrap_or((-1, 0.0));
        assert!(n == last + 1 || n <= last, "key {key}: {n} came after {last}");
        assert!(n <= last || started + 0.0005 >= ended, "key {key}: {n} began before {last} ended");
        seen.insert(key, (last.max(n), finished.max(ended)));
    }
    assert_eq!(done.len(), (keys * each) as usize, "none is lost");
    repeated
}

#[test]
fn a_killed_server_loses_no_message_and_keeps_the_order_of_keys() {
    let mut host = TestHost::builder().set("lease", "\"2s\"").start();
    host.python("f", &format!("max_concurrency = 4\n{}", trigger("q", "backoff = \"10ms\"\n")), SLOW);
    let (keys, each) = (20, scaled(25, 500));
    let done = |host: &TestHost| {
        let done = host.psql("SELECT count(*) FROM invocations WHERE cause_kind = 'queue' AND state = 'succeeded'");
        done.parse::<u32>().expect("a number")
    };
    host.publish_lines("q", &keyed(keys, each));
    until("some are done", secs(60), || done(&host) >= keys * each / 4);
    host.kill9();
    host.restart();
    host.drained("q");
    let repeated = in_order(&host, keys, each);
    assert!(repeated <= 8, "{repeated} ran twice: at most what was running");
    assert_eq!(host.queue("q")["depth"]["dead"], 0);
    verified("built-in queue, 20 keys, server killed", (keys * each) as usize, repeated, "order of each key kept");
    host.finish();
}

#[test]
fn three_servers_keep_the_order_of_keys() {
    let one = TestHost::builder().set("lease", "\"2s\"").start();
    let (keys, each) = (10, scaled(30, 300));
    one.python("f", &format!("max_concurrency = 2\nmemory = \"64MiB\"\n{}", trigger("q", "")), SLOW);
    let url = format!("\"postgres://runlet@localhost/postgres?host={}\"", one.postgres_socket().display());
    let other = || TestHost::builder().set("lease", "\"2s\"").set("database_url", &url).start();
    let (two, mut three) = (other(), other());
    let lines = keyed(keys, each);
    for (nth, lines) in lines.chunks(50).enumerate() {
        [&one, &two, &three][nth % 3].publish_lines("q", lines);
    }
    until("more than one works", secs(60), || one.psql("SELECT count(DISTINCT server) FROM executions") != "1");
    three.kill9();
    one.drained("q");
    let repeated = in_order(&one, keys, each);
    assert!(repeated <= 4, "{repeated} ran twice: at most what the killed one ran");
    verified(
        "built-in queue, 10 keys, three servers, one killed",
        (keys * each) as usize,
        repeated,
        "order of each key kept",
    );
    three.restart();
    three.finish();
    two.finish();
    one.finish();
}

#[test]
fn a_long_transaction_of_others_stalls_no_queue() {
    let host = TestHost::start();
    host.python("f", &format!("max_concurrency = 2\n{}", trigger("q", "max_in_flight = 100\n")), ECHO);
    let lines: Vec<Value> = (0..scaled(300, 5000)).map(|n| json!({"body": {"n": n}})).collect();
    let run = || {
        let begin = Instant::now();
        host.publish_lines("q", &lines);
        host.drained("q");
        begin.elapsed()
    };
    run();
    let before = run();
    // Somebody's report: as long as it lasts, no dead row can be cleared away.
    let socket = host.postgres_socket();
    let mut report = std::process::Command::new("setpriv")
        .args(["--reuid=runlet", "--regid=runlet", "--clear-groups", "psql", "-X", "-q", "-h"])
        .arg(&socket)
        .args([
            "-d",
            "postgres",
            "-c",
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current(); SELECT pg_sleep(3600)",
        ])
        .current_dir("/")
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("psql is there");
    let holds = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()";
    until("the transaction is there", secs(10), || host.psql(holds) != "0");
    let rounds: Vec<_> = (0..3).map(|_| run()).collect();
    host.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()");
    report.wait().expect("it is our child");
    let note = format!("{before:.2?} before it, {rounds:.2?} while it lasted");
    verified("built-in queue under a long transaction, three rounds", lines.len(), 0, &note);
    let worst = rounds.iter().max().expect("rounds").as_secs_f64();
    assert!(worst < before.as_secs_f64() * 4.0 + 2.0, "{before:?} before, {rounds:?} under a long transaction");
    host.finish();
}

//! Postgres under load, and what can happen to it: connections cut in the middle of a commit, killed, stopped, frozen.
//!
//! Senders write down every id that got a 2xx. Whatever happens, each of them ends once; meanwhile senders are told 503 and nothing
//! worse; and soon after Postgres answers again, so does the server, without a restart.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::calls::GITHUB_TRIGGER;
use super::host::TestHost;
use super::leaks::children;
use super::wait::{scaled, secs, until, until_some};

/// A server that has its database again works within this time.
const BACK: Duration = secs(5);

/// What the senders were told.
#[derive(Default)]
struct Book {
    accepted: Mutex<Vec<String>>,
    statuses: Mutex<BTreeMap<u16, usize>>,
    slowest: Mutex<Duration>,
    next: AtomicUsize,
    stop: AtomicBool,
}

impl Book {
    fn note(&self, status: u16, took: Duration, id: Option<String>) {
        *self.statuses.lock().expect("no panic").entry(status).or_default() += 1;
        let mut slowest = self.slowest.lock().expect("no panic");
        *slowest = took.max(*slowest);
        self.accepted.lock().expect("no panic").extend(id);
    }

    fn accepted(&self) -> usize {
        self.accepted.lock().expect("no panic").len()
    }
}

/// Sends calls and webhooks by turns until it is told to stop.
fn send(host: &TestHost, book: &Book) {
    while !book.stop.load(Ordering::SeqCst) {
        let n = book.next.fetch_add(1, Ordering::SeqCst);
        let (request, hook) = if n.is_multiple_of(2) {
            (host.github("push", &format!("d-{n}"), format!("{{\"n\": {n}}}").as_bytes()), true)
        } else {
            (host.call_request("f").header("Prefer", "respond-async").json(&json!({ "n": n })), false)
        };
        let start = Instant::now();
        let answer = request.send();
        let id = (answer.status == 202).then(|| {
            let body = answer.json();
            let id = if hook { &body["invocations"][0]["id"] } else { &body["invocation"]["id"] };
            id.as_str().expect("a 202 names it").to_owned()
        });
        assert!([202, 429, 503].contains(&answer.status), "{}: {}", answer.status, answer.text());
        if answer.status == 503 {
            assert_eq!(answer.code(), "store_down", "{}", answer.text());
            assert!(answer.header("Retry-After").is_some());
        }
        book.note(answer.status, start.elapsed(), id);
        // The load is steady, not the most there can be: the machine belongs to others too.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What is done to Postgres. It returns when Postgres could answer again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Every connection is cut, wherever it is: a commit among them, if luck has it.
    Cut,
    /// The postmaster is killed: its children see it and end; the server starts it again.
    Kill,
    /// A fast shutdown; the server starts it again.
    Stop,
    /// Nothing of it runs for some seconds: connections are there and do not answer.
    Freeze,
}

impl Fault {
    fn strike(self, host: &TestHost) {
        let signal = |pid: u32, signal| {
            // One of its processes may be gone by now.
            let _ = kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal);
        };
        let postmaster = || {
            until_some("the private Postgres runs", secs(20), || {
                children(host.pid()).into_iter().find(|(_, name)| name == "postgres").map(|(pid, _)| pid)
            })
        };
        match self {
            Self::Cut => {
                for _ in 0..20 {
                    host.psql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'");
                }
            }
            Self::Kill => signal(postmaster(), Signal::SIGKILL),
            Self::Stop => signal(postmaster(), Signal::SIGINT),
            Self::Freeze => {
                let postmaster = postmaster();
                let mut all: Vec<u32> = children(postmaster).into_iter().map(|(pid, _)| pid).collect();
                all.insert(0, postmaster);
                all.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
                let request = host.github("push", "frozen", b"{}");
                let answer = request.send();
                all.iter().rev().for_each(|pid| signal(*pid, Signal::SIGCONT));
                assert_eq!((answer.status, answer.code().as_str()), (503, "store_down"), "{}", answer.text());
            }
        }
    }
}

#[test]
fn whatever_happens_to_postgres_nothing_accepted_is_lost() {
    let host = TestHost::builder().set("max_queued", "100000").start();
    let manifest = format!("max_concurrency = 2\n{GITHUB_TRIGGER}");
    host.python("f", &manifest, "def handle(event, context):\n    return event.get('n')\n");
    host.call("f", &json!({ "n": 0 })).expect(200);
    let faults = [Fault::Cut, Fault::Kill, Fault::Freeze, Fault::Stop];
    let book = Book::default();
    let mut table = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..scaled(2, 6) {
            scope.spawn(|| send(&host, &book));
        }
        // A failure here must not leave the senders at work.
        let _stop = StopAtEnd(&book);
        for round in 0..scaled(1, 5) {
            for fault in faults {
                let before = book.accepted();
                until("work is accepted", secs(30), || book.accepted() > before + 10);
                fault.strike(&host);
                let since = Instant::now();
                let delivery = |n| format!("{fault:?}-{round}-{n}");
                let mut tries = 0..;
                until(&format!("hooks are accepted again after {fault:?}"), secs(30), || {
                    let n = tries.next().unwrap_or_default();
                    host.github("push", &delivery(n), b"{\"n\": 0}").send().status == 202
                });
                table.push((fault, before, since.elapsed()));
            }
        }
    });
    for (fault, _, back) in &table {
        assert!(*back < BACK, "{fault:?}: {back:?}");
    }
    let accepted = book.accepted.into_inner().expect("no panic");
    let statuses = book.statuses.into_inner().expect("no panic");
    // The last fault is still at work on some of the server's connections when one of them is good again: whoever looks waits for all.
    let mut in_a_row = 0;
    until("it answers as before", secs(30), || {
        in_a_row = if host.http("GET", "/v1/executions").send().status == 200 { in_a_row + 1 } else { 0 };
        in_a_row >= 20
    });
    for id in &accepted {
        let settled = host.settled(id);
        assert!(settled["state"] == "succeeded" || settled["attempts"].as_u64() > Some(1), "{settled}");
    }
    until("nothing waits any more", secs(30), || host.psql("SELECT count(*) FROM queue") == "0");
    let twice = "SELECT count(*) FROM invocations WHERE state NOT IN ('succeeded', 'failed')";
    assert_eq!(host.psql(twice), "0");
    assert!(statuses.contains_key(&503), "some were told to come again: {statuses:?}");
    write_table(&table, accepted.len(), &statuses, book.slowest.into_inner().expect("no panic"));
    host.finish();
}

struct StopAtEnd<'a>(&'a Book);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// The table of a full-size run, where a file for it is named.
fn write_table(
    rounds: &[(Fault, usize, Duration)],
    accepted: usize,
    statuses: &BTreeMap<u16, usize>,
    slowest: Duration,
) {
    use std::fmt::Write as _;
    let Some(path) = std::env::var_os("RUNLET_VERIFY_TABLE") else { return };
    let mut text = "| fault | accepted before it | hooks accepted again after |\n|---|---|---|\n".to_owned();
    for (fault, before, back) in rounds {
        let _ = writeln!(text, "| {fault:?} | {before} | {} ms |", back.as_millis());
    }
    let _ = writeln!(
        text,
        "\n{accepted} accepted, each ended once; the slowest answer took {} ms.\n\n| status | answers |\n|---|---|",
        slowest.as_millis()
    );
    for (status, count) in statuses {
        let _ = writeln!(text, "| {status} | {count} |");
    }
    std::fs::write(path, text).expect("the table's file is writable");
}

//! kill -9 of one of three servers at random, again and again, under asynchronous work.
//!
//! As in `crash`, two books are kept outside: what was accepted, and what the kernel saw the code do, wherever it ran.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::super::calls::python_manifest;
use super::super::crash::Observer;
use super::super::host::TestHost;
use super::super::wait::{scaled, secs, until};
use super::postgres::Shared;
use super::server;

/// Effect files of a function: an archive has its bounds.
const FILES: usize = 3600;

const CODE: &str = r#"
import time

def handle(event, context):
    open("/var/task/effects/%05d" % event["n"]).close()
    time.sleep(event["sleep"])
    return event["n"]
"#;

/// The first of the numbers that no call of the test has.
const SPARE: usize = 90_000;

/// What was accepted, and how it went.
#[derive(Default)]
struct Book {
    accepted: Mutex<Vec<usize>>,
    next: AtomicUsize,
    broken: AtomicUsize,
}

impl Book {
    fn accepted(&self) -> usize {
        self.accepted.lock().expect("no panic holds it").len()
    }
}

/// Sends to one server after the other, until so many are accepted.
fn send(servers: &[RwLock<TestHost>], book: &Book, wanted: usize, files: usize) {
    while book.accepted() < wanted {
        let n = book.next.fetch_add(1, Ordering::SeqCst);
        assert!(n < files, "more calls than files");
        let event = json!({"n": n, "sleep": 0.01 * f64::from(u8::try_from(n % 5).expect("it is small"))});
        // One that is away is passed over; what was on its way when it was killed may be accepted or not: nobody knows.
        let sent = (0..servers.len()).find_map(|step| {
            let host = servers[(n + step) % servers.len()].try_read().ok()?;
            let request = host.call_request(&format!("f{}", n / FILES)).header("Prefer", "respond-async").json(&event);
            Some(request.try_send())
        });
        match sent {
            Some(Ok(answer)) if answer.status == 202 => book.accepted.lock().expect("no panic holds it").push(n),
            Some(Ok(answer)) => assert!(matches!(answer.status, 429 | 503), "{}: {}", answer.status, answer.text()),
            Some(Err(_)) | None => drop(book.broken.fetch_add(1, Ordering::SeqCst)),
        }
        // The load is steady, not the most there can be.
        std::thread::sleep(Duration::from_millis(4));
    }
}

/// Kills one and starts it again; returns how long that took.
fn kill_one(server: &RwLock<TestHost>) -> Duration {
    let pid = {
        let mut host = server.write().expect("no panic holds it");
        let pid = host.pid();
        host.traces.note_family(pid);
        pid
    };
    // Not under the lock: requests are on their way.
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGKILL).expect("it is our child");
    let start = Instant::now();
    let mut host = server.write().expect("no panic holds it");
    host.wait_end();
    host.restart();
    start.elapsed()
}

#[test]
fn one_of_three_is_killed_again_and_again_and_nothing_is_lost() {
    let (wanted, kills): (usize, usize) = (scaled(250, 10_000), scaled(3, 40));
    let files = wanted + wanted / 4 + 200;
    let postgres = Shared::start();
    let servers: Vec<RwLock<TestHost>> = (0..3).map(|_| RwLock::new(server(&postgres))).collect();
    let functions = files.div_ceil(FILES);
    for function in 0..functions {
        let spare = SPARE + function;
        let numbers = (function * FILES..files.min((function + 1) * FILES)).chain([spare]);
        let names: Vec<String> = numbers.map(|n| format!("effects/{n:05}")).collect();
        let manifest = python_manifest(&format!("f{function}"), "max_concurrency = 3\nmemory = \"64MiB\"\n");
        let mut all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        all.extend([("function.toml", manifest.as_str()), ("main.py", CODE)]);
        servers[0].read().expect("no panic holds it").deploy(&all);
        // Called once, a revision is unpacked: from here on its files can be watched. That file is nobody's else.
        for server in &servers {
            server
                .read()
                .expect("no panic")
                .call(&format!("f{function}"), &json!({"n": spare, "sleep": 0}))
                .expect(200);
        }
    }
    let observers: Vec<Observer> = servers
        .iter()
        .map(|server| Observer::start(&server.read().expect("no panic holds it").data_dir().join("revisions")))
        .collect();
    let book = Book::default();
    let mut back = Vec::new();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| send(&servers, &book, wanted, files));
        }
        for round in 0..kills {
            let share = wanted * (round + 1) / (kills + 1);
            until("enough is accepted", secs(600), || book.accepted() >= share);
            // Whichever: not the same one each time, and the same ones in each run.
            back.push(kill_one(&servers[round * 7 % 5 % 3]));
        }
    });
    until("the queue is empty", secs(300), || postgres.psql("SELECT count(*) FROM queue") == "0");
    let attempts = check(&book, &observers, &postgres);
    write_table(&book, &back, &attempts, begin.elapsed(), &postgres);
    assert_eq!(postgres.psql("SELECT count(DISTINCT server) FROM executions"), "3", "all of them worked");
    drop(observers);
    for server in servers {
        server.into_inner().expect("no panic held it").finish();
    }
}

/// Each accepted one has succeeded once, only lost attempts were repeated, and there were as many effects as attempts admit.
/// Returns how many had how many attempts, and how many effects.
fn check(book: &Book, observers: &[Observer], postgres: &Shared) -> BTreeMap<(u64, u64), usize> {
    let rows = postgres.psql(
        "SELECT convert_from(i.payload, 'UTF8')::json->>'n', i.state, i.attempts,
             (SELECT string_agg(x.state, ' ' ORDER BY x.attempt) FROM executions x WHERE x.invocation = i.id)
         FROM invocations i WHERE i.cause_kind = 'http' ORDER BY i.id",
    );
    let mut found = BTreeMap::<usize, Vec<(String, u64, String)>>::new();
    for row in rows.lines() {
        let [n, state, attempts, states] = row.split('|').collect::<Vec<_>>().try_into().expect("four columns");
        let row = (state.to_owned(), attempts.parse().expect("a number"), states.to_owned());
        found.entry(n.parse().expect("a number")).or_default().push(row);
    }
    let mut seen = BTreeMap::new();
    for n in book.accepted.lock().expect("no panic holds it").iter() {
        let rows = found.get(n).unwrap_or_else(|| panic!("{n} was accepted and is not on record"));
        let [(state, attempts, states)] = rows.as_slice() else { panic!("{n}: {rows:?}") };
        assert_eq!(state, "succeeded", "{n}: {states}");
        let lost = usize::try_from(attempts - 1).expect("small");
        assert_eq!(*states, format!("{}succeeded", "lost ".repeat(lost)), "{n}");
        let effects: u64 = observers.iter().map(|observer| observer.count(*n)).sum();
        assert!((1..=*attempts).contains(&effects), "{n}: {effects} effects in {attempts} attempts");
        *seen.entry((*attempts, effects)).or_insert(0) += 1;
    }
    seen
}

/// The table of a full-size run, where a file for it is named.
fn write_table(
    book: &Book,
    back: &[Duration],
    attempts: &BTreeMap<(u64, u64), usize>,
    took: Duration,
    postgres: &Shared,
) {
    let Some(path) = std::env::var_os("RUNLET_VERIFY_TABLE") else { return };
    let slowest = back.iter().max().copied().unwrap_or_default();
    let mut text = format!(
        "Three servers on one Postgres; {} asynchronous invocations accepted, {} kills of one of them with `kill -9` (and a start again, {} ms at \
         most until it was ready), {} s in all. {} requests got no answer or no server: they are in no book.\n\n\
         Each accepted one succeeded exactly once; only lost attempts were repeated; the kernel saw at least one effect of each, and never more \
         than it had attempts.\n\n| attempts | effects outside | invocations |\n|---|---|---|\n",
        book.accepted(),
        back.len(),
        slowest.as_millis(),
        took.as_secs(),
        book.broken.load(Ordering::SeqCst),
    );
    for ((attempts, effects), invocations) in attempts {
        let _ = writeln!(text, "| {attempts} | {effects} | {invocations} |");
    }
    let moved = postgres.psql(
        "SELECT count(*) FROM executions a JOIN executions b ON b.invocation = a.invocation AND b.attempt = a.attempt + 1
         WHERE a.state = 'lost' AND a.server <> b.server",
    );
    let shares = postgres
        .psql("SELECT string_agg(n::text, ', ') FROM (SELECT count(*) AS n FROM executions GROUP BY server) AS s");
    let _ = writeln!(text, "\nExecutions by server: {shares}. Lost ones that another server took over: {moved}.");
    std::fs::write(path, text).expect("the table's file is writable");
}

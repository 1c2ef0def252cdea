//! kill -9 of the server, again and again, in the middle of accepted work.
//!
//! Two books are kept that the server knows nothing of. The client writes down every id that got a 202. And an observer
//! on the host counts side effects: each call opens a file of its own in the function's directory, read-only as it is,
//! and the kernel reports that open to an inotify watch outside. No byte of either passes through runlet.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::calls::{is_terminal, python_manifest};
use super::host::TestHost;
use super::wait::{scaled, secs, until};

/// Calls that may be made in all; each has its own file.
const FILES: usize = 4000;

const PYTHON: &str = r#"
import time

def handle(event, context):
    open("/var/task/effects/%04d" % event["n"]).close()
    print("effect of", event["n"], "attempt", context.attempt, flush=True)
    time.sleep(event["sleep"])
    return event["n"]
"#;

// Of a server that is killed before it has handed in the event it reads nothing: that is no call of number 0.
const SHELL: &str = r#"
n=$(sed 's/.*"n":\([0-9]*\).*/\1/')
[ -n "$n" ] || exit 1
: < "/var/task/effects/$(printf %04d "$n")"
sleep 0.05
printf %s "$n"
"#;

/// Counts opens of effect files from outside.
pub(super) struct Observer {
    child: Child,
    opens: Arc<Mutex<BTreeMap<usize, u64>>>,
}

impl Observer {
    /// Watches the `effects` directory of every revision that is unpacked below `revisions`.
    pub(super) fn start(revisions: &Path) -> Self {
        let script = include_str!("../security/observer.py");
        let mut command = Command::new("python3");
        command.args(["-u", "-c", script]).arg(revisions);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("python3 is there");
        let lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
        let opens = Arc::new(Mutex::new(BTreeMap::new()));
        let counts = Arc::clone(&opens);
        let ready = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&ready);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match line.parse::<usize>() {
                    Ok(n) => *counts.lock().expect("no panic holds it").entry(n).or_insert(0) += 1,
                    Err(_) => drop(seen.fetch_add(1, Ordering::SeqCst)),
                }
            }
        });
        until("the observer watches", secs(20), || ready.load(Ordering::SeqCst) > 0);
        Self { child, opens }
    }

    pub(super) fn count(&self, n: usize) -> u64 {
        self.opens.lock().expect("no panic holds it").get(&n).copied().unwrap_or(0)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Accepted ids and what number each was given.
type Book = Mutex<Vec<(String, usize)>>;

/// Sends until the server goes away or `numbers` runs out; writes down what was accepted.
fn send(host: &TestHost, book: &Book, next: &AtomicUsize, function: &str) {
    loop {
        let n = next.fetch_add(1, Ordering::SeqCst);
        assert!(n < FILES - 1, "more calls than files");
        let event = json!({"n": n, "sleep": 0.02 * f64::from(u8::try_from(n % 8).expect("it is small"))});
        let request = host.call_request(function).header("Prefer", "respond-async").json(&event);
        match request.try_send() {
            Ok(answer) if answer.status == 202 => {
                let id = answer.json()["invocation"]["id"].as_str().expect("a 202 names it").to_owned();
                book.lock().expect("no panic holds it").push((id, n));
            }
            Ok(answer) => assert!(matches!(answer.status, 429 | 503), "{}: {}", answer.status, answer.text()),
            Err(_) => return,
        }
    }
}

#[test]
fn kill_9_loses_nothing_that_was_accepted() {
    let mut host = TestHost::builder().set("max_queued", "100000").start();
    let files: Vec<String> = (0..FILES).map(|n| format!("effects/{n:04}")).collect();
    let with_files = |manifest: &str, name: &str, text: &str| {
        let mut all: Vec<(&str, &str)> = files.iter().map(|file| (file.as_str(), "")).collect();
        all.extend([("function.toml", manifest), (name, text)]);
        host.deploy(&all);
    };
    with_files(&python_manifest("py", "max_concurrency = 4\n"), "main.py", PYTHON);
    let manifest = "schema = 1\nname = \"sh\"\nruntime = \"exec\"\nhandler = \"run.sh\"\nmax_concurrency = 2\n";
    with_files(manifest, "run.sh", &format!("#!/bin/sh\n{SHELL}"));
    // Called once, a revision is unpacked: from here on its files can be watched.
    for function in ["py", "sh"] {
        host.call(function, &json!({"n": FILES - 1, "sleep": 0})).expect(200);
    }
    let observer = Observer::start(&host.data_dir().join("revisions"));
    let (book, next) = (Book::default(), AtomicUsize::new(0));
    let mut moments = Vec::new();
    for round in 0..scaled(3, 20) {
        let accepted = book.lock().expect("no panic holds it").len();
        // A different moment each time: after so many more acceptances, while senders and sandboxes are at work.
        let moment = accepted + 10 + (round * 37) % 50;
        let running = kill_amid(&mut host, &book, &next, moment);
        let start = Instant::now();
        host.restart();
        moments.push((book.lock().expect("no panic holds it").len() - accepted, running, start.elapsed()));
    }
    let book = book.into_inner().expect("no panic held it");
    let mut attempts = BTreeMap::<u64, usize>::new();
    for (id, n) in &book {
        *attempts.entry(check(&host, &observer, id, *n)).or_insert(0) += 1;
    }
    write_table(&moments, &attempts);
    let left = host.psql("SELECT count(*) FROM queue");
    assert_eq!(left, "0", "nothing waits any more");
    drop(observer);
    host.finish();
}

/// The table of a full-size run, where a file for it is named.
fn write_table(moments: &[(usize, usize, Duration)], attempts: &BTreeMap<u64, usize>) {
    use std::fmt::Write as _;
    let Some(path) = std::env::var_os("RUNLET_VERIFY_TABLE") else { return };
    let mut text = "| kill -9 | calls accepted before it | processes in sandboxes at that moment | ready again after |\n|---|---|---|---|\n".to_owned();
    for (number, (accepted, running, again)) in moments.iter().enumerate() {
        let _ = writeln!(text, "| {} | {accepted} | {running} | {} ms |", number + 1, again.as_millis());
    }
    text.push_str("\nEach accepted call had exactly one terminal state, and as many effects outside as its attempts admit (at least one).\n\n| attempts | calls |\n|---|---|\n");
    for (attempts, calls) in attempts {
        let _ = writeln!(text, "| {attempts} | {calls} |");
    }
    std::fs::write(path, text).expect("the table's file is writable");
}

/// Lets four clients send, and kills the server once `moment` calls are on the book and something runs.
/// Returns how many processes ran in sandboxes then.
fn kill_amid(host: &mut TestHost, book: &Book, next: &AtomicUsize, moment: usize) -> usize {
    let pid = host.pid();
    host.traces.note_family(pid);
    let shared: &TestHost = host;
    let running = std::thread::scope(|scope| {
        for function in ["py", "sh", "py", "sh"] {
            scope.spawn(move || send(shared, book, next, function));
        }
        until("enough is accepted and running", secs(120), || {
            book.lock().expect("no panic holds it").len() >= moment && !shared.traces.sandboxed().is_empty()
        });
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
        let running = shared.traces.sandboxed().len();
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is our child");
        running
    });
    host.wait_end();
    running
}

/// Exactly one terminal state, a history that says so, and as many effects as it admits.
/// Returns the attempts.
fn check(host: &TestHost, observer: &Observer, id: &str, n: usize) -> u64 {
    let invocation = host.settled(id);
    assert!(is_terminal(&invocation));
    let attempts = invocation["attempts"].as_u64().expect("a number");
    let executions: Vec<Value> = invocation["executions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|execution| host.execution(execution.as_str().expect("an id")))
        .collect();
    assert_eq!(executions.len() as u64, attempts, "{invocation}");
    let states: Vec<&str> = executions.iter().map(|execution| execution["state"].as_str().expect("a state")).collect();
    let (last, earlier) = states.split_last().expect("it ran");
    assert!(earlier.iter().all(|state| *state == "lost"), "only a lost attempt is repeated: {states:?}");
    assert!(["succeeded", "failed", "lost"].contains(last), "{states:?}");
    let effects = observer.count(n);
    assert!((1..=attempts).contains(&effects), "{id}: {effects} effects in {attempts} attempts, {states:?}");
    if invocation["state"] == "succeeded" {
        assert_eq!(*last, "succeeded", "{states:?}");
        assert_eq!(host.http("GET", &format!("/v1/invocations/{id}/result")).send().expect(200).text(), n.to_string());
    }
    attempts
}

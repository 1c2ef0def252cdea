//! Clients that are slow on purpose: `slowhttptest` against HTTP/1.1, our own attackers against HTTP/2. The server stays small,
//! and others are served. `make verify-edge` runs it in full size.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::edge::{Authority, hear, peer};
use super::host::TestHost;
use super::wait::{scaled, secs, until_some};

/// An attack may add this much to the resident memory of the server.
const ROOM: u64 = 192 << 20;

/// What was seen of the server during an attack.
#[derive(Debug, Default)]
struct Seen {
    before: u64,
    most: u64,
    asked: u32,
    slowest: Duration,
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

impl Seen {
    fn begin(host: &TestHost) -> Self {
        Self { before: resident(host.pid()), ..Self::default() }
    }

    /// Asks as somebody else would, over the network, until `over` says that the attack has ended.
    fn watch<T>(&mut self, host: &TestHost, ask: impl Fn() -> Duration, mut over: impl FnMut() -> Option<T>) -> T {
        until_some("the attack ends", secs(scaled(120, 600)), || {
            self.slowest = self.slowest.max(ask());
            self.asked += 1;
            self.most = self.most.max(resident(host.pid()));
            // An attack that was over at once is no reason not to look.
            if self.asked < 5 { None } else { over() }
        })
    }

    #[track_caller]
    fn expect_fine(&self, attack: &str) {
        let grown = self.most.saturating_sub(self.before);
        assert!(grown <= ROOM, "{attack}: {self:?}");
        assert!(self.asked > 3 && self.slowest < secs(5), "{attack}: {self:?}");
        if let Some(path) = std::env::var_os("RUNLET_VERIFY_TABLE") {
            let mut table = std::fs::File::options().append(true).create(true).open(path).expect("it is writable");
            let (mib, ms) = (grown >> 20, self.slowest.as_millis());
            writeln!(table, "| {attack} | {mib} MiB | {} | {ms} ms |", self.asked).expect("it is writable");
        }
    }
}

fn table_head() {
    if let Some(path) = std::env::var_os("RUNLET_VERIFY_TABLE") {
        let mut table = std::fs::File::options().append(true).create(true).open(path).expect("it is writable");
        let head = "| Attack | Memory of the server grew by | Requests of others meanwhile | Slowest of them |\n|---|---|---|---|\n";
        if table.metadata().expect("it is there").len() == 0 {
            table.write_all(head.as_bytes()).expect("it is writable");
        }
    }
}

/// A mode of `slowhttptest`: its options, and what it sends to.
const SLOW: [(&str, &str, &str); 3] = [
    ("slow headers", "-H -i 3 -t GET", "/healthz"),
    ("slow bodies", "-B -i 3 -s 100000 -t POST", "/hooks/nobody"),
    ("slow reads", "-X -k 3 -n 3 -w 1 -y 8 -z 1 -t GET", "/metrics"),
];

fn slowhttptest(host: &TestHost, options: &str, path: &str) -> (Child, PathBuf) {
    let report = host.scratch().join("report");
    let file = std::fs::File::create(&report).expect("it is writable");
    let child = Command::new("slowhttptest")
        .args(options.split(' '))
        .args(["-c", scaled("300", "3000"), "-r", scaled("150", "500"), "-l", scaled("8", "60"), "-p", "5"])
        .args(["-u", &format!("http://{}{path}", host.address())])
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .expect("slowhttptest is there");
    (child, report)
}

#[test]
fn slow_clients_of_http_1_hold_nobody_up() {
    table_head();
    // Fewer places than attackers.
    let host =
        TestHost::builder().set("max_connections", scaled("100", "1000")).table("[metrics]\npublic = true\n").start();
    let ask = || {
        let begin = Instant::now();
        host.http("GET", "/healthz").anonymous().send().expect(200);
        begin.elapsed()
    };
    ask();
    for (name, options, path) in SLOW {
        let mut seen = Seen::begin(&host);
        let (mut child, report) = slowhttptest(&host, options, path);
        seen.watch(&host, ask, || child.try_wait().expect("it is our child"));
        let told = std::fs::read_to_string(report).expect("it has written");
        assert!(told.contains("connecting") || told.contains("Test ended") || told.contains("Exit status"), "{told}");
        seen.expect_fine(&format!("HTTP/1.1: {name}"));
    }
    host.finish();
}

#[test]
fn hostile_clients_of_http_2_hold_nobody_up() {
    table_head();
    let authority = Authority::new();
    let host = authority.host().set("max_connections", scaled("100", "1000")).start();
    let ask = || {
        let answer = super::edge::talk(&authority.path("ca"), "h2", host.address(), ("GET", "/healthz"), &[], b"");
        assert_eq!(answer["status"], 200, "{answer}");
        // Without the start of the interpreter.
        Duration::from_secs_f64(answer["seconds"].as_f64().expect("it has looked at its clock"))
    };
    ask();
    for mode in ["reset", "streams", "window", "head", "flood", "ping"] {
        let mut seen = Seen::begin(&host);
        let mut attack = peer("attack.py");
        attack.args([mode.as_ref(), authority.path("ca").as_os_str(), "127.0.0.1".as_ref()]);
        attack.args([host.address().port().to_string().as_str(), scaled("30", "300"), scaled("4", "60")]);
        let told = std::thread::scope(|scope| {
            let attack = scope.spawn(|| hear(&mut attack, b""));
            seen.watch(&host, ask, || attack.is_finished().then_some(()));
            attack.join().expect("it does not panic")
        });
        assert!(told["connected"].as_u64() >= Some(10), "{mode}: {told}");
        assert_eq!(told["broken"], 0, "the attackers do what they are to do: {mode}: {told}");
        if ["reset", "flood"].contains(&mode) {
            assert_eq!(told["lasted"], 0, "the server lets nobody go on with {mode}: {told}");
        }
        seen.expect_fine(&format!("HTTP/2: {mode}"));
    }
    host.finish();
}

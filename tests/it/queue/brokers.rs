//! NATS JetStream and RabbitMQ, each the real server of Debian, started privately on loopback: what is published there is done here.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::edge::Authority;
use super::super::wait::scaled;
use super::*;

const ADDER: &str = "def handle(event, context):\n    return event\n";

/// Ports that nobody listens on, this one and those that are so far behind it. None of them is one that the kernel gives away: a broker
/// takes seconds to start, and another test may have got it by then.
fn free_ports(behind: &[u16]) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let step = (std::process::id().wrapping_mul(31) + nth * 7) % 2400;
        let port = 10_000 + u16::try_from(step).expect("it is small");
        if free(port) && behind.iter().all(|more| free(port + more)) {
            return port;
        }
    }
}

/// A nats-server with JetStream; users `runlet` with the password `wonder`.
pub(super) struct Nats {
    pub(super) port: u16,
    dir: PathBuf,
    child: Option<Child>,
}

impl Nats {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self::with(dir, "")
    }

    /// One that speaks TLS as well, on the same port.
    pub(super) fn with_tls(dir: PathBuf, authority: &Authority) -> Self {
        let (cert, key) = (authority.path("cert"), authority.path("key"));
        let tls = format!("tls {{ cert_file: {cert:?}, key_file: {key:?} }}\nallow_non_tls: true\n");
        Self::with(dir, &tls)
    }

    fn with(dir: PathBuf, more: &str) -> Self {
        let mut nats = Self { port: free_ports(&[]), dir, child: None };
        let config = format!(
            "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?} }}\nauthorization {{ user: runlet, password: wonder }}\n{more}",
            nats.port,
            nats.dir.join("js"),
        );
        std::fs::write(nats.dir.join("nats.conf"), config).expect("writable");
        nats.start();
        nats
    }

    fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("nats.log")).expect("writable");
        let child = Command::new("nats-server")
            .arg("-c")
            .arg(self.dir.join("nats.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server is installed: tests/setup.sh install tests");
        self.child = Some(child);
        until("nats-server listens", secs(20), || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Publishes by a client of others (tests/peers), which waits for the broker's confirmation of each.
#[track_caller]
pub(super) fn peer(program: &str, args: &[&str]) {
    let peers = super::super::peers::installed();
    let output = Command::new("/usr/bin/python3")
        .arg(peers.join(program))
        .args(args)
        .env("PYTHONPATH", peers.join("python"))
        .output()
        .expect("python3 is there");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// How the only trigger of a function gets on with its broker.
pub(super) fn broker(host: &TestHost, function: &str) -> Value {
    host.get(&format!("/v1/triggers?function={function}"))["triggers"][0]["broker"].clone()
}

/// Numbers that were dealt with, and how many runs that took.
fn numbers(host: &TestHost) -> (usize, usize) {
    let row = host.psql(
        "SELECT count(DISTINCT convert_from(payload, 'UTF8')) || ' ' || count(*) FROM invocations
         WHERE cause_kind = 'queue' AND state = 'succeeded'",
    );
    let (distinct, all) = row.split_once(' ').expect("two numbers");
    (distinct.parse().expect("a number"), all.parse().expect("a number"))
}

pub(super) fn config(name: &str, url: &str) -> String {
    format!("[brokers.{name}]\nurl = \"{url}\"\nuser = \"runlet\"\nsecret = \"broker\"\nnamespaces = [\"default\"]\n")
}

#[test]
fn nats_is_taken_over_whole_whoever_is_killed() {
    let dir = tempfile::tempdir_in("/var/tmp").expect("writable");
    let mut nats = Nats::new(dir.path().to_owned());
    let url = format!("nats://127.0.0.1:{}", nats.port);
    let mut host = TestHost::builder()
        .set("lease", "\"2s\"")
        .own_secret("broker", "wonder")
        .own_secret("wrong", "blunder")
        .table(&config("events", &url))
        .table(&config("locked", &url).replace("secret = \"broker\"", "secret = \"wrong\""))
        .start();
    // States that people can see: a stream that is not there yet, and a password that is wrong.
    let source =
        |source: &str, rest: &str| trigger("ORDERS", &format!("source = \"{source}\"\nbackoff = \"10ms\"\n{rest}"));
    host.python("f", &format!("max_concurrency = 4\n{}", source("events", "max_in_flight = 50\n")), ADDER);
    until("the missing stream is told", secs(30), || {
        let broker = broker(&host, "f");
        broker["state"] == "failing" && broker["error"].as_str().is_some_and(|error| error.contains("ORDERS"))
    });
    host.python("g", &source("locked", ""), ADDER);
    until("the wrong password is told", secs(30), || {
        let broker = broker(&host, "g");
        broker["state"] == "failing"
            && broker["error"].as_str().is_some_and(|error| error.to_lowercase().contains("authorization"))
    });
    let told = String::from_utf8_lossy(&host.cli(&["triggers"]).stdout).into_owned();
    assert!(told.contains("failing") && !told.contains("blunder"), "{told}");
    host.cli(&["rm", "g"]);
    let unknown = host.scratch();
    let manifest = super::super::calls::python_manifest("h", &trigger("X", "source = \"elsewhere\"\n"));
    super::super::calls::write_function(&unknown, &[("function.toml", &manifest), ("main.py", ADDER)]);
    let refused = host.cli(&["deploy", unknown.to_str().expect("ASCII")]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("broker `elsewhere` is not configured"), "{refused:?}");

    let all = scaled(500, 10_000);
    let publish = |from: usize, to: usize| {
        peer("publish.py", &["nats", &url, "ORDERS", "orders.new", &from.to_string(), &to.to_string()]);
    };
    publish(0, all / 2);
    until("it is on, and some are done", secs(60), || {
        broker(&host, "f")["state"] != "failing" && numbers(&host).0 > all / 8
    });
    nats.kill();
    until("the broker that is gone is told", secs(30), || broker(&host, "f")["state"] == "failing");
    nats.start();
    publish(all / 2, all);
    until("more are done", secs(120), || numbers(&host).0 > all / 2);
    host.kill9();
    host.restart();
    until("all are done", secs(300), || numbers(&host).0 == all);
    host.drained("events.f.ORDERS");
    let (distinct, runs) = numbers(&host);
    assert_eq!(distinct, all, "none is lost");
    assert!(runs - distinct <= 8, "{} ran twice: at most what was running when the server was killed", runs - distinct);
    verified("NATS JetStream, broker and server killed", all, runs - distinct, "");
    let facts = host.psql(
        "SELECT cause->'normalised'->'attributes'->>'nats.subject' FROM invocations WHERE cause_kind = 'queue' LIMIT 1",
    );
    assert_eq!(facts, "orders.new");
    host.cli(&["rm", "f"]);
    host.finish();
}

/// How far behind its port for AMQP the others of a rabbitmq-server are: for TLS, for its node, and for the names of that.
const TLS: u16 = 2_500;
const NODE: u16 = 5_000;
const NAMES: u16 = 10_000;

/// A rabbitmq-server: its node, its files and its erlang cookie are in a directory of its own.
pub(super) struct Rabbit {
    pub(super) port: u16,
    dir: PathBuf,
    node: String,
    child: Option<Child>,
}

impl Rabbit {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self::with(dir, |_| String::new())
    }

    /// One that speaks TLS as well, on [`Rabbit::tls_port`].
    pub(super) fn with_tls(dir: PathBuf, authority: &Authority) -> Self {
        let path = |name: &str| authority.path(name).display().to_string();
        let files = format!("ssl_options.certfile = {}\nssl_options.keyfile = {}\n", path("cert"), path("key"));
        Self::with(dir, |tls| format!("listeners.ssl.1 = 127.0.0.1:{tls}\n{files}"))
    }

    fn with(dir: PathBuf, more: impl FnOnce(u16) -> String) -> Self {
        let port = free_ports(&[TLS, NODE, NAMES]);
        std::fs::write(dir.join("enabled_plugins"), "[].\n").expect("writable");
        let config = format!("listeners.tcp.1 = 127.0.0.1:{port}\ndefault_user = runlet\ndefault_pass = wonder\n");
        std::fs::write(dir.join("rabbitmq.conf"), config + &more(port + TLS)).expect("writable");
        let mut rabbit = Self { port, node: format!("runlet-test-{port}@localhost"), dir, child: None };
        rabbit.start();
        rabbit
    }

    pub(super) const fn tls_port(&self) -> u16 {
        self.port + TLS
    }

    /// Where erlang keeps the names of this node alone.
    const fn names_port(&self) -> u16 {
        self.port + NAMES
    }

    fn command(&self, program: &str) -> Command {
        let at = |name: &str| self.dir.join(name);
        let mut command = Command::new(format!("/usr/lib/rabbitmq/bin/{program}"));
        command
            .env("RABBITMQ_NODENAME", &self.node)
            .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", at("no-env"))
            .env("RABBITMQ_MNESIA_BASE", at("mnesia"))
            .env("RABBITMQ_LOG_BASE", at("log"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", at("pid"))
            .env("RABBITMQ_DIST_PORT", (self.port + NODE).to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.names_port().to_string())
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1")
            .env("HOME", &self.dir);
        command
    }

    fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("out.log")).expect("writable");
        let mut command = self.command("rabbitmq-server");
        command.stdout(log.try_clone().expect("one more")).stderr(log).stdin(Stdio::null());
        self.child = Some(command.spawn().expect("rabbitmq-server is installed: tests/setup.sh install tests"));
        until("rabbitmq-server answers as AMQP does", secs(60), || self.answers().is_ok_and(|first| first == 1));
    }

    /// The first byte of its answer to a client's greeting: a frame of a method.
    fn answers(&self) -> std::io::Result<u8> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(secs(5)))?;
        stream.write_all(b"AMQP\0\0\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0])
    }

    /// Ends the node, without warning: the process that holds its files, and the script that started it.
    fn kill(&mut self) {
        let pid = std::fs::read_to_string(self.dir.join("pid")).ok().and_then(|text| text.trim().parse::<i32>().ok());
        if let Some(pid) = pid {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        self.kill();
        // Erlang has started it, and it would stay.
        let names = Command::new("epmd").arg("-kill").env("ERL_EPMD_PORT", self.names_port().to_string()).output();
        drop(names);
    }
}

#[test]
fn rabbitmq_is_taken_over_whole_whoever_is_killed() {
    let dir = tempfile::tempdir_in("/var/tmp").expect("writable");
    let mut rabbit = Rabbit::new(dir.path().to_owned());
    let url = format!("amqp://127.0.0.1:{}", rabbit.port);
    let mut host = TestHost::builder()
        .set("lease", "\"2s\"")
        .own_secret("broker", "wonder")
        .own_secret("wrong", "blunder")
        .table(&config("rabbit", &url))
        .table(&config("locked", &url).replace("secret = \"broker\"", "secret = \"wrong\""))
        .start();
    let source =
        |source: &str| trigger("orders", &format!("source = \"{source}\"\nbackoff = \"10ms\"\nmax_in_flight = 50\n"));
    host.python("f", &format!("max_concurrency = 4\n{}", source("rabbit")), ADDER);
    host.python("g", &source("locked"), ADDER);
    until("the missing queue is told", secs(30), || {
        let broker = broker(&host, "f");
        broker["state"] == "failing" && broker["error"].as_str().is_some_and(|error| error.contains("orders"))
    });
    until("the wrong password is told", secs(30), || {
        let broker = broker(&host, "g");
        broker["state"] == "failing"
            && broker["error"].as_str().is_some_and(|error| error.to_uppercase().contains("REFUSED"))
    });
    host.cli(&["rm", "g"]);
    let all = scaled(500, 10_000);
    let publish = |from: usize, to: usize| {
        let url = format!("amqp://runlet:wonder@127.0.0.1:{}", url.rsplit(':').next().expect("a port"));
        peer("publish.py", &["rabbitmq", &url, "orders", "", &from.to_string(), &to.to_string()]);
    };
    publish(0, all / 2);
    until("some are done", secs(60), || numbers(&host).0 > all / 8);
    rabbit.kill();
    until("the broker that is gone is told", secs(60), || broker(&host, "f")["state"] == "failing");
    rabbit.start();
    publish(all / 2, all);
    until("more are done", secs(120), || numbers(&host).0 > all / 2);
    host.kill9();
    host.restart();
    until("all are done", secs(300), || numbers(&host).0 == all);
    host.drained("rabbit.f.orders");
    let (distinct, runs) = numbers(&host);
    assert_eq!(distinct, all, "none is lost");
    assert!(
        runs - distinct <= 256 * 2 + 8,
        "{} ran twice: at most what was not acknowledged at the two kills",
        runs - distinct
    );
    verified("RabbitMQ, broker and server killed", all, runs - distinct, "");
    host.cli(&["rm", "f"]);
    host.finish();
}

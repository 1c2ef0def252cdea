//! Who is told how asynchronous work ended: other functions, and receivers that check what they get with the official libraries of
//! Standard Webhooks (`tests/peers/receiver.*`).

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::edge::Authority;
use super::host::{Builder, TestHost};
use super::metrics::Page;
use super::wait::{secs, until, until_some};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

const CODE: &str = "def handle(event, context):\n    if event.get('fail'):\n        raise ValueError('no')\n    return {'n': event.get('n')}\n";

/// A receiver by others, and what came to it.
struct Receiver {
    child: Child,
    port: u16,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    /// Starts `program` of `tests/peers`; on `port`, if that is named.
    fn start(program: &str, port: Option<u16>) -> Self {
        Self::start_with(program, port, &[])
    }

    fn start_with(program: &str, port: Option<u16>, environment: &[(&str, PathBuf)]) -> Self {
        let peers = super::peers::installed();
        let interpreter = if program.ends_with(".py") { "/usr/bin/python3" } else { "node" };
        let mut child = Command::new(interpreter)
            .arg(peers.join(program))
            .args(port.map(|port| port.to_string()))
            .env("PYTHONPATH", peers.join("python"))
            .env("CALLBACK_SECRET", KEY)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the interpreter is there");
        let mut out = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let mut first = String::new();
        out.read_line(&mut first).expect("it says its port");
        let port = first.trim().parse().expect("a port");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let book = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                book.lock().expect("no panic holds it").push(serde_json::from_str(&line).expect("JSON"));
            }
        });
        Self { child, port, lines }
    }

    fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    /// What came for this invocation so far; all of it has to be good.
    fn got(&self, id: &str) -> Vec<Value> {
        let lines = self.lines.lock().expect("no panic holds it");
        let mine: Vec<Value> = lines.iter().filter(|line| line["id"] == id).cloned().collect();
        assert!(mine.iter().all(|line| line["good"] == true), "{mine:?}");
        mine
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn builder() -> Builder {
    TestHost::builder().own_secret("callback", KEY)
}

/// A server whose callbacks may go to this host.
fn open() -> TestHost {
    builder().table("[callbacks]\nallow = \"127.0.0.0/8, ::1\"\ntimeout = \"2s\"\n").start()
}

fn to(table: &str, url: &str) -> String {
    format!("[{table}]\nurl = \"{url}\"\nsecret = \"callback\"\n")
}

fn callback(host: &TestHost, id: &str) -> Value {
    until_some("there is a callback", secs(20), || {
        let answer = host.http("GET", &format!("/v1/callbacks/{id}")).send();
        (answer.status == 200).then(|| answer.json()["callback"].clone())
    })
}

/// The callback once it is in this state.
fn settled(host: &TestHost, id: &str, state: &str) -> Value {
    let mut last = Value::Null;
    let end = std::time::Instant::now() + secs(30);
    until("the callback is where it is expected, or time is over", secs(60), || {
        last = callback(host, id);
        last["state"] == state || std::time::Instant::now() > end
    });
    assert_eq!(last["state"], state, "{last}");
    last
}

#[test]
fn ends_are_told_as_the_official_libraries_expect_it() {
    let host = open();
    for program in ["receiver.py", "receiver.mjs"] {
        let receiver = Receiver::start(program, None);
        let both = to("on_success", &receiver.url("/ok")) + &to("on_failure", &receiver.url("/ok?failed"));
        host.python("f", &both, CODE);
        let good = host.submit("f", &json!({"n": 7}));
        let bad = host.submit("f", &json!({"fail": true}));
        for (id, kind, event) in [(&good, "invocation.succeeded", "succeeded"), (&bad, "invocation.failed", "failed")] {
            let done = settled(&host, id, "delivered");
            assert_eq!((&done["event"], &done["tries"]), (&json!(event), &json!(1)), "{done}");
            let got = receiver.got(id);
            assert_eq!(got.len(), 1, "{got:?}");
            assert_eq!((&got[0]["type"], &got[0]["data"]["invocation"]), (&json!(kind), &json!(id)));
        }
        assert_eq!(receiver.got(&good)[0]["data"]["result"], json!({"n": 7}));
        assert_eq!(receiver.got(&good)[0]["data"]["event"], json!({"n": 7}));
        assert_eq!(receiver.got(&bad)[0]["data"]["outcome"]["error"]["type"], "ValueError");
    }
    // A synchronous call has told its caller already.
    host.call("f", &json!({"n": 1})).expect(200);
    assert_eq!(host.psql("SELECT count(*) FROM outbox"), "4");
    let page = Page::of(&host);
    page.expect("runlet_callback_tries_total", &[("state", "delivered")], 4.0);
    page.expect("runlet_callbacks_waiting", &[], 0.0);
    host.finish();
}

#[test]
fn receivers_are_asked_again_as_they_wish_and_redirects_are_not_followed() {
    let host = open();
    let receiver = Receiver::start("receiver.py", None);
    let submit = |path: &str| {
        host.python("f", &to("on_success", &receiver.url(path)), CODE);
        host.submit("f", &json!({}))
    };
    let [busy, down, gone, moved, slow] = ["/busy", "/down", "/gone", "/moved", "/slow"].map(submit);

    // 429: not before the receiver wants it, and not by the usual five seconds.
    let done = settled(&host, &busy, "delivered");
    let at = |number: usize| receiver.got(&busy)[number]["at"].as_f64().expect("seconds");
    assert!((2.0..4.9).contains(&(at(1) - at(0))), "{done}");
    assert_eq!(
        done["history"].as_array().map(|tries| tries.iter().map(|one| one["status"].clone()).collect::<Vec<_>>()),
        Some(vec![json!(429), json!(204)])
    );

    let done = settled(&host, &gone, "failed");
    assert_eq!((&done["tries"], &done["history"][0]["status"]), (&json!(1), &json!(410)), "{done}");

    let waits = until_some("it has been tried", secs(20), || {
        Some(callback(&host, &moved)).filter(|one| one["history"][0]["status"] == 301)
    });
    assert_eq!(
        (&waits["state"], &waits["history"][0]["note"]),
        (&json!("waiting"), &json!("redirects are not followed"))
    );
    let private = receiver.lines.lock().expect("no panic holds it").iter().any(|line| line["path"] == "/private");
    assert!(!private, "nobody went where the redirect leads");
    let cancelled = host.http("POST", &format!("/v1/callbacks/{moved}/cancel")).send().expect(200).json();
    assert_eq!(cancelled["callback"]["state"], "cancelled");
    assert_eq!(host.http("POST", &format!("/v1/callbacks/{moved}/cancel")).send().expect(409).code(), "conflict");

    let waits = until_some("it has been tried", secs(20), || {
        Some(callback(&host, &slow)).filter(|one| one["history"][0]["note"].is_string())
    });
    assert_eq!((&waits["state"], &waits["history"][0]["note"]), (&json!("waiting"), &json!("no answer within 2 s")));

    let done = settled(&host, &down, "delivered");
    assert_eq!((&done["tries"], &done["history"][0]["status"]), (&json!(2), &json!(503)), "{done}");
    // What was given up is tried again when somebody wants it.
    host.cli(&["callback", "retry", &gone]);
    until("it was tried again", secs(20), || receiver.got(&gone).len() == 2);
    host.finish();
}

#[test]
fn addresses_that_are_not_public_are_refused_when_they_are_connected_to() {
    let host = builder().start();
    let receiver = Receiver::start("receiver.py", None);
    let port = receiver.port;
    let mut ids = Vec::new();
    for place in [
        format!("http://127.0.0.1:{port}/ok"),
        format!("http://localhost:{port}/ok"),
        format!("http://127.1:{port}/ok"),
        format!("http://2130706433:{port}/ok"),
        format!("http://[::ffff:127.0.0.1]:{port}/ok"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://10.0.0.1/".to_owned(),
        "http://[fe80::1]/".to_owned(),
    ] {
        host.python("f", &to("on_success", &place), CODE);
        ids.push((host.submit("f", &json!({})), place));
    }
    for (id, place) in &ids {
        let done = settled(&host, id, "failed");
        let note = done["history"][0]["note"].as_str().expect("a note");
        assert!(note.contains("has no public address"), "{place}: {note}");
    }
    assert!(receiver.lines.lock().expect("no panic holds it").is_empty());
    host.finish();
}

#[test]
fn an_end_is_told_after_the_server_was_killed() {
    let mut host = open();
    // Nobody listens there yet.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("a port").port();
    host.python("f", &to("on_success", &format!("http://127.0.0.1:{port}/ok")), CODE);
    let id = host.submit("f", &json!({"n": 1}));
    until("it has been tried", secs(20), || callback(&host, &id)["history"][0]["note"].is_string());
    host.kill9();
    let receiver = Receiver::start("receiver.py", Some(port));
    host.restart();
    let done = settled(&host, &id, "delivered");
    assert_eq!((&done["tries"], receiver.got(&id).len()), (&json!(2), 1), "{done}");
    host.finish();
}

#[test]
fn functions_follow_each_other_once_and_not_in_circles() {
    let host = TestHost::start();
    host.python("a", "[on_success]\nfunction = \"b\"\n", CODE);
    host.python(
        "b",
        "[on_success]\nfunction = \"c\"\n",
        "def handle(event, context):\n    return event['data']['result']\n",
    );
    host.python(
        "c",
        "[on_success]\nfunction = \"a\"\n[on_failure]\nfunction = \"nobody\"\n",
        "def handle(event, context):\n    return context.cause.lineage\n",
    );
    let first = host.submit("a", &json!({"n": 7}));
    let next = |id: &str| {
        let done = settled(&host, id, "delivered");
        let note = done["history"][0]["note"].as_str().expect("a note").to_owned();
        note.strip_prefix("invoked as ").expect("it names the invocation").to_owned()
    };
    let second = next(&first);
    let third = next(&second);
    assert_eq!(host.settled(&second)["cause"]["kind"], "chain");
    host.settled(&third);
    let lineage = host.get(&format!("/v1/invocations/{third}/result"));
    let expected = json!({"parent": second, "root": first, "depth": 2, "functions": ["a", "b"]});
    assert_eq!(lineage, expected, "the code knows where it comes from");
    let refused = settled(&host, &third, "failed");
    let note = "this is a loop: a -> b -> c -> a; it is not gone round again";
    assert_eq!(refused["history"][0]["note"], note);
    // Told again, it is still the same invocation.
    host.http("POST", &format!("/v1/callbacks/{first}/retry")).send().expect(200);
    until("it was told again", secs(20), || {
        callback(&host, &first)["history"].as_array().is_some_and(|tries| tries.len() == 2)
    });
    assert_eq!(host.psql("SELECT count(*) FROM invocations WHERE function = 'b'"), "1");
    // A destination that is not there is on record as such.
    let failing = host.submit("c", &json!({"n": 1}));
    assert_eq!(host.settled(&failing)["state"], "succeeded");
    host.finish();
}

#[test]
fn a_secret_that_cannot_sign_is_refused_at_the_deploy() {
    let host = TestHost::builder().own_secret("bad", "hunter2").start();
    for (secret, message) in [("bad", "is no key of Standard Webhooks"), ("nobody", "is not configured")] {
        let dir = host.scratch();
        let rest = format!("[on_failure]\nurl = \"https://example.com\"\nsecret = \"{secret}\"\n");
        let manifest = super::calls::python_manifest("f", &rest);
        super::calls::write_function(&dir, &[("function.toml", &manifest), ("main.py", CODE)]);
        let output = host.cli(&["deploy", dir.to_str().expect("ASCII")]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(message) && told.contains("on_failure.secret"), "{told}");
        assert!(!told.contains("hunter2"));
    }
    host.finish();
}

#[test]
fn ends_are_told_as_cloudevents_that_the_official_sdks_read() {
    let host = open();
    for program in ["receiver.py", "receiver.mjs"] {
        let receiver = Receiver::start(program, None);
        for format in ["cloudevents", "cloudevents_binary"] {
            let as_event = |table: &str| format!("{}format = \"{format}\"\n", to(table, &receiver.url("/ok")));
            host.python("f", &(as_event("on_success") + &as_event("on_failure")), CODE);
            let good = host.submit("f", &json!({"n": 7, "text": "€ \u{1f600}"}));
            let bad = host.submit("f", &json!({"fail": true}));
            for (id, kind) in [(&good, "runlet.invocation.succeeded"), (&bad, "runlet.invocation.failed")] {
                settled(&host, id, "delivered");
                let got = receiver.got(id);
                assert_eq!(got.len(), 1, "{program} {format}: {got:?}");
                let attributes = &got[0]["attributes"];
                assert_eq!((&attributes["id"], &attributes["type"]), (&json!(id), &json!(kind)), "{program} {format}");
                assert_eq!(attributes["source"], "/default/function/f");
                assert!(attributes["time"].is_string(), "{attributes}");
                assert_eq!(got[0]["data"]["invocation"], json!(id), "{program} {format}");
            }
            assert_eq!(receiver.got(&good)[0]["data"]["event"], json!({"n": 7, "text": "€ \u{1f600}"}));
        }
    }
    host.finish();
}

#[test]
fn a_receiver_with_tls_is_told_if_its_certificate_is_trusted() {
    let authority = Authority::new();
    let receiver = Receiver::start_with(
        "receiver.py",
        None,
        &[("TLS_CERT", authority.path("cert")), ("TLS_KEY", authority.path("key"))],
    );
    let mut host = open();
    host.python("f", &to("on_success", &receiver.url("/ok").replace("http:", "https:")), CODE);
    let id = host.submit("f", &json!({"n": 1}));
    until("it has been tried", secs(20), || callback(&host, &id)["history"][0]["note"].is_string());
    let note = callback(&host, &id)["history"][0]["note"].as_str().expect("text").to_owned();
    assert!(note.starts_with("no TLS:"), "the authority is nobody's: {note}");
    assert!(receiver.got(&id).is_empty());
    // The server's user reads it.
    let trusted = tempfile::tempdir_in("/var/tmp").expect("writable");
    std::fs::set_permissions(trusted.path(), std::fs::Permissions::from_mode(0o755)).expect("ours");
    std::fs::write(trusted.path().join("ca"), authority.read("ca")).expect("writable");
    host.environment.push(("RUNLET_CA_FILE".to_owned(), trusted.path().join("ca").display().to_string()));
    host.stop();
    host.restart();
    host.http("POST", &format!("/v1/callbacks/{id}/retry")).send().expect(200);
    settled(&host, &id, "delivered");
    assert_eq!(receiver.got(&id).len(), 1);
    host.finish();
}

//! TLS: both versions of HTTP, certificates that change, and clients that trust.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::edge::{Authority, talk};
use super::host::{TestHost, private_file};
use super::wait::{secs, until};

fn health(authority: &Authority, host: &TestHost, alpn: &str) -> Value {
    talk(&authority.path("ca"), alpn, host.address(), ("GET", "/healthz"), &[], b"")
}

#[test]
fn both_versions_of_http_are_spoken_over_tls() {
    let authority = Authority::new();
    let host = authority.host().start();
    host.python("f", "", "def handle(event, context):\n    return len(event)\n");
    let bearer = format!("authorization:Bearer {}", host.token());
    let event = json!("x".repeat(3_000_000)).to_string();
    for alpn in ["h2", "http/1.1"] {
        assert_eq!(health(&authority, &host, alpn)["status"], 200);
        let line = ("POST", "/v1/functions/f/invocations");
        let headers = [bearer.as_str(), "content-type:application/json"];
        let answer = talk(&authority.path("ca"), alpn, host.address(), line, &headers, event.as_bytes());
        assert_eq!(
            (&answer["alpn"], &answer["status"], &answer["body"]),
            (&json!(alpn), &json!(200), &json!("3000000"))
        );
        let nobody = talk(&authority.path("ca"), alpn, host.address(), ("GET", "/v1/functions"), &[], b"");
        assert_eq!(nobody["status"], 401, "{nobody}");
        let large = format!("x-large:{}", "y".repeat(70_000));
        let refused = talk(&authority.path("ca"), alpn, host.address(), ("GET", "/healthz"), &[&large], b"");
        assert_eq!(refused["status"], 431, "{refused}");
    }
    // Without TLS there is nothing but advice.
    let plain = host.http("GET", "/").send().expect(400);
    assert!(plain.text().contains("https://"), "{}", plain.text());
    // HTTP/2 is agreed on in the handshake or not spoken.
    let unagreed = health(&authority, &host, "nonsense");
    assert!(unagreed["refused"].is_string(), "{unagreed}");
    host.finish();
}

#[test]
fn the_command_line_trusts_whom_it_is_told_to() {
    let authority = Authority::new();
    let host = authority.host().start();
    let url = format!("https://localhost:{}", host.address().port());
    assert_eq!(
        std::fs::read_to_string(host.data_dir().join("address")).expect("there").trim(),
        format!("https://{}", host.address())
    );
    let run = |url: &str, ca: &std::path::Path| {
        let mut command = host.cli_command(&["functions", "--json"]);
        command
            .env("RUNLET_HOST", url)
            .env("RUNLET_TOKEN", host.token())
            .env("RUNLET_CA_FILE", ca)
            .output()
            .expect("built")
    };
    for url in [url.clone(), format!("https://{}", host.address())] {
        let output = run(&url, &authority.path("ca"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let other = Authority::new();
    for (ca, words) in [
        (other.path("ca"), "no safe connection"),
        (other.path("key"), "no certificate"),
        ("/nowhere".into(), "cannot read"),
    ] {
        let output = run(&url, &ca);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(words), "{told}");
    }
    let output = run(&url.replace("https", "http"), &authority.path("ca"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("runlet server"), "{output:?}");
    host.finish();
}

#[test]
fn sighup_reads_the_certificate_again_and_a_bad_one_changes_nothing() {
    let authority = Authority::new();
    let host = authority.host().start();
    let seen = || health(&authority, &host, "h2")["certificate"].as_str().expect("a hash").to_owned();
    let first = seen();
    // A renewal: new files in place of the old ones, readable by root alone.
    authority.issue();
    let replace = |name: &str, bytes: Vec<u8>| {
        private_file(&host.file("renewed"), bytes);
        std::fs::rename(host.file("renewed"), host.file(name)).expect("same directory");
    };
    replace("cert", authority.read("cert"));
    replace("key", authority.read("key"));
    assert_eq!(seen(), first, "nobody has asked yet");
    host.signal(Signal::SIGHUP);
    until("the new certificate is served", secs(10), || seen() != first);
    let second = seen();
    let complaints = || host.log().matches("the certificate before stays in use").count();
    let other = Authority::new();
    for (number, (name, bytes)) in
        [("key", other.read("key")), ("key", b"nonsense".to_vec()), ("cert", Vec::new())].into_iter().enumerate()
    {
        replace(name, bytes);
        host.signal(Signal::SIGHUP);
        until("it complains", secs(10), || complaints() > number);
        assert_eq!(seen(), second);
    }
    std::fs::remove_file(host.file("cert")).expect("there");
    host.signal(Signal::SIGHUP);
    until("it complains", secs(10), || complaints() == 4);
    assert_eq!(seen(), second);
    assert!(!host.log().contains("PRIVATE KEY"));
    host.finish();
}

#[test]
fn a_certificate_that_cannot_be_used_stops_the_start() {
    let authority = Authority::new();
    let mut host = authority.host().start();
    host.stop();
    let other = Authority::new();
    for (name, bytes, words) in [
        ("key", other.read("key"), "cannot be used"),
        ("key", b"nonsense".to_vec(), "holds no private key"),
        ("cert", b"nonsense".to_vec(), "holds no certificate"),
    ] {
        private_file(&host.file("cert"), authority.read("cert"));
        private_file(&host.file("key"), authority.read("key"));
        private_file(&host.file(name), bytes);
        let output = host.serve_command().output().expect("it is built");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(words), "{told}");
    }
    std::fs::remove_file(host.file("key")).expect("there");
    let output = host.serve_command().output().expect("it is built");
    assert!(String::from_utf8_lossy(&output.stderr).contains("tls.key: cannot read"), "{output:?}");
    host.finish();
}

#[test]
fn without_tls_a_hangup_ends_nothing() {
    let host = TestHost::start();
    host.signal(Signal::SIGHUP);
    until("it says so", secs(10), || host.log().contains("there is no certificate"));
    host.http("GET", "/healthz").send().expect(200);
    host.finish();
}

#[test]
fn a_soft_stop_lets_calls_over_http_2_end() {
    let authority = Authority::new();
    let mut host = authority.host().start();
    host.python("f", "", "import time\n\ndef handle(event, context):\n    time.sleep(event)\n    return 'slept'\n");
    let (ca, address) = (authority.path("ca"), host.address());
    let bearer = format!("authorization:Bearer {}", host.token());
    let (answer, ended) = std::thread::scope(|scope| {
        let call = scope.spawn(|| {
            let line = ("POST", "/v1/functions/f/invocations");
            talk(&ca, "h2", address, line, &[bearer.as_str(), "content-type:application/json"], b"2")
        });
        let running = || {
            let answer = host.unix("GET", "/v1/executions?state=running").send().expect(200).json();
            answer["executions"].as_array().is_some_and(|list| list.len() == 1)
        };
        until("the call runs", secs(20), running);
        let ended = host.stop();
        (call.join().expect("it does not panic"), ended)
    });
    assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!("\"slept\"")), "{answer}");
    assert!(answer["goodbyes"].as_u64() >= Some(1), "it is told not to ask for more: {answer}");
    assert!(ended.success(), "{ended}");
    host.finish();
}

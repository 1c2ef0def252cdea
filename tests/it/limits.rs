//! Bounds of the server: slow, big and too many are refused, and the others do not notice.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::json;

use super::host::TestHost;
use super::http::{Address, Answer};
use super::wait::secs;

const SLEEP: &str = "import time\n\ndef handle(event, context):\n    time.sleep(event)\n    return 1\n";

#[test]
fn a_slow_header_is_cut_off() {
    let host = TestHost::start();
    let mut slow = Address::Tcp(host.address()).connect().expect("it listens");
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").expect("it is open");
    let start = Instant::now();
    let mut rest = Vec::new();
    // Either it is closed or it is answered with 408; what counts is that it ends.
    let _ = slow.read_to_end(&mut rest);
    assert!(start.elapsed() < secs(30), "{:?}", start.elapsed());
    host.http("GET", "/healthz").send().expect(200);
    host.finish();
}

#[test]
fn big_headers_and_bodies_are_refused() {
    let host = TestHost::start();
    host.python("f", "", SLEEP);
    let big = host.http("GET", "/healthz").header("X-Big", "x".repeat(100 << 10)).send();
    assert_eq!(big.status, 431);
    let body = vec![b'1'; (25 << 20) + 1];
    assert_eq!(host.call_request("f").body(body.clone()).send().expect(413).code(), "too_large");
    assert_eq!(host.call_request("f").body(body).chunked().send().expect(413).code(), "too_large");
    // A length that promises too much is refused before a byte of it is read.
    let mut lying = Address::Tcp(host.address()).connect().expect("it listens");
    let head = format!(
        "POST /v1/functions/f/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n",
        host.token()
    );
    lying.write_all(head.as_bytes()).expect("it is open");
    assert_eq!(Answer::read(&mut lying).expect("an answer").status, 413);
    let smuggle = b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n";
    let mut confused = Address::Tcp(host.address()).connect().expect("it listens");
    confused.write_all(smuggle).expect("it is open");
    let answer = Answer::read(&mut confused);
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status >= 400));
    assert_eq!(host.call("f", &json!(0)).expect(200).text(), "1");
    host.finish();
}

#[test]
fn a_large_body_goes_in_and_comes_out() {
    let host = TestHost::start();
    host.python("f", "memory = \"512MiB\"\n", "def handle(event, context):\n    return event\n");
    let text = "0123456789abcdef".repeat(400_000);
    let answer = host.call("f", &json!(text)).expect(200);
    assert!(answer.body == json!(text).to_string().as_bytes());
    let answer = host
        .call_request("f")
        .header("Content-Type", "application/json")
        .body(json!(text).to_string())
        .chunked()
        .send();
    assert!(answer.expect(200).body == json!(text).to_string().as_bytes());
    host.finish();
}

#[test]
fn more_calls_than_may_wait_are_refused_at_once() {
    let host = TestHost::builder().set("max_waiting", "2").start();
    host.python("f", "max_concurrency = 1\ntimeout = \"20s\"\n", SLEEP);
    host.call("f", &json!(0)).expect(200);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..12).map(|_| scope.spawn(|| host.call("f", &json!(1)))).collect();
        calls.into_iter().map(|call| call.join().expect("it does not panic")).collect()
    });
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(
        refused.len() >= 9,
        "one runs, two wait: {:?}",
        answers.iter().map(|answer| answer.status).collect::<Vec<_>>()
    );
    assert!(refused.iter().all(|answer| answer.code() == "queue_full" && answer.header("Retry-After").is_some()));
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 12 - refused.len());
    host.call("f", &json!(0)).expect(200);
    host.finish();
}

#[test]
fn more_work_than_may_be_queued_is_refused_and_the_accepted_is_done() {
    let host = TestHost::builder().set("max_queued", "5").start();
    host.python("f", "max_concurrency = 1\n", SLEEP);
    let submit = || host.call_request("f").header("Prefer", "respond-async").json(&json!(0.3)).send();
    let answers: Vec<Answer> = (0..20).map(|_| submit()).collect();
    let accepted: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 202).collect();
    assert!((5..20).contains(&accepted.len()), "{}", accepted.len());
    for answer in answers.iter().filter(|answer| answer.status != 202) {
        assert_eq!((answer.status, answer.code().as_str()), (429, "queue_full"));
        assert!(answer.header("Retry-After").is_some());
    }
    for answer in accepted {
        assert_eq!(host.settled(answer.json()["invocation"]["id"].as_str().expect("an id"))["state"], "succeeded");
    }
    host.finish();
}

#[test]
fn a_function_that_no_host_can_hold_is_refused_with_the_reason() {
    let host = TestHost::builder().set("memory", "\"256MiB\"").start();
    host.python("f", "memory = \"512MiB\"\n", SLEEP);
    let answer = host.call("f", &json!(0)).expect(422);
    assert_eq!(answer.code(), "invalid");
    assert!(answer.text().contains("512MiB"), "{}", answer.text());
    host.finish();
}

#[test]
fn idle_sandboxes_make_room_for_other_functions() {
    let host = TestHost::builder().set("memory", "\"256MiB\"").start();
    for name in ["a", "b", "c", "d"] {
        host.python(name, "memory = \"128MiB\"\n", SLEEP);
    }
    for _ in 0..3 {
        for name in ["a", "b", "c", "d"] {
            host.call(name, &json!(0)).expect(200);
        }
    }
    let capacity = host.get("/v1/capacity");
    assert!(capacity["capacity"]["memory_used"].as_u64().is_some_and(|used| used <= 256 << 20), "{capacity}");
    host.finish();
}

#[test]
fn a_call_that_nobody_waits_for_is_still_on_record() {
    let host = TestHost::start();
    host.python("f", "", SLEEP);
    let mut gone = Address::Tcp(host.address()).connect().expect("it listens");
    let head = format!(
        "POST /v1/functions/f/invocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n1",
        host.token()
    );
    gone.write_all(head.as_bytes()).expect("it is open");
    let running =
        || host.get("/v1/executions?state=running")["executions"].as_array().is_some_and(|list| list.len() == 1);
    super::wait::until("the call runs", secs(20), running);
    drop(gone);
    let done =
        || host.get("/v1/executions?state=succeeded")["executions"].as_array().is_some_and(|list| list.len() == 1);
    super::wait::until("the call is on record as done", Duration::from_secs(20), done);
    host.finish();
}

//! What the history holds and for how long: large bodies in files, days that go, and the size of it all.

use serde_json::json;

use super::host::TestHost;
use super::wait::{secs, until};

#[test]
fn large_bodies_and_long_output_are_in_files_and_nobody_sees_a_difference() {
    let mut host = TestHost::start();
    host.python("echo", "", "def handle(event, context):\n    print('o' * 1000000)\n    return event\n");
    let event = json!("e".repeat(600_000));
    let answer = host.call("echo", &event).expect(200);
    let (called, queued) = (host.executed(&answer), host.submit("echo", &event));
    assert_eq!(host.settled(&queued)["state"], "succeeded");
    let files = "SELECT count(*) FROM invocations WHERE payload_file IS NOT NULL AND result_file IS NOT NULL AND octet_length(payload) = 0";
    assert_eq!(host.psql(files), "2");
    let in_rows =
        host.psql("SELECT sum(octet_length(bytes)) <= 2 * 262144 AND bool_or(length IS NOT NULL) FROM log_chunks");
    assert_eq!(in_rows, "t", "what an execution writes beyond 256 KiB is in files");
    host.restart_in_order();
    for id in [called["invocation"].as_str().expect("an id"), &queued] {
        for part in ["payload", "result"] {
            let body = host.http("GET", &format!("/v1/invocations/{id}/{part}")).send().expect(200).body;
            assert_eq!(body.len(), 600_002, "{part}");
        }
        let execution = host.invocation(id)["executions"][0].as_str().expect("an id").to_owned();
        let output = host.logs(&execution, "stdout");
        assert!(output.len() == 1_000_001 && output[..1_000_000].iter().all(|byte| *byte == b'o'));
    }
    let blobs = host.data_dir().join("blobs");
    let size = host.cli(&["history", "size", "--json"]);
    let size: serde_json::Value = serde_json::from_slice(&size.stdout).expect("JSON");
    let today = &size["history"]["days"].as_array().expect("days").iter().find(|day| day["files"] != 0).expect("today");
    assert_eq!(today["tables"]["invocations"]["rows"], 2);
    assert_eq!(today["tables"]["log_chunks"]["body_bytes"], 2_000_002);
    let text = host.cli(&["history", "size"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("REMOVED FROM"), "{text}");
    // Without its file a body is a clear error, and nothing else is harmed.
    std::fs::remove_dir_all(&blobs).expect("root may");
    let gone = host.http("GET", &format!("/v1/invocations/{queued}/payload")).send().expect(404);
    assert!(gone.text().contains("blobs"), "{}", gone.text());
    assert_eq!(host.invocation(&queued)["state"], "succeeded");
    host.finish();
}

#[test]
fn old_days_go_at_the_start_and_wanted_ones_stay() {
    let mut host = TestHost::builder().set("retention", "\"7d\"").start();
    host.python("f", "", "def handle(event, context):\n    return 1\n");
    host.call("f", &json!(null)).expect(200);
    host.psql("SELECT runlet_make_partitions(current_date - 12, current_date - 5)");
    let days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'invocations'::regclass";
    let before: u32 = host.psql(days).parse().expect("a number");
    host.restart_in_order();
    // 12, 11, 10, 9 and 8 days ago.
    until("five days are gone", secs(20), || host.psql(days) == (before - 5).to_string());
    until("each table of them", secs(5), || {
        host.psql("SELECT count(*) FROM pg_class WHERE relname ~ '_[0-9]{8}$' AND right(relname, 8) < to_char(current_date - 7, 'YYYYMMDD')") == "0"
    });
    host.call("f", &json!(null)).expect(200);
    host.finish();
}

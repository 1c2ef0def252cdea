//! `reset = "fork"`: each call in a fork of the interpreter that has loaded the handler, and nothing of it left for the next.

use serde_json::json;

use super::host::TestHost;
use super::wait::secs;

const LITTER: &str = "import os, subprocess, time\nloads = open('/proc/uptime').read()\ncalls = 0\n\ndef handle(event, context):\n    global calls\n    calls += 1\n    seen = {'calls': calls, 'loaded': loads, 'tmp': os.listdir('/tmp'), 'shm': os.listdir('/dev/shm'), 'pids': sorted(int(p) for p in os.listdir('/proc') if p.isdigit())}\n    os.makedirs('/tmp/a/b')\n    open('/tmp/a/b/c', 'w').close()\n    os.chmod('/tmp/a/b', 0)\n    os.chmod('/tmp/a', 0)\n    open('/dev/shm/x', 'w').close()\n    os.symlink('/usr', '/tmp/link')\n    subprocess.Popen(['sleep', '3600'], start_new_session=True)\n    return seen\n";

#[test]
fn each_call_finds_the_handler_loaded_and_nothing_of_the_last_one() {
    let host = TestHost::start();
    host.python("f", "reset = \"fork\"\n", LITTER);
    let first = host.call("f", &json!(null)).expect(200);
    let record = host.executed(&first);
    assert_eq!((&record["start"], &record["reset"]), (&json!("cold"), &json!("fork")));
    for _ in 0..5 {
        let answer = host.call("f", &json!(null)).expect(200);
        let (seen, again) = (answer.json(), host.executed(&answer));
        assert_eq!((&again["start"], &again["sandbox"]), (&json!("fork"), &record["sandbox"]));
        assert_eq!(seen["loaded"], first.json()["loaded"], "the handler was loaded once");
        assert_eq!((&seen["calls"], &seen["tmp"], &seen["shm"]), (&json!(1), &json!([]), &json!([])));
        assert_eq!(seen["pids"].as_array().map(Vec::len), Some(3), "init, the parent and itself: {seen}");
    }
    host.finish();
}

#[test]
fn a_call_that_ends_its_process_ends_as_it_would_anywhere() {
    let host = TestHost::start();
    let code = "import os, sys\n\ndef handle(event, context):\n    if event == 'exit':\n        sys.exit(7)\n    if event == 'signal':\n        os.kill(os.getpid(), 11)\n    if event == 'oom':\n        bytearray(1 << 30)\n    if event == 'raise':\n        raise ValueError('no')\n    if event == 'pieces':\n        return iter(['a', 'b'])\n    return event\n";
    host.python("f", "reset = \"fork\"\nmemory = \"64MiB\"\n", code);
    assert_eq!(host.value("f", &json!({"x": 1})), json!({"x": 1}));
    assert_eq!(host.call("f", &json!("pieces")).expect(200).text(), "ab");
    assert_eq!(host.call("f", &json!("raise")).expect(502).json()["outcome"]["error"]["type"], "ValueError");
    let outcome = |event: &str| host.call("f", &json!(event)).expect(502).json()["outcome"].clone();
    let exit = outcome("exit");
    assert_eq!((&exit["kind"], &exit["exit_code"]), (&json!("exit"), &json!(7)), "{exit}");
    let signal = outcome("signal");
    assert_eq!((&signal["kind"], &signal["signal"]), (&json!("signal"), &json!(11)), "{signal}");
    assert_eq!(outcome("oom")["kind"], "oom");
    assert_eq!(host.value("f", &json!(2)), json!(2));
    host.finish();
}

#[test]
fn a_fork_that_runs_too_long_is_killed_with_its_sandbox() {
    let host = TestHost::start();
    host.python(
        "f",
        "reset = \"fork\"\ntimeout = \"1s\"\n",
        "import time\n\ndef handle(event, context):\n    time.sleep(event)\n    return 'done'\n",
    );
    assert_eq!(host.call("f", &json!(60)).expect(504).code(), "function_timeout");
    host.traces.wait_no_sandbox(secs(5));
    assert_eq!(host.value("f", &json!(0)), json!("done"));
    host.finish();
}

#[test]
fn large_events_and_results_pass_through_a_fork() {
    let host = TestHost::start();
    host.python("f", "reset = \"fork\"\n", "def handle(event, context):\n    return event + event\n");
    for size in [1, 70_000, 3 << 20] {
        let text = "x".repeat(size);
        assert!(host.value("f", &json!(text)) == json!(text.repeat(2)), "{size}");
    }
    host.finish();
}

#[test]
fn only_python_forks() {
    let host = TestHost::start();
    let dir = host.scratch();
    for (runtime, rest, word) in [("node", "", "python"), ("python", "concurrency = 2\n", "concurrency")] {
        let manifest = format!(
            "schema = 1\nname = \"f\"\nruntime = \"{runtime}\"\nhandler = \"main.f\"\nreset = \"fork\"\n{rest}"
        );
        super::calls::write_function(&dir, &[("function.toml", &manifest), ("main.py", ""), ("main.js", "")]);
        let output = host.cli(&["deploy", dir.to_str().expect("ASCII")]);
        assert!(String::from_utf8_lossy(&output.stderr).contains(word), "{runtime}: {output:?}");
    }
    host.finish();
}

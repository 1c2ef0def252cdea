//! What code sees and can do inside the sealed sandbox. The attacks are in `tests/security/`; where it can be, the
//! verdict is the host's own, never the sandbox's word.

use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::host::{Builder, TestHost};
use super::wait::secs;

const PROBE: &str = include_str!("../security/probe.py");
const SYSCALLS: &str = include_str!("../security/syscalls.py");
const BOMBS: &str = include_str!("../security/bombs.py");

/// Tests of the profile, for sandboxes that are made for a call and for those that were started ahead.
macro_rules! however_it_came_to_be {
    ($($name:ident),* $(,)?) => {
        mod cold {
            $(#[test] fn $name() { super::$name(super::TestHost::builder()); })*
        }
        mod stem {
            $(#[test] fn $name() { super::$name(super::TestHost::builder().stems(3, 0, 1)); })*
        }
    };
}

however_it_came_to_be!(
    from_inside_the_world_is_small_and_powerless,
    the_host_says_the_same_from_outside,
    forbidden_system_calls_are_refused,
    system_calls_of_another_architecture_kill,
    one_function_cannot_read_another,
    files_of_the_host_are_neither_written_nor_leaked,
    memory_in_every_disguise_ends_as_oom_or_enospc,
    the_limits_are_the_kernels,
    the_code_sees_its_context_and_nothing_more,
);

fn from_inside_the_world_is_small_and_powerless(builder: Builder) {
    let host = builder.start();
    host.python("probe", "", PROBE);
    let seen = host.value("probe", &json!({"port": host.address().port()}));
    let status = &seen["status"];
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!((&status["NoNewPrivs"], &status["Seccomp"]), (&json!("1"), &json!("2")));
    let map: Vec<u64> =
        seen["uid_map"].as_str().expect("text").split_whitespace().map(|n| n.parse().expect("a number")).collect();
    assert_eq!(map[0], 0);
    assert!(map[1] >= 100_000 && map[2] <= 65_536, "a range of its own, far from the host's users: {map:?}");
    assert_eq!(seen["groups"], json!([]), "no group of the host's");
    let pids = seen["pids"].as_array().expect("a list");
    assert!(pids.len() <= 4, "its own processes and no other: {pids:?}");
    assert_eq!(seen["foreign"], json!([]), "no process of the host is visible");
    assert_eq!(seen["interfaces"], json!(["lo"]));
    for (what, result) in seen["connects"].as_object().expect("a map") {
        assert!(result["error"].is_string(), "{what} was reached");
        assert!(result["seconds"].as_f64().is_some_and(|seconds| seconds < 1.0), "{what}: {result}");
    }
    for (what, result) in seen["refused"].as_object().expect("a map") {
        assert_ne!(result, "done", "{what}");
    }
    // /dev is a tmpfs of 64 KiB with nothing but the harmless devices; /dev/shm below it is another place to write.
    assert_eq!(seen["writable"], json!(["/dev/shm", "/tmp"]), "the only places to write");
    assert_eq!(seen["descriptors"], json!([]), "no descriptor but 0, 1, 2 and the control socket");
    assert_eq!(seen["set_ids"], json!([]), "no environment of the server's");
    host.finish();
}

fn the_host_says_the_same_from_outside(builder: Builder) {
    let host = builder.start();
    host.python(
        "sleep",
        "timeout = \"1m\"\n",
        "import time\n\ndef handle(event, context):\n    print('go')\n    time.sleep(3600)\n",
    );
    let id = host.submit("sleep", &json!(null));
    let execution = host.in_state(&id, "running")["executions"][0].as_str().expect("an id").to_owned();
    let piece = host.http("GET", &format!("/v1/executions/{execution}/logs?wait=20s")).send().expect(200);
    assert_eq!(piece.body, b"go\n", "the code runs");
    let own = namespaces(std::process::id());
    for pid in host.traces.sandboxed() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let value =
            |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(value(set), "0000000000000000", "{set} of {pid}");
        }
        assert_eq!((value("NoNewPrivs:"), value("Seccomp:")), ("1".to_owned(), "2".to_owned()), "{pid}");
        assert!(
            value("Uid:").split('\t').all(|uid| uid.parse::<u64>().is_ok_and(|uid| uid >= 100_000)),
            "{}",
            value("Uid:")
        );
        for (kind, inode) in namespaces(pid) {
            assert!(!own.contains(&(kind.clone(), inode)), "{pid} shares the host's {kind} namespace");
        }
    }
    host.http("POST", &format!("/v1/invocations/{id}/cancel")).send().expect(200);
    host.settled(&id);
    host.finish();
}

/// The namespaces that a sandbox must not share with the host.
fn namespaces(pid: u32) -> Vec<(String, String)> {
    let of = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("it runs");
        (kind.to_owned(), link.to_string_lossy().into_owned())
    };
    ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"].map(of).to_vec()
}

fn forbidden_system_calls_are_refused(builder: Builder) {
    let host = builder.start();
    host.python("calls", "timeout = \"30s\"\n", SYSCALLS);
    let results = host.value("calls", &json!({"what": "all"}));
    let results = results.as_object().expect("a map");
    assert!(results.len() >= 30, "{results:?}");
    for (name, result) in results {
        let refused = ["EPERM", "ENOSYS", "EACCES", "EAFNOSUPPORT", "killed"].iter().any(|word| result == *word);
        assert!(refused, "{name}: {result}");
    }
    host.finish();
}

fn system_calls_of_another_architecture_kill(builder: Builder) {
    let host = builder.start();
    host.python("calls", "", SYSCALLS);
    assert_eq!(host.value("calls", &json!({"what": "native"})), json!("alive"), "the machine code itself works");
    for what in ["int80", "x32"] {
        let answer = host.call("calls", &json!({ "what": what })).expect(502);
        let outcome = &answer.json()["outcome"];
        assert_eq!((&outcome["kind"], &outcome["signal"]), (&json!("signal"), &json!(31)), "{what}: {outcome}");
    }
    host.finish();
}

fn one_function_cannot_read_another(builder: Builder) {
    let host = builder.start();
    let secret = "canary-5c1f9e";
    host.python("victim", "timeout = \"1m\"\n[env]\nTOKEN = \"canary-5c1f9e\"\n", &format!(
        "import time\nMARK = '{secret}'\n\ndef handle(event, context):\n    open('/tmp/mark', 'w').write(MARK)\n    time.sleep(3600)\n"
    ));
    let id = host.submit("victim", &json!(null));
    host.in_state(&id, "running");
    host.python("thief", "timeout = \"30s\"\n", include_str!("../security/thief.py"));
    let found = host.value("thief", &json!({"canary": secret, "data_dir": host.data_dir()}));
    assert_eq!(found["hits"], json!([]), "nothing of the other function is readable");
    assert!(found["read"].as_u64().is_some_and(|files| files > 100), "it did look: {found}");
    host.http("POST", &format!("/v1/invocations/{id}/cancel")).send().expect(200);
    host.settled(&id);
    host.finish();
}

fn files_of_the_host_are_neither_written_nor_leaked(builder: Builder) {
    let host = builder.start();
    let canary = host.scratch().join("canary");
    std::fs::write(&canary, "canary").expect("it is writable");
    host.python("probe", "", PROBE);
    let seen = host.value("probe", &json!({"port": 1, "read": ["/etc/shadow", "/etc/gshadow", "/root", canary, "/proc/1/environ", "/proc/kcore", "/proc/sysrq-trigger", "/sys/kernel/debug", "/proc/keys", "/proc/timer_list"]}));
    for (path, result) in seen["reads"].as_object().expect("a map") {
        assert!(result != "read", "{path} is readable inside");
    }
    host.finish();
}

fn memory_in_every_disguise_ends_as_oom_or_enospc(builder: Builder) {
    let host = builder.start();
    host.python("bombs", "memory = \"64MiB\"\ntmp = \"8MiB\"\ntimeout = \"30s\"\nreset = \"fresh\"\n", BOMBS);
    for what in ["heap", "memfd"] {
        let answer = host.call("bombs", &json!({ "what": what })).expect(502);
        assert_eq!(answer.json()["outcome"]["kind"], "oom", "{what}: {}", answer.text());
    }
    assert_eq!(host.value("bombs", &json!({"what": "children"})), json!({"signal": 9}));
    let full = host.value("bombs", &json!({"what": "tmp"}));
    assert_eq!(full["error"], "ENOSPC");
    assert!(full["written"].as_u64().is_some_and(|bytes| bytes <= 8 << 20), "{full}");
    let inodes = host.value("bombs", &json!({"what": "inodes"}));
    assert!(inodes["error"] == "ENOSPC" && inodes["files"].as_u64().is_some_and(|files| files < 100_000), "{inodes}");
    host.finish();
}

#[test]
fn a_fork_bomb_stops_at_its_limit_and_the_host_is_fine() {
    let host = TestHost::start();
    host.python("bombs", "pids = 32\ntimeout = \"20s\"\nreset = \"fresh\"\n", BOMBS);
    let forked = host.value("bombs", &json!({"what": "forks"}));
    assert!(forked["children"].as_u64().is_some_and(|children| (8..32).contains(&children)), "{forked}");
    assert_eq!(forked["error"], "EAGAIN");
    host.shell("bomb", "pids = 32\ntimeout = \"2s\"\n", "bomb() { bomb | bomb & }\nbomb\nwhile :; do sleep 1; done");
    std::thread::scope(|scope| {
        let call = scope.spawn(|| host.call("bomb", &json!(null)));
        let mut slowest = secs(0);
        while !call.is_finished() {
            let start = Instant::now();
            assert!(Command::new("true").status().expect("the host can fork").success());
            slowest = slowest.max(start.elapsed());
            assert!(host.traces.sandboxed().len() <= 40, "more processes than its limit");
        }
        assert!(slowest < secs(2), "a fork on the host took {slowest:?}");
        assert!(call.join().expect("it does not panic").status >= 500);
    });
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}

#[test]
fn a_daemon_does_not_survive_its_execution() {
    let host = TestHost::start();
    let script = "(setsid sh -c 'trap \"\" TERM HUP INT; (sleep 3600 &) ; while :; do sleep 1; done' </dev/null >/dev/null 2>&1 &)\nprintf started";
    host.shell("daemon", "", script);
    let answer = host.call("daemon", &json!(null)).expect(200);
    assert_eq!(answer.body, b"started");
    assert_eq!(host.executed(&answer)["remains"], json!({"processes": 0, "cgroups": 0, "mounts": 0, "netns": 0}));
    assert_eq!(host.traces.sandboxed(), Vec::<u32>::new(), "gone before the answer");
    // One that keeps stdout open must not hold the answer back either.
    host.shell("holder", "timeout = \"5s\"\n", "setsid sleep 3600 &\nprintf held");
    let start = Instant::now();
    assert_eq!(host.call("holder", &json!(null)).expect(200).body, b"held");
    assert!(start.elapsed() < secs(4), "{:?}", start.elapsed());
    host.python("py", "timeout = \"1s\"\n", "import os, time\n\ndef handle(event, context):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            time.sleep(3600)\n        os._exit(0)\n    time.sleep(3600)\n");
    assert_eq!(host.call("py", &json!(null)).expect(504).code(), "function_timeout");
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}

fn the_limits_are_the_kernels(builder: Builder) {
    let host = builder.start();
    host.python("f", "memory = \"96MiB\"\npids = 40\ncpu = 0.5\n", "import time\n\ndef handle(event, context):\n    start = time.process_time(), time.monotonic()\n    while time.monotonic() - start[1] < 2:\n        pass\n    return time.process_time() - start[0]\n");
    let used = host.value("f", &json!(null));
    assert!(used.as_f64().is_some_and(|used| used < 1.4), "half a CPU for two seconds is one: {used}");
    let limit = |file: &str| -> Vec<String> {
        let dirs = host.traces.cgroups();
        dirs.iter()
            .filter_map(|dir| std::fs::read_to_string(dir.join(file)).ok())
            .map(|text| text.trim().to_owned())
            .collect()
    };
    let memory: Vec<String> = [limit("memory.limit_in_bytes"), limit("memory.max")].concat();
    assert!(memory.contains(&(96_u64 << 20).to_string()), "{memory:?}");
    assert!(limit("pids.max").contains(&"40".to_owned()), "{:?}", limit("pids.max"));
    let swap: Vec<String> = [limit("memory.memsw.limit_in_bytes"), limit("memory.swap.max")].concat();
    assert!(
        swap.is_empty() || swap.iter().any(|value| *value == (96_u64 << 20).to_string() || value == "0"),
        "{swap:?}"
    );
    host.finish();
}

fn the_code_sees_its_context_and_nothing_more(builder: Builder) {
    let host = builder.secret("deploy-token", &["default"]).start();
    let code = "import os\n\ndef handle(event, context):\n    return {'context': {k: getattr(context, k) for k in ('namespace', 'function', 'revision', 'invocation', 'execution', 'attempt', 'deadline_ms', 'memory_limit')}, 'env': dict(os.environ), 'kind': context.cause.kind}\n";
    host.python("f", "[env]\nGREETING = \"hi\"\nTOKEN = { secret = \"deploy-token\" }\n", code);
    let answer = host.call("f", &json!(null)).expect(200);
    let seen = answer.json();
    assert_eq!(seen["context"]["invocation"].as_str(), answer.header("Runlet-Invocation"));
    assert_eq!(seen["context"]["execution"].as_str(), answer.header("Runlet-Execution"));
    assert_eq!(
        (&seen["context"]["function"], &seen["context"]["attempt"], &seen["kind"]),
        (&json!("f"), &json!(1), &json!("http"))
    );
    assert_eq!(seen["env"]["GREETING"], "hi");
    assert_eq!(seen["env"]["TOKEN"], super::host::HOOK_SECRET);
    let names: Vec<&str> = seen["env"].as_object().expect("a map").keys().map(String::as_str).collect();
    for name in &names {
        assert!(
            ["GREETING", "TOKEN", "PATH", "HOME", "LANG", "LC_CTYPE", "PWD"].contains(name)
                || name.starts_with("RUNLET_"),
            "{name}"
        );
    }
    host.shell(
        "sh",
        "",
        r#"test -r "$RUNLET_CONTEXT" && printf '%s %s %s' "$RUNLET_FUNCTION" "$RUNLET_ATTEMPT" "$RUNLET_CAUSE""#,
    );
    assert_eq!(host.call("sh", &Value::Null).expect(200).text(), "sh 1 http");
    assert!(!host.log().contains(super::host::HOOK_SECRET), "no secret in the server's log");
    host.finish();
}

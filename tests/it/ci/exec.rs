//! `runlet exec`: a command in a sandbox of a function, or in one that is leased already, as if it ran here.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::job::Job;
use super::runner::Verdict;
use super::runner_for;
use crate::host::TestHost;
use crate::wait::{secs, until_some};

fn piped(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it is built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A function whose sandbox is worth looking into.
fn host_with_function() -> TestHost {
    let host = TestHost::builder().secret("deploy", &["default"]).table("[ci]\nkill_grace = \"500ms\"\n").start();
    let rest = "memory = \"96MiB\"\npids = 30\ntimeout = \"30s\"\n[env]\nGREETING = \"hello\"\nTOKEN = { secret = \"deploy\" }\n";
    host.shell("tool", rest, "echo called");
    host
}

fn exec(host: &TestHost, args: &[&str]) -> Output {
    host.cli(&[&["exec"][..], args].concat())
}

#[test]
fn a_command_sees_what_its_function_would_see() {
    let host = host_with_function();
    let output =
        exec(&host, &["tool", "--", "sh", "-c", "pwd; ls /var/task; echo $GREETING $TOKEN; echo $EXTRA; echo err >&2"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(lines[1..], ["function.toml", "run.sh", &format!("hello {}", crate::host::HOOK_SECRET), ""]);
    assert_eq!(text(&output.stderr), "err\n");
    let output =
        exec(&host, &["tool", "--cwd", "/tmp", "--env", "EXTRA=a b", "--", "sh", "-c", "pwd; echo \"$EXTRA\""]);
    assert_eq!(text(&output.stdout), "/tmp\na b\n", "{}", text(&output.stderr));
    // Its limits are the function's.
    let output = exec(&host, &["tool", "--", "python3", "-c", "b = bytearray(200 << 20)"]);
    assert!(matches!(output.status.code(), Some(21 | 137)), "{:?} {}", output.status, text(&output.stderr));
    host.traces.wait_no_sandbox(secs(5));
    // All of it is on record, without a job.
    let list = host.cli(&["executions", "--cause", "lease", "--json"]);
    assert_eq!(text(&list.stdout).matches("exe_").count().min(3), 3, "{}", text(&list.stdout));
    host.finish();
}

#[test]
fn exit_codes_and_signals_are_told_apart() {
    let host = host_with_function();
    let code = |args: &[&str]| {
        let output = exec(&host, &[&["tool"][..], args].concat());
        (output.status.code(), text(&output.stderr))
    };
    for want in [0, 1, 42, 255] {
        assert_eq!(code(&["--", "sh", "-c", &format!("exit {want}")]).0, Some(want));
    }
    assert_eq!(code(&["--", "sh", "-c", "kill -TERM $$"]).0, Some(143));
    assert_eq!(code(&["--", "sh", "-c", "kill -KILL $$"]).0, Some(137));
    let (none, said) = code(&["--", "no-such-program"]);
    assert_eq!(none, Some(22), "{said}");
    assert!(said.contains("no-such-program"), "{said}");
    let (late, said) = code(&["--timeout", "1s", "--", "sleep", "60"]);
    assert_eq!(late, Some(23), "{said}");
    // Targets that are not there.
    for target in ["nothing", "lse_00000000000000000000000000"] {
        let output = exec(&host, &[target, "--", "true"]);
        assert!(!output.status.success() && text(&output.stderr).contains(target), "{}", text(&output.stderr));
    }
    host.finish();
}

#[test]
fn stdin_is_a_stream_and_output_is_live() {
    let host = host_with_function();
    let mut child = piped(host.cli_command(&[
        "exec",
        "tool",
        "--",
        "sh",
        "-c",
        "while read line; do echo \"got $line\"; done; echo end",
    ]));
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("it is text");
    for word in ["one", "two", "zwölf"] {
        writeln!(stdin, "{word}").expect("it reads");
        assert_eq!(next(), format!("got {word}"));
    }
    drop(stdin);
    assert_eq!(next(), "end");
    assert!(child.wait().expect("it is our child").success());
    host.finish();
}

#[test]
fn megabytes_go_through_unchanged_and_a_slow_reader_loses_nothing() {
    let host = host_with_function();
    let bytes: Vec<u8> = (0..6_000_000_u32).map(|n| u8::try_from((n * 7 + n / 251) % 256).expect("a byte")).collect();
    let mut child = piped(host.cli_command(&["exec", "tool", "--", "cat"]));
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let mut stdout = child.stdout.take().expect("it is a pipe");
    let mut back = vec![0; 100];
    stdout.read_exact(&mut back).expect("it writes");
    stdout.read_to_end(&mut back).expect("it ends");
    assert!(back == bytes, "{} of {} bytes", back.len(), bytes.len());
    writer.join().expect("it does not panic").expect("it reads all");
    assert!(child.wait().expect("it is our child").success());
    // A command that does not read its stdin ends all the same.
    let mut child = piped(host.cli_command(&["exec", "tool", "--", "true"]));
    let _ = child.stdin.take().expect("it is a pipe").write_all(&bytes);
    assert!(child.wait().expect("it is our child").success());
    host.finish();
}

#[test]
fn signals_are_passed_on() {
    let host = host_with_function();
    let script = "trap 'echo hup' HUP; trap 'echo usr1' USR1; trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = piped(host.cli_command(&["exec", "tool", "--", "sh", "-c", script]));
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let mut lines = BufReader::new(child.stdout.take().expect("it is a pipe")).lines();
    let mut next = || lines.next().expect("a line").expect("it is text");
    assert_eq!(next(), "ready");
    for (signal, word) in [(Signal::SIGHUP, "hup"), (Signal::SIGUSR1, "usr1"), (Signal::SIGTERM, "term")] {
        kill(pid, signal).expect("it is our child");
        assert_eq!(next(), word);
    }
    assert_eq!(child.wait().expect("it is our child").code(), Some(9));
    host.traces.wait_no_sandbox(secs(5));
    host.finish();
}

#[test]
fn a_killed_client_leaves_nothing_behind() {
    let host = host_with_function();
    let mut child =
        piped(host.cli_command(&["exec", "tool", "--", "sh", "-c", "trap '' HUP TERM; echo ready; sleep 996"]));
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("it is a pipe")).read_line(&mut line).expect("it writes");
    assert_eq!(line, "ready\n");
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
    host.traces.wait_no_sandbox(secs(30));
    let outcome = until_some("the end is on record", secs(10), || {
        let list = host.get("/v1/executions?cause=lease");
        list["executions"][0]["outcome"]["kind"].as_str().map(str::to_owned)
    });
    assert_eq!(outcome, "cancelled");
    assert_eq!(host.get("/v1/leases")["leases"], serde_json::json!([]));
    host.finish();
}

#[test]
fn many_commands_share_a_leased_sandbox() {
    let host = TestHost::start();
    let running = runner_for(&host).start_until(Job::new(701, &["cat /builds/x*"]), "build_script");
    running.arrives();
    let key = host.get("/v1/leases")["leases"][0]["key"].as_str().expect("a key").to_owned();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (host, key) = (&host, &key);
            scope.spawn(move || {
                let script = format!("echo {n} > /builds/x{n}; head -c 300000 /dev/zero | tr '\\0' {n}");
                let output = exec(host, &[key, "--", "sh", "-c", &script]);
                assert!(output.status.success(), "{}", text(&output.stderr));
                assert_eq!(text(&output.stdout), n.to_string().repeat(300_000));
            });
        }
    });
    running.go_on();
    let report = running.finish().expect(Verdict::Success);
    assert!(report.trace.contains("0\n1\n2\n3\n4\n5\n6\n7\n"), "{}", report.trace);
    host.finish();
}

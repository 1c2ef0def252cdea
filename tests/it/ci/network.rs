//! The network of CI sandboxes: none, or, if the operator says so, the host's.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use super::job::Job;
use super::runner::Verdict;
use super::{runner_for, with_ci};
use crate::host::TestHost;
use crate::wait::{secs, until_some};

/// A listener on the host's loopback that greets whoever comes.
fn greeter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for peer in listener.incoming().map_while(Result::ok) {
            let mut peer = peer;
            let _ = peer.write_all(b"hello from the host\n");
        }
    });
    port
}

fn dial(port: u16) -> String {
    format!("if exec 3<>/dev/tcp/127.0.0.1/{port}; then cat <&3; else echo no way out; fi 2>/dev/null")
}

#[test]
fn a_job_has_no_network() {
    let host = TestHost::start();
    let script = [&dial(greeter()), "awk 'NR > 2 { print \"device\", $1 }' /proc/net/dev"];
    let report = runner_for(&host).run(Job::new(501, &script)).expect(Verdict::Success);
    // Between the two stands the runner's line for the second command.
    assert!(report.trace.contains("\nno way out\n"), "{}", report.trace);
    let devices = report.trace.lines().filter(|line| line.starts_with("device ")).collect::<Vec<_>>();
    assert_eq!(devices, ["device lo:"], "{}", report.trace);
    assert!(!report.trace.contains("hello from the host\n"), "{}", report.trace);
    host.finish();
}

#[test]
fn the_operator_may_give_jobs_the_hosts_network() {
    let host = with_ci("network = \"host\"", "").start();
    assert!(host.log().contains("network"), "serve warns: {}", host.log());
    let confined =
        "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; ip link set lo down 2>/dev/null || echo lo stays";
    let report = runner_for(&host).run(Job::new(511, &[&dial(greeter()), confined])).expect(Verdict::Success);
    assert!(report.trace.contains("hello from the host\n"), "{}", report.trace);
    assert!(
        report.trace.contains("CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nlo stays\n"),
        "{}",
        report.trace
    );
    // Functions are not jobs: they stay without.
    host.shell("alone", "", "awk 'NR > 2 { print $1 }' /proc/net/dev");
    assert_eq!(host.call("alone", &serde_json::json!(null)).expect(200).text(), "lo:\n");
    host.finish();
}

#[test]
fn sources_are_fetched_by_git_inside_the_sandbox() {
    let host = with_ci("network = \"host\"", "").start();
    let repository = host.scratch();
    let git = |args: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]);
        let output = command.args(args).current_dir(&repository).output().expect("git is there");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    git(&["init", "-q"]);
    std::fs::write(repository.join("build.sh"), "echo built from source\n").expect("it is writable");
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "first"]);
    let daemon = Daemon::start(&repository);
    let url = format!("git://127.0.0.1:{}/", daemon.port);
    let job = Job { repository: Some(url), ..Job::new(521, &["sh build.sh", "git log --oneline | wc -l"]) };
    let report = runner_for(&host).run(job).expect(Verdict::Success);
    assert!(report.trace.contains("built from source\n"), "{}", report.trace);
    drop(daemon);
    host.finish();
}

/// `git daemon` for one repository, on a port that the kernel chose.
struct Daemon {
    child: std::process::Child,
    port: u16,
}

impl Daemon {
    fn start(repository: &std::path::Path) -> Self {
        until_some("git daemon serves", secs(30), || Self::on_free_port(repository))
    }

    /// git cannot be told to take any port: one is found by binding it, and another if somebody was faster.
    fn on_free_port(repository: &std::path::Path) -> Option<Self> {
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("loopback").port();
        // Not as `git daemon`: that one starts this and would leave it behind when it is killed.
        let place = std::process::Command::new("git").arg("--exec-path").output().expect("git is there");
        let place = String::from_utf8_lossy(&place.stdout).trim().to_owned();
        let mut command = std::process::Command::new(format!("{place}/git-daemon"));
        command.args(["--verbose", "--listen=127.0.0.1", "--export-all", &format!("--port={port}")]);
        command.arg(format!("--base-path={}", repository.display())).arg(repository);
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("git is there");
        let mut lines = BufReader::new(child.stderr.take().expect("it is a pipe")).lines();
        if !lines.any(|line| line.is_ok_and(|line| line.contains("Ready"))) {
            let _ = child.wait();
            return None;
        }
        // Its log must be read on, or it stops at a full pipe.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Some(Self { child, port })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The guide's settings, as they are written there: a job runs with exactly these.

use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::path::Path;

use super::job::Job;
use super::runner::{Runner, Verdict};
use super::settings;
use crate::host::TestHost;
use crate::wait::secs;

const GUIDE: &str = include_str!("../../../docs/guide/gitlab.md");

/// `nobody` and its group: somebody who is not root and owns nothing, as the runner's own user.
const NOBODY: (u32, u32) = (65534, 65534);

/// The first block of TOML that has this line.
fn block(line: &str) -> String {
    let blocks = GUIDE.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let found = blocks.into_iter().find(|block| block.lines().any(|have| have.trim() == line));
    found.unwrap_or_else(|| panic!("the guide has no TOML with {line}")).to_owned()
}

fn give_to_nobody(path: &Path) {
    chown(path, Some(NOBODY.0), Some(NOBODY.1)).expect("the test is root");
}

#[test]
fn a_job_runs_with_the_settings_of_the_guide() {
    let bounds = block("[ci.gitlab]");
    let host = TestHost::builder().table(&bounds).start();
    // The program where everybody may run it, and the token where only its user may read it.
    let program = host.base().join("runlet");
    std::fs::copy(env!("CARGO_BIN_EXE_runlet"), &program).expect("it is built");
    let token = host.base().join("runlet.token");
    let mut options = std::fs::File::options();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&token).expect("it is writable");
    let secret = host.cli(&["token", "create", "gitlab-runner", "--role", "ci"]);
    assert!(secret.status.success(), "{}", String::from_utf8_lossy(&secret.stderr));
    std::io::Write::write_all(&mut file, &secret.stdout).expect("it is writable");
    give_to_nobody(&token);
    let temp = host.scratch();
    give_to_nobody(&temp);

    let written = block("[[runners]]");
    let mut text = written.clone();
    for (theirs, ours) in [
        ("/usr/local/bin/runlet", program.display().to_string()),
        ("/etc/gitlab-runner/runlet.token", token.display().to_string()),
        ("http://127.0.0.1:8700", format!("http://{}", host.address())),
    ] {
        assert!(text.contains(theirs), "the guide does not say {theirs}");
        text = text.replace(theirs, &ours);
    }
    let runner = Runner {
        settings: settings::parse(&text),
        host_env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("HOME".into(), "/nonexistent".into())],
        user: Some(NOBODY),
        retry_interval: secs(3),
        temp,
    };
    let job = Job::new(801, &["echo depth $GIT_DEPTH", "pwd", "exit 42"]).after(&["echo after"]).cache("x");
    let report = runner.run(job).expect(Verdict::Failed(42));
    assert!(report.trace.contains("depth 20\n") && report.trace.contains("after\n"), "{}", report.trace);
    assert_eq!(host.job(801)["cause"]["job"]["id"], "801");
    // The variables that the guide offers to jobs.
    let job = Job::new(802, &["true"]).set("RUNLET_CI_MEMORY", "2GiB").set("RUNLET_CI_CPU", "2");
    let report = runner.run(job).expect(Verdict::Success);
    assert!(report.trace.contains("memory 2GiB, cpu 2"), "{}", report.trace);
    host.finish();
}

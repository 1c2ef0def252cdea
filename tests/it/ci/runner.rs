//! A stand-in for GitLab Runner with its custom executor: it takes a job through a driver as the runner would.
//!
//! Each rule cites the file and function of GitLab Runner's source (19.4, repository gitlab-org/gitlab-runner) that it
//! follows; the way of one job is in `build`. What the runner does towards GitLab (asking for jobs, sending the trace) is not here: the job comes from the
//! test, and the trace goes to it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::build::Build;
use super::context::Context;
use super::driver::{Failure, Sink};
use super::job::Job;
use super::settings::Settings;
use crate::wait::{secs, until, until_some};

/// A runner that is set up.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub(crate) settings: Settings,
    /// The environment of the runner's own process.
    pub(crate) host_env: Vec<(OsString, OsString)>,
    /// Whom the runner's processes run as; the test's own user where there is none.
    pub(crate) user: Option<(u32, u32)>,
    /// common/consts.go `PreparationRetryInterval`: 3 s; tests that look at the retries shorten it.
    pub(crate) retry_interval: Duration,
    /// Where its temporary directories are.
    pub(crate) temp: PathBuf,
}

/// How a job ended, as GitLab is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    /// `script_failure`, with the exit code that `allow_failure:exit_codes` looks at.
    Failed(i32),
    /// `runner_system_failure`: GitLab may try it again elsewhere.
    System(Failure),
    Cancelled,
    TimedOut,
}

/// A job that is over.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    /// The job log, masked as the user sees it.
    pub(crate) trace: String,
    /// Calls in their order: `config`, `prepare`, `cleanup`, or the stage's name as the driver gets it.
    pub(crate) calls: Vec<(String, Result<(), Failure>)>,
    /// What `cleanup` wrote: it goes to the runner's own log.
    pub(crate) cleanup: String,
}

impl Report {
    pub(crate) fn names(&self) -> Vec<&str> {
        self.calls.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[track_caller]
    pub(crate) fn expect(self, verdict: Verdict) -> Self {
        assert_eq!(self.verdict, verdict, "{}\ncalls: {:?}\ncleanup: {}", self.trace, self.calls, self.cleanup);
        self
    }

    /// The result of the last call of that name.
    #[track_caller]
    pub(crate) fn result(&self, name: &str) -> &Result<(), Failure> {
        let call = self.calls.iter().rev().find(|(have, _)| have == name);
        &call.unwrap_or_else(|| panic!("no call of {name} in {:?}", self.names())).1
    }
}

/// What a test can see of a running job, and do to it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) trace: Sink,
    /// The call under way and its process.
    pub(super) current: Mutex<Option<(String, u32)>>,
    /// What a cancel by the user ends now: common/build.go `configureTrace` and `executeUserScripts` (`SetCancelFunc`).
    pub(super) cancel: Mutex<Context>,
    /// A call that waits for the test before it is made, and whether it has been reached.
    pub(super) gate: Mutex<Option<String>>,
    pub(super) at_gate: AtomicBool,
    /// The runner itself is dead: it makes no call any more.
    pub(super) dead: AtomicBool,
}

/// A job under way.
#[derive(Debug)]
pub(crate) struct Running {
    shared: Arc<Shared>,
    masks: Vec<String>,
    thread: std::thread::JoinHandle<Report>,
}

impl Running {
    /// Waits until the job log has this text.
    #[track_caller]
    pub(crate) fn saw(&self, text: &str) {
        let what = format!("the job log says {text:?}");
        let end = std::time::Instant::now() + secs(60);
        while !self.trace().contains(text) {
            let over = self.thread.is_finished() || std::time::Instant::now() > end;
            assert!(!over, "in vain: {what}\n{}", self.trace());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn trace(&self) -> String {
        mask(&self.shared.trace.lock().expect("no panic holds it"), &self.masks)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// What GitLab's "Cancel" does: the script ends at once; outside it, the whole job.
    pub(crate) fn cancel(&self) {
        self.shared.cancel.lock().expect("no panic holds it").cancel();
    }

    /// The process of the driver's call of that name, once it runs.
    #[track_caller]
    pub(crate) fn process(&self, name: &str) -> u32 {
        until_some(&format!("the driver is called for {name}"), secs(60), || {
            let current = self.shared.current.lock().expect("no panic holds it");
            current.as_ref().filter(|(have, _)| have == name).map(|(_, pid)| *pid)
        })
    }

    /// Waits until the runner stands before the call that was named to [`Runner::start_until`].
    #[track_caller]
    pub(crate) fn arrives(&self) {
        until("the runner comes to the gate", secs(60), || self.shared.at_gate.load(Ordering::SeqCst));
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        *self.shared.gate.lock().expect("no panic holds it") = None;
    }

    /// `kill -9` of the runner: the process of the call under way goes too, and no other is made, not even cleanup.
    pub(crate) fn kill_runner(self) {
        self.shared.dead.store(true, Ordering::SeqCst);
        self.go_on();
        if let Some((_, pid)) = self.shared.current.lock().expect("no panic holds it").clone() {
            kill_process(pid);
        }
        self.finish();
    }

    pub(crate) fn finish(self) -> Report {
        until("the job is over", secs(120), || self.thread.is_finished());
        self.thread.join().expect("it does not panic")
    }
}

/// `kill -9` of one process.
pub(crate) fn kill_process(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it is ours");
}

/// common/build.go `getNewLogger` (`MaskPhrases`): the runner masks what goes to the trace.
fn mask(bytes: &[u8], masks: &[String]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    masks.iter().fold(text, |text, mask| text.replace(mask, "[MASKED]"))
}

impl Runner {
    pub(crate) fn run(&self, job: Job) -> Report {
        self.start(job).finish()
    }

    pub(crate) fn start(&self, job: Job) -> Running {
        self.begin(job, None)
    }

    /// Starts a job that stops before the call of that name until [`Running::go_on`].
    pub(crate) fn start_until(&self, job: Job, call: &str) -> Running {
        self.begin(job, Some(call.to_owned()))
    }

    /// common/build.go `Run`: the job's context has the job's timeout, and a cancel ends it as a whole at first.
    fn begin(&self, job: Job, gate: Option<String>) -> Running {
        let context = Context::background().child(Some(job.timeout));
        let shared = Arc::new(Shared {
            trace: Sink::default(),
            current: Mutex::default(),
            cancel: Mutex::new(context.clone()),
            gate: Mutex::new(gate),
            at_gate: AtomicBool::new(false),
            dead: AtomicBool::new(false),
        });
        let masked = job.all_variables().into_iter().filter(|one| one.masked);
        let masks: Vec<String> = masked.map(|one| one.value).collect();
        let mut build = Build::new(self.clone(), job, context, Arc::clone(&shared));
        let (seen, log) = (masks.clone(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            let verdict = build.run();
            let trace = mask(&log.trace.lock().expect("no panic holds it"), &seen);
            let cleanup = String::from_utf8_lossy(&build.cleanup.lock().expect("no panic holds it")).into_owned();
            Report { verdict, trace, calls: build.calls, cleanup }
        });
        Running { shared, masks, thread }
    }
}

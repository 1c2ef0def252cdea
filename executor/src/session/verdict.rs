//! From the end of a process or a sandbox to the word for it.
//!
//! A SIGKILL has many fathers: the kernel for lack of memory, the deadline, a cancel, the code itself. Who it was is asked
//! of the sandbox, while it can still tell.

use std::time::{Duration, Instant};

use nix::libc::SIGKILL;
use nix::sys::signal::Signal;
use runlet_core::outcome::{ErrorDetail, Outcome, OutcomeKind};
use tokio::time::timeout as timeout_after;

use super::runner::Halt;
use super::supervise::Push;
use crate::host::sandbox::{EndCause, ProcessEnd, Sandbox, SandboxEnd, SandboxError};

/// How long a sandbox that is ending may take to say how.
const GONE_PATIENCE: Duration = Duration::from_secs(10);

/// How long after a SIGKILL it may take until it shows that the whole sandbox went.
const GONE_SOON: Duration = Duration::from_millis(100);

/// How long the shim may take to answer.
const ASK_PATIENCE: Duration = Duration::from_secs(5);

/// The status by which a shell tells that its command was killed.
const KILLED_COMMAND: i32 = 128 + SIGKILL;

/// What a call that was halted is put on record as. `push` is what we did to it.
pub(super) async fn of_halt(sandbox: &Sandbox, halt: Halt, deadline: Instant, push: Option<Push>) -> Outcome {
    if let Some(push) = push {
        return of_push(push);
    }
    match halt {
        Halt::Broke(breach) => breach.outcome(),
        Halt::Ended(end) => of_process(sandbox, end, deadline).await,
    }
}

/// What a process that ended by itself, or with its sandbox, is put on record as.
pub(super) async fn of_process(sandbox: &Sandbox, end: ProcessEnd, deadline: Instant) -> Outcome {
    match end {
        ProcessEnd::Exit(KILLED_COMMAND) | ProcessEnd::Signal(SIGKILL) => {
            killed(sandbox, deadline).await.unwrap_or_else(|| by_itself(end))
        }
        ProcessEnd::Exit(_) | ProcessEnd::Signal(_) => by_itself(end),
        ProcessEnd::SandboxGone => of_sandbox(sandbox.gone(GONE_PATIENCE).await.as_ref()),
    }
}

/// Who sent SIGKILL; `None`: somebody inside.
async fn killed(sandbox: &Sandbox, deadline: Instant) -> Option<Outcome> {
    if Instant::now() >= deadline {
        return Some(of_sandbox(sandbox.gone(GONE_PATIENCE).await.as_ref()));
    }
    if timeout_after(ASK_PATIENCE, sandbox.oom_killed()).await.unwrap_or(false) {
        return Some(oom());
    }
    // The processes of a sandbox that is killed may be seen to end before the sandbox is.
    sandbox.gone(GONE_SOON).await.map(|end| of_sandbox(Some(&end)))
}

/// What could not even be started is put on record as.
pub(super) async fn of_start(sandbox: &Sandbox, error: SandboxError, push: Option<Push>) -> Outcome {
    match (push, error) {
        (Some(push), _) => of_push(push),
        (None, error @ SandboxError::Spawn { .. }) => Outcome::because(OutcomeKind::InitError, error.to_string()),
        (None, SandboxError::Gone) => of_sandbox(sandbox.gone(GONE_PATIENCE).await.as_ref()),
        (None, error) => Outcome::because(OutcomeKind::Lost, error.to_string()),
    }
}

/// What work that did not end after we had killed its sandbox is put on record as.
pub(super) fn of_push(push: Push) -> Outcome {
    match push {
        Push::Cancelled => Outcome::because(OutcomeKind::Cancelled, "it was cancelled while it ran"),
        Push::Overdue => timeout(),
    }
}

fn of_sandbox(end: Option<&SandboxEnd>) -> Outcome {
    let lost = |why: &str| Outcome::because(OutcomeKind::Lost, why);
    match end {
        Some(SandboxEnd { cause: EndCause::Deadline, .. }) => timeout(),
        Some(SandboxEnd { oom: true, .. }) => oom(),
        Some(SandboxEnd { cause: EndCause::Killed, .. }) => {
            lost("the sandbox was ended from outside while the code ran")
        }
        Some(SandboxEnd { cause: EndCause::ServerGone, .. }) => lost("the server went away while the code ran"),
        Some(SandboxEnd { cause: EndCause::Died, .. }) => lost("the sandbox died while the code ran"),
        None => lost("the sandbox is ending and does not say how"),
    }
}

fn by_itself(end: ProcessEnd) -> Outcome {
    let (outcome, message) = match end {
        ProcessEnd::Exit(code) => (Outcome::exit(code), format!("the process ended with status {code}")),
        ProcessEnd::Signal(number) => {
            let name = Signal::try_from(number).map_or("a real-time signal", Signal::as_str);
            (Outcome::signal(number), format!("the process was ended by signal {number} ({name})"))
        }
        ProcessEnd::SandboxGone => return of_sandbox(None),
    };
    let error = ErrorDetail { kind: outcome.kind.as_str().to_owned(), message, trace: Vec::new() };
    Outcome { error: Some(error), ..outcome }
}

fn timeout() -> Outcome {
    Outcome::because(OutcomeKind::Timeout, "it ran longer than its timeout and was killed")
}

fn oom() -> Outcome {
    Outcome::because(OutcomeKind::Oom, "it used more memory than its limit and was killed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use runlet_core::execution::{Remains, Usage};

    fn end(cause: EndCause, oom: bool) -> SandboxEnd {
        SandboxEnd { cause, oom, usage: Usage::default(), remains: Remains::default() }
    }

    #[test]
    fn the_ends_of_a_sandbox_are_told_apart() {
        let cases = [
            (EndCause::Deadline, false, OutcomeKind::Timeout),
            // Some process of it was killed for memory, but the call went on until its deadline.
            (EndCause::Deadline, true, OutcomeKind::Timeout),
            (EndCause::Died, true, OutcomeKind::Oom),
            (EndCause::Died, false, OutcomeKind::Lost),
            (EndCause::ServerGone, false, OutcomeKind::Lost),
            (EndCause::Killed, false, OutcomeKind::Lost),
        ];
        for (cause, oom, kind) in cases {
            assert_eq!(of_sandbox(Some(&end(cause, oom))).kind, kind, "{cause:?} {oom}");
        }
        assert_eq!(of_sandbox(None).kind, OutcomeKind::Lost);
    }

    #[test]
    fn processes_that_end_by_themselves_keep_their_numbers() {
        let exit = by_itself(ProcessEnd::Exit(0));
        assert_eq!((exit.kind, exit.exit_code), (OutcomeKind::Exit, Some(0)));
        let signal = by_itself(ProcessEnd::Signal(11));
        assert_eq!((signal.kind, signal.signal), (OutcomeKind::Signal, Some(11)));
        assert_eq!(signal.error.unwrap().message, "the process was ended by signal 11 (SIGSEGV)");
        assert_eq!(by_itself(ProcessEnd::Signal(40)).signal, Some(40));
    }
}

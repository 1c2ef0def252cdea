//! `run`: the script of one stage, in the job's sandbox.

use std::collections::BTreeMap;
use std::path::Path;

use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::problem::Code;
use runlet_integrations::gitlab_ci::{decides, interpreter};

use super::super::errors::CliError;
use super::super::follow::{self, Followed, OnSignal, Stopped, Wanted};
use super::super::session::Session;
use super::gitlab::{Ended, Trouble, say};
use crate::frames::{LARGEST_START, Start};

/// What a shell says of a command that was killed by signal 9, as the kernel does for lack of memory.
const KILLED: i32 = 137;

/// What a job that was cancelled or too slow exits with.
const UNFINISHED: i32 = 1;

/// Runs the script and tells how it ended.
pub(super) async fn run(session: &Session, key: &str, script: &Path, stage: &str) -> Result<Ended, Trouble> {
    let wanted =
        Wanted { lease: key.to_owned(), start: start(script, stage)?, on_signal: OnSignal::Cancel, until: None };
    match follow::run(session, wanted).await {
        Ok(followed) => Ok(conclude(session, &followed)),
        Err(CliError::Problem { problem, .. }) if problem.code == Code::NotFound => Err(Trouble::Gone),
        Err(error) => Err(error.into()),
    }
}

fn start(script: &Path, stage: &str) -> Result<Start, Trouble> {
    let read = |source| Trouble::Read { what: "the script", path: script.to_owned(), source };
    let text = String::from_utf8(std::fs::read(script).map_err(read)?);
    let text = text.map_err(|_| Trouble::NotText(script.to_owned()))?;
    // Two stages never run at a time in one job; a person's command may, but writes no script.
    let inside = format!("/builds/.tmp/runlet-script-{}", std::process::id());
    let mut argv = interpreter(&text);
    argv.push(inside.clone());
    let size = text.len();
    let start = Start {
        argv,
        env: BTreeMap::new(),
        cwd: None,
        step: Some(stage.to_owned()),
        decides: decides(stage),
        stdin: false,
        files: vec![(inside, text)],
    };
    if serde_json::to_vec(&start).map_or(true, |frame| frame.len() > LARGEST_START) {
        let advice = "put the long parts into a file of the repository";
        return Err(Trouble::Refused(format!("the script of this stage is too large, {size} bytes: {advice}")));
    }
    Ok(start)
}

fn conclude(session: &Session, followed: &Followed) -> Ended {
    let Some(end) = &followed.end else {
        if followed.stopped != Some(Stopped::NoReader) {
            let host = session.host();
            say(&format!("the connection to the server at {host} broke while the stage ran: the stage is lost"));
        }
        return Ended::Lost;
    };
    if end.log_dropped > 0 {
        say(&format!("the last {} bytes of output are in this log only, not on record", end.log_dropped));
    }
    told(&end.outcome, followed.stopped.is_some())
}

fn told(outcome: &Outcome, by_runner: bool) -> Ended {
    let why = outcome.error.as_ref().map_or("no reason is known", |error| error.message.as_str());
    match outcome.kind {
        OutcomeKind::Ok => Ended::Well,
        OutcomeKind::Exit | OutcomeKind::Error => Ended::Failed(outcome.exit_code.unwrap_or(UNFINISHED)),
        OutcomeKind::Signal => Ended::Failed(outcome.signal.map_or(UNFINISHED, |signal| 128 + signal)),
        OutcomeKind::Oom => {
            say("the job ran out of memory: ask for more with the variable RUNLET_CI_MEMORY");
            Ended::Failed(KILLED)
        }
        OutcomeKind::Timeout => {
            say(&format!("the stage was ended: {why}"));
            Ended::Failed(UNFINISHED)
        }
        OutcomeKind::Cancelled => {
            if !by_runner {
                say(&format!("the stage was cancelled: {why}"));
            }
            Ended::Failed(UNFINISHED)
        }
        OutcomeKind::InitError | OutcomeKind::RuntimeError | OutcomeKind::Lost => {
            say(&format!("the stage could not be run: {why}"));
            Ended::Lost
        }
    }
}

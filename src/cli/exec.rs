//! `runlet exec`: a command in a sandbox of a function, or in one that is leased already, as if it ran here.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use runlet_core::id::LeaseId;
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::problem::Code;
use runlet_core::unit::Span;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::errors::CliError;
use super::follow::{self, Followed, OnSignal, Stopped, Wanted};
use super::output;
use super::session::Session;
use crate::client::Call;
use crate::frames::Start;

/// How long a function's sandbox stays when nobody runs anything in it: long enough for the command to begin.
const IDLE: &str = "5s";

/// What `exec` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
stdin, stdout, stderr, signals and the exit code are the command's own; docs/guide/exec.md tells what else may happen.

Examples:
  runlet exec on-push -- python3 -c 'import main; print(main)'
  runlet exec lse_06fcy5swzhp7d2w7k3s6cdyj1m -- ls -l /builds
  tar c . | runlet exec builder --cwd /tmp -- tar x")]
pub(crate) struct ExecArgs {
    /// A function (in a fresh sandbox), or a lease that there is: lse_... or its key
    #[arg(value_name = "TARGET")]
    target: String,
    /// Directory to run it in [default: where the code is]
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// A variable for it; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// End it after this time: 30s, 5m
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "write KEY=VALUE".to_owned())
}

/// Runs the command; the exit code is its own.
pub(crate) async fn run(session: &Session, args: ExecArgs) -> Result<ExitCode, CliError> {
    let program = args.command.first().cloned().unwrap_or_default();
    let own = if is_lease(session, &args.target).await? { None } else { Some(lease(session, &args).await?) };
    let start = Start {
        argv: args.command,
        env: args.env.into_iter().collect::<BTreeMap<_, _>>(),
        cwd: args.cwd,
        step: None,
        decides: own.is_some(),
        stdin: true,
        files: Vec::new(),
    };
    let until = args.timeout.map(|span| Instant::now() + span.0);
    let lease = own.clone().unwrap_or(args.target);
    let followed = follow::run(session, Wanted { lease, start, on_signal: OnSignal::Pass, until }).await;
    if let Some(id) = own {
        // Without this it goes by itself a little later.
        let _ = session.ask(Call::delete(format!("/v1/leases/{id}"))).await;
    }
    Ok(ExitCode::from(conclude(&followed?, &program)))
}

/// Whether the target is a lease: an id is nothing else, and a key may look like the name of a function.
async fn is_lease(session: &Session, target: &str) -> Result<bool, CliError> {
    if target.parse::<LeaseId>().is_ok() || target.starts_with("lse_") {
        return Ok(true);
    }
    if !target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Ok(false);
    }
    match session.ask(Call::get(format!("/v1/leases/{target}"))).await {
        Ok(_) => Ok(true),
        Err(CliError::Problem { problem, .. }) if problem.code == Code::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A sandbox for the function; the id of its lease.
async fn lease(session: &Session, args: &ExecArgs) -> Result<String, CliError> {
    let mut wanted = json!({"function": args.target, "idle": IDLE});
    if let Some(timeout) = args.timeout {
        wanted["timeout"] = timeout.to_string().into();
    }
    let call = Call::post("/v1/leases").header("content-type", "application/json").body(wanted.to_string()).patient();
    let lease: Value = session.ask_for(call, "lease").await?;
    Ok(lease["id"].as_str().unwrap_or_default().to_owned())
}

/// Says what there is to say, and returns the exit code.
fn conclude(followed: &Followed, program: &str) -> u8 {
    let Some(end) = &followed.end else {
        if followed.stopped == Some(Stopped::NoReader) {
            return 0;
        }
        output::note("error: the connection to the server broke while the command ran; it is ended");
        return Code::SandboxLost.exit_code();
    };
    let outcome = &end.outcome;
    let code = exit_code(outcome, followed.stopped);
    match outcome.kind {
        OutcomeKind::Ok | OutcomeKind::Exit | OutcomeKind::Signal => {}
        _ if followed.stopped == Some(Stopped::Timeout) => {
            output::note("error: the command was ended: its time was over")
        }
        OutcomeKind::InitError => {
            let why = outcome.error.as_ref().map_or("it cannot be executed", |error| error.message.as_str());
            output::note(&format!("error: cannot run `{program}`: {why}"));
        }
        kind => {
            let why = outcome.error.as_ref().map_or_else(String::new, |error| format!(": {}", error.message));
            output::note(&format!("error: {kind}{why}"));
        }
    }
    code
}

fn exit_code(outcome: &Outcome, stopped: Option<Stopped>) -> u8 {
    if stopped == Some(Stopped::Timeout) && !outcome.is_ok() {
        return Code::FunctionTimeout.exit_code();
    }
    let low = |code: i32| u8::try_from(code & 0xff).unwrap_or(u8::MAX);
    match outcome.kind {
        OutcomeKind::Ok => 0,
        OutcomeKind::Exit | OutcomeKind::Error => outcome.exit_code.map_or(1, low),
        OutcomeKind::Signal => outcome.signal.map_or(u8::MAX, |signal| low(128 + signal)),
        OutcomeKind::Oom => Code::FunctionOom.exit_code(),
        OutcomeKind::InitError | OutcomeKind::RuntimeError => Code::RuntimeError.exit_code(),
        OutcomeKind::Timeout => Code::FunctionTimeout.exit_code(),
        OutcomeKind::Cancelled => Code::Cancelled.exit_code(),
        OutcomeKind::Lost => Code::SandboxLost.exit_code(),
    }
}

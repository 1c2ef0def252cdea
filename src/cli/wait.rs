//! `runlet wait`: until an invocation has ended, and how it did.

use std::time::{Duration, Instant};

use clap::Args;
use runlet_core::invocation::InvocationState;
use runlet_core::problem::Code;
use runlet_core::store::execution::{Execution, Invocation};
use runlet_core::unit::Span;

use super::errors::CliError;
use super::id::RunId;
use super::output;
use super::session::{Session, field};
use super::words;
use crate::client::Call;

/// How long one request waits: the server allows a minute.
const ROUND: Duration = Duration::from_secs(30);
/// How long a server may be away.
const RETRY_FOR: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What `wait` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0: it succeeded; 20 to 27: it failed, as with `runlet invoke`; 124: the time was over.

Examples:
  runlet wait inv_06fcy5swzhp7d2w7k3s6cdyj1m
  runlet wait $(runlet invoke on-push --async --data @push.json) --timeout 5m")]
pub(crate) struct WaitArgs {
    /// inv_... or exe_... (the invocation it belongs to)
    #[arg(value_name = "ID")]
    id: RunId,
    /// Give up after this time: 30s, 5m [default: wait for ever]
    #[arg(long, value_name = "SPAN")]
    timeout: Option<Span>,
}

/// Waits and prints the state it ended in.
pub(crate) async fn run(session: &Session, args: &WaitArgs) -> Result<(), CliError> {
    let id = match args.id {
        RunId::Invocation(id) => id,
        RunId::Execution(id) => {
            let execution: Execution = session.ask_for(Call::get(format!("/v1/executions/{id}")), "execution").await?;
            execution.invocation
        }
    };
    let begin = Instant::now();
    let (mut reached, mut away): (bool, Option<Instant>) = (false, None);
    loop {
        let left = args.timeout.map(|timeout| timeout.0.saturating_sub(begin.elapsed()));
        let round = left.map_or(ROUND, |left| left.min(ROUND));
        let call = Call::get(format!("/v1/invocations/{id}")).query("wait", format!("{}ms", round.as_millis()));
        let asked = Instant::now();
        let answer = match session.ask(call).await {
            Err(error) if reached && error.is_passing() => {
                if away.get_or_insert_with(Instant::now).elapsed() >= RETRY_FOR {
                    return Err(error);
                }
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
            answer => answer?,
        };
        (reached, away) = (true, None);
        let invocation: Invocation = field(&answer, "invocation")?;
        if invocation.state.is_terminal() {
            return conclude(session, &invocation, &answer.body);
        }
        if left.is_some_and(|left| left <= round) && begin.elapsed() >= args.timeout.map_or(Duration::MAX, |t| t.0) {
            return Err(CliError::StillRuns { id: id.to_string(), state: invocation.state.to_string() });
        }
        // A server that answers at once, as one does that is stopping, is not asked in a tight loop.
        if asked.elapsed() < round.min(RETRY_PAUSE) {
            tokio::time::sleep(RETRY_PAUSE.min(round)).await;
        }
    }
}

fn conclude(session: &Session, invocation: &Invocation, document: &[u8]) -> Result<(), CliError> {
    if session.json {
        output::document(document)?;
    } else {
        let outcome = invocation.outcome.as_ref().filter(|outcome| !outcome.is_ok()).map(words::outcome);
        let outcome = outcome.map(|outcome| format!(" ({outcome})")).unwrap_or_default();
        output::line(&format!("{} {}{outcome}", invocation.id, invocation.state))?;
    }
    match code(invocation) {
        None => Ok(()),
        Some(code) => Err(CliError::Ended { id: invocation.id.to_string(), code }),
    }
}

/// The code of an invocation that did not succeed.
fn code(invocation: &Invocation) -> Option<Code> {
    let of_outcome = || invocation.outcome.as_ref().and_then(|outcome| Code::of_outcome(outcome.kind));
    match invocation.state {
        InvocationState::Succeeded => None,
        InvocationState::Cancelled => Some(Code::Cancelled),
        InvocationState::Expired => Some(Code::FunctionTimeout),
        _ => Some(of_outcome().unwrap_or(Code::FunctionError)),
    }
}

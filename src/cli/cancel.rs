//! `runlet cancel`: an invocation that waits never starts, one that runs is killed.

use clap::Args;
use runlet_core::store::execution::{Execution, Invocation};

use super::errors::CliError;
use super::id::RunId;
use super::output;
use super::session::{Session, field};
use crate::client::Call;

/// What `cancel` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runlet cancel inv_06fcy5swzhp7d2w7k3s6cdyj1m")]
pub(crate) struct CancelArgs {
    /// inv_... or exe_... (the invocation it belongs to)
    #[arg(value_name = "ID")]
    id: RunId,
}

/// Cancels and prints the state the invocation is in now.
pub(crate) async fn run(session: &Session, args: &CancelArgs) -> Result<(), CliError> {
    let id = match args.id {
        RunId::Invocation(id) => id,
        RunId::Execution(id) => {
            let execution: Execution = session.ask_for(Call::get(format!("/v1/executions/{id}")), "execution").await?;
            execution.invocation
        }
    };
    let answer = session.ask(Call::post(format!("/v1/invocations/{id}/cancel"))).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let invocation: Invocation = field(&answer, "invocation")?;
    if invocation.state.is_terminal() {
        output::line(&format!("{id} {}", invocation.state))
    } else {
        output::line(&format!("{id} is being cancelled"))
    }
}

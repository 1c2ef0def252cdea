//! `runlet rerun`: a new invocation with the event of an earlier one.

use clap::Args;
use runlet_core::id::InvocationId;

use super::errors::CliError;
use super::output;
use super::session::{Session, field};
use crate::client::Call;

/// What `rerun` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runlet rerun inv_06fcy5swzhp7d2w7k3s6cdyj1m
  runlet rerun inv_06fcy5swzhp7d2w7k3s6cdyj1m --revision same")]
pub(crate) struct RerunArgs {
    /// The invocation, inv_...
    #[arg(value_name = "ID")]
    id: InvocationId,
    /// current, same (the one that it ran) or sha256:... [default: current]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
}

/// Queues it and prints the id of the new invocation.
pub(crate) async fn run(session: &Session, args: &RerunArgs) -> Result<(), CliError> {
    let call = Call::post(format!("/v1/invocations/{}/rerun", args.id));
    let answer = session.ask(call.query_if("revision", args.revision.as_ref())).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let invocation: serde_json::Value = field(&answer, "invocation")?;
    output::line(invocation["id"].as_str().unwrap_or_default())
}

//! `runlet rm`: a function goes, its history stays.

use clap::Args;
use runlet_core::name::FunctionName;
use serde_json::json;

use super::errors::CliError;
use super::output;
use super::session::Session;
use crate::client::Call;

/// What `rm` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Its triggers go with it and what still waits is cancelled. Deploying the same directory again brings it back.

Examples:
  runlet rm on-push")]
pub(crate) struct RmArgs {
    /// Name of the function
    name: FunctionName,
}

/// Removes the function.
pub(crate) async fn run(session: &Session, args: &RmArgs) -> Result<(), CliError> {
    session.ask(Call::delete(format!("/v1/functions/{}", args.name))).await?;
    if session.json {
        // The API answers without a body; a script still gets one document.
        return output::line(&json!({ "removed": args.name }).to_string());
    }
    output::line(&format!("removed {}", args.name))
}

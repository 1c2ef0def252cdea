//! `runlet rollback`: a function points at an earlier revision again.

use clap::Args;
use runlet_core::name::FunctionName;
use runlet_core::store::function::Function;
use serde_json::json;

use super::errors::CliError;
use super::output;
use super::revision::{self, Wanted};
use super::session::{Session, field};
use crate::client::Call;

/// What `rollback` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
New calls and webhooks get that revision at once; its triggers come with it. What already runs or waits goes on with the
revision it was accepted for. A second rollback goes one further back.

Examples:
  runlet rollback on-push
  runlet rollback on-push --to 3f2a91c0")]
pub(crate) struct RollbackArgs {
    /// Name of the function
    name: FunctionName,
    /// The revision, or the beginning of it [default: the one before the current one]
    #[arg(long, value_name = "REVISION")]
    to: Option<Wanted>,
}

/// Rolls back and says where to.
pub(crate) async fn run(session: &Session, args: &RollbackArgs) -> Result<(), CliError> {
    let mut call = Call::post(format!("/v1/functions/{}/rollback", args.name));
    if let Some(wanted) = &args.to {
        let revisions = revision::list(session, &args.name).await?.read()?;
        let digest = revision::find(wanted, &args.name, &revisions)?;
        call = call.header("content-type", "application/json").body(json!({ "to": digest }).to_string());
    }
    let answer = session.ask(call).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let function: Function = field(&answer, "function")?;
    output::line(&format!("{} is at revision sha256:{}", function.name, function.revision.short()))
}

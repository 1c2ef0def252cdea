//! `runlet why`: why something waits, and behind what.

use clap::Args;
use runlet_core::engine::{Explanation, Holder};
use runlet_core::store::execution::Execution;
use serde_json::json;

use super::errors::CliError;
use super::id::RunId;
use super::output::{self, Fields};
use super::session::Session;
use super::words;
use crate::client::Call;

/// What `why` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
It says which limit keeps it waiting, how many go before it, and who has what it waits for.

Examples:
  runlet why inv_06fcy5swzhp7d2w7k3s6cdyj1m
  runlet why inv_06fcy5swzhp7d2w7k3s6cdyj1m --json")]
pub(crate) struct WhyArgs {
    /// inv_... or exe_...
    #[arg(value_name = "ID")]
    id: RunId,
}

/// Explains it.
pub(crate) async fn run(session: &Session, args: &WhyArgs) -> Result<(), CliError> {
    let id = match args.id {
        RunId::Invocation(id) => id,
        RunId::Execution(id) => {
            let execution: Execution = session.ask_for(Call::get(format!("/v1/executions/{id}")), "execution").await?;
            execution.invocation
        }
    };
    let call = Call::get(format!("/v1/invocations/{id}/explain"));
    let why: Explanation = session.ask_for(call, "explanation").await?;
    if session.json {
        return output::line(&json!({ "explanation": why }).to_string());
    }
    fields(id.to_string(), &why).print()
}

fn fields(id: String, why: &Explanation) -> Fields {
    let mut fields = Fields::default();
    fields.add("invocation", id);
    fields.add("state", why.state);
    fields.add("why", &why.reason);
    fields.add_if("limit", why.limit.map(runlet_core::engine::Limit::as_str));
    fields.add_if("ahead", why.ahead);
    fields.add_if("not before", why.not_before.map(words::moment));
    fields.add_if("deadline", why.deadline.map(words::moment));
    let holders: Vec<String> = why.holders.iter().map(holder).collect();
    fields.add_if("held by", (!holders.is_empty()).then(|| holders.join("\n")));
    fields
}

fn holder(holder: &Holder) -> String {
    if let Some(invocation) = holder.invocation {
        return invocation.to_string();
    }
    let who = holder.function.as_ref().map_or("others", |function| function.as_str());
    let memory = words::size(holder.memory.unwrap_or_default());
    format!("{who}: {memory} in {} sandboxes", holder.sandboxes.unwrap_or_default())
}

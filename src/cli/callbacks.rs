//! `runlet callbacks` and `runlet callback`: who was told how asynchronous work ended, and what came of it.

use clap::{Args, Subcommand};
use runlet_core::clock;
use runlet_core::id::InvocationId;
use runlet_core::name::FunctionName;
use runlet_core::store::outbox::{Callback, CallbackState};

use super::errors::CliError;
use super::output::{self, Fields, Table};
use super::page::{Listing, Rows};
use super::session::{Session, field};
use super::words;
use crate::client::{Answer, Call};

/// What `callbacks` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runlet callbacks
  runlet callbacks --function on-push --state failed --json")]
pub(crate) struct CallbacksArgs {
    /// Only about this function
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
    /// Only in this state: waiting, delivered, failed or cancelled
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Option<CallbackState>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

fn state(text: &str) -> Result<CallbackState, String> {
    let found = CallbackState::ALL.into_iter().find(|state| state.as_str() == text);
    found.ok_or_else(|| "write one of waiting, delivered, failed, cancelled".to_owned())
}

/// What `callback` takes.
#[derive(Debug, Args)]
pub(crate) struct CallbackArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the callback of an invocation with its last tries
    #[command(after_help = "\
Examples:
  runlet callback show inv_06fcy5swzhp7d2w7k3s6cdyj1m")]
    Show {
        /// The invocation that ended, inv_...
        #[arg(value_name = "ID")]
        id: InvocationId,
    },
    /// Try a callback now; one that is over begins anew
    #[command(after_help = "\
Examples:
  runlet callback retry inv_06fcy5swzhp7d2w7k3s6cdyj1m")]
    Retry {
        /// The invocation that ended, inv_...
        #[arg(value_name = "ID")]
        id: InvocationId,
    },
    /// Cancel a callback that waits
    #[command(after_help = "\
Examples:
  runlet callback cancel inv_06fcy5swzhp7d2w7k3s6cdyj1m")]
    Cancel {
        /// The invocation that ended, inv_...
        #[arg(value_name = "ID")]
        id: InvocationId,
    },
}

/// Lists them.
pub(crate) async fn list(session: &Session, args: &CallbacksArgs) -> Result<(), CliError> {
    let listing = Listing { key: "callbacks", cursor: "before" };
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let state = args.state.map(CallbackState::as_str);
    let call = || Call::get("/v1/callbacks").query_if("function", args.function.as_ref()).query_if("state", state);
    let rows = Rows::fetch(session, listing, limit, call).await?;
    if session.json {
        return rows.print_json();
    }
    let now = clock::now();
    let mut table = Table::new(["INVOCATION", "FUNCTION", "EVENT", "TO", "STATE", "TRIES", "ENDED"]);
    for callback in rows.read::<Callback>()? {
        table.row([
            callback.invocation.to_string(),
            callback.function.to_string(),
            callback.event.as_str().to_owned(),
            callback.destination.to_string(),
            callback.state.as_str().to_owned(),
            callback.tries.to_string(),
            format!("{} ago", words::age(callback.created_at, now)),
        ]);
    }
    table.print("no callbacks: [on_success] or [on_failure] in function.toml makes them")
}

/// Shows one, or changes it and shows it.
pub(crate) async fn run(session: &Session, args: &CallbackArgs) -> Result<(), CliError> {
    let call = match &args.verb {
        Verb::Show { id } => Call::get(format!("/v1/callbacks/{id}")),
        Verb::Retry { id } => Call::post(format!("/v1/callbacks/{id}/retry")),
        Verb::Cancel { id } => Call::post(format!("/v1/callbacks/{id}/cancel")),
    };
    show(session, &session.ask(call).await?)
}

fn show(session: &Session, answer: &Answer) -> Result<(), CliError> {
    if session.json {
        return output::document(&answer.body);
    }
    let callback: Callback = field(answer, "callback")?;
    let mut fields = Fields::default();
    fields.add("invocation", callback.invocation);
    fields.add("function", callback.function);
    fields.add("event", callback.event.as_str());
    fields.add("to", callback.destination);
    fields.add("state", callback.state.as_str());
    fields.add_if("next try", callback.next_at.map(words::moment));
    let tries = callback.history.iter().map(|tried| {
        let status = tried.status.map_or_else(String::new, |status| format!("{status} "));
        format!("{} {status}{} ({} ms)", words::moment(tried.at), tried.note, tried.duration_ms)
    });
    let tries: Vec<String> = tries.collect();
    fields.add_if("tries", (!tries.is_empty()).then(|| tries.join("\n")));
    fields.add_if("over", callback.finished_at.map(words::moment));
    fields.print()
}

//! `runlet dead-letters` and `runlet dead-letter`: work that failed for good, and what to do about it.

use clap::{Args, Subcommand};
use runlet_core::clock;
use runlet_core::id::InvocationId;
use runlet_core::name::FunctionName;
use runlet_core::outcome::OutcomeKind;
use runlet_core::store::dead_letter::DeadLetter;
use serde_json::{Value, json};

use super::errors::CliError;
use super::output::{self, Table};
use super::page::{Listing, Rows};
use super::session::{Session, field};
use super::words;
use crate::client::Call;

/// Which dead letters are meant.
#[derive(Debug, Args)]
struct Filter {
    /// Only of this function
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
    /// Only those that ended like this: error, exit, timeout, oom, lost, ...
    #[arg(long, value_name = "OUTCOME", value_parser = outcome)]
    outcome: Option<OutcomeKind>,
    /// Only those that failed since a moment, or so long ago: 1h
    #[arg(long, value_name = "TIME|SPAN")]
    since: Option<String>,
    /// Only those that failed before a moment, or so long ago
    #[arg(long, value_name = "TIME|SPAN")]
    until: Option<String>,
}

fn outcome(text: &str) -> Result<OutcomeKind, String> {
    OutcomeKind::parse(text).ok_or_else(|| {
        let words: Vec<&str> = OutcomeKind::ALL.into_iter().map(OutcomeKind::as_str).collect();
        format!("write one of {}", words.join(", "))
    })
}

impl Filter {
    fn apply(&self, call: Call) -> Call {
        call.query_if("function", self.function.as_ref())
            .query_if("outcome", self.outcome)
            .query_if("since", self.since.as_ref())
            .query_if("until", self.until.as_ref())
    }
}

/// What `dead-letters` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
`runlet show ID` tells how one failed, `runlet dead-letter redrive ID` has it run again.

Examples:
  runlet dead-letters
  runlet dead-letters --function on-push --since 1d --json")]
pub(crate) struct DeadLettersArgs {
    #[command(flatten)]
    filter: Filter,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// What `dead-letter` takes.
#[derive(Debug, Args)]
pub(crate) struct DeadLetterArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Have dead letters run again, by id or by what they have in common
    #[command(after_help = "\
Each becomes a new invocation of the same event, by the function's current revision.

Examples:
  runlet dead-letter redrive inv_06fcy5swzhp7d2w7k3s6cdyj1m
  runlet dead-letter redrive --all --function on-push --since 2h
  runlet dead-letter redrive --all --outcome timeout --revision same")]
    Redrive(RedriveArgs),
    /// Take dead letters off the list; their history stays
    #[command(after_help = "\
Examples:
  runlet dead-letter drop inv_06fcy5swzhp7d2w7k3s6cdyj1m")]
    Drop {
        /// inv_...
        #[arg(value_name = "ID", required = true)]
        ids: Vec<InvocationId>,
    },
}

#[derive(Debug, Args)]
struct RedriveArgs {
    /// inv_...
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with_all = ["all", "function", "outcome", "since", "until"])]
    ids: Vec<InvocationId>,
    /// All that the filter takes
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// current, same (the one that each ran) or sha256:... [default: current]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
}

/// Lists them.
pub(crate) async fn list(session: &Session, args: &DeadLettersArgs) -> Result<(), CliError> {
    let listing = Listing { key: "dead_letters", cursor: "before" };
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let rows = Rows::fetch(session, listing, limit, || args.filter.apply(Call::get("/v1/dead_letters"))).await?;
    if session.json {
        return rows.print_json();
    }
    let now = clock::now();
    let mut table = Table::new(["INVOCATION", "FUNCTION", "OUTCOME", "FAILED"]);
    for letter in rows.read::<DeadLetter>()? {
        let outcome = letter.outcome.map_or("expired", OutcomeKind::as_str).to_owned();
        let failed = format!("{} ago", words::age(letter.failed_at, now));
        table.row([letter.invocation.to_string(), letter.function.to_string(), outcome, failed]);
    }
    table.print("no dead letters: nothing that was accepted has failed for good")
}

/// Redrives or drops.
pub(crate) async fn run(session: &Session, args: &DeadLetterArgs) -> Result<(), CliError> {
    match &args.verb {
        Verb::Redrive(args) if args.all => redrive_all(session, args).await,
        Verb::Redrive(args) => {
            for id in &args.ids {
                let call = Call::post(format!("/v1/dead_letters/{id}/redrive"));
                let answer = session.ask(call.query_if("revision", args.revision.as_ref())).await?;
                if session.json {
                    output::document(&answer.body)?;
                } else {
                    again(&field(&answer, "invocation")?)?;
                }
            }
            Ok(())
        }
        Verb::Drop { ids } => {
            for id in ids {
                session.ask(Call::delete(format!("/v1/dead_letters/{id}"))).await?;
                if !session.json {
                    output::line(&format!("{id} is no dead letter any more"))?;
                }
            }
            Ok(())
        }
    }
}

fn again(invocation: &Value) -> Result<(), CliError> {
    let text = |key: &str| invocation[key].as_str().unwrap_or_default().to_owned();
    output::line(&format!("{} runs again as {}", text("of"), text("id")))
}

/// Page by page, until none is left that the filter takes.
async fn redrive_all(session: &Session, args: &RedriveArgs) -> Result<(), CliError> {
    let (mut before, mut redriven, mut refused) = (None::<String>, Vec::new(), Vec::new());
    loop {
        let call = args.filter.apply(Call::post("/v1/dead_letters/redrive"));
        let call = call.query_if("revision", args.revision.as_ref()).query_if("before", before.as_ref());
        let answer = session.ask(call.query("limit", 200)).await?;
        redriven.extend(field::<Vec<Value>>(&answer, "redriven")?);
        refused.extend(field::<Vec<Value>>(&answer, "refused")?);
        let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        before = document["next"].as_str().map(str::to_owned);
        if before.is_none() {
            break;
        }
    }
    if session.json {
        return output::line(&json!({ "redriven": redriven, "refused": refused }).to_string());
    }
    redriven.iter().try_for_each(again)?;
    for one in &refused {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        output::note(&format!("{} stays: {}", text("invocation"), text("reason")));
    }
    output::note(&format!("{} run again, {} stay", redriven.len(), refused.len()));
    Ok(())
}

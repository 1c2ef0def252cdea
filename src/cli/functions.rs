//! `runlet functions`: what is deployed.

use clap::Args;
use runlet_core::clock;
use runlet_core::manifest::TriggerSpec;
use runlet_core::store::function::Function;

use super::errors::CliError;
use super::output::Table;
use super::page::{Listing, Rows};
use super::session::Session;
use super::words;
use crate::client::Call;

/// What `functions` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runlet functions
  runlet functions --json")]
pub(crate) struct FunctionsArgs {}

/// Lists all functions of the namespace.
pub(crate) async fn run(session: &Session, _: &FunctionsArgs) -> Result<(), CliError> {
    let listing = Listing { key: "functions", cursor: "after" };
    let rows = Rows::fetch(session, listing, usize::MAX, || Call::get("/v1/functions")).await?;
    if session.json {
        return rows.print_json();
    }
    let now = clock::now();
    let mut table = Table::new(["NAME", "RUNTIME", "REVISION", "TRIGGERS", "DEPLOYED"]);
    for function in rows.read::<Function>()? {
        table.row([
            function.name.to_string(),
            function.manifest.runtime.as_str().to_owned(),
            function.revision.short().to_owned(),
            triggers(&function),
            words::age(function.deployed_at, now) + " ago",
        ]);
    }
    table.print("no functions yet: `runlet deploy DIR` uploads one")
}

fn triggers(function: &Function) -> String {
    let trigger = |trigger: &TriggerSpec| match trigger {
        TriggerSpec::Webhook(hook) => format!("webhook /hooks/{}/{}", function.namespace, hook.path),
        TriggerSpec::Cron(cron) => format!("cron {}", cron.schedule),
        TriggerSpec::Queue(queue) => format!("queue {}", queue.ledger_queue(&function.name)),
    };
    let all: Vec<String> = function.manifest.triggers.iter().map(trigger).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

//! `runlet triggers` and `runlet trigger`: what starts functions, when next, and pausing it.

use std::str::FromStr;

use clap::{Args, Subcommand};
use runlet_core::clock::{self, Timestamp};
use runlet_core::id::TriggerId;
use runlet_core::manifest::TriggerSpec;
use runlet_core::name::{BadName, FunctionName};
use runlet_core::store::cron::{TickRecord, TriggerRecord};
use serde_json::json;

use super::errors::CliError;
use super::output::{self, Table};
use super::page::{Listing, Rows};
use super::session::{Session, field};
use super::words;
use crate::client::Call;

/// What `triggers` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runlet triggers
  runlet triggers --function nightly --json")]
pub(crate) struct TriggersArgs {
    /// Only of this function
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
}

/// What `trigger` takes.
#[derive(Debug, Args)]
pub(crate) struct TriggerArgs {
    #[command(subcommand)]
    verb: TriggerVerb,
}

#[derive(Debug, Subcommand)]
enum TriggerVerb {
    /// Pause a schedule: its ticks are passed over until it is resumed
    #[command(after_help = "\
Examples:
  runlet trigger pause nightly --note 'the warehouse is being moved'
  runlet trigger pause trg_06fcy5swzhp7d2w7k3s6cdyj1m")]
    Pause {
        /// trg_..., or a function that has one schedule
        #[arg(value_name = "TRIGGER")]
        which: Which,
        /// Why, for whoever finds it paused
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Let a paused schedule go on, from now
    #[command(after_help = "\
Examples:
  runlet trigger resume nightly")]
    Resume {
        /// trg_..., or a function that has one schedule
        #[arg(value_name = "TRIGGER")]
        which: Which,
    },
    /// List the last ticks of a schedule and what became of them, newest first
    #[command(after_help = "\
Examples:
  runlet trigger ticks nightly --limit 5")]
    Ticks {
        /// trg_..., or a function that has one schedule
        #[arg(value_name = "TRIGGER")]
        which: Which,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
}

/// A trigger as people name it.
#[derive(Debug, Clone)]
enum Which {
    Id(TriggerId),
    Function(FunctionName),
}

impl FromStr for Which {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        text.parse().map(Self::Id).or_else(|_| FunctionName::new(text).map(Self::Function))
    }
}

/// Lists all triggers of the namespace.
pub(crate) async fn list(session: &Session, args: &TriggersArgs) -> Result<(), CliError> {
    let rows = fetch(session, args.function.as_ref()).await?;
    if session.json {
        return rows.print_json();
    }
    let now = clock::now();
    let mut table = Table::new(["ID", "FUNCTION", "TRIGGER", "NEXT", "LAST TICK", "STATE"]);
    for trigger in rows.read::<TriggerRecord>()? {
        table.row(row(&trigger, now));
    }
    table.print("no triggers: a [[trigger]] in function.toml makes one")
}

async fn fetch(session: &Session, function: Option<&FunctionName>) -> Result<Rows, CliError> {
    let listing = Listing { key: "triggers", cursor: "after" };
    Rows::fetch(session, listing, usize::MAX, || Call::get("/v1/triggers").query_if("function", function)).await
}

fn row(trigger: &TriggerRecord, now: Timestamp) -> [String; 6] {
    let dash = || "-".to_owned();
    let (what, state) = match (&trigger.spec, &trigger.paused) {
        (TriggerSpec::Webhook(hook), _) => (format!("webhook {}", hook.path), dash()),
        (TriggerSpec::Cron(spec), None) => (format!("cron {} ({})", spec.schedule, spec.zone), "on".to_owned()),
        (TriggerSpec::Cron(spec), Some(paused)) => {
            let note = paused.note.as_ref().map_or_else(String::new, |note| format!(": {note}"));
            let state = format!("paused {} ago{note}", words::age(paused.at, now));
            (format!("cron {} ({})", spec.schedule, spec.zone), state)
        }
        (TriggerSpec::Queue(spec), _) => {
            (format!("queue {}", spec.ledger_queue(&trigger.function)), broker(trigger, now))
        }
    };
    let last = trigger
        .last_tick
        .as_ref()
        .map_or_else(dash, |tick| format!("{} {}", words::moment(tick.fires_at), tick.fate.as_str()));
    let next = trigger.next_at.map_or_else(dash, words::moment);
    [trigger.id.to_string(), trigger.function.to_string(), what, next, last, state]
}

/// How a queue trigger gets on with its broker; a built-in queue is always there.
fn broker(trigger: &TriggerRecord, now: Timestamp) -> String {
    let Some(broker) = &trigger.broker else { return "on".to_owned() };
    let error = broker.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
    format!("{} for {}{error}", broker.state.as_str(), words::age(broker.since, now))
}

/// Pauses, resumes, or tells of ticks.
pub(crate) async fn run(session: &Session, args: &TriggerArgs) -> Result<(), CliError> {
    match &args.verb {
        TriggerVerb::Pause { which, note } => {
            let id = find(session, which).await?;
            let call = Call::post(format!("/v1/triggers/{id}/pause")).header("content-type", "application/json");
            changed(session, call.body(json!({ "note": note }).to_string())).await
        }
        TriggerVerb::Resume { which } => {
            let id = find(session, which).await?;
            changed(session, Call::post(format!("/v1/triggers/{id}/resume"))).await
        }
        TriggerVerb::Ticks { which, limit } => ticks(session, find(session, which).await?, *limit).await,
    }
}

/// The one trigger that is meant.
async fn find(session: &Session, which: &Which) -> Result<TriggerId, CliError> {
    let function = match which {
        Which::Id(id) => return Ok(*id),
        Which::Function(function) => function,
    };
    let triggers: Vec<TriggerRecord> = fetch(session, Some(function)).await?.read()?;
    let mut schedules = triggers.iter().filter(|trigger| matches!(trigger.spec, TriggerSpec::Cron(_)));
    match (schedules.next(), schedules.count()) {
        (Some(only), 0) => Ok(only.id),
        (first, others) => {
            let found = usize::from(first.is_some()) + others;
            Err(CliError::WhichTrigger { function: function.to_string(), found })
        }
    }
}

async fn changed(session: &Session, call: Call) -> Result<(), CliError> {
    let answer = session.ask(call).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let trigger: TriggerRecord = field(&answer, "trigger")?;
    let next = trigger.next_at.map_or_else(String::new, |next| format!(", next at {}", words::moment(next)));
    let state = if trigger.paused.is_some() { "is paused" } else { "is on" };
    output::line(&format!("{} of {} {state}{next}", trigger.id, trigger.function))
}

async fn ticks(session: &Session, id: TriggerId, limit: u32) -> Result<(), CliError> {
    let answer = session.ask(Call::get(format!("/v1/triggers/{id}/ticks")).query("limit", limit)).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let mut table = Table::new(["TICK", "FATE", "INVOCATION", "DECIDED AFTER"]);
    for tick in field::<Vec<TickRecord>>(&answer, "ticks")? {
        let late = tick.decided_at.signed_duration_since(tick.fires_at).to_std().unwrap_or_default();
        let invocation = tick.invocation.map_or_else(|| "-".to_owned(), |id| id.to_string());
        table.row([words::moment(tick.fires_at), tick.fate.as_str().to_owned(), invocation, words::span(late)]);
    }
    table.print("no ticks yet")
}

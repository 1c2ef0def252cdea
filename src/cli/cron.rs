//! `runlet cron next`: when a schedule fires, without a server.

use std::collections::BTreeMap;

use chrono::DateTime;
use clap::{Args, Subcommand};
use runlet_core::clock::{self, Timestamp};
use runlet_triggers::cron::Rhythm;
use serde_json::{Value, json};

use super::errors::CliError;
use super::output::{self, Table};

/// What `cron` takes.
#[derive(Debug, Args)]
pub(crate) struct CronArgs {
    #[command(subcommand)]
    verb: CronVerb,
}

#[derive(Debug, Subcommand)]
enum CronVerb {
    /// Print the next ticks of a schedule
    #[command(after_help = "\
Fields: minute hour day-of-month month day-of-week; with --seconds the second comes first.

Examples:
  runlet cron next '*/5 * * * *'
  runlet cron next '30 2 * * 1-5' --zone Europe/Berlin -n 5
  runlet cron next '*/10 * * * * *' --seconds
  runlet cron next '30 2 * * *' --zone Europe/Berlin --from 2027-03-27T12:00:00Z")]
    Next(NextArgs),
}

#[derive(Debug, Args)]
struct NextArgs {
    /// The schedule: five fields, or @hourly, @daily, @weekly, @monthly, @yearly
    #[arg(value_name = "EXPR", allow_hyphen_values = true)]
    schedule: String,
    /// IANA zone of its wall clock
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: String,
    /// There are six fields, the first one is the second
    #[arg(long)]
    seconds: bool,
    /// So many ticks
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Ticks after this moment, like 2026-01-31T12:00:00Z [default: now]
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    from: Option<Timestamp>,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let moment = DateTime::parse_from_rfc3339(text);
    moment.map(|moment| moment.to_utc()).map_err(|_| "write a moment like 2026-01-31T12:00:00Z".to_owned())
}

/// Prints ticks.
pub(crate) fn run(args: &CronArgs, json: bool) -> Result<(), CliError> {
    let CronVerb::Next(args) = &args.verb;
    let rhythm = Rhythm::new(&args.schedule, &args.zone, args.seconds).map_err(CliError::Schedule)?;
    let from = args.from.unwrap_or_else(clock::now);
    let ticks = rhythm.ticks_after(from).take(args.count as usize);
    if json {
        let tick = |at: Timestamp| BTreeMap::from([("utc", json!(at)), ("local", local(&rhythm, at, "%+").into())]);
        let ticks: Vec<BTreeMap<&str, Value>> = ticks.map(tick).collect();
        return output::line(&json!({ "ticks": ticks }).to_string());
    }
    let mut table = Table::new(["LOCAL", "UTC"]);
    for tick in ticks {
        let utc = tick.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        table.row([local(&rhythm, tick, "%a %Y-%m-%d %H:%M:%S %Z"), utc]);
    }
    table.print("no tick until the year 2100")
}

fn local(rhythm: &Rhythm, at: Timestamp, format: &str) -> String {
    at.with_timezone(&rhythm.zone()).format(format).to_string()
}

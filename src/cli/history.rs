//! `runlet history`: how large it is.

use clap::{Args, Subcommand};
use runlet_core::store::size::{DaySize, HistorySize, TableSize};
use serde::Deserialize;

use super::errors::CliError;
use super::output::{self, Table};
use super::session::{Session, field};
use crate::client::Call;

/// What `history` takes.
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    #[command(subcommand)]
    verb: HistoryVerb,
}

/// What can be asked of it.
#[derive(Debug, Subcommand)]
enum HistoryVerb {
    /// Show how large the history is, day by day, and when it goes
    #[command(after_help = "\
ON DISK is the whole day with its indexes, of all namespaces; the other columns are those of your namespace, FILES those of the server asked.

Examples:
  runlet history size
  runlet history size --namespace team --json")]
    Size,
}

/// What the server answers.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(flatten)]
    size: HistorySize,
    disk_free: Option<u64>,
    disk_floor: Option<u64>,
}

/// Asks and prints.
pub(crate) async fn run(session: &Session, args: &HistoryArgs) -> Result<(), CliError> {
    let HistoryVerb::Size = args.verb;
    let answer = session.ask(Call::get("/v1/history/size")).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let Answer { size, disk_free, disk_floor } = field(&answer, "history")?;
    let mut table = Table::new([
        "DAY",
        "ON DISK",
        "INVOCATIONS",
        "EXECUTIONS",
        "DELIVERIES",
        "BODIES",
        "OUTPUT",
        "FILES",
        "REMOVED FROM",
    ]);
    for day in &size.days {
        table.row(row(day));
    }
    table.print("no day of history yet")?;
    let keep = size.keep_days.map_or("all days".to_owned(), |days| format!("{days} days"));
    output::note(&format!(
        "namespace {} keeps {keep}; the database has {}",
        size.namespace,
        bytes(size.database_bytes)
    ));
    if let (Some(free), Some(floor)) = (disk_free, disk_floor) {
        output::note(&format!("{} of the disk are free; below {} nothing new is accepted", bytes(free), bytes(floor)));
    }
    Ok(())
}

fn row(day: &DaySize) -> [String; 9] {
    let of = |table: &str| day.tables.get(table).copied().unwrap_or_default();
    let disk: u64 = day.tables.values().map(|table: &TableSize| table.disk_bytes).sum();
    let removed = match (day.held, day.removed_from) {
        (true, _) => "held by the queue".to_owned(),
        (false, Some(date)) => date.to_string(),
        (false, None) => "never".to_owned(),
    };
    let files = if day.files == 0 { "-".to_owned() } else { format!("{} ({})", day.files, bytes(day.file_bytes)) };
    [
        day.day.to_string(),
        bytes(disk),
        of("invocations").rows.to_string(),
        of("executions").rows.to_string(),
        of("deliveries").rows.to_string(),
        bytes(of("invocations").body_bytes + of("deliveries").body_bytes),
        bytes(of("log_chunks").body_bytes),
        files,
        removed,
    ]
}

/// A size for people: three digits are enough.
fn bytes(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_short() {
        assert_eq!([0, 1023, 1024, 1_600_000, 3 << 30].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "3.0 GiB"]);
    }
}

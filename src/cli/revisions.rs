//! `runlet revisions`: what a function was and is.

use clap::Args;
use runlet_core::clock;
use runlet_core::name::FunctionName;
use runlet_core::store::function::revision::Revision;

use super::errors::CliError;
use super::output::Table;
use super::session::Session;
use super::{revision, words};

/// What `revisions` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
The current revision is the one that calls of NAME get; aliases point at revisions by themselves.

Examples:
  runlet revisions on-push
  runlet invoke on-push@sha256:DIGEST --data @push.json   call one of them")]
pub(crate) struct RevisionsArgs {
    /// Name of the function
    name: FunctionName,
}

/// Lists the revisions, newest first.
pub(crate) async fn run(session: &Session, args: &RevisionsArgs) -> Result<(), CliError> {
    let rows = revision::list(session, &args.name).await?;
    if session.json {
        return rows.print_json();
    }
    table(&rows.read()?, clock::now()).print("no revisions")
}

fn table(revisions: &[Revision], now: clock::Timestamp) -> Table<6> {
    let mut table = Table::new(["REVISION", "CURRENT", "ALIASES", "RUNTIME", "SIZE", "DEPLOYED"]);
    for one in revisions {
        let aliases: Vec<&str> = one.aliases.iter().map(runlet_core::name::AliasName::as_str).collect();
        table.row([
            one.revision.short().to_owned(),
            if one.current { "yes" } else { "-" }.to_owned(),
            if aliases.is_empty() { "-".to_owned() } else { aliases.join(", ") },
            one.runtime.clone(),
            words::size(one.size),
            words::age(one.deployed_at.unwrap_or(one.created_at), now) + " ago",
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use runlet_core::name::RevisionDigest;

    #[test]
    fn the_table_tells_which_one_is_current_and_who_points_where() {
        let now = clock::now();
        let one = |byte, current, aliases: &[&str]| Revision {
            revision: RevisionDigest::from_sha256(&[byte; 32]),
            current,
            aliases: aliases.iter().map(|alias| alias.parse().expect("a name")).collect(),
            runtime: "python".to_owned(),
            size: 2048,
            created_at: now - chrono::TimeDelta::hours(2),
            deployed_at: None,
        };
        insta::assert_snapshot!(table(&[one(0xbb, true, &[]), one(0xaa, false, &["live", "old"])], now).text(), @r"
        REVISION      CURRENT  ALIASES    RUNTIME  SIZE     DEPLOYED
        bbbbbbbbbbbb  yes      -          python   2.0 KiB  2h ago
        aaaaaaaaaaaa  -        live, old  python   2.0 KiB  2h ago
        ");
    }
}

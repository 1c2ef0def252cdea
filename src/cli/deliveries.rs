//! `runlet deliveries`: webhooks as they came in, refused ones included.

use clap::Args;
use runlet_core::clock;
use runlet_core::name::HookPath;
use runlet_core::store::delivery::Delivery;

use super::errors::CliError;
use super::output::Table;
use super::page::{Listing, Rows};
use super::session::Session;
use super::words;
use crate::client::Call;

/// What `deliveries` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
`runlet show dlv_...` tells why a delivery was taken or not.

Examples:
  runlet deliveries --path gh
  runlet deliveries --limit 5 --json")]
pub(crate) struct DeliveriesArgs {
    /// Only of this hook: the path behind /hooks/NAMESPACE/
    #[arg(long, value_name = "PATH")]
    path: Option<HookPath>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Lists deliveries, newest first.
pub(crate) async fn run(session: &Session, args: &DeliveriesArgs) -> Result<(), CliError> {
    let listing = Listing { key: "deliveries", cursor: "before" };
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let call = || Call::get("/v1/deliveries").query_if("path", args.path.as_ref());
    let rows = Rows::fetch(session, listing, limit, call).await?;
    if session.json {
        return rows.print_json();
    }
    let now = clock::now();
    let mut table = Table::new(["ID", "PATH", "EVENT", "VERDICT", "INVOCATIONS", "SIZE", "AGE"]);
    for delivery in rows.read::<Delivery>()? {
        table.row([
            delivery.id.to_string(),
            delivery.path.to_string(),
            delivery.event.unwrap_or_else(|| "-".to_owned()),
            delivery.verdict.as_str().to_owned(),
            delivery.invocations.len().to_string(),
            words::size(delivery.body_size),
            words::age(delivery.received_at, now),
        ]);
    }
    table.print("no deliveries here: `runlet functions` lists the hooks that wait for them")
}

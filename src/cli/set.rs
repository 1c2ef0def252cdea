//! `runlet set`: limits of a function change while it runs.

use clap::Args;
use runlet_core::limits::Limits;
use runlet_core::name::FunctionName;
use runlet_core::settings::Settings;
use runlet_core::unit::ByteSize;
use serde_json::{Map, Value, json};

use super::errors::CliError;
use super::output;
use super::session::{Session, field};
use crate::client::Call;

/// What `set` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Its sandboxes have the new limits at once, those in which code runs as well. They stay over restarts and deploys, over what function.toml
says, until they are changed or cleared. If one sandbox cannot have them, nothing is changed. Without options it shows what is set.

Examples:
  runlet set on-push --memory 512MiB --cpu 2
  runlet set on-push --clear
  runlet set on-push")]
pub(crate) struct SetArgs {
    /// Name of the function
    name: FunctionName,
    /// Memory of a sandbox, for example 512MiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// CPUs of a sandbox; 0.5 is half of one
    #[arg(long, value_name = "NUMBER")]
    cpu: Option<f64>,
    /// Processes and threads in a sandbox
    #[arg(long, value_name = "NUMBER")]
    pids: Option<u32>,
    /// Take away what was set: what function.toml says is in force again
    #[arg(long, conflicts_with_all = ["memory", "cpu", "pids"])]
    clear: bool,
}

/// Changes or shows.
pub(crate) async fn run(session: &Session, args: &SetArgs) -> Result<(), CliError> {
    let path = format!("/v1/functions/{}/settings", args.name);
    let change = change(args);
    let call = if change.is_empty() {
        Call::get(path)
    } else {
        Call::patch(path).header("content-type", "application/json").body(Value::Object(change).to_string())
    };
    let answer = session.ask(call).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let (settings, limits): (Settings, Limits) = (field(&answer, "settings")?, field(&answer, "limits")?);
    output::line(&told(&args.name, &settings, &limits))
}

fn change(args: &SetArgs) -> Map<String, Value> {
    if args.clear {
        return ["memory", "cpu", "pids"].into_iter().map(|name| (name.to_owned(), Value::Null)).collect();
    }
    let given = [
        ("memory", args.memory.map(|memory| json!(memory))),
        ("cpu", args.cpu.map(|cpu| json!(cpu))),
        ("pids", args.pids.map(|pids| json!(pids))),
    ];
    given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The limits, each with where it comes from.
fn told(name: &FunctionName, settings: &Settings, limits: &Limits) -> String {
    let from = |set: bool| if set { "set" } else { "function.toml" };
    format!(
        "{name}: memory {} ({}), cpu {} ({}), pids {} ({})",
        limits.memory,
        from(settings.memory == Some(limits.memory)),
        limits.cpu,
        from(settings.cpu.is_some()),
        limits.pids,
        from(settings.pids.is_some()),
    )
}

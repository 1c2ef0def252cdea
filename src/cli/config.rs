//! `runlet config check`: the server's configuration as the server would see it, without starting one.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::errors::CliError;
use super::output;

/// What `config` takes.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Print the effective configuration and where each value comes from
    #[command(after_help = "\
Secrets are shown by name only.

Examples:
  runlet config check
  runlet config check --config /etc/runlet.toml")]
    Check {
        /// Configuration file [env: RUNLET_CONFIG]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Checks and prints.
pub(crate) fn run(args: &ConfigArgs, json: bool) -> Result<(), CliError> {
    let ConfigVerb::Check { config } = &args.verb;
    let text = crate::config::check(config.as_deref())?;
    if json { output::line(&json!({ "config": text }).to_string()) } else { output::document(text.as_bytes()) }
}

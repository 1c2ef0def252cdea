//! The server's own log: to stderr, pretty or JSON, filtered by `RUNLET_LOG`.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// What is logged where nobody says otherwise.
const USUAL: &str = "info,sqlx=warn,hyper=error";

/// Modules that would log what strangers send: they are kept quiet, whatever the filter says.
const QUIET: [&str; 4] = ["h2=error", "hyper=error", "hyper_util=error", "rustls=error"];

/// Starts logging. Returns what was wrong with the filter, if anything.
///
/// # Errors
/// The text of a filter that cannot be read, with the reason.
pub(crate) fn start(format: LogFormat) -> Result<(), String> {
    let filter = match std::env::var("RUNLET_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            format!("environment variable RUNLET_LOG: `{text}` is no filter: {error}; write for example \"info\" or \"runlet=debug\"")
        })?,
        _ => EnvFilter::new(USUAL),
    };
    let filter = QUIET.iter().filter_map(|directive| directive.parse().ok()).fold(filter, EnvFilter::add_directive);
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours);
    let result = match format {
        LogFormat::Pretty => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|error| format!("could not start logging: {error}"))
}

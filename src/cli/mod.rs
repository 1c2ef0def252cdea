//! The command line: every verb but `serve`, each a client of a server's API.
//!
//! ```text
//!  args.rs ──► session.rs (which server) ──► <verb>.rs ──► output.rs (stdout, stderr)
//!                    └──► client.rs (HTTP)        └──► errors.rs (what went wrong, what next, exit code)
//! ```
//! stdout carries the answer alone; notes, progress and errors go to stderr. Nothing here touches the store or a sandbox.

mod alias;
mod args;
mod callbacks;
mod cancel;
mod ci;
mod completions;
mod config;
mod cron;
mod dead_letters;
mod deliveries;
mod deploy;
mod doctor;
mod errors;
mod exec;
mod executions;
mod follow;
mod functions;
mod history;
mod id;
mod invoke;
mod logs;
mod output;
mod page;
mod rerun;
mod revision;
mod revisions;
mod rm;
mod rollback;
mod session;
mod set;
mod show;
mod token;
mod triggers;
mod wait;
mod why;
mod words;

use std::process::ExitCode;

use self::args::ClientCommand;
pub(crate) use self::args::{Cli, Command, ServeArgs, parse};
use self::errors::CliError;
use self::session::Session;

/// Runs a client verb to its end and returns the exit code of the process.
///
/// `serve` is not a client verb: whoever parsed the command line starts the server itself.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let json = cli.global.json;
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => errors::report(&error, json),
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, CliError> {
    let command = match cli.command {
        Command::Client(command) => command,
        Command::Ci(args) => return Ok(ci::run(args, &cli.global)),
        Command::Config(args) => return config::run(&args, cli.global.json).map(|()| ExitCode::SUCCESS),
        Command::Cron(args) => return cron::run(&args, cli.global.json).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => return doctor::run(&args, &cli.global).map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => return completions::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Serve(_) => unreachable!("main starts the server itself"),
    };
    let session = Session::open(&cli.global)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
    runtime.block_on(verb(&session, command))
}

async fn verb(session: &Session, command: ClientCommand) -> Result<ExitCode, CliError> {
    let done = match command {
        // The exit code of a command is the command's own.
        ClientCommand::Exec(args) => return exec::run(session, args).await,
        ClientCommand::Deploy(args) => deploy::run(session, &args).await,
        ClientCommand::Invoke(args) => invoke::run(session, &args).await,
        ClientCommand::Functions(args) => functions::run(session, &args).await,
        ClientCommand::Executions(args) => executions::run(session, &args).await,
        ClientCommand::Logs(args) => logs::run(session, &args).await,
        ClientCommand::Show(args) => show::run(session, &args).await,
        ClientCommand::Wait(args) => wait::run(session, &args).await,
        ClientCommand::Revisions(args) => revisions::run(session, &args).await,
        ClientCommand::Set(args) => set::run(session, &args).await,
        ClientCommand::Why(args) => why::run(session, &args).await,
        ClientCommand::Rollback(args) => rollback::run(session, &args).await,
        ClientCommand::Alias(args) => alias::run(session, &args).await,
        ClientCommand::Cancel(args) => cancel::run(session, &args).await,
        ClientCommand::Rm(args) => rm::run(session, &args).await,
        ClientCommand::Deliveries(args) => deliveries::run(session, &args).await,
        ClientCommand::Rerun(args) => rerun::run(session, &args).await,
        ClientCommand::DeadLetters(args) => dead_letters::list(session, &args).await,
        ClientCommand::DeadLetter(args) => dead_letters::run(session, &args).await,
        ClientCommand::Callbacks(args) => callbacks::list(session, &args).await,
        ClientCommand::Callback(args) => callbacks::run(session, &args).await,
        ClientCommand::Triggers(args) => triggers::list(session, &args).await,
        ClientCommand::Trigger(args) => triggers::run(session, &args).await,
        ClientCommand::History(args) => history::run(session, &args).await,
        ClientCommand::Token(args) => token::run(session, &args).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}

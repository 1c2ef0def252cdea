//! The grammar of the command line: global options, the verbs, and what `serve` takes.
//!
//! What a client verb takes is in the verb's own file; environment variables are read in `session.rs`.

use std::fmt;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use runlet_core::name::Namespace;
use runlet_core::token::TokenSecret;

use super::{
    alias, callbacks, cancel, ci, completions, config, cron, dead_letters, deliveries, deploy, doctor, exec,
    executions, functions, history, invoke, logs, rerun, revisions, rm, rollback, set, show, token, triggers, wait,
    why,
};

/// Runs functions in sandboxes, started by webhooks and calls, and keeps every execution on record
#[derive(Debug, Parser)]
#[command(name = "runlet", version, arg_required_else_help = true, max_term_width = 120)]
#[command(after_help = "\
A first round:
  runlet serve                                     start the server (as root)
  runlet deploy examples/hello-sh                  upload a function
  runlet invoke hello-sh --data '{\"name\":\"you\"}'   call it
  runlet executions                                see what ran")]
pub(crate) struct Cli {
    /// What goes with every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The verb.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What goes with every verb.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Server: unix:/path, /path, http://host:port or https://host:port [env: RUNLET_HOST] [default: the socket in the data directory]
    #[arg(long, global = true, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Token, rl_...; better in the environment, where `ps` does not show it [env: RUNLET_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN", value_parser = token_secret)]
    pub(crate) token: Option<TokenSecret>,
    /// File that holds the token [env: RUNLET_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    /// Namespace to act in, for the administrator on the unix socket [env: RUNLET_NAMESPACE]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<Namespace>,
    /// The server's data directory [env: RUNLET_DATA_DIR] [default: /var/lib/runlet]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print the API's JSON on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server
    Serve(ServeArgs),
    /// Those that ask a server.
    #[command(flatten)]
    Client(ClientCommand),
    /// Drivers of CI systems
    Ci(ci::CiArgs),
    /// Look at the server's configuration
    Config(config::ConfigArgs),
    /// Find out when a schedule fires
    Cron(cron::CronArgs),
    /// Say what this host offers runlet, what degrades, and what to do about it
    Doctor(doctor::DoctorArgs),
    /// Print the completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// The verbs that ask a server.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Upload a function from its directory
    Deploy(deploy::DeployArgs),
    /// Call a function and print its result
    Invoke(invoke::InvokeArgs),
    /// Run a command in a sandbox, as if it ran here
    Exec(exec::ExecArgs),
    /// List functions
    Functions(functions::FunctionsArgs),
    /// List the revisions of a function, newest first
    Revisions(revisions::RevisionsArgs),
    /// Point a function at an earlier revision again
    Rollback(rollback::RollbackArgs),
    /// Point names at revisions, list and remove them
    Alias(alias::AliasArgs),
    /// Change limits of a function while it runs
    Set(set::SetArgs),
    /// Remove a function; its history stays
    Rm(rm::RmArgs),
    /// List executions, newest first
    Executions(executions::ExecutionsArgs),
    /// Print the output of an execution
    Logs(logs::LogsArgs),
    /// Show one invocation, execution or delivery
    Show(show::ShowArgs),
    /// Say why an invocation waits, and behind what
    Why(why::WhyArgs),
    /// Wait until an invocation has ended
    Wait(wait::WaitArgs),
    /// Cancel an invocation: a waiting one never starts, a running one is killed
    Cancel(cancel::CancelArgs),
    /// Run an invocation again, with the same event
    Rerun(rerun::RerunArgs),
    /// List asynchronous work that failed for good
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Have dead letters run again, or drop them
    DeadLetter(dead_letters::DeadLetterArgs),
    /// List callbacks: who was told how asynchronous work ended
    Callbacks(callbacks::CallbacksArgs),
    /// Look at a callback, try it now, or cancel it
    Callback(callbacks::CallbackArgs),
    /// List webhook deliveries, newest first
    Deliveries(deliveries::DeliveriesArgs),
    /// List triggers: hooks and schedules, with the next tick
    Triggers(triggers::TriggersArgs),
    /// Pause and resume a schedule, look at its ticks
    Trigger(triggers::TriggerArgs),
    /// Look at the history as a whole: how large it is, and when it goes
    History(history::HistoryArgs),
    /// Make, list and revoke API tokens
    Token(token::TokenArgs),
}

/// What `serve` takes. `None` means: not said on the command line.
#[derive(Args)]
#[command(after_help = "\
Every key of the configuration file is also a variable RUNLET_<KEY>; options win over variables, variables over the file.

Examples:
  runlet serve
  runlet serve --listen 127.0.0.1:9000 --config /etc/runlet.toml")]
pub(crate) struct ServeArgs {
    /// Address to listen on [default: 127.0.0.1:8700]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// `--data-dir`: a global option, moved here by [`parse`].
    #[arg(skip)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Postgres to use instead of a private one
    #[arg(long, value_name = "URL")]
    pub(crate) database_url: Option<String>,
}

impl fmt::Debug for ServeArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL of a database may hold its password.
        f.debug_struct("ServeArgs")
            .field("listen", &self.listen)
            .field("data_dir", &self.data_dir)
            .field("config", &self.config)
            .field("database_url", &self.database_url.as_ref().map(|_| ".."))
            .finish()
    }
}

/// Reads the command line. Ends the process for `--help`, `--version` and usage errors, as clap does.
pub(crate) fn parse() -> Cli {
    Cli::try_parse().and_then(settle).unwrap_or_else(|error| error.exit())
}

/// Hands `--data-dir` to `serve`, and refuses what only a client has a use for where there is none.
fn settle(mut cli: Cli) -> Result<Cli, clap::Error> {
    let global = &mut cli.global;
    let foreign = match &mut cli.command {
        Command::Client(_) | Command::Ci(_) => None,
        Command::Serve(serve) => {
            serve.data_dir = global.data_dir.take();
            global.for_clients().or(global.json.then_some("--json")).map(|option| ("serve", option))
        }
        Command::Config(_) => global.for_clients().map(|option| ("config", option)),
        Command::Cron(_) => global.for_clients().map(|option| ("cron", option)),
        // It looks at the host, and asks a server if there is one.
        Command::Doctor(_) => None,
        Command::Completions(_) => {
            global.for_clients().or(global.json.then_some("--json")).map(|option| ("completions", option))
        }
    };
    match foreign {
        None => Ok(cli),
        Some((verb, option)) => {
            let message = format!("`{verb}` takes no {option}; see `runlet {verb} --help`");
            Err(Cli::command().error(ErrorKind::ArgumentConflict, message))
        }
    }
}

impl Global {
    /// The first option given that says which server to ask.
    fn for_clients(&self) -> Option<&'static str> {
        let given = [
            ("--host", self.host.is_some()),
            ("--token", self.token.is_some()),
            ("--token-file", self.token_file.is_some()),
            ("--namespace", self.namespace.is_some()),
            ("--data-dir", self.data_dir.is_some()),
        ];
        given.into_iter().find_map(|(option, given)| given.then_some(option))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape that clap asks for")]
fn token_secret(text: &str) -> Result<TokenSecret, std::convert::Infallible> {
    Ok(TokenSecret::from_text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' ')).and_then(settle)
    }

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_how_it_is_used() {
        fn check(command: &clap::Command, path: &str) {
            let verbs: Vec<_> = command.get_subcommands().filter(|verb| verb.get_name() != "help").collect();
            if verbs.is_empty() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Examples:") && help.contains("  runlet "), "{path} --help has no example");
                assert!(command.get_about().is_some(), "{path} does not say what it does");
            }
            for verb in verbs {
                check(verb, &format!("{path} {}", verb.get_name()));
            }
        }
        check(&Cli::command(), "runlet");
    }

    #[test]
    fn serve_gets_the_data_directory_from_either_side() {
        for line in ["runlet --data-dir /d serve --listen :1", "runlet serve --data-dir /d --listen :1"] {
            let cli = read(line).expect(line);
            let Command::Serve(serve) = cli.command else { panic!("{line} is serve") };
            assert_eq!(serve.data_dir.as_deref(), Some(std::path::Path::new("/d")));
            assert_eq!(serve.listen.as_deref(), Some(":1"));
        }
    }

    #[test]
    fn serve_refuses_what_is_for_clients() {
        for line in [
            "runlet serve --host /x",
            "runlet serve --token rl_x",
            "runlet --json serve",
            "runlet config check --host /x",
        ] {
            let error = read(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains("takes no --"), "{error}");
        }
    }

    #[test]
    fn usage_errors_are_told_before_anything_is_asked() {
        for line in [
            "runlet nonsense",
            "runlet invoke Bad_Name",
            "runlet invoke a --idempotency-key k",
            "runlet invoke a --content-type text/plain",
            "runlet invoke a --delay 10m",
            "runlet invoke a --async --delay 10m --at 2026-01-31T12:00:00Z",
            "runlet invoke a --async --priority 101",
            "runlet dead-letter redrive",
            "runlet dead-letter redrive inv_06fcy5swzhp7d2w7k3s6cdyj1m --all",
            "runlet rerun exe",
            "runlet invoke a@",
            "runlet rollback a --to v1",
            "runlet alias set a current",
            "runlet set a --memory much",
            "runlet set a --clear --cpu 2",
            "runlet why dlv_06fcy5swzhp7d2w7k3s6cdyj1m",
            "runlet alias set a@live",
            "runlet alias set a@live current=0",
            "runlet wait dlv_06fcy5swzhp7d2w7k3s6cdyj1m",
            "runlet completions tcsh",
            "runlet completions bash --json",
            "runlet logs 12",
            "runlet logs dlv_06fcy5swzhp7d2w7k3s6cdyj1m",
            "runlet executions --since yesterday",
            "runlet executions --state done",
            "runlet executions --limit 0",
            "runlet token create a",
            "runlet token create a --role king",
            "runlet token create a --role viewer --expires-in 3weeks",
            "runlet functions --namespace ../x",
            "runlet cron next * -n 0",
            "runlet trigger pause Bad_Name",
        ] {
            let error = read(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let cli = read("runlet --token rl_hunter2 functions").expect("good");
        assert!(!format!("{cli:?}").contains("hunter2"));
        let cli = read("runlet serve --database-url postgres://u:hunter2@h/d").expect("good");
        assert!(!format!("{cli:?}").contains("hunter2"));
    }
}

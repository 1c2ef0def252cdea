//! `runlet ci gitlab`: the four calls of GitLab Runner's custom executor.
//!
//! stdout and stderr are the job's log. A line of the driver's own begins with `runlet: ` and goes to stderr.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use runlet_core::problem::Code;
use runlet_integrations::gitlab_ci::{Exits, Job, Mistake, config};

use super::super::args::Global;
use super::super::errors::CliError;
use super::super::output;
use super::super::session::Session;
use super::{prepare, stage};
use crate::client::Call;

/// What `ci gitlab` takes.
#[derive(Debug, Args)]
pub(crate) struct GitlabArgs {
    #[command(subcommand)]
    call: DriverCall,
}

#[derive(Debug, Subcommand)]
enum DriverCall {
    /// Print the settings for the runner (`config_exec`)
    #[command(
        after_help = "Examples:\n  config_exec = \"runlet\"   config_args = [\"ci\", \"gitlab\", \"config\"]\n  runlet ci gitlab config"
    )]
    Config,
    /// Lease a sandbox for the job (`prepare_exec`)
    #[command(
        after_help = "Examples:\n  prepare_exec = \"runlet\"   prepare_args = [\"ci\", \"gitlab\", \"prepare\"]\n  runlet ci gitlab prepare"
    )]
    Prepare,
    /// Run the script of a stage in it (`run_exec`)
    #[command(
        after_help = "Examples:\n  run_exec = \"runlet\"   run_args = [\"ci\", \"gitlab\", \"run\"]\n  runlet ci gitlab run script.sh build_script"
    )]
    Run(RunArgs),
    /// Give it back (`cleanup_exec`)
    #[command(
        after_help = "Examples:\n  cleanup_exec = \"runlet\"   cleanup_args = [\"ci\", \"gitlab\", \"cleanup\"]\n  runlet ci gitlab cleanup"
    )]
    Cleanup,
}

/// What the runner puts behind `run_args`. A stage may have any name, so nothing of it is taken for an option.
#[derive(Debug, Args)]
struct RunArgs {
    /// The script and the name of the stage
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 2, required = true)]
    #[arg(value_names = ["SCRIPT", "STAGE"])]
    call: Vec<OsString>,
}

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// The environment is not that of a job, or the job asks for what cannot be.
    #[error(transparent)]
    Mistake(#[from] Mistake),
    /// A file that the runner wrote.
    #[error("cannot read {what} {}", path.display())]
    Read {
        /// What it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The script is not text.
    #[error("the script {} is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// The server is not there, or refused.
    #[error(transparent)]
    Server(#[from] CliError),
    /// Nobody knows the lease any more.
    #[error(
        "the job's sandbox is gone: the server was restarted, the job was cancelled or its time was over, or `prepare` has \
         not run; run the job again"
    )]
    Gone,
    /// What the job asks for cannot be had.
    #[error("{0}")]
    Refused(String),
}

impl Trouble {
    /// Whether the job's own settings are to blame.
    const fn is_the_jobs(&self) -> bool {
        match self {
            Self::Mistake(mistake) => mistake.is_the_jobs(),
            Self::Refused(_) => true,
            _ => false,
        }
    }

    fn text(&self) -> String {
        use std::error::Error as _;
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        text
    }
}

/// How a call went.
pub(super) enum Ended {
    /// As it should.
    Well,
    /// The job failed, with this exit code of its own.
    Failed(i32),
    /// The sandbox or its server failed; it has been said.
    Lost,
}

/// The environment of this process, for the contract's reader.
pub(super) fn env(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Says something in the job's log.
pub(super) fn say(text: &str) {
    output::note(&format!("runlet: {}", text.replace('\n', " ")));
}

/// Makes one of the four calls; the exit code is as the runner's environment asks.
pub(super) fn run(args: GitlabArgs, global: &Global) -> ExitCode {
    let done = match args.call {
        DriverCall::Config => settings(),
        call => Exits::read(&env).map_err(Trouble::from).and_then(|_| ask(call, global)),
    };
    conclude(done)
}

/// Needs no server: who the job is and what `config` says of it.
fn settings() -> Result<Ended, Trouble> {
    let job = Job::read(&env, response()?.as_deref())?;
    output::line(&config(env!("CARGO_PKG_VERSION"), &job.key))?;
    Ok(Ended::Well)
}

fn ask(call: DriverCall, global: &Global) -> Result<Ended, Trouble> {
    let session = Session::open(global)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
    runtime.block_on(async {
        match call {
            DriverCall::Config => Ok(Ended::Well),
            DriverCall::Prepare => prepare::run(&session).await,
            DriverCall::Run(args) => {
                let [script, name] = <[OsString; 2]>::try_from(args.call).unwrap_or_default();
                stage::run(&session, &key()?, &PathBuf::from(script), &name.to_string_lossy()).await
            }
            DriverCall::Cleanup => cleanup(&session).await,
        }
    })
}

/// The key of the job's lease.
fn key() -> Result<String, Trouble> {
    let mut trouble = None;
    let key = Job::key(&env, || {
        response().unwrap_or_else(|error| {
            trouble = Some(error);
            None
        })
    });
    match trouble {
        Some(trouble) => Err(trouble),
        None => Ok(key?),
    }
}

/// The job's document, where the runner names one.
pub(super) fn response() -> Result<Option<Vec<u8>>, Trouble> {
    let Some(path) = env("JOB_RESPONSE_FILE").filter(|path| !path.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) => Err(Trouble::Read { what: "the job response", path, source }),
    }
}

/// Ends the sandbox. One that is gone is no trouble: the runner cleans up after a failed `prepare` as well.
async fn cleanup(session: &Session) -> Result<Ended, Trouble> {
    let call = Call::delete(format!("/v1/leases/{}", key()?));
    match session.ask(call).await {
        Ok(_) => Ok(Ended::Well),
        Err(CliError::Problem { problem, .. }) if problem.code == Code::NotFound => Ok(Ended::Well),
        Err(error) => Err(error.into()),
    }
}

/// Tells the runner.
fn conclude(done: Result<Ended, Trouble>) -> ExitCode {
    let system = || ExitCode::from(Exits::system_failure(&env));
    match done {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Lost) => system(),
        Ok(Ended::Failed(code)) => failed(code),
        Err(trouble) => {
            say(&trouble.text());
            if let Trouble::Server(error) = &trouble
                && let Some(advice) = error.advice()
            {
                say(&advice);
            }
            if trouble.is_the_jobs() { failed(1) } else { system() }
        }
    }
}

/// The job failed: its own exit code goes into the runner's file, where there is one.
fn failed(code: i32) -> ExitCode {
    let Ok(exits) = Exits::read(&env) else { return ExitCode::from(Exits::system_failure(&env)) };
    if let Some(path) = exits.code_file {
        let written = std::fs::File::create(&path).and_then(|mut file| write!(file, "{code}"));
        if let Err(error) = written {
            say(&format!("cannot write the exit code {code} to {}: {error}", path.display()));
        }
    }
    ExitCode::from(exits.build_failure)
}

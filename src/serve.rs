//! `runlet serve`: the order in which a server comes to life.
//!
//! ```text
//! root, one thread   configuration ► secrets ► user, directories, files, lock, sockets ► zygote ► root is given up
//! unprivileged       private Postgres (main thread) ► tokio ► lifecycle
//! ```
//! The zygote is started before the first thread (it forks), root is given up for good right after it, and everything that
//! talks to the network or the database runs without any privilege.

use std::io::Write as _;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use runlet_core::engine::Network;
use runlet_core::store::StoreError;
use runlet_core::store::private::{PrivateOptions, PrivatePostgres};
use runlet_executor::host::{HostOptions, Zygote};
use runlet_executor::privilege;
use tokio::runtime;

use crate::cli::ServeArgs;
use crate::config::secrets;
use crate::config::{self, Config, ConfigError, Flags};
use crate::lifecycle::{self, LifeError, Server};
use crate::log;
use crate::prepare::{self, PrepareError, Prepared};
use crate::stats::{Stats, StatsError};
use crate::tls::{Certificate, Keeper, Reloader, TlsError};

/// Why a server did not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// It was not started by root.
    #[error(
        "the server must be started by root: it makes sandboxes, and gives root up once it can; try `sudo runlet serve`"
    )]
    NotRoot,
    /// The configuration breaks a rule.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The log could not be started.
    #[error("{0}")]
    Log(String),
    /// Something that root prepares failed.
    #[error("{0}")]
    Prepare(#[from] PrepareError),
    /// The certificate cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The metrics could not be set up.
    #[error("{0}")]
    Stats(#[from] StatsError),
    /// The zygote did not start.
    #[error("the zygote did not start: {0}")]
    Zygote(String),
    /// Root could not be given up.
    #[error("could not give root up: {0}")]
    Privilege(std::io::Error),
    /// The private Postgres did not start.
    #[error("{0}")]
    Postgres(StoreError),
    /// The runtime could not be built.
    #[error("could not start the runtime: {0}")]
    Runtime(std::io::Error),
    /// It ran, and something failed.
    #[error("{0}")]
    Life(#[from] LifeError),
}

/// Runs a server until it is told to stop.
pub(crate) fn run(args: &ServeArgs) -> ExitCode {
    match serve(&flags(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be left to read it: that changes nothing.
            let _ = writeln!(std::io::stderr(), "runlet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn flags(args: &ServeArgs) -> Flags {
    let data_dir = args.data_dir.as_ref().map(|path| path.display().to_string());
    let values = [("listen", args.listen.clone()), ("data_dir", data_dir), ("database_url", args.database_url.clone())];
    Flags {
        config: args.config.clone(),
        values: values.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
    }
}

fn serve(flags: &Flags) -> Result<(), ServeError> {
    let loaded = config::load(flags)?;
    log::start(loaded.config.log_format).map_err(ServeError::Log)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(ServeError::NotRoot);
    }
    let config = loaded.config;
    let (secrets, warnings) = secrets::read(&config.secrets)?;
    for warning in loaded.warnings.iter().chain(&warnings) {
        tracing::warn!("{warning}");
    }
    let brokers = config::brokers::with_secrets(&config.brokers, &secrets)?;
    let stats = Stats::install()?;
    let tls = tls(&config)?;
    let (prepared, _lock) = prepare::prepare(&config)?;
    let zygote = zygote(&config, &prepared)?;
    privilege::drop_to(prepared.account.uid, prepared.account.gid).map_err(ServeError::Privilege)?;
    live(Server { config, secrets, brokers, prepared, zygote, stats, tls })
}

/// Reads the certificate, where there is one; whatever is wrong with it is told before anything starts.
fn tls(config: &Config) -> Result<Option<Reloader>, TlsError> {
    let Some(files) = config.tls() else { return Ok(None) };
    let mut keeper = Keeper::start(&files)?;
    let pair = keeper.read()?;
    if pair.exposed {
        tracing::warn!("the file of tls.key can be read by everybody; chmod 600 it");
    }
    Ok(Some(Reloader { keeper, certificate: Certificate::new(files, &pair)? }))
}

fn zygote(config: &Config, prepared: &Prepared) -> Result<Zygote, ServeError> {
    let options = HostOptions {
        run_dir: config.run_dir.clone(),
        revisions_dir: prepared.dirs.revisions.clone(),
        cgroup_parent: config.cgroup_parent.clone(),
        work_dir: prepared.dirs.work.clone(),
        host_network: config.ci.network == Network::Host,
    };
    let zygote = Zygote::start(&options).map_err(ServeError::Zygote)?;
    for name in zygote.reaped() {
        tracing::info!(sandbox.id = %name, "removed a sandbox that an earlier life had left");
    }
    // After the zygote: sandboxes keep the usual limit.
    raise_open_files();
    Ok(zygote)
}

/// The unprivileged part.
fn live(server: Server) -> Result<(), ServeError> {
    let Server { config, prepared, .. } = &server;
    // By the main thread, which lives as long as the process: the child dies with the thread that started it.
    let mut postgres = match &config.database_url {
        Some(_) => None,
        None => {
            let options = PrivateOptions { base: prepared.dirs.postgres.clone(), bin_dir: config.postgres_bin.clone() };
            let running = PrivatePostgres::start(&options).map_err(ServeError::Postgres)?;
            Some(lifecycle::Postgres { options, running })
        }
    };
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).max(2);
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    let result = runtime.block_on(lifecycle::run(server, &mut postgres));
    // What is left are blocking jobs (unpacking an archive) that nobody waits for.
    runtime.shutdown_background();
    if let Some(postgres) = postgres {
        postgres.running.stop();
    }
    tracing::info!("stopped");
    Ok(result?)
}

/// Each connection and each sandbox needs a few file descriptors: more than the usual soft limit allows.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(error) = raised {
        tracing::warn!(error = %error, "could not raise the limit of open files");
    }
}

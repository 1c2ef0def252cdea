//! The life of a server: wire everything up, say that it is ready, and stop in a ladder.
//!
//! ```text
//! SIGTERM, SIGINT ─► soft: no new connections, no new work, what runs may end
//! second signal, or stop_grace is over ─► hard: everything is killed, and on record
//! then: replies out ► ledger written ► Postgres stopped
//! ```
//! A lost zygote is a hard stop and a failure. A lost private Postgres is started again, while the API answers 503.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use runlet_core::disk::Disk;
use runlet_core::engine::Engine;
use runlet_core::secret::Secrets;
use runlet_core::store::private::{PrivateOptions, PrivatePostgres};
use runlet_core::store::{Spill, Store, StoreError};
use runlet_executor::engine::{EngineOptions, LocalEngine};
use runlet_executor::give_back_program;
use runlet_executor::host::{Host, Zygote};
use runlet_integrations::callback;
use runlet_triggers::queue::{Bridge, Brokers, Publishers};
use runlet_triggers::webhook::{FingerprintKey, Receiver};
use runlet_triggers::{cron, queue};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Api, Guard, Parts};
use crate::client;
use crate::config::Config;
use crate::config::secrets::ConfiguredSecrets;
use crate::http::listener::{self, Socket, Stop};
use crate::prepare::{Prepared, Sockets};
use crate::stats::Stats;
use crate::tls::{self, Certificate, Reloader};

/// Connections to the database.
const CONNECTIONS: u32 = 18;
/// The start is over by then, with what is started ahead.
const START: Duration = Duration::from_secs(5);
/// How often the private Postgres is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Pause between attempts to start it again.
const RESTART: Duration = Duration::from_secs(5);
/// Replies whose work is done must be sent within this time.
const REPLIES: Duration = Duration::from_secs(5);
/// What is left of sandboxes must be gone within this time.
const SANDBOXES: Duration = Duration::from_secs(5);
/// The ledger must be written within this time.
const FLUSH: Duration = Duration::from_secs(10);

/// A private Postgres and how to start it again.
#[derive(Debug)]
pub(crate) struct Postgres {
    /// How it was started.
    pub options: PrivateOptions,
    /// The child.
    pub running: PrivatePostgres,
}

/// What a server is made of.
#[derive(Debug)]
pub(crate) struct Server {
    /// Its configuration.
    pub config: Config,
    /// The operator's secrets.
    pub secrets: ConfiguredSecrets,
    /// The operator's message brokers.
    pub brokers: Brokers,
    /// What root made for it.
    pub prepared: Prepared,
    /// Makes sandboxes.
    pub zygote: Zygote,
    /// What is counted.
    pub stats: Stats,
    /// The certificate, if it speaks TLS.
    pub tls: Option<Reloader>,
}

/// Why a server did not live, or did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LifeError {
    /// The database URL cannot be read.
    #[error("database_url: this is no Postgres URL; write postgres://user@host/database")]
    Url,
    /// The ledger could not be opened.
    #[error("could not open the ledger: {}", chain(.0))]
    Store(StoreError),
    /// The kernel refused something.
    #[error("could not {what}: {cause}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        cause: std::io::Error,
    },
    /// The zygote ended by itself.
    #[error("the zygote ended by itself: no sandbox can be made any more; start the server again")]
    ZygoteLost,
    /// The ledger could not be written to its end.
    #[error("the ledger was not written to its end: the next start puts what is missing on record as lost")]
    Unflushed,
}

/// An error with its causes: the outer text alone hides what Postgres said.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Gives back what the start needed and serving does not.
async fn come_to_rest(stop: CancellationToken) {
    if timeout(START, stop.cancelled()).await.is_err() {
        give_back_program();
    }
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> LifeError {
    move |cause| LifeError::Io { what, cause }
}

/// Lives until a signal says stop, or something fails for good.
///
/// # Errors
/// What kept it from starting or from ending well.
pub(crate) async fn run(server: Server, postgres: &mut Option<Postgres>) -> Result<(), LifeError> {
    let Server { config, secrets, brokers, prepared, zygote, stats, tls } = server;
    let brokers = Arc::new(brokers);
    // From the first moment on: a signal that comes during the start must not be lost.
    let mut signals = Signals::new()?;
    let hangup = signal(SignalKind::hangup()).map_err(io("listen for signals"))?;
    let store = open(&config, &prepared, postgres.as_ref()).await?;
    store.ensure_admin_token(&prepared.admin).await.map_err(LifeError::Store)?;
    let host = Host::new(zygote).map_err(io("take over the zygote"))?;
    let writing = TaskTracker::new();
    let (ledger, writers) = store.ledger();
    writing.spawn(writers.run());
    let (spool, spooled) = store.spool(&prepared.dirs.spool, config.spool_max.0).map_err(LifeError::Store)?;
    writing.spawn(spooled.run());
    writing.close();
    let secrets: Arc<dyn Secrets> = Arc::new(secrets);
    let disk = Disk::new(&config.data_dir, config.disk_floor);
    let options = engine_options(&config, &prepared, Arc::clone(&secrets), disk.clone());
    let engine = LocalEngine::start(options, host.clone(), store.clone(), ledger, spool);

    let stop = Stop::default();
    let serving = TaskTracker::new();
    let key = FingerprintKey::new(prepared.fingerprint_key);
    serving.spawn(stats.clone().upkeep(store.clone(), stop.soft.clone()));
    let callbacks = callbacks(&config, &engine, &store, (Arc::clone(&secrets), Arc::clone(&brokers)));
    let guard = guard(&config, &engine, &store, (secrets, Arc::clone(&brokers)), (key, disk), &stop, stats);
    let line = format!("runlet is ready on {} and {}\n", prepared.sockets.url, prepared.sockets.path.display());
    let certificate = tls.as_ref().map(|tls| tls.certificate.clone());
    serving.spawn(tls::reload(hangup, tls, stop.soft.clone()));
    listen(prepared.sockets, certificate, &guard, config.max_connections, &serving, &stop)?;
    drop(guard);
    let schedules = TaskTracker::new();
    schedules.spawn(cron::Service::new(store.clone()).run(stop.soft.clone()));
    schedules.spawn(queue::Service::new(store.clone()).run(stop.soft.clone()));
    schedules.spawn(Bridge::new(store.clone(), brokers).run(stop.soft.clone()));
    schedules.spawn(callbacks.run(stop.soft.clone()));
    schedules.close();
    say(&line);
    serving.spawn(come_to_rest(stop.soft.clone()));

    let ended = watch(&mut signals, &host, postgres).await;
    stop.soft.cancel();
    engine.begin_stop();
    let grace = match &ended {
        Ok(()) => config.stop_grace.0,
        Err(_) => Duration::ZERO,
    };
    drain(&engine, grace, &mut signals, postgres).await;
    // What is being fired gets on record; what is due after that is the next server's, or the next start's.
    if timeout(REPLIES, schedules.wait()).await.is_err() {
        tracing::warn!("schedules, queues or callbacks are not at rest: they are left as they are on record");
    }
    if timeout(REPLIES, serving.wait()).await.is_err() {
        tracing::warn!("some clients do not read their replies: their connections are closed");
    }
    stop.hard.cancel();
    serving.wait().await;
    // The writers end when the last handle on the ledger is gone, and the engine holds it.
    drop(engine);
    if timeout(SANDBOXES, host.drained()).await.is_err() {
        tracing::warn!("some sandboxes are not gone yet: the zygote ends them");
    }
    host.close().await;
    timeout(FLUSH, writing.wait()).await.map_err(|_| LifeError::Unflushed)?;
    // Postgres, private or not, sees its clients leave in order.
    if timeout(REPLIES, store.close()).await.is_err() {
        tracing::warn!("some connections to the database are still busy");
    }
    ended
}

/// Opens the ledger, private or not.
async fn open(config: &Config, prepared: &Prepared, postgres: Option<&Postgres>) -> Result<Store, LifeError> {
    let options = match (postgres, &config.database_url) {
        (Some(postgres), _) => postgres.running.connect_options(),
        (None, Some(url)) => url.expose().parse().map_err(|_| LifeError::Url)?,
        (None, None) => return Err(LifeError::Url),
    };
    // A private Postgres has no other server: only there a file is as good as a row unless the operator says so.
    let alone = postgres.is_some();
    let spill = Spill { dir: prepared.dirs.blobs.clone(), over: config.spill.over(alone), alone };
    Store::open_with(options, CONNECTIONS, &prepared.server, Some(spill)).await.map_err(LifeError::Store)
}

fn engine_options(config: &Config, prepared: &Prepared, secrets: Arc<dyn Secrets>, disk: Disk) -> EngineOptions {
    EngineOptions {
        server: prepared.server.clone(),
        revisions_dir: prepared.dirs.revisions.clone(),
        memory: config.memory,
        max_sandboxes: config.max_sandboxes,
        max_waiting: config.max_waiting,
        max_queued: config.max_queued,
        weights: config.weights(),
        stems: config.stems,
        idle: config.idle_timeout.0,
        max_result: usize::try_from(config.max_result.0).unwrap_or(usize::MAX),
        max_log: config.max_log.0,
        lease: config.lease.0,
        kill_grace: config.ci.kill_grace.0,
        retention: config.retention(),
        disk,
        secrets,
    }
}

/// The service that tells how asynchronous work ended.
fn callbacks(
    config: &Config,
    engine: &Arc<LocalEngine>,
    store: &Store,
    (secrets, brokers): (Arc<dyn Secrets>, Arc<Brokers>),
) -> callback::Service {
    let tls = client::trusted().inspect_err(|error| tracing::warn!(%error, "callbacks to https are not possible"));
    callback::Service::new(callback::Options {
        store: store.clone(),
        engine: Arc::clone(engine) as Arc<dyn Engine>,
        secrets,
        publishers: Publishers::new(brokers),
        networks: config.callbacks.allow.clone(),
        tls: tls.ok(),
        timeout: config.callbacks.timeout.0,
    })
}

/// The API over the engine and the ledger.
fn guard(
    config: &Config,
    engine: &Arc<LocalEngine>,
    store: &Store,
    (secrets, brokers): (Arc<dyn Secrets>, Arc<Brokers>),
    (key, disk): (FingerprintKey, Disk),
    stop: &Stop,
    stats: Stats,
) -> Guard {
    let engine: Arc<dyn Engine> = Arc::clone(engine) as Arc<dyn Engine>;
    let adapters = runlet_integrations::adapter;
    let receiver = Receiver::new(Arc::clone(&engine), store.clone(), Arc::clone(&secrets), adapters, key);
    Guard::new(Api::new(Parts {
        engine,
        store: store.clone(),
        secrets,
        brokers,
        receiver,
        max_inflight_bytes: config.max_inflight_bytes.0,
        retention: config.retention(),
        disk,
        behind_proxy: config.behind_proxy,
        ci: config.ci,
        stopping: stop.soft.clone(),
        stats,
        metrics_public: config.metrics_public,
    }))
}

/// Serves both sockets. They are closed when the listeners stop: from then on clients are refused and wait for nothing.
fn listen(
    sockets: Sockets,
    certificate: Option<Certificate>,
    guard: &Guard,
    connections: u32,
    serving: &TaskTracker,
    stop: &Stop,
) -> Result<(), LifeError> {
    let tcp = TcpListener::from_std(sockets.tcp).map_err(io("serve the TCP socket"))?;
    let unix = UnixListener::from_std(sockets.unix).map_err(io("serve the unix socket"))?;
    let connections = usize::try_from(connections).unwrap_or(usize::MAX);
    for socket in [Socket::Tcp(tcp, certificate), Socket::Unix(unix)] {
        let guard = guard.clone();
        let handler = move |request, peer| guard.clone().answer(request, peer);
        serving.spawn(listener::run(socket, connections, stop.clone(), handler));
    }
    serving.close();
    Ok(())
}

/// Says the one line on stdout.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // Nobody may read our stdout: the server runs all the same.
    let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
}

/// Waits for a reason to stop, and keeps the private Postgres alive meanwhile.
async fn watch(signals: &mut Signals, host: &Host, postgres: &mut Option<Postgres>) -> Result<(), LifeError> {
    tokio::select! {
        name = signals.next() => {
            tracing::info!(signal = name, "stopping: what runs may end, a second signal kills it");
            Ok(())
        }
        () = host.lost() => {
            tracing::error!("the zygote ended by itself: stopping");
            Err(LifeError::ZygoteLost)
        }
        never = keep(postgres) => match never {},
    }
}

/// Stops the engine: what runs has `grace` to end, or until the next signal. Its end must get on record, so that the private
/// Postgres is kept alive even now.
async fn drain(engine: &LocalEngine, grace: Duration, signals: &mut Signals, postgres: &mut Option<Postgres>) {
    let ladder = async {
        tokio::select! {
            () = engine.stop(grace) => {}
            _ = signals.next() => {
                tracing::info!("second signal: what still runs is killed");
                engine.stop(Duration::ZERO).await;
            }
        }
    };
    tokio::select! {
        () = ladder => {}
        never = keep(postgres) => match never {},
    }
}

/// Looks after the private Postgres for ever.
async fn keep(postgres: &mut Option<Postgres>) -> Infallible {
    let Some(postgres) = postgres else { return std::future::pending().await };
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        if !postgres.tend() {
            tokio::time::sleep(RESTART).await;
        }
    }
}

impl Postgres {
    /// Starts it again if it has ended; returns whether it runs. Blocking, and by the main thread on purpose: the child dies
    /// with the thread that started it. Worker threads go on meanwhile.
    fn tend(&mut self) -> bool {
        if self.running.ended().is_none() {
            return true;
        }
        tracing::error!("the private Postgres ended by itself: starting it again");
        match PrivatePostgres::start(&self.options) {
            Ok(running) => {
                tracing::info!("the private Postgres runs again");
                self.running = running;
                true
            }
            Err(error) => {
                tracing::error!(error = %error, "the private Postgres did not start; trying again");
                false
            }
        }
    }
}

/// The signals that stop a server.
#[derive(Debug)]
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> Result<Self, LifeError> {
        let on = |kind| signal(kind).map_err(io("listen for signals"));
        Ok(Self { term: on(SignalKind::terminate())?, int: on(SignalKind::interrupt())? })
    }

    /// The next one, by name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

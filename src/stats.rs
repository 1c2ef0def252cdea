//! The recorder behind [`runlet_core::metric`], and the page that Prometheus reads.
//!
//! What happens is counted where it happens. What *is* (queue, sandboxes, connections to the database, the process) is looked
//! at when the page is asked for, at most once a second however many ask.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use nix::sys::resource::{Resource, getrlimit};
use runlet_core::engine::{Capacity, Engine};
use runlet_core::metric;
use runlet_core::store::{Store, StoreError};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How often samples are put into their buckets, and the pools of connections are tried.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long a page is good for.
const FRESH: Duration = Duration::from_secs(1);
/// The database has this long to tell how full the queue is.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most queues on the page.
const QUEUES: i64 = 1000;
/// Upper bounds of the buckets of every histogram, seconds: from a warm call to a CI job.
const BUCKETS: [f64; 18] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0,
    1800.0,
];
/// The kernel tells times of processes in hundredths of a second.
const TICKS: u64 = 100;

/// The metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatsError {
    /// The buckets are not accepted.
    #[error("could not set the metrics up: {0}")]
    Build(#[from] BuildError),
    /// There is a recorder already.
    #[error("could not set the metrics up: a recorder is there already")]
    Twice,
}

/// A page and when it was made.
type Page = Option<(Instant, Bytes)>;

/// What is counted. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Stats {
    handle: PrometheusHandle,
    page: Arc<Mutex<Page>>,
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stats(..)")
    }
}

impl Stats {
    /// Installs the recorder of this process; nothing is counted before.
    ///
    /// # Errors
    /// When there is one already.
    pub(crate) fn install() -> Result<Self, StatsError> {
        let builder = PrometheusBuilder::new();
        let recorder =
            builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| StatsError::Twice)?;
        metric::describe();
        metric::level_of("runlet_build_info", "version", env!("CARGO_PKG_VERSION"), 1.0);
        Ok(Self { handle, page: Arc::default() })
    }

    /// Keeps the recorder small and tries the database's connections, until `stop`.
    pub(crate) async fn upkeep(self, store: Store, stop: CancellationToken) {
        let look = async {
            loop {
                self.handle.run_upkeep();
                for (pool, waited) in store.waits().await {
                    metric::acquired(pool, waited);
                }
                sleep(UPKEEP).await;
            }
        };
        tokio::select! {
            () = look => {}
            () = stop.cancelled() => {}
        }
    }

    /// The page, as of now or a moment ago.
    pub(crate) async fn page(&self, engine: &dyn Engine, store: &Store) -> Bytes {
        let mut page = self.page.lock().await;
        if let Some((at, text)) = &*page
            && at.elapsed() < FRESH
        {
            return text.clone();
        }
        of_engine(&engine.capacity());
        of_store(store).await;
        of_process();
        let text = Bytes::from(self.handle.render());
        *page = Some((Instant::now(), text.clone()));
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people: exact up to 2^53")]
const fn float(value: u64) -> f64 {
    value as f64
}

fn of_engine(capacity: &Capacity) {
    let in_use = capacity.sandboxes.saturating_sub(capacity.parked + capacity.stems);
    metric::level_of("runlet_sandboxes", "state", "in_use", f64::from(in_use));
    metric::level_of("runlet_sandboxes", "state", "parked", f64::from(capacity.parked));
    metric::level_of("runlet_sandboxes", "state", "stem", f64::from(capacity.stems));
    metric::level("runlet_sandboxes_limit", f64::from(capacity.sandboxes_max));
    metric::level("runlet_sandbox_memory_bytes", float(capacity.memory_used));
    metric::level("runlet_sandbox_memory_limit_bytes", float(capacity.memory_total));
    metric::level("runlet_calls_waiting", f64::from(capacity.waiting));
}

/// What the database answers in time.
async fn told<T>(asked: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
    timeout(PATIENCE, asked).await.ok().and_then(Result::ok)
}

/// A number of rows.
fn rows(count: i64) -> f64 {
    float(u64::try_from(count).unwrap_or(0))
}

async fn of_store(store: &Store) {
    let work = async { Ok((store.queue_depth().await?, store.queue_age().await?)) };
    // At the same time: a database that is away is waited for once.
    let (work, queues, left) =
        tokio::join!(told(work), told(store.queues(None, None, None, QUEUES)), told(store.aftermath()));
    metric::level("runlet_postgres_up", f64::from(u8::from(work.is_some())));
    // What cannot be known keeps its last value; `runlet_postgres_up` says how to take that.
    if let Some(((waiting, claimed), age)) = work {
        let levels = [("waiting", waiting), ("claimed", claimed)];
        for (state, count) in levels {
            metric::level_of("runlet_queue_invocations", "state", state, rows(count));
        }
        metric::level("runlet_queue_oldest_seconds", age.max(0.0));
    }
    for (namespace, queue) in queues.into_iter().flatten() {
        let depth = queue.depth;
        let states = [
            ("ready", depth.ready),
            ("delayed", depth.delayed),
            ("behind", depth.behind),
            ("in_flight", depth.in_flight),
            ("dead", depth.dead),
        ];
        for (state, count) in states {
            metric::queue_depth(&namespace, &queue.name, state, float(count));
        }
        metric::queue_oldest(&namespace, &queue.name, depth.oldest_seconds);
    }
    if let Some(left) = left {
        metric::level("runlet_dead_letters", rows(left.dead_letters));
        metric::level("runlet_callbacks_waiting", rows(left.waiting));
        metric::level("runlet_callbacks_oldest_seconds", left.oldest.max(0.0));
    }
    for pool in store.pool_levels() {
        metric::connections_of(pool.name, "idle", f64::from(pool.idle));
        metric::connections_of(pool.name, "in_use", f64::from(pool.open.saturating_sub(pool.idle)));
    }
}

/// The figures that every Prometheus client library has.
fn of_process() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let size = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    for (name, key) in [("process_resident_memory_bytes", "VmRSS:"), ("process_virtual_memory_bytes", "VmSize:")] {
        if let Some(size) = size(key) {
            metric::level(name, float(size * 1024));
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metric::level("process_open_fds", float(open.count() as u64));
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        metric::level("process_max_fds", float(soft));
    }
    if let Some((cpu, start)) = times() {
        metric::processor(cpu);
        metric::level("process_start_time_seconds", start);
    }
}

/// CPU time in whole seconds, and when the process started.
fn times() -> Option<(u64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let cpu = (number(11)? + number(12)?) / TICKS;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some((cpu, float(boot) + float(number(19)?) / float(TICKS)))
}

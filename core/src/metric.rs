//! What runlet counts about itself: every name, what it means, and the one line by which each room counts it.
//!
//! Names follow Prometheus: base units in the name, `_total` for counters. Labels have few values: routes, words of the contract,
//! functions; never an id. Where nobody has installed a recorder (the client verbs, unit tests) counting does nothing; one is installed before
//! anything is counted. What every call counts is looked up once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{LazyLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::execution::StartKind;
use crate::name::{FunctionName, Namespace};
use crate::outcome::OutcomeKind;
use crate::store::delivery::Verdict;

/// A part of the way of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for a turn of the function and room on the host.
    Admission,
    /// Getting a sandbox: a parked one, or making one.
    Place,
    /// The code, from its start to its end.
    Run,
    /// Putting the end on record.
    Record,
}

impl Stage {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Place => "place",
            Self::Run => "run",
            Self::Record => "record",
        }
    }
}

/// Measures a stage until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Timed(Stage, Instant);

/// Begins to measure a stage.
pub fn timed(stage: Stage) -> Timed {
    Timed(stage, Instant::now())
}

/// Series that were looked up, by their labels. They are as few as the series.
type Known<K, S> = LazyLock<RwLock<HashMap<K, S>>>;

fn known<K: Eq + Hash, S: Clone>(known: &Known<K, S>, key: K, look_up: impl FnOnce(&K) -> S) -> S {
    if let Some(series) = known.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return series.clone();
    }
    let series = look_up(&key);
    known.write().unwrap_or_else(PoisonError::into_inner).insert(key, series.clone());
    series
}

impl Drop for Timed {
    fn drop(&mut self) {
        static STAGES: LazyLock<[Histogram; 4]> = LazyLock::new(|| {
            [Stage::Admission, Stage::Place, Stage::Run, Stage::Record]
                .map(|stage| histogram!("runlet_stage_duration_seconds", "stage" => stage.as_str()))
        });
        STAGES[self.0 as usize].record(self.1.elapsed());
    }
}

/// Code was given its event in a sandbox of this kind.
pub fn started(kind: StartKind) {
    static STARTS: Known<StartKind, Counter> = LazyLock::new(RwLock::default);
    let series = |kind: &StartKind| counter!("runlet_execution_starts_total", "kind" => kind.as_str());
    known(&STARTS, kind, series).increment(1);
}

/// An execution ended.
pub fn ended(namespace: &Namespace, function: &FunctionName, outcome: OutcomeKind) {
    static ENDS: Known<(Namespace, FunctionName, OutcomeKind), Counter> = LazyLock::new(RwLock::default);
    let series = |(namespace, function, outcome): &(Namespace, FunctionName, OutcomeKind)| {
        counter!(
            "runlet_executions_total",
            "namespace" => namespace.to_string(), "function" => function.to_string(), "outcome" => outcome.as_str()
        )
    };
    known(&ENDS, (namespace.clone(), function.clone(), outcome), series).increment(1);
}

/// A delivery is on record.
pub fn delivered(verdict: Verdict) {
    counter!("runlet_deliveries_total", "verdict" => verdict.as_str()).increment(1);
}

/// So many messages of queues came to this end: `done`, `again`, `dead` or `unwanted`.
pub fn messages(fate: &'static str, count: u64) {
    counter!("runlet_messages_total", "fate" => fate).increment(count);
}

/// So many messages came from this broker.
pub fn received(broker: &str, count: u64) {
    counter!("runlet_broker_messages_total", "broker" => broker.to_owned()).increment(count);
}

/// A broker could not be reached, or broke off.
pub fn broker_failed(broker: &str) {
    counter!("runlet_broker_failures_total", "broker" => broker.to_owned()).increment(1);
}

/// A callback was tried and is in this state now: `delivered`, `waiting` for another try, or `failed` for good.
pub fn callback_tried(state: &'static str) {
    counter!("runlet_callback_tries_total", "state" => state).increment(1);
}

/// How many messages a queue has in a state.
pub fn queue_depth(namespace: &Namespace, queue: &str, state: &'static str, count: f64) {
    gauge!("runlet_queue_messages", "namespace" => namespace.to_string(), "queue" => queue.to_owned(), "state" => state).set(count);
}

/// For how long the oldest message of a queue has been ready.
pub fn queue_oldest(namespace: &Namespace, queue: &str, seconds: f64) {
    gauge!("runlet_queue_messages_oldest_seconds", "namespace" => namespace.to_string(), "queue" => queue.to_owned())
        .set(seconds);
}

/// A request was answered.
pub fn answered(route: &'static str, method: &'static str, status: u16, took: Duration) {
    static ANSWERS: Known<(&str, &str, u16), (Counter, Histogram)> = LazyLock::new(RwLock::default);
    let (count, times) = known(&ANSWERS, (route, method, status), |_| {
        (
            counter!("runlet_http_requests_total", "route" => route, "method" => method, "status" => status.to_string()),
            histogram!("runlet_http_request_duration_seconds", "route" => route, "method" => method),
        )
    });
    count.increment(1);
    times.record(took);
}

/// A connection of this listener began (`1`) or ended (`-1`).
pub fn connections(listener: &'static str, change: f64) {
    gauge!("runlet_http_connections", "listener" => listener).increment(change);
}

/// The server closed a connection by itself.
pub fn cut_off(reason: &'static str) {
    counter!("runlet_http_connections_cut_total", "reason" => reason).increment(1);
}

/// The files of the certificate were read again.
pub fn reloaded(result: &'static str) {
    counter!("runlet_tls_reloads_total", "result" => result).increment(1);
}

/// A connection to the database was waited for.
pub fn acquired(pool: &'static str, waited: Duration) {
    histogram!("runlet_postgres_acquire_duration_seconds", "pool" => pool).record(waited);
}

/// Connections to the database.
pub fn connections_of(pool: &'static str, state: &'static str, count: f64) {
    gauge!("runlet_postgres_connections", "pool" => pool, "state" => state).set(count);
}

/// CPU time of this process in whole seconds.
pub fn processor(seconds: u64) {
    counter!("process_cpu_seconds_total").absolute(seconds);
}

/// A value as it is now.
pub fn level(name: &'static str, value: f64) {
    gauge!(name).set(value);
}

/// A value as it is now, of one of several.
pub fn level_of(name: &'static str, label: &'static str, word: &'static str, value: f64) {
    gauge!(name, label => word).set(value);
}

/// Says what each name means; once, when the recorder is there.
pub fn describe() {
    for (name, what) in COUNTERS {
        describe_counter!(name, what);
    }
    for (name, what) in GAUGES {
        describe_gauge!(name, what);
    }
    for (name, what) in HISTOGRAMS {
        describe_histogram!(name, what);
    }
}

const COUNTERS: [(&str, &str); 11] = [
    ("runlet_http_requests_total", "Requests that were answered, by the pattern of their route."),
    ("runlet_http_connections_cut_total", "Connections that the server closed by itself, by reason."),
    ("runlet_tls_reloads_total", "How often the files of the certificate were read again, by result."),
    ("runlet_executions_total", "Executions that ended on this server, by outcome."),
    ("runlet_execution_starts_total", "Executions whose code was given its event, by how their sandbox came to be."),
    ("runlet_deliveries_total", "Deliveries that were put on record, by verdict."),
    ("runlet_messages_total", "Messages of queues that this server settled, by what became of them."),
    ("runlet_broker_messages_total", "Messages that came from brokers and are on record."),
    ("runlet_broker_failures_total", "How often a broker could not be reached, refused, or broke off."),
    ("runlet_callback_tries_total", "Tries of callbacks by this server, by the state of the callback after that."),
    ("process_cpu_seconds_total", "CPU time of the server process."),
];

const GAUGES: [(&str, &str); 24] = [
    ("runlet_build_info", "Always 1; its labels say what runs."),
    ("runlet_http_connections", "Connections that are open, by listener."),
    (
        "runlet_queue_invocations",
        "Asynchronous invocations that are not terminal, by state, of all servers of the database.",
    ),
    ("runlet_queue_oldest_seconds", "How long the oldest invocation that is due has waited."),
    ("runlet_queue_messages", "Messages of named queues, by queue and where they are on their way."),
    ("runlet_queue_messages_oldest_seconds", "For how long the oldest message of a queue has been ready."),
    ("runlet_dead_letters", "Asynchronous work that failed for good and waits for somebody to redrive or drop it."),
    ("runlet_callbacks_waiting", "Callbacks that are to be tried."),
    ("runlet_callbacks_oldest_seconds", "How long the oldest callback that is to be tried has waited."),
    ("runlet_calls_waiting", "Calls and claimed work that wait for a turn or for room on this server."),
    ("runlet_sandboxes", "Sandboxes that exist, by what they do."),
    ("runlet_sandboxes_limit", "Sandboxes that may exist."),
    ("runlet_sandbox_memory_bytes", "Memory that is promised to sandboxes."),
    ("runlet_sandbox_memory_limit_bytes", "Memory for sandboxes."),
    ("runlet_postgres_up", "Whether the database answered when these figures were made."),
    ("runlet_postgres_connections", "Connections to the database, by pool and state."),
    ("runlet_spool_records", "Records of synchronous calls that wait in the spool for the database."),
    ("runlet_spool_bytes", "Size of the spool."),
    ("runlet_tls_loaded_timestamp_seconds", "When the certificate in use was read."),
    ("process_resident_memory_bytes", "Resident memory of the server process."),
    ("process_virtual_memory_bytes", "Virtual memory of the server process."),
    ("process_open_fds", "Open file descriptors of the server process."),
    ("process_max_fds", "File descriptors that the server process may have open."),
    ("process_start_time_seconds", "When the server process started."),
];

const HISTOGRAMS: [(&str, &str); 3] = [
    ("runlet_http_request_duration_seconds", "From a request's head to the head of its answer."),
    ("runlet_stage_duration_seconds", "How long the stages of an execution took."),
    ("runlet_postgres_acquire_duration_seconds", "How long a connection was waited for, sampled every few seconds."),
];

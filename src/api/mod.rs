//! The REST API under `/v1`, the hooks and the health check.
//!
//! ```text
//! connection ─► front (id, log, panics) ─► guard (routes table, who is it, may he) ─► warp filters (dispatch) ─► handler
//! ```
//! The guard fails closed: a request that no row of [`routes::ROUTES`] describes never reaches a handler. Filters only
//! route; a handler takes an [`input::Input`] and returns a response or an [`errors::ApiError`].

mod aliases;
mod auth;
mod callbacks;
mod calls;
mod dead_letters;
mod deliveries;
mod deploy;
mod errors;
mod events;
mod exec;
mod executions;
mod functions;
mod guard;
mod history;
mod hooks;
mod input;
mod invocations;
mod leases;
mod openapi;
mod precondition;
mod query;
mod rerun;
mod revisions;
mod routes;
mod settings;
mod shapes;
mod streamed;
mod system;
mod tokens;
mod triggers;
mod when;

use std::sync::Arc;

use runlet_core::disk::Disk;
use runlet_core::engine::Engine;
use runlet_core::secret::Secrets;
use runlet_core::store::Store;
use runlet_core::store::retention::Retention;
use runlet_triggers::webhook::Receiver;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use warp::Filter as _;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::config::ci::CiConfig;
use crate::http::body::Budget;
use crate::http::front::RequestIds;
use crate::stats::Stats;

pub(crate) use guard::Guard;

/// Deploys that are unpacked and checked at a time: each may hold hundreds of megabytes.
const DEPLOYS: usize = 2;

/// What the handlers work with.
#[derive(Debug)]
pub(crate) struct Api {
    /// Runs code.
    pub engine: Arc<dyn Engine>,
    /// The ledger.
    pub store: Store,
    /// Which secrets exist, for whom.
    pub secrets: Arc<dyn Secrets>,
    /// Takes webhooks.
    pub receiver: Receiver,
    /// Bytes of request bodies in memory.
    pub budget: Budget,
    /// How long history is kept.
    pub retention: Retention,
    /// Where there must be room before anything new is taken.
    pub disk: Disk,
    /// Whether `X-Forwarded-For` is to be believed.
    pub behind_proxy: bool,
    /// Cancelled when the server begins to stop: long polls end then.
    pub stopping: CancellationToken,
    /// Names of requests.
    pub ids: RequestIds,
    /// Tokens that were looked up a moment ago.
    pub tokens: auth::TokenCache,
    /// Room for deploys.
    pub deploys: Semaphore,
    /// What the operator says about jobs.
    pub ci: CiConfig,
    /// Clients that talk to commands.
    pub streams: TaskTracker,
    /// What is counted.
    pub stats: Stats,
    /// Whether everybody may see it.
    pub metrics_public: bool,
}

impl Api {
    /// An API over an engine and a ledger.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            engine, store, secrets, receiver, max_inflight_bytes, retention, disk, behind_proxy, stopping, ..
        } = parts;
        let Parts { ci, stats, metrics_public, .. } = parts;
        Arc::new(Self {
            engine,
            store,
            secrets,
            receiver,
            budget: Budget::new(max_inflight_bytes),
            retention,
            disk,
            behind_proxy,
            stopping,
            ids: RequestIds::new(),
            tokens: auth::TokenCache::default(),
            deploys: Semaphore::new(DEPLOYS),
            ci,
            streams: TaskTracker::new(),
            stats,
            metrics_public,
        })
    }
}

/// What an [`Api`] is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Runs code.
    pub engine: Arc<dyn Engine>,
    /// The ledger.
    pub store: Store,
    /// Which secrets exist, for whom.
    pub secrets: Arc<dyn Secrets>,
    /// Takes webhooks.
    pub receiver: Receiver,
    /// Most bytes of request bodies in memory.
    pub max_inflight_bytes: u64,
    /// How long history is kept.
    pub retention: Retention,
    /// Where there must be room before anything new is taken.
    pub disk: Disk,
    /// Whether `X-Forwarded-For` is to be believed.
    pub behind_proxy: bool,
    /// What the operator says about jobs.
    pub ci: CiConfig,
    /// Cancelled when the server begins to stop.
    pub stopping: CancellationToken,
    /// What is counted.
    pub stats: Stats,
    /// Whether everybody may see it.
    pub metrics_public: bool,
}

/// Every route. Functions come first and the others are one box behind them: a request is moved through each layer before its own.
fn filter(api: &Arc<Api>) -> BoxedFilter<(Response,)> {
    let others = invocations::filter(api)
        .or(executions::filter(api))
        .unify()
        .or(deliveries::filter(api))
        .unify()
        .or(dead_letters::filter(api))
        .unify()
        .or(callbacks::filter(api))
        .unify()
        .or(tokens::filter(api))
        .unify()
        .or(leases::filter(api))
        .unify()
        .or(triggers::filter(api))
        .unify()
        .or(system::capacity_filter(api))
        .unify()
        .or(openapi::filter(api))
        .unify()
        .or(history::filter(api))
        .unify()
        .boxed();
    let system = system::health_filter(api).or(system::metrics_filter(api)).unify().boxed();
    let v1 = warp::path("v1").and(functions::filter(api).or(others).unify());
    v1.or(hooks::filter(api)).unify().or(system).unify().boxed()
}

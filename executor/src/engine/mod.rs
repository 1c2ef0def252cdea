//! The engine of one server: it turns invocations into executions in sandboxes, and puts each on record.
//!
//! ```text
//!  call ──► admission ──► start on record ──► sandbox ──► code ──► output, then end on record ──► answer
//!  submit ► queue ► claim (dispatch) ► admission ───────► sandbox ──► ...                        (fenced)
//!     └─── admission ► queue, claimed ───────────────────────┘                                   (at once)
//! ```
//! Nothing is answered before it is on record (see [`Road`] for where that is). Whoever goes away does not end what runs. The engine refuses to know how requests arrive and how a sandbox is made.

mod at_once;
mod backlog;
mod bell;
mod body;
mod call;
mod claim;
mod configure;
mod detach;
mod envelope;
mod explain;
mod job;
mod keep;
mod lease;
mod manifests;
mod observe;
mod options;
mod registry;
mod run;
mod services;
mod sizes;
mod step;
mod stop;
mod verbs;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use runlet_core::store::Store;
use runlet_core::store::ledger::Ledger;
use runlet_core::store::spool::Spool;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Admission, Bounds, Weights};
use crate::host::Host;
use crate::lease::Leases;
use crate::pool::{Gate, Pool};
use crate::revisions::Revisions;
use crate::stems::Stems;
use at_once::Desk;
use backlog::Backlog;
use bell::Bell;
use keep::Keeper;
use manifests::Manifests;
use registry::Registry;
use sizes::Sizes;

pub use crate::stems::StemCounts;
pub(crate) use claim::run_claim;
pub use options::EngineOptions;

/// [`Bounds::grace`]: about what making a sandbox costs, twice.
const GRACE: u64 = 20;

/// The engine of one server.
#[derive(Debug)]
pub struct LocalEngine {
    shared: Arc<Shared>,
}

/// What the engine's tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: EngineOptions,
    pub(crate) store: Store,
    pub(crate) gate: Gate,
    pub(crate) registry: Arc<Registry>,
    pub(crate) tasks: TaskTracker,
    /// Something may be ready to be claimed.
    pub(crate) nudge: Notify,
    /// The last look at the queue found nothing that is due, and nobody has told of any since.
    pub(crate) nothing_waits: AtomicBool,
    /// No new work.
    pub(crate) stopping: CancellationToken,
    host: Host,
    ledger: Ledger,
    spool: Spool,
    pool: Pool,
    stems: Stems,
    revisions: Revisions,
    manifests: Manifests,
    backlog: Backlog,
    bell: Bell,
    leases: Leases,
    sizes: Sizes,
    keeper: Keeper,
    /// Held while what is set for a function is changed.
    configuring: tokio::sync::Mutex<()>,
    /// Whether what an earlier life of this server left is cleared up.
    ready: watch::Sender<bool>,
    /// The last thing: services end, and what is not on record by now will not be.
    ended: CancellationToken,
}

impl LocalEngine {
    /// Starts the engine within the runtime: it clears up what an earlier life left, then takes calls and queued work.
    #[must_use]
    pub fn start(options: EngineOptions, host: Host, store: Store, ledger: Ledger, spool: Spool) -> Arc<Self> {
        let bounds = Bounds {
            memory: options.memory.0,
            sandboxes: options.max_sandboxes,
            waiting: options.max_waiting,
            grace: GRACE,
        };
        let gate: Gate = Admission::new(bounds, Weights::new(options.weights.clone()));
        let tasks = TaskTracker::new();
        let ended = CancellationToken::new();
        let pool = Pool::new(gate.clone(), tasks.clone(), options.idle, ended.clone());
        let stems = Stems::new(options.stems, host.clone(), pool.clone(), gate.clone(), tasks.clone());
        let shared = Shared {
            revisions: Revisions::new(&options.revisions_dir, store.clone()),
            manifests: Manifests::new(store.clone()),
            backlog: Backlog::new(store.clone()),
            bell: Bell::default(),
            leases: Leases::default(),
            sizes: Sizes::default(),
            keeper: Keeper::default(),
            configuring: tokio::sync::Mutex::default(),
            registry: Arc::default(),
            nudge: Notify::new(),
            nothing_waits: AtomicBool::new(false),
            stopping: CancellationToken::new(),
            ended,
            ready: watch::Sender::new(false),
            options,
            host,
            store,
            ledger,
            spool,
            gate,
            pool,
            stems,
            tasks,
        };
        let shared = Arc::new(shared);
        shared.store.start_with(Arc::new(Desk::new(&shared)));
        services::start(&shared);
        Arc::new(Self { shared })
    }
}

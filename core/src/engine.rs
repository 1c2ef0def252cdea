//! The engine: the one seam between what wants code run and what runs it.
//!
//! Triggers, the API and CI drivers hold a `dyn Engine`; `runlet-executor` implements it. Every verb names a namespace.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use utoipa::ToSchema;

use crate::cause::{Cause, CauseKind};
use crate::clock::Timestamp;
use crate::id::{DeliveryId, ExecutionId, InvocationId, LeaseId};
use crate::invocation::InvocationState;
use crate::limits::Limits;
use crate::name::{FunctionName, Namespace, RevisionDigest};
use crate::outcome::Outcome;
use crate::precondition::Precondition;
use crate::problem::Code;
use crate::secret::Secret;
use crate::settings::Change;
use crate::store::delivery::NewDelivery;
use crate::store::function::Function;

/// "Run this once", as a door hands it in.
#[derive(Debug, Clone)]
pub struct NewInvocation {
    /// Owner of the function.
    pub namespace: Namespace,
    /// The function.
    pub function: FunctionName,
    /// Which revision; `None`: the one that is current when it is accepted.
    pub revision: Option<RevisionDigest>,
    /// Why.
    pub cause: Cause,
    /// The raw body, as received.
    pub payload: Bytes,
    /// Content type of the body, as received.
    pub content_type: Option<String>,
    /// A repeat of this key (in this scope) returns the first invocation while it lives or has succeeded.
    pub dedup: Option<DedupKey>,
    /// Higher first; 0 is normal.
    pub priority: i16,
    /// Not before this moment may it start; `None`: at once. Asynchronous work only.
    pub not_before: Option<Timestamp>,
    /// Not after this moment may it start; `None`: no such bound.
    pub deadline: Option<Timestamp>,
}

/// What makes a repeat recognisable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DedupKey {
    /// Who gave the key: `api/{function}` or `hook/{path}/{function}`.
    pub scope: String,
    /// The key itself.
    pub key: String,
}

/// Asynchronous work: committed as a whole, with the delivery that brought it, or not at all.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The delivery to put on record with it.
    pub delivery: Option<NewDelivery>,
    /// The invocations to queue.
    pub invocations: Vec<NewInvocation>,
}

/// What became of one invocation of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The function it is for.
    pub function: FunctionName,
    /// The invocation: a new one, or the one that a repeated key names.
    pub invocation: InvocationId,
    /// Whether the key was known, so that nothing new was queued.
    pub repeated: bool,
}

/// A submission that is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The delivery, where one was given.
    pub delivery: Option<DeliveryId>,
    /// What became of each invocation, in their order.
    pub invocations: Vec<Accepted>,
}

/// The answer of a synchronous call.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The invocation it made.
    pub invocation: InvocationId,
    /// The execution that answered.
    pub execution: ExecutionId,
    /// How it ended.
    pub outcome: Outcome,
    /// The result; empty unless the outcome is `ok`.
    pub result: Bytes,
    /// Content type of the result.
    pub content_type: Cow<'static, str>,
}

/// What one who calls is given of a result that comes in pieces, while the code still runs.
#[derive(Debug, Clone)]
pub enum ResultPiece {
    /// The result begins: there will be pieces.
    Begins {
        /// The invocation it made.
        invocation: InvocationId,
        /// The execution that answers.
        execution: ExecutionId,
        /// Content type of the whole.
        content_type: &'static str,
    },
    /// The next bytes of it.
    Bytes(Bytes),
    /// That was all, and the execution is on record as a success. If this does not come, something has failed.
    Ends,
}

/// What of the network a sandbox sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Its own loopback and nothing else.
    #[default]
    None,
    /// The host's. It separates nothing: services on the host's loopback and in its networks can be reached.
    Host,
}

impl Network {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Host => "host",
        }
    }
}

/// What is wanted of a leased sandbox.
#[derive(Debug, Clone)]
pub struct LeaseRequest {
    /// Owner.
    pub namespace: Namespace,
    /// The root file system; `host`.
    pub image: String,
    /// A name of the holder's own to find the lease by. A lease that has it already is ended first.
    pub key: Option<String>,
    /// Why: on record as an invocation's.
    pub cause: Cause,
    /// A function whose current revision is mounted at `/var/task` and whose environment commands get.
    pub function: Option<FunctionName>,
    /// Limits; `None`: those of the function.
    pub limits: Option<Limits>,
    /// How long the lease lasts unless renewed.
    pub span: Duration,
    /// It ends when nothing has run in it for so long.
    pub idle: Option<Duration>,
    /// What of the network it sees.
    pub network: Network,
    /// Whether it gets a directory on disk, `/builds`, that goes away with it.
    pub work: bool,
    /// Name of a directory on disk, `/cache`, that is shared by all leases of the namespace that name it, and stays.
    pub cache: Option<String>,
    /// Values that are masked in the output on record.
    pub masks: Vec<Secret>,
    /// How long to wait for room on the host.
    pub patience: Duration,
}

/// The right to use a sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// The holder's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Owner.
    pub namespace: Namespace,
    /// The invocation that it is on record as.
    pub invocation: InvocationId,
    /// Which door asked for it.
    pub cause: CauseKind,
    /// The function whose code is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
    /// Name of the sandbox.
    pub sandbox: String,
    /// Its limits.
    pub limits: Limits,
    /// What of the network it sees.
    pub network: Network,
    /// Commands that run in it.
    pub running: u32,
    /// When it was given.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it ends unless renewed, or used: the sandbox is destroyed then.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
}

/// A process to run in a leased sandbox.
#[derive(Debug, Clone)]
pub struct Command {
    /// Program and arguments; a program without `/` is looked up in the sandbox's `PATH`.
    pub argv: Vec<String>,
    /// Its environment, on top of the sandbox's.
    pub env: BTreeMap<String, String>,
    /// Working directory; `None`: where the code is.
    pub cwd: Option<String>,
    /// Name of the step, for the record.
    pub step: Option<String>,
    /// Whether its outcome counts for the outcome of the whole lease.
    pub decides: bool,
    /// Whether it gets a stdin.
    pub stdin: bool,
    /// Text files to write before it starts: path and content.
    pub files: Vec<(String, String)>,
}

/// What a running process is told.
#[derive(Debug, Clone)]
pub enum ExecInput {
    /// Bytes for its stdin.
    Stdin(Bytes),
    /// Its stdin ends.
    End,
    /// A signal for its process group.
    Signal(i32),
    /// It is to end: SIGTERM, and SIGKILL a while later.
    Cancel,
}

/// Which stream a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What a running process tells.
#[derive(Debug, Clone)]
pub enum ExecEvent {
    /// It wrote these bytes.
    Output(Stream, Bytes),
    /// It ended, and that is on record; nothing follows.
    Exited {
        /// How.
        outcome: Outcome,
        /// Bytes of output that are not on record.
        log_dropped: u64,
    },
}

/// A process that runs in a leased sandbox. Dropping `input` is a cancel: nobody is there any more to whom it matters.
#[derive(Debug)]
pub struct Exec {
    /// What it is on record as.
    pub execution: ExecutionId,
    /// The invocation of its lease.
    pub invocation: InvocationId,
    /// Output and end, in order.
    pub events: mpsc::Receiver<ExecEvent>,
    /// What it is told.
    pub input: mpsc::Sender<ExecInput>,
    /// Bytes of its stdin that it has taken so far. No more than [`Exec::WINDOW`] bytes may be on their way beyond that.
    pub taken: watch::Receiver<u64>,
}

impl Exec {
    /// Most bytes of stdin that may wait for the process. One who says more has its stdin cut off there.
    pub const WINDOW: usize = 256 << 10;
}

/// Which output is wanted.
#[derive(Debug, Clone, Copy)]
pub struct LogRead {
    /// Of which execution.
    pub execution: ExecutionId,
    /// Which stream.
    pub stream: Stream,
    /// From which byte on.
    pub offset: u64,
    /// At most this many bytes.
    pub limit: usize,
    /// How long to wait for the first byte while the execution runs.
    pub patience: Duration,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// The bytes, from the offset that was asked for; may be fewer than the limit.
    pub bytes: Bytes,
    /// Whether the stream ends behind these bytes: the execution has ended and nothing follows.
    pub end: bool,
}

/// Why an invocation waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// State of the invocation.
    pub state: InvocationState,
    /// One sentence.
    pub reason: String,
    /// What keeps it waiting, where something does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// How many of the same function go before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u64>,
    /// It is not started before this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_before: Option<Timestamp>,
    /// It is not started after this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deadline: Option<Timestamp>,
    /// Who has what it waits for, those who have most first; of other namespaces only how much they have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<Holder>,
}

impl Explanation {
    /// An explanation of one sentence.
    #[must_use]
    pub fn of(state: InvocationState, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { state, reason, limit: None, ahead: None, not_before: None, deadline: None, holders: Vec::new() }
    }
}

/// What keeps work waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// As many executions of the function run as may.
    MaxConcurrency,
    /// The memory for sandboxes is promised to others.
    Memory,
    /// As many sandboxes exist as may.
    MaxSandboxes,
    /// Others are before it, who have had less of the host.
    Share,
    /// It is too early: see `not_before`.
    NotBefore,
    /// The run of its schedule before it is not over.
    Overlap,
    /// The disk is nearly full.
    Disk,
    /// The server is stopping.
    Stopping,
}

impl Limit {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxConcurrency => "max_concurrency",
            Self::Memory => "memory",
            Self::MaxSandboxes => "max_sandboxes",
            Self::Share => "share",
            Self::NotBefore => "not_before",
            Self::Overlap => "overlap",
            Self::Disk => "disk",
            Self::Stopping => "stopping",
        }
    }
}

/// Who has what somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    /// An execution that runs, or a run of a schedule that is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<InvocationId>,
    /// A function of the namespace that has sandboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionName>,
    /// How much memory its sandboxes have, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// How many sandboxes it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandboxes: Option<u32>,
}

/// What the host has for sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Capacity {
    /// Memory for sandboxes, bytes.
    pub memory_total: u64,
    /// Of it, promised to sandboxes that exist, bytes.
    pub memory_used: u64,
    /// Sandboxes that exist.
    pub sandboxes: u32,
    /// Of them, those that wait for their next call.
    pub parked: u32,
    /// Of them, those that were started ahead and are no function's yet. They leave when their room is wanted.
    pub stems: u32,
    /// Sandboxes that may exist at most.
    pub sandboxes_max: u32,
    /// Calls that wait for a sandbox.
    pub waiting: u32,
}

/// Why a verb was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no such function, invocation or lease in the namespace.
    #[error("there is no {what} `{name}` in namespace `{namespace}`")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// Its name or id.
        name: String,
        /// Where it was looked for.
        namespace: Namespace,
    },
    /// The request breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// It contradicts the state things are in.
    #[error("{0}")]
    Conflict(String),
    /// Too much waits already, or no room came free in time.
    #[error("{0}")]
    QueueFull(String),
    /// The sandbox could not be made or went away.
    #[error("the sandbox is gone: {0}")]
    SandboxLost(String),
    /// The ledger does not take it: nothing was accepted.
    #[error(transparent)]
    StoreDown(crate::store::StoreError),
    /// The disk is nearly full: nothing new is taken.
    #[error("{0}")]
    DiskLow(#[from] crate::disk::DiskLow),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl EngineError {
    /// The stable code that the API answers with.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::Invalid(_) => Code::Invalid,
            Self::Conflict(_) => Code::Conflict,
            Self::QueueFull(_) => Code::QueueFull,
            Self::SandboxLost(_) | Self::Stopping => Code::SandboxLost,
            Self::DiskLow(_) => Code::DiskLow,
            Self::StoreDown(error) => error.code(),
        }
    }
}

impl From<crate::store::StoreError> for EngineError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::StoreDown(error)
    }
}

/// What a verb returns.
pub type Verb<'a, T> = BoxFuture<'a, Result<T, EngineError>>;

/// The verbs. Each takes a namespace, in its argument or by name; each ends by a deadline of its own.
pub trait Engine: std::fmt::Debug + Send + Sync {
    /// Commits asynchronous work. When it returns, the work is on record and will be executed at least once.
    fn submit(&self, submission: Submission) -> Verb<'_, Submitted>;

    /// Runs once, now, and returns the result. Never run again by itself.
    fn call(&self, invocation: NewInvocation) -> Verb<'_, Reply>;

    /// Like [`Engine::call`]; a result that comes in pieces goes to `pieces` as it comes, and whoever takes them slowly
    /// slows the code down. One who drops the verb or the receiver ends nothing that has begun; once the first piece is
    /// there, the verb should be dropped: what it would tell comes as a piece, too.
    fn call_in_pieces(&self, invocation: NewInvocation, pieces: mpsc::Sender<ResultPiece>) -> Verb<'_, Reply>;

    /// Waits until the invocation is terminal or `patience` is over, and returns its state.
    fn wait<'a>(&'a self, namespace: &'a Namespace, id: InvocationId, patience: Duration) -> Verb<'a, InvocationState>;

    /// Cancels: a waiting one never starts, a running one is killed. Returns the state it had; terminal ones are left alone.
    fn cancel<'a>(&'a self, namespace: &'a Namespace, id: InvocationId) -> Verb<'a, InvocationState>;

    /// Makes a sandbox and hands out the right to use it.
    fn lease(&self, request: LeaseRequest) -> Verb<'_, Lease>;

    /// Moves the end of a lease to `span` from now.
    fn renew<'a>(&'a self, namespace: &'a Namespace, id: LeaseId, span: Duration) -> Verb<'a, Lease>;

    /// The leases of a namespace, oldest first.
    fn leases(&self, namespace: &Namespace) -> Vec<Lease>;

    /// Starts a process in a leased sandbox.
    fn exec<'a>(&'a self, namespace: &'a Namespace, id: LeaseId, command: Command) -> Verb<'a, Exec>;

    /// Gives a lease back: everything in the sandbox is killed and gone when it returns.
    fn release<'a>(&'a self, namespace: &'a Namespace, id: LeaseId) -> Verb<'a, ()>;

    /// Reads output of an execution from byte `offset` of `stream`; waits up to `patience` for more while it runs.
    fn logs<'a>(&'a self, namespace: &'a Namespace, read: LogRead) -> Verb<'a, LogPiece>;

    /// Changes the limits of a leased sandbox while it runs.
    fn resize<'a>(&'a self, namespace: &'a Namespace, id: LeaseId, limits: Limits) -> Verb<'a, ()>;

    /// Says why an invocation waits.
    fn explain<'a>(&'a self, namespace: &'a Namespace, id: InvocationId) -> Verb<'a, Explanation>;

    /// Changes what is set for a function, here and now: its sandboxes get the new limits, those that run as well, and then it goes
    /// on record. All or nothing.
    fn configure<'a>(
        &'a self,
        namespace: &'a Namespace,
        function: &'a FunctionName,
        change: Change,
        precondition: &'a Precondition,
    ) -> Verb<'a, Function>;

    /// Says what the host has and what of it is in use.
    fn capacity(&self) -> Capacity;
}

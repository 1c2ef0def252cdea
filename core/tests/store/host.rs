//! The private Postgres of this test binary, a database for each test, and short words for common things.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nix::unistd::{Uid, User};
use runlet_core::cause::{Cause, CauseKind};
use runlet_core::clock;
use runlet_core::engine::{DedupKey, NewInvocation, Submission};
use runlet_core::id::InvocationId;
use runlet_core::invocation::InvocationState;
use runlet_core::manifest::Manifest;
use runlet_core::name::{FunctionName, Namespace, RevisionDigest};
use runlet_core::outcome::Outcome;
use runlet_core::store::execution::Invocation;
use runlet_core::store::function::NewRevision;
use runlet_core::store::ledger::{Finish, Ledger};
use runlet_core::store::private::{PrivateOptions, PrivatePostgres};
use runlet_core::store::queue::{Claimed, Room};
use runlet_core::store::{Spill, Store};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::task::JoinSet;

pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// A directory for the data of this process; those of processes that are gone are removed.
pub(crate) fn base(name: &str) -> PathBuf {
    const PREFIX: &str = "runlet-store-test-";
    let parent = std::env::temp_dir();
    for entry in std::fs::read_dir(&parent).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let base = parent.join(format!("{PREFIX}{}-{name}", std::process::id()));
    std::fs::create_dir_all(&base).unwrap();
    base
}

/// Starts a private Postgres; root does it for the user `postgres` or `nobody`.
pub(crate) fn start_postgres(options: &PrivateOptions) -> PrivatePostgres {
    let started = if Uid::effective().is_root() {
        let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten()).unwrap();
        PrivatePostgres::start_as(options, user.uid.as_raw(), user.gid.as_raw())
    } else {
        PrivatePostgres::start(options)
    };
    started.unwrap_or_else(|error| panic!("{error}"))
}

/// How to connect to the Postgres of this process, in which the database `template` holds the schema.
fn postgres() -> &'static PgConnectOptions {
    static OPTIONS: OnceLock<PgConnectOptions> = OnceLock::new();
    OPTIONS.get_or_init(|| {
        let (tell, told) = std::sync::mpsc::channel();
        // Postgres ends with the thread that started it: this one ends with the process.
        std::thread::spawn(move || {
            let postgres = start_postgres(&PrivateOptions { base: base("shared"), bin_dir: None });
            let options = postgres.connect_options();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let admin = PgPool::connect_with(options.clone()).await.unwrap();
                // Nothing here outlives the process: no need to wait for the disk.
                sqlx::query("ALTER SYSTEM SET fsync = off").execute(&admin).await.unwrap();
                sqlx::query("SELECT pg_reload_conf()").execute(&admin).await.unwrap();
                sqlx::query("CREATE DATABASE template").execute(&admin).await.unwrap();
                Store::open(options.clone().database("template"), 4, "template").await.unwrap().close().await;
                admin.close().await;
            });
            tell.send(options).unwrap();
            loop {
                std::thread::park();
            }
        });
        told.recv().unwrap()
    })
}

/// A database of one test.
pub(crate) struct Db {
    pub(crate) options: PgConnectOptions,
    /// For what no verb of the store tells.
    pub(crate) sql: PgPool,
}

impl Db {
    /// With the schema.
    pub(crate) async fn new() -> Self {
        Self::copy_of("template").await
    }

    /// As Postgres makes it.
    pub(crate) async fn empty() -> Self {
        Self::copy_of("template0").await
    }

    async fn copy_of(template: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let admin = postgres().clone();
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let pool = PgPoolOptions::new().max_connections(1).connect_with(admin.clone()).await.unwrap();
        let create = format!("CREATE DATABASE {name} TEMPLATE {template}");
        sqlx::query(sqlx::AssertSqlSafe(create)).execute(&pool).await.unwrap();
        pool.close().await;
        let options = admin.database(&name);
        let sql = PgPoolOptions::new().max_connections(2).connect_with(options.clone()).await.unwrap();
        Self { options, sql }
    }

    pub(crate) async fn store(&self, server: &str) -> Store {
        Store::open(self.options.clone(), 8, server).await.unwrap()
    }

    /// A store that puts what is larger than 100 bytes into files below `dir`.
    pub(crate) async fn spilling(&self, server: &str, dir: &std::path::Path, alone: bool) -> Store {
        let spill = Spill { dir: dir.to_owned(), over: Some(100), alone };
        Store::open_with(self.options.clone(), 8, server, Some(spill)).await.unwrap()
    }

    pub(crate) async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.sql).await.unwrap()
    }
}

/// A database, a store named `one` and a deployed function `f`.
pub(crate) async fn db_with_function() -> (Db, Store) {
    let db = Db::new().await;
    let store = db.store("one").await;
    store.deploy(revision("f", "")).await.unwrap();
    (db, store)
}

/// A running ledger; the writers end with the set.
pub(crate) fn ledger(store: &Store) -> (Ledger, JoinSet<()>) {
    let (ledger, writers) = store.ledger();
    let mut tasks = JoinSet::new();
    tasks.spawn(writers.run());
    (ledger, tasks)
}

pub(crate) fn ns() -> Namespace {
    Namespace::default_namespace()
}

pub(crate) fn name(text: &str) -> FunctionName {
    FunctionName::new(text).unwrap()
}

pub(crate) fn revision(function: &str, rest: &str) -> NewRevision {
    let text = format!("schema = 1\nname = \"{function}\"\nruntime = \"python\"\nhandler = \"main.handle\"\n{rest}");
    let mut hash = [0_u8; 32];
    for (n, byte) in text.bytes().enumerate() {
        hash[n % 32] = hash[n % 32].rotate_left(3) ^ byte;
    }
    NewRevision {
        namespace: ns(),
        digest: RevisionDigest::from_sha256(&hash),
        manifest: Manifest::parse(&text).unwrap(),
        archive: Bytes::from(text),
        precondition: runlet_core::precondition::Precondition::None,
    }
}

pub(crate) fn invocation(function: &str) -> NewInvocation {
    NewInvocation {
        namespace: ns(),
        function: name(function),
        revision: None,
        cause: Cause::of_kind(CauseKind::Webhook),
        payload: Bytes::from_static(b"\0\xffraw"),
        content_type: Some("application/json".to_owned()),
        dedup: None,
        priority: 0,
        not_before: None,
        deadline: None,
    }
}

pub(crate) fn keyed(function: &str, key: &str) -> NewInvocation {
    NewInvocation {
        dedup: Some(DedupKey { scope: format!("hook/gh/{function}"), key: key.to_owned() }),
        ..invocation(function)
    }
}

pub(crate) async fn accept(store: &Store, invocation: NewInvocation) -> InvocationId {
    let submission = Submission { delivery: None, invocations: vec![invocation] };
    store.accept(submission).await.unwrap().unwrap().invocations[0].invocation
}

/// Room for so many executions, of a server where nothing runs.
pub(crate) fn room(executions: u32) -> Room {
    Room { executions, memory: u64::MAX, total_memory: u64::MAX, ..Room::default() }
}

pub(crate) async fn claim_one(store: &Store, server: &str) -> Claimed {
    let mut claimed = store.claim(server, &room(1), LEASE).await.unwrap().work;
    claimed.pop().expect("work is due")
}

/// Notes claims, and waits until history knows that they run.
pub(crate) async fn noted(store: &Store, ledger: &Ledger, claimed: &[Claimed]) {
    claimed.iter().for_each(|claimed| ledger.claimed(claimed));
    for claimed in claimed {
        until("it is noted", async || get(store, claimed.invocation).await.state == InvocationState::Running).await;
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(std::time::Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn get(store: &Store, id: InvocationId) -> Invocation {
    store.invocation(&ns(), id).await.unwrap().expect("it is on record")
}

/// Waits until overdue work has expired, which claims see to; none gets it.
pub(crate) async fn expires(store: &Store, id: InvocationId) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while get(store, id).await.state != InvocationState::Expired {
        assert!(std::time::Instant::now() < end, "it does not expire");
        assert!(store.claim("one", &room(1), LEASE).await.unwrap().work.is_empty());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn finish(claimed: &Claimed, outcome: Outcome) -> Finish {
    let lost = outcome.kind == runlet_core::outcome::OutcomeKind::Lost;
    let retry = lost.then(|| runlet_core::manifest::Retry::after_lost(claimed.attempt));
    Finish {
        execution: claimed.execution,
        invocation: claimed.invocation,
        namespace: claimed.namespace.clone(),
        fence: Some(claimed.fence),
        result: outcome.is_ok().then(|| (Bytes::from_static(b"\0\xfe"), "application/json".into())),
        outcome,
        running: None,
        usage: runlet_core::execution::Usage::default(),
        remains: None,
        log_bytes: 0,
        log_dropped: 0,
        retry,
        expired: false,
        of_messages: false,
        tell: None,
        at: clock::now(),
    }
}

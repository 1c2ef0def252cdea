//! What queued work costs in the ledger alone, without a server and without code: to be set beside bare statements on the same Postgres.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use runlet_core::cause::{Cause, CauseKind};
use runlet_core::clock;
use runlet_core::engine::{NewInvocation, Submission};
use runlet_core::id::InvocationId;
use runlet_core::manifest::Manifest;
use runlet_core::name::{FunctionName, Namespace, RevisionDigest};
use runlet_core::outcome::Outcome;
use runlet_core::precondition::Precondition;
use runlet_core::store::Store;
use runlet_core::store::function::NewRevision;
use runlet_core::store::ledger::{Finish, Ledger};
use runlet_core::store::message::{Consumer, Hints, NewMessage, QueueKey, Which};
use runlet_core::store::queue::Room;
use runlet_triggers::queue::{choose, decide};
use sqlx::postgres::PgPool;
use tokio::task::JoinSet;

use crate::table::median;
use crate::under_test::Server;

/// The queue of its messages.
pub(crate) const QUEUE: &str = "bench";

const TRIGGER: &str = "[[trigger]]\ntype = \"queue\"\nqueue = \"bench\"\nmax_in_flight = 1000\n";

/// Pieces at a time.
const BATCH: usize = 32;

/// All that queued work costs in the ledger, without the code.
pub(crate) struct Cycle {
    admin: PgPool,
    pool: PgPool,
    store: Store,
    queue: QueueKey,
    consumers: Vec<Consumer>,
    ledger: Ledger,
    _writers: JoinSet<()>,
}

impl Cycle {
    /// In a database of its own, which no server works on.
    pub(crate) async fn new(server: &Server) -> anyhow::Result<Self> {
        let admin = server.database(1).await?;
        sqlx::query("DROP DATABASE IF EXISTS bench_ledger WITH (FORCE)").execute(&admin).await?;
        sqlx::query("CREATE DATABASE bench_ledger").execute(&admin).await?;
        let options = admin.connect_options().as_ref().clone().database("bench_ledger");
        let store = Store::open(options.clone(), 16, "bench").await?;
        let pool = PgPool::connect_with(options).await?;
        let text = format!(
            "schema = 1\nname = \"f\"\nruntime = \"python\"\nhandler = \"main.handle\"\nmax_concurrency = 1000\n{TRIGGER}"
        );
        let revision = NewRevision {
            namespace: Namespace::default_namespace(),
            digest: RevisionDigest::from_sha256(&[7; 32]),
            manifest: Manifest::parse(&text).map_err(|error| anyhow::anyhow!("{error}"))?,
            archive: Bytes::from(text),
            precondition: Precondition::None,
        };
        store.deploy(revision).await?;
        let (ledger, writers) = store.ledger();
        let mut tasks = JoinSet::new();
        tasks.spawn(writers.run());
        let consumers = store.consumers().await?;
        let queue = (Namespace::default_namespace(), QUEUE.to_owned());
        Ok(Self { admin, pool, store, queue, consumers, ledger, _writers: tasks })
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.store.close().await;
        self.pool.close().await;
        sqlx::query("DROP DATABASE bench_ledger WITH (FORCE)").execute(&self.admin).await?;
        Ok(())
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Removes the messages that wait.
    pub(crate) async fn purge(&self) -> anyhow::Result<()> {
        self.store.purge_queue(&self.queue.0, &self.queue.1, Which::Waiting).await?;
        Ok(())
    }

    async fn take(&self, hints: &mut Hints, limit: usize) -> anyhow::Result<usize> {
        let triggers: Vec<_> = self.consumers.iter().map(|one| (one.trigger, one.spec.max_in_flight)).collect();
        let choose = |candidates: &[_], free: &[_]| choose(&self.consumers, candidates, free, clock::now()).0;
        let taken = self.store.take(&self.queue, &triggers, hints, u32::try_from(limit)?, choose).await?;
        Ok(taken.map_or(0, |taken| taken.invocations))
    }

    /// Pieces of asynchronous work that are claimed and finished in a second.
    pub(crate) async fn work_a_second(&self, count: usize) -> anyhow::Result<f64> {
        let new = || NewInvocation {
            namespace: Namespace::default_namespace(),
            function: FunctionName::new("f").expect("it is a name"),
            revision: None,
            cause: Cause::of_kind(CauseKind::Http),
            payload: Bytes::from_static(b"{}"),
            content_type: None,
            dedup: None,
            priority: 0,
            not_before: None,
            deadline: None,
        };
        for _ in (0..count).step_by(100) {
            let invocations = (0..100).map(|_| new()).collect();
            let accepted = self.store.accept(Submission { delivery: None, invocations }).await?;
            anyhow::ensure!(accepted.is_ok(), "the function is there");
        }
        let (begin, mut done) = (Instant::now(), 0);
        while done < count {
            let ended = self.work(BATCH, false).await?;
            anyhow::ensure!(!ended.is_empty(), "{done} of {count} were claimed");
            done += ended.len();
        }
        Ok(done as f64 / begin.elapsed().as_secs_f64())
    }

    /// Messages that are taken, claimed, finished and settled in a second.
    pub(crate) async fn messages(&self, message: NewMessage, count: usize) -> anyhow::Result<f64> {
        let messages: Vec<NewMessage> = (0..count).map(|_| message.clone()).collect();
        self.store.publish(&self.queue.0, &self.queue.1, &messages).await?;
        let begin = Instant::now();
        let (mut hints, mut done) = (Hints::default(), 0);
        while done < count {
            let taken = self.take(&mut hints, BATCH).await?;
            done += self.settle(taken).await?;
        }
        Ok(count as f64 / begin.elapsed().as_secs_f64())
    }

    /// Claims, finishes and settles what was taken.
    async fn settle(&self, taken: usize) -> anyhow::Result<usize> {
        let ended = self.work(taken, true).await?;
        self.store.settle(&ended, decide).await?;
        Ok(ended.len())
    }

    /// Claims up to so many and finishes them.
    async fn work(&self, most: usize, of_messages: bool) -> anyhow::Result<Vec<InvocationId>> {
        let executions = u32::try_from(most)?;
        let room = Room {
            executions,
            memory: u64::MAX >> 1,
            total_memory: u64::MAX >> 1,
            in_line: false,
            used: Vec::new(),
            functions_ahead: HashMap::new(),
            namespaces: Vec::new(),
        };
        let claimed = self.store.claim("bench", &room, Duration::from_secs(30)).await?;
        let mut ends = JoinSet::new();
        let invocations: Vec<_> = claimed.iter().map(|claimed| claimed.invocation).collect();
        for claimed in claimed {
            let ledger = self.ledger.clone();
            ends.spawn(async move {
                let finish = Finish {
                    execution: claimed.execution,
                    invocation: claimed.invocation,
                    namespace: claimed.namespace,
                    fence: Some(claimed.fence),
                    outcome: Outcome::ok(),
                    result: Some((Bytes::from_static(b"null"), "application/json".into())),
                    running: None,
                    usage: runlet_core::execution::Usage::default(),
                    remains: None,
                    log_bytes: 0,
                    log_dropped: 0,
                    retry: None,
                    expired: false,
                    of_messages,
                    tell: None,
                    at: clock::now(),
                };
                ledger.finish(finish).await
            });
        }
        while let Some(end) = ends.join_next().await {
            end??;
        }
        Ok(invocations)
    }

    /// Milliseconds that a take of 32 needs while so many wait; the median of several.
    pub(crate) async fn take_time(&self, message: NewMessage, waiting: usize) -> anyhow::Result<f64> {
        let messages: Vec<NewMessage> = (0..1000).map(|_| message.clone()).collect();
        for _ in 0..waiting / 1000 {
            self.store.publish(&self.queue.0, &self.queue.1, &messages).await?;
        }
        let mut times = Vec::new();
        let mut hints = Hints::default();
        for _ in 0..20 {
            let begin = Instant::now();
            let taken = self.take(&mut hints, BATCH).await?;
            times.push(begin.elapsed().as_secs_f64() * 1000.0);
            self.settle(taken).await?;
        }
        self.purge().await?;
        Ok(median(&times))
    }
}

//! What queued work costs in the ledger alone, without a server and without code: to be set beside bare statements on the same Postgres.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
use runlet_core::store::function::{Function, NewRevision};
use runlet_core::store::ledger::{Finish, Ledger};
use runlet_core::store::message::{Consumer, Hints, NewMessage, QueueKey, Which};
use runlet_core::store::queue::at_once::{Reserved, Starter};
use runlet_core::store::queue::{Claimed, Room};
use runlet_core::store::{Spill, Store};
use runlet_triggers::queue::{choose, decide};
use sqlx::postgres::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::table::median;
use crate::under_test::Server;

/// The queue of its messages: one a call.
pub(crate) const QUEUE: &str = "bench";

/// Another, ten a call.
pub(crate) const TENS: &str = "bench-tens";

const TRIGGERS: &str = "[[trigger]]\ntype = \"queue\"\nqueue = \"bench\"\nmax_in_flight = 1000\n\
    [[trigger]]\ntype = \"queue\"\nqueue = \"bench-tens\"\nmax_in_flight = 1000\nbatch_size = 10\n";

/// Pieces at a time.
const BATCH: usize = 32;

/// Batches that may be claimed and not ended.
const AHEAD: usize = 2;

/// How long a claim holds.
const LEASE: Duration = Duration::from_secs(30);

/// Hands that are free, and the work that was given to them in the moment in which it was accepted.
#[derive(Debug, Default)]
struct Hands {
    free: AtomicUsize,
    work: Mutex<Vec<Claimed>>,
}

/// They as the store knows them, and one of them that is reserved.
#[derive(Debug, Clone)]
struct Hand(Arc<Hands>);

impl Hands {
    fn take(&self) -> Vec<Claimed> {
        std::mem::take(&mut *self.work.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Starter for Hand {
    fn reserve(&self, _function: &Function) -> Option<Box<dyn Reserved>> {
        let less = |free: usize| free.checked_sub(1);
        self.0.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        Some(Box::new(self.clone()))
    }

    fn lease(&self) -> Duration {
        LEASE
    }
}

impl Reserved for Hand {
    fn start(self: Box<Self>, claimed: Claimed) {
        self.0.work.lock().unwrap_or_else(PoisonError::into_inner).push(claimed);
    }
}

/// All that queued work costs in the ledger, without the code. What is next is claimed while ends are written, as a server does it.
pub(crate) struct Cycle {
    admin: PgPool,
    pool: PgPool,
    store: Store,
    consumers: Vec<Consumer>,
    ledger: Ledger,
    hands: Arc<Hands>,
    _writers: JoinSet<()>,
}

impl Cycle {
    /// In a database of its own, which no server works on.
    pub(crate) async fn new(server: &Server) -> anyhow::Result<Self> {
        let admin = server.database(1).await?;
        sqlx::query("DROP DATABASE IF EXISTS bench_ledger WITH (FORCE)").execute(&admin).await?;
        sqlx::query("CREATE DATABASE bench_ledger").execute(&admin).await?;
        let options = admin.connect_options().as_ref().clone().database("bench_ledger");
        // The only server of its database, as the one under test is of its own.
        let spill = Spill { dir: server.data(), over: None, alone: true };
        let store = Store::open_with(options.clone(), 16, "bench", Some(spill)).await?;
        let pool = PgPool::connect_with(options).await?;
        let text = format!(
            "schema = 1\nname = \"f\"\nruntime = \"python\"\nhandler = \"main.handle\"\nmax_concurrency = 1000\n{TRIGGERS}"
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
        let hands = Arc::new(Hands::default());
        store.start_with(Arc::new(Hand(Arc::clone(&hands))));
        Ok(Self { admin, pool, store, consumers, ledger, hands, _writers: tasks })
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
        self.store.purge_queue(&Namespace::default_namespace(), QUEUE, Which::Waiting).await?;
        Ok(())
    }

    /// Messages of a queue as work that is claimed, by the statement that makes it.
    async fn take(&self, queue: &QueueKey, hints: &mut Hints) -> anyhow::Result<Vec<Claimed>> {
        self.hands.free.store(BATCH, Ordering::Relaxed);
        let consumers: Vec<_> = self.consumers.iter().filter(|one| one.spec.queue == queue.1).cloned().collect();
        let triggers: Vec<_> = consumers.iter().map(|one| (one.trigger, one.spec.max_in_flight)).collect();
        let choose = |candidates: &[_], free: &[_]| choose(&consumers, candidates, free, clock::now()).0;
        self.store.take(queue, &triggers, hints, u32::try_from(BATCH)?, choose).await?;
        self.hands.free.store(0, Ordering::Relaxed);
        Ok(self.hands.take())
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
        let (done, seconds) =
            self.work(async || self.claim().await, async |claimed| self.end_all(claimed, false).await).await?;
        anyhow::ensure!(done == count, "{done} of {count} were claimed");
        Ok(count as f64 / seconds)
    }

    /// Messages of a queue that are taken, claimed, finished and settled in a second.
    pub(crate) async fn messages(&self, queue: &str, message: NewMessage, count: usize) -> anyhow::Result<f64> {
        let messages: Vec<NewMessage> = (0..count).map(|_| message.clone()).collect();
        let queue = (Namespace::default_namespace(), queue.to_owned());
        self.store.publish(&queue.0, &queue.1, &messages).await?;
        // Work of a function that this server has not seen lately is not started at once.
        let name = FunctionName::new("f").expect("it is a name");
        self.store.current(&Namespace::default_namespace(), &name).await?;
        let mut hints = Hints::default();
        let take = async || self.take(&queue, &mut hints).await;
        let (_, seconds) = self.work(take, async |claimed| self.settle(claimed).await).await?;
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(&self.pool).await?;
        anyhow::ensure!(left == 0, "{left} of {count} messages are left");
        Ok(count as f64 / seconds)
    }

    /// Claims until nothing is left, and ends what was claimed: how many pieces, and the seconds that it took.
    async fn work(
        &self,
        mut claim: impl AsyncFnMut() -> anyhow::Result<Vec<Claimed>>,
        end: impl AsyncFn(Vec<Claimed>) -> anyhow::Result<()>,
    ) -> anyhow::Result<(usize, f64)> {
        let (give, mut get) = mpsc::channel(AHEAD);
        let begin = Instant::now();
        let claiming = async move {
            let mut done = 0;
            loop {
                let claimed = claim().await?;
                if claimed.is_empty() {
                    return anyhow::Ok(done);
                }
                done += claimed.len();
                give.send(claimed).await?;
            }
        };
        let ending = async {
            while let Some(mut claimed) = get.recv().await {
                while let Ok(more) = get.try_recv() {
                    claimed.extend(more);
                }
                end(claimed).await?;
            }
            anyhow::Ok(())
        };
        let (done, ()) = tokio::try_join!(claiming, ending)?;
        Ok((done, begin.elapsed().as_secs_f64()))
    }

    /// Finishes what was taken and settles it.
    async fn settle(&self, claimed: Vec<Claimed>) -> anyhow::Result<()> {
        let ended: Vec<InvocationId> = claimed.iter().map(|claimed| claimed.invocation).collect();
        self.end_all(claimed, true).await?;
        self.store.settle(&ended, decide).await?;
        Ok(())
    }

    async fn claim(&self) -> anyhow::Result<Vec<Claimed>> {
        let room = Room {
            executions: u32::try_from(BATCH)?,
            memory: u64::MAX >> 1,
            total_memory: u64::MAX >> 1,
            in_line: false,
            used: Vec::new(),
            functions_ahead: HashMap::new(),
            namespaces: Vec::new(),
        };
        Ok(self.store.claim("bench", &room, LEASE).await?.work)
    }

    async fn end_all(&self, claimed: Vec<Claimed>, of_messages: bool) -> anyhow::Result<()> {
        let mut ends = JoinSet::new();
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
            anyhow::ensure!(end??, "the claim holds");
        }
        Ok(())
    }

    /// Milliseconds that a take of 32 needs while so many wait; the median of several.
    pub(crate) async fn take_time(&self, message: NewMessage, waiting: usize) -> anyhow::Result<f64> {
        let messages: Vec<NewMessage> = (0..1000).map(|_| message.clone()).collect();
        let queue = (Namespace::default_namespace(), QUEUE.to_owned());
        for _ in 0..waiting / 1000 {
            self.store.publish(&queue.0, &queue.1, &messages).await?;
        }
        // What all these have to be written for is not a take's.
        sqlx::query("CHECKPOINT").execute(&self.pool).await?;
        let mut times = Vec::new();
        let mut hints = Hints::default();
        for _ in 0..20 {
            let begin = Instant::now();
            let taken = self.take(&queue, &mut hints).await?;
            times.push(begin.elapsed().as_secs_f64() * 1000.0);
            self.settle(taken).await?;
        }
        self.purge().await?;
        Ok(median(&times))
    }
}

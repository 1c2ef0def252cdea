//! Built-in queues: publishing and taking beside bare statements on the same Postgres, and the way to a warm function beside calls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use runlet_core::clock;
use runlet_core::manifest::Manifest;
use runlet_core::name::{Namespace, RevisionDigest};
use runlet_core::outcome::Outcome;
use runlet_core::precondition::Precondition;
use runlet_core::store::Store;
use runlet_core::store::function::NewRevision;
use runlet_core::store::ledger::{Finish, Ledger};
use runlet_core::store::message::{Consumer, Hints, NewMessage, QueueKey};
use runlet_core::store::queue::Room;
use runlet_triggers::queue::{choose, decide};
use sqlx::postgres::PgPool;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Scale;
use crate::table::{self, median};
use crate::under_test::Server;

const BODY: &[u8] =
    br#"{"id": 7, "customer": "k-1234", "items": [{"sku": "a-1", "n": 2}], "note": "a body of about 100 bytes"}"#;
const TRIGGER: &str = "[[trigger]]\ntype = \"queue\"\nqueue = \"bench\"\nmax_in_flight = 1000\n";
/// Messages taken at a time.
const BATCH: usize = 32;

pub(crate) async fn measure(server: &Server, scale: &Scale) -> anyhow::Result<()> {
    let admin = server.database(1).await?;
    sqlx::query("DROP DATABASE IF EXISTS bench_queue").execute(&admin).await?;
    sqlx::query("CREATE DATABASE bench_queue").execute(&admin).await?;
    let options = admin.connect_options().as_ref().clone().database("bench_queue");
    let store = Store::open(options.clone(), 16, "bench").await?;
    let pool = PgPool::connect_with(options).await?;
    let cycle = Cycle::new(&store).await?;
    table::section("Queues: messages a second", &["what", "runlet", "reference", "of the reference"]);
    let row = |what: &str, ours: &[f64], reference: &[f64]| {
        let (ours, reference) = (median(ours), median(reference));
        table::row(&[
            what.to_owned(),
            format!("{ours:.0}"),
            format!("{reference:.0}"),
            format!("{:.2}", ours / reference),
        ]);
    };
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        ours.push(publish(&store, scale.span).await?);
        reference.push(insert(&pool, scale.span).await?);
        store.purge_queue(&cycle.queue.0, &cycle.queue.1, runlet_core::store::message::Which::Waiting).await?;
    }
    row("published 1,000 at a time (reference: a bare insert of 1,000 rows)", &ours, &reference);
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        ours.push(cycle.run(2000).await?);
        reference.push(bare_loop(&pool, 2000).await?);
    }
    row(
        "taken, claimed, finished and settled, with history (reference: SKIP LOCKED, 32 at a time, rows kept)",
        &ours,
        &reference,
    );
    let few = cycle.take_time(1000).await?;
    let many = cycle.take_time(if scale.rounds > 2 { 1_000_000 } else { 100_000 }).await?;
    for batch in [1, 10] {
        let (called, queued) = to_python(server, scale, batch).await?;
        let what = format!(
            "published to a warm python function, {batch} a call, until all are settled (reference: synchronous calls, 16 at a time)"
        );
        row(&what, &queued, &called);
    }
    table::section("Queues: milliseconds to take 32 messages", &["of 1,000 that wait", "of 1,000,000 that wait"]);
    table::row(&[format!("{few:.2}"), format!("{many:.2}")]);
    store.close().await;
    pool.close().await;
    sqlx::query("DROP DATABASE bench_queue WITH (FORCE)").execute(&admin).await?;
    Ok(())
}

fn message() -> NewMessage {
    NewMessage {
        body: Bytes::from_static(BODY),
        content_type: Some("application/json".to_owned()),
        ..NewMessage::default()
    }
}

async fn publish(store: &Store, span: Duration) -> anyhow::Result<f64> {
    let messages: Vec<NewMessage> = (0..1000).map(|_| message()).collect();
    let (begin, mut done) = (Instant::now(), 0.0);
    while begin.elapsed() < span {
        store.publish(&Namespace::default_namespace(), "bench", &messages).await?.context("the queue is there")?;
        done += 1000.0;
    }
    Ok(done / begin.elapsed().as_secs_f64())
}

async fn insert(pool: &PgPool, span: Duration) -> anyhow::Result<f64> {
    sqlx::query("CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, body bytea, done boolean DEFAULT false, at timestamptz DEFAULT now())")
        .execute(pool)
        .await?;
    sqlx::query("CREATE INDEX IF NOT EXISTS bare_waiting ON bare (id) WHERE NOT done").execute(pool).await?;
    let bodies: Vec<&[u8]> = vec![BODY; 1000];
    let (begin, mut done) = (Instant::now(), 0.0);
    while begin.elapsed() < span {
        sqlx::query("INSERT INTO bare (body) SELECT * FROM unnest($1::bytea[])").bind(&bodies).execute(pool).await?;
        done += 1000.0;
    }
    let rate = done / begin.elapsed().as_secs_f64();
    sqlx::query("TRUNCATE bare").execute(pool).await?;
    Ok(rate)
}

/// Takes 32, and finishes them in a second transaction.
async fn bare_loop(pool: &PgPool, count: usize) -> anyhow::Result<f64> {
    sqlx::query("INSERT INTO bare (body) SELECT $2 FROM generate_series(1, $1)")
        .bind(i64::try_from(count)?)
        .bind(BODY)
        .execute(pool)
        .await?;
    sqlx::query("ALTER TABLE bare ADD COLUMN IF NOT EXISTS taken timestamptz").execute(pool).await?;
    let begin = Instant::now();
    loop {
        let ids: Vec<i64> = sqlx::query_scalar(
            "UPDATE bare SET taken = now() WHERE id IN (SELECT id FROM bare WHERE NOT done AND taken IS NULL ORDER BY id LIMIT 32 FOR UPDATE SKIP LOCKED) RETURNING id",
        )
        .fetch_all(pool)
        .await?;
        if ids.is_empty() {
            break;
        }
        sqlx::query("UPDATE bare SET done = true WHERE id = ANY($1)").bind(&ids).execute(pool).await?;
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    sqlx::query("TRUNCATE bare").execute(pool).await?;
    Ok(rate)
}

/// All that a message costs in the ledger, without the code.
struct Cycle {
    store: Store,
    queue: QueueKey,
    consumers: Vec<Consumer>,
    ledger: Ledger,
    _writers: JoinSet<()>,
}

impl Cycle {
    async fn new(store: &Store) -> anyhow::Result<Self> {
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
        let queue = (Namespace::default_namespace(), "bench".to_owned());
        Ok(Self { store: store.clone(), queue, consumers, ledger, _writers: tasks })
    }

    async fn take(&self, hints: &mut Hints, limit: usize) -> anyhow::Result<usize> {
        let triggers: Vec<_> = self.consumers.iter().map(|one| (one.trigger, one.spec.max_in_flight)).collect();
        let choose = |candidates: &[_], free: &[_]| choose(&self.consumers, candidates, free, clock::now()).0;
        let taken = self.store.take(&self.queue, &triggers, hints, u32::try_from(limit)?, choose).await?;
        Ok(taken.map_or(0, |taken| taken.invocations))
    }

    async fn run(&self, count: usize) -> anyhow::Result<f64> {
        let messages: Vec<NewMessage> = (0..count).map(|_| message()).collect();
        self.store.publish(&self.queue.0, &self.queue.1, &messages).await?;
        let begin = Instant::now();
        let (mut hints, mut done) = (Hints::default(), 0);
        while done < count {
            let taken = self.take(&mut hints, BATCH).await?;
            done += self.work(taken).await?;
        }
        Ok(count as f64 / begin.elapsed().as_secs_f64())
    }

    /// Claims, finishes and settles what was taken.
    async fn work(&self, taken: usize) -> anyhow::Result<usize> {
        let executions = u32::try_from(taken)?;
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
                    tell: None,
                    at: clock::now(),
                };
                ledger.finish(finish).await
            });
        }
        while let Some(end) = ends.join_next().await {
            end??;
        }
        self.store.settle(&invocations, decide).await?;
        Ok(invocations.len())
    }

    /// Milliseconds that a take of 32 needs while so many wait; the median of several.
    async fn take_time(&self, waiting: usize) -> anyhow::Result<f64> {
        let messages: Vec<NewMessage> = (0..1000).map(|_| message()).collect();
        for _ in 0..waiting / 1000 {
            self.store.publish(&self.queue.0, &self.queue.1, &messages).await?;
        }
        let mut times = Vec::new();
        let mut hints = Hints::default();
        for _ in 0..20 {
            let begin = Instant::now();
            let taken = self.take(&mut hints, BATCH).await?;
            times.push(begin.elapsed().as_secs_f64() * 1000.0);
            self.work(taken).await?;
        }
        self.store.purge_queue(&self.queue.0, &self.queue.1, runlet_core::store::message::Which::Waiting).await?;
        Ok(median(&times))
    }
}

/// Synchronous calls a second, and messages a second from the publishing to the last settlement.
async fn to_python(server: &Server, scale: &Scale, batch: u32) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let (name, queue) = (format!("queued-{batch}"), format!("to-python-{batch}"));
    let manifest = format!(
        "schema = 1\nname = \"{name}\"\nruntime = \"python\"\nhandler = \"main.handle\"\nmax_concurrency = 4\nmemory = \"64MiB\"\n{}batch_size = {batch}\n",
        TRIGGER.replace("\"bench\"", &format!("\"{queue}\""))
    );
    server
        .function(&[("function.toml", &manifest), ("main.py", "def handle(event, context):\n    return None\n")])
        .await?;
    let pool = server.database(1).await?;
    let call = Arc::new(server.call(&name, "{\"n\": 1}"));
    let mut publish = server.call(&name, "");
    publish.path = format!("/v1/queues/{queue}/messages");
    publish.expect = hyper::StatusCode::ACCEPTED;
    for (name, value) in &mut publish.headers {
        if name == "content-type" {
            *value = "application/x-ndjson".to_owned();
        }
    }
    let count = 2000;
    publish.body = Bytes::from("{\"body\": {\"n\": 1}}\n".repeat(count));
    let (mut called, mut queued) = (Vec::new(), Vec::new());
    for round in 0..=scale.rounds {
        let calls = call.run(16, scale.span).await?.per_second;
        let begin = Instant::now();
        let mut sender = publish.connect().await?;
        publish.once(&mut sender, 0).await?;
        while sqlx::query_scalar::<_, bool>("SELECT EXISTS (SELECT FROM messages)").fetch_one(&pool).await? {
            sleep(Duration::from_millis(5)).await;
        }
        // The first round makes the sandboxes.
        if round > 0 {
            called.push(calls);
            queued.push(count as f64 / begin.elapsed().as_secs_f64());
        }
    }
    pool.close().await;
    Ok((called, queued))
}

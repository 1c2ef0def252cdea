//! Built-in queues: publishing and taking beside bare statements on the same Postgres, and the way to a warm function beside calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use runlet_core::name::Namespace;
use runlet_core::store::Store;
use runlet_core::store::message::NewMessage;
use sqlx::postgres::PgPool;
use tokio::time::sleep;

use crate::Scale;
use crate::ledger::{Cycle, QUEUE, TENS};
use crate::table::{self, median};
use crate::under_test::Server;

const BODY: &[u8] =
    br#"{"id": 7, "customer": "k-1234", "items": [{"sku": "a-1", "n": 2}], "note": "a body of about 100 bytes"}"#;
pub(crate) async fn measure(server: &Server, scale: &Scale) -> anyhow::Result<()> {
    let cycle = Cycle::new(server).await?;
    let (store, pool) = (cycle.store(), cycle.pool());
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
        ours.push(publish(store, scale.span).await?);
        reference.push(insert(pool, scale.span).await?);
        cycle.purge().await?;
    }
    row("published 1,000 at a time (reference: a bare insert of 1,000 rows)", &ours, &reference);
    let (mut ours, mut tens, mut reference) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..scale.rounds {
        ours.push(cycle.messages(QUEUE, message(), 2000).await?);
        reference.push(bare_loop(pool, 2000).await?);
        tens.push(cycle.messages(TENS, message(), 2000).await?);
    }
    for (a_call, ours) in [("one", &ours), ("ten", &tens)] {
        let what = format!(
            "taken 32 at a time, {a_call} a call, finished and settled, with history (reference: SKIP LOCKED, 32 at a time, rows kept)"
        );
        row(&what, ours, &reference);
    }
    let few = cycle.take_time(message(), 1000).await?;
    let many = cycle.take_time(message(), if scale.rounds > 2 { 1_000_000 } else { 100_000 }).await?;
    for way in [
        Way { batch: 1, at_a_time: 4, in_a_sandbox: 1 },
        Way { batch: 1, at_a_time: 32, in_a_sandbox: 8 },
        Way { batch: 10, at_a_time: 4, in_a_sandbox: 1 },
    ] {
        let (called, queued) = to_python(server, scale, &way).await?;
        let Way { batch, at_a_time, .. } = way;
        let what = format!(
            "published to a warm python function, {batch} a call, {at_a_time} at a time, until all are settled (reference: synchronous calls of it, 16 at a time)"
        );
        row(&what, &queued, &called);
    }
    table::section("Queues: milliseconds to take 32 messages", &["of 1,000 that wait", "of 1,000,000 that wait"]);
    table::row(&[format!("{few:.2}"), format!("{many:.2}")]);
    cycle.end().await
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
        store.publish(&Namespace::default_namespace(), QUEUE, &messages).await?.context("the queue is there")?;
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

/// How messages get to a function.
struct Way {
    /// Messages of a call.
    batch: u32,
    /// Calls at a time.
    at_a_time: u32,
    /// Calls that share a sandbox.
    in_a_sandbox: u32,
}

/// Synchronous calls a second, and messages a second from the publishing to the last settlement.
async fn to_python(server: &Server, scale: &Scale, way: &Way) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let Way { batch, at_a_time, in_a_sandbox } = way;
    let (name, queue) = (format!("queued-{batch}-{at_a_time}"), format!("to-python-{batch}-{at_a_time}"));
    let manifest = format!(
        "schema = 1\nname = \"{name}\"\nruntime = \"python\"\nhandler = \"main.handle\"\nmax_concurrency = {at_a_time}\nconcurrency = {in_a_sandbox}\nmemory = \"64MiB\"\n\
         [[trigger]]\ntype = \"queue\"\nqueue = \"{queue}\"\nmax_in_flight = 1000\nbatch_size = {batch}\n"
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

//! Asynchronous work: taking and finishing no-op work with its row kept, beside a bare `SKIP LOCKED` loop on the same Postgres and npm's
//! `graphile-worker`; and how long it is from being accepted to being started.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::postgres::{PgListener, PgPool};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::Scale;
use crate::ledger::Cycle;
use crate::table::{self, median};
use crate::under_test::Server;

/// A function and how many of its executions may run, each in a sandbox or several in one.
struct Function {
    name: &'static str,
    max_concurrency: u32,
    concurrency: u32,
}

const ALONE: Function = Function { name: "noop", max_concurrency: 4, concurrency: 1 };
/// As many at a time as the bare loop takes.
const SHARED: Function = Function { name: "noop-shared", max_concurrency: 32, concurrency: 8 };

impl Function {
    fn manifest(&self) -> String {
        let Self { name, max_concurrency, concurrency } = self;
        format!(
            "schema = 1\nname = \"{name}\"\nruntime = \"python\"\nhandler = \"main.handle\"\nmax_concurrency = {max_concurrency}\nconcurrency = {concurrency}\nmemory = \"64MiB\"\n"
        )
    }
}

const CODE: &str = "def handle(event, context):\n    return None\n";

/// Rows that the bare loop takes at a time.
const BATCH: i64 = 32;

pub(crate) async fn measure(server: &Server, scale: &Scale) -> anyhow::Result<()> {
    let pool = server.database(6).await?;
    for function in [&ALONE, &SHARED] {
        server.function(&[("function.toml", &function.manifest()), ("main.py", CODE)]).await?;
        server.cli(&["invoke", function.name]).await?;
    }
    bare_table(&pool).await?;
    let jobs = scale.starts * 50;
    let (mut alone, mut shared, mut bare, mut graphile) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (cycle, mut ledger) = (Cycle::new(server).await?, Vec::new());
    for _ in 0..scale.rounds {
        ledger.push(cycle.work_a_second(jobs).await?);
        alone.push(drain(&pool, &ALONE, jobs).await?);
        shared.push(drain(&pool, &SHARED, jobs).await?);
        bare.push(drain_bare(&pool, jobs).await?);
        graphile.extend(drain_graphile(server, jobs).await);
    }
    cycle.end().await?;
    table::section(
        "Asynchronous no-op work, taken and finished, its row kept",
        &["what", "a second", "of the bare loop"],
    );
    let reference = median(&bare);
    for (what, rates) in [
        ("SKIP LOCKED loop in Rust, batches of 32, one connection (reference)", &bare),
        ("runlet's ledger alone, batches of 32, an execution on record, no code", &ledger),
        ("runlet: 4 at a time, each in a sandbox, an execution on record", &alone),
        ("runlet: 32 at a time, 8 in a sandbox, an execution on record", &shared),
        ("graphile-worker with localQueue, its row deleted", &graphile),
    ] {
        if !rates.is_empty() {
            let rate = median(rates);
            table::row(&[what.to_owned(), format!("{rate:.0}"), format!("{:.2}", rate / reference)]);
        }
    }
    let (ours, bare) = (latency(server, &pool, scale.starts).await?, latency_bare(&pool, scale.starts).await?);
    table::section("From accepted to started, one at a time, milliseconds", &["what", "p50", "p99"]);
    for (what, mut values) in
        [("SKIP LOCKED loop with LISTEN (reference)", bare), ("runlet: the code has the event", ours)]
    {
        values.sort_by(f64::total_cmp);
        let at = |part: f64| values.get(((values.len() as f64 * part) as usize).min(values.len() - 1)).copied();
        let show = |part: f64| at(part).map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        table::row(&[what.to_owned(), show(0.5), show(0.99)]);
    }
    sqlx::query("DROP TABLE bench_jobs").execute(&pool).await?;
    pool.close().await;
    Ok(())
}

/// Puts work into the queue that is due at one moment, and says how much of it is taken and finished in a second from there on.
async fn drain(pool: &PgPool, function: &Function, jobs: usize) -> anyhow::Result<f64> {
    let ids: Vec<Uuid> = (0..jobs).map(|_| Uuid::now_v7()).collect();
    let mut tx = pool.begin().await?;
    let Function { name, max_concurrency, .. } = function;
    let revision = format!("SELECT revision FROM functions WHERE name = '{name}'");
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "INSERT INTO invocations (id, namespace, function, revision, cause_kind, cause, state, attempts, executions, payload, payload_size, created_at)
         SELECT id, 'default', '{name}', ({revision}), 'http', '{{\"kind\": \"http\"}}', 'queued', 0, '{{}}', '', 0, now() FROM unnest($1::uuid[]) AS id"
    )))
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "INSERT INTO queue (invocation, namespace, function, revision, cause_kind, reset, on_lost, max_concurrency, memory, priority, not_before)
         SELECT id, 'default', '{name}', ({revision}), 'http', 'warm', 'retry', {max_concurrency}, 67108864, 0, now() FROM unnest($1::uuid[]) AS id"
    )))
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    sqlx::query("NOTIFY runlet, 'work'").execute(&mut *tx).await?;
    tx.commit().await?;
    let begin = Instant::now();
    loop {
        // A probe of the index for the last one, while that is there: to count what is left would be work for the same Postgres.
        let last = sqlx::query_scalar("SELECT EXISTS (SELECT FROM queue WHERE invocation = $1)").bind(ids.last());
        if !last.fetch_one(pool).await? {
            let left: i64 = sqlx::query_scalar("SELECT count(*) FROM queue").fetch_one(pool).await?;
            if left == 0 {
                return Ok(jobs as f64 / begin.elapsed().as_secs_f64());
            }
        }
        anyhow::ensure!(begin.elapsed() < Duration::from_secs(120), "some of {jobs} are left after two minutes");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn bare_table(pool: &PgPool) -> anyhow::Result<()> {
    for statement in [
        "CREATE TABLE bench_jobs (id bigserial PRIMARY KEY, state text NOT NULL DEFAULT 'queued', payload bytea NOT NULL DEFAULT '',
             run_at timestamptz NOT NULL DEFAULT now(), started_at timestamptz, finished_at timestamptz)",
        "CREATE INDEX bench_jobs_due ON bench_jobs (run_at, id) WHERE state = 'queued'",
    ] {
        sqlx::query(statement).execute(pool).await?;
    }
    Ok(())
}

async fn take_bare(pool: &PgPool) -> anyhow::Result<Vec<i64>> {
    let taken = sqlx::query_scalar(
        "WITH due AS (SELECT id FROM bench_jobs WHERE state = 'queued' AND run_at <= now() ORDER BY run_at, id LIMIT $1 FOR UPDATE SKIP LOCKED)
         UPDATE bench_jobs j SET state = 'running', started_at = clock_timestamp() FROM due WHERE j.id = due.id RETURNING j.id",
    );
    Ok(taken.bind(BATCH).fetch_all(pool).await?)
}

async fn finish_bare(pool: &PgPool, ids: &[i64]) -> anyhow::Result<()> {
    let done = "UPDATE bench_jobs SET state = 'done', finished_at = clock_timestamp() WHERE id = ANY($1)";
    sqlx::query(done).bind(ids).execute(pool).await?;
    Ok(())
}

async fn drain_bare(pool: &PgPool, jobs: usize) -> anyhow::Result<f64> {
    sqlx::query("INSERT INTO bench_jobs (state) SELECT 'queued' FROM generate_series(1, $1)")
        .bind(i64::try_from(jobs)?)
        .execute(pool)
        .await?;
    let begin = Instant::now();
    loop {
        let taken = take_bare(pool).await?;
        if taken.is_empty() {
            return Ok(jobs as f64 / begin.elapsed().as_secs_f64());
        }
        finish_bare(pool, &taken).await?;
    }
}

/// The rate that `tests/bench/graphile.mjs` reports; `None` where its package is not installed.
async fn drain_graphile(server: &Server, jobs: usize) -> Option<f64> {
    let packages = std::env::var("RUNLET_BENCH_PEERS").ok()?;
    let output = Command::new("node")
        .arg(format!("{packages}/graphile.mjs"))
        .arg(jobs.to_string())
        .arg(server.socket().ok()?)
        .output()
        .await
        .ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next_back()?.trim().parse().ok()
}

/// Milliseconds from being accepted to being started, one after the other.
async fn latency(server: &Server, pool: &PgPool, count: usize) -> anyhow::Result<Vec<f64>> {
    let since: chrono::DateTime<chrono::Utc> = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(pool).await?;
    let mut call = server.call(ALONE.name, "{}");
    call.headers.push(("prefer".to_owned(), "respond-async".to_owned()));
    call.expect = hyper::StatusCode::ACCEPTED;
    let mut sender = call.connect().await?;
    let query = "SELECT (extract(epoch FROM x.started_at - i.created_at) * 1000)::float8 FROM executions x JOIN invocations i ON i.id = x.invocation
                 WHERE x.function = 'noop' AND i.created_at >= $1 AND x.finished_at IS NOT NULL AND x.started_at IS NOT NULL";
    let mut values: Vec<f64> = Vec::new();
    for number in 1..=count {
        let begin = Instant::now();
        call.once(&mut sender, 0).await?;
        // One at a time, as the loop does it; and it is not asked for while it starts.
        while values.len() < number {
            anyhow::ensure!(begin.elapsed() < Duration::from_secs(30), "{} of {number} have started", values.len());
            sleep(Duration::from_millis(5)).await;
            values = sqlx::query_scalar(query).bind(since).fetch_all(pool).await?;
        }
    }
    Ok(values)
}

async fn latency_bare(pool: &PgPool, count: usize) -> anyhow::Result<Vec<f64>> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen("bench_jobs").await?;
    let mut values = Vec::new();
    for _ in 0..count {
        let begin = Instant::now();
        let adding = async {
            let mut tx = pool.begin().await?;
            sqlx::query("INSERT INTO bench_jobs (state) VALUES ('queued')").execute(&mut *tx).await?;
            sqlx::query("NOTIFY bench_jobs").execute(&mut *tx).await?;
            tx.commit().await?;
            anyhow::Ok(())
        };
        adding.await?;
        timeout(Duration::from_secs(5), listener.recv()).await.context("no notification came")??;
        let taken = take_bare(pool).await?;
        values.push(begin.elapsed().as_secs_f64() * 1000.0);
        finish_bare(pool, &taken).await?;
    }
    Ok(values)
}

//! Schedules: how late the first start is, a thousand due at once, beside Debian's cron with as many jobs.

use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgPool;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::Scale;
use crate::table::{self, median};
use crate::under_test::Server;

mod debian;

const CODE: &str = "def handle(event, context):\n    return None\n";

/// Triggers that are due at once.
const MANY: usize = 1000;

/// Of a burst, so many run at a time, and so many of them in one sandbox.
const AT_A_TIME: u32 = 32;
const IN_A_SANDBOX: u32 = 8;

fn manifest(name: &str, triggers: usize, schedule: &str) -> String {
    let trigger =
        format!("[[trigger]]\ntype = \"cron\"\nschedule = \"{schedule}\"\nseconds = true\noverlap = \"allow\"\n");
    format!(
        "schema = 1\nname = \"{name}\"\nruntime = \"python\"\nhandler = \"main.handle\"\nmax_concurrency = {AT_A_TIME}\nconcurrency = {IN_A_SANDBOX}\nmemory = \"64MiB\"\n{}",
        trigger.repeat(triggers)
    )
}

pub(crate) async fn measure(server: &Server, scale: &Scale) -> anyhow::Result<()> {
    let pool = server.database(1).await?;
    let single = one_a_second(server, &pool, scale).await?;
    let bursts = bursts(server, &pool, scale).await?;
    pool.close().await;
    let cron = debian::measure(MANY).await;
    table::section(
        "Schedules: milliseconds after the due instant",
        &["what", "runlet p50", "runlet worst", "Debian's cron"],
    );
    let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    let (one, many) = cron.map_or((None, None), |(one, many)| (Some(one), Some(many)));
    let row = |what: &str, values: &[f64], reference: Option<f64>| {
        let worst = values.iter().copied().fold(f64::NAN, f64::max);
        table::row(&[what.to_owned(), show(Some(median(values))), show(Some(worst)), show(reference)]);
    };
    row("first start, one trigger a second, warm", &single, one);
    row("1,000 due at once: durably queued", &bursts.iter().map(|burst| burst.queued).collect::<Vec<_>>(), None);
    row("1,000 due at once: first start", &bursts.iter().map(|burst| burst.first).collect::<Vec<_>>(), None);
    row(
        &format!("1,000 due at once: last start, {AT_A_TIME} at a time, {IN_A_SANDBOX} in a sandbox"),
        &bursts.iter().map(|burst| burst.last).collect::<Vec<_>>(),
        many,
    );
    Ok(())
}

/// Starts of a trigger that fires each second, after the instant that the schedule names.
async fn one_a_second(server: &Server, pool: &PgPool, scale: &Scale) -> anyhow::Result<Vec<f64>> {
    server.function(&[("function.toml", &manifest("second", 1, "* * * * * *")), ("main.py", CODE)]).await?;
    let wanted = scale.rounds * 4 + 2;
    sleep(Duration::from_secs(u64::try_from(wanted)? + 2)).await;
    server.cli(&["rm", "second"]).await?;
    let late: Vec<f64> = sqlx::query_scalar(
        "SELECT (extract(epoch FROM x.started_at) - extract(epoch FROM (convert_from(i.payload, 'UTF8')::json->>'fires_at')::timestamptz))::float8 * 1000
         FROM executions x JOIN invocations i ON i.id = x.invocation
         WHERE x.function = 'second' AND x.started_at IS NOT NULL ORDER BY x.id",
    )
    .fetch_all(pool)
    .await?;
    // The first one makes the sandbox.
    late.get(1..).filter(|late| !late.is_empty()).map(<[f64]>::to_vec).context("no tick ran")
}

struct Burst {
    queued: f64,
    first: f64,
    last: f64,
}

/// A thousand triggers that are due at the same instants, ten seconds apart.
async fn bursts(server: &Server, pool: &PgPool, scale: &Scale) -> anyhow::Result<Vec<Burst>> {
    server.function(&[("function.toml", &manifest("burst", MANY, "*/10 * * * * *")), ("main.py", CODE)]).await?;
    let mut bursts = Vec::new();
    for round in 0..=scale.rounds {
        let burst = burst(pool).await?;
        // The first one makes the sandboxes and the plans.
        if round > 0 {
            bursts.push(burst);
        }
    }
    server.cli(&["rm", "burst"]).await?;
    Ok(bursts)
}

async fn burst(pool: &PgPool) -> anyhow::Result<Burst> {
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(pool).await?;
    let due = DateTime::from_timestamp((now.timestamp() / 10 + 1) * 10, 0).context("a moment")?;
    let at = Instant::now() + (due - now).to_std()?;
    sleep_until(at).await;
    // Whoever sees the rows sees what is committed, and on disk. To look must not cost what is measured: ids are made after the instant.
    let least = Uuid::from_u128(u128::try_from(due.timestamp_millis())? << 80);
    let queued = loop {
        let (ticks, seen): (i64, DateTime<Utc>) = sqlx::query_as(
            "SELECT count(*), clock_timestamp() FROM invocations WHERE id >= $1 AND cause_kind = 'cron'",
        )
        .bind(least)
        .fetch_one(pool)
        .await?;
        if ticks == i64::try_from(MANY)? {
            break seen;
        }
        anyhow::ensure!(at.elapsed() < Duration::from_secs(30), "{ticks} of {MANY} ticks after 30 s");
        sleep(Duration::from_millis(1)).await;
    };
    let starts = "SELECT count(*), min(started_at), max(started_at) FROM executions WHERE function = 'burst' AND created_at >= $1";
    let (first, last) = loop {
        let (ran, first, last): (i64, Option<DateTime<Utc>>, Option<DateTime<Utc>>) =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("{starts} AND outcome IS NOT NULL")))
                .bind(due)
                .fetch_one(pool)
                .await?;
        if let (Some(first), Some(last), true) = (first, last, ran >= i64::try_from(MANY)?) {
            break (first, last);
        }
        anyhow::ensure!(at.elapsed() < Duration::from_secs(60), "{ran} of {MANY} ran after a minute");
        sleep(Duration::from_millis(20)).await;
    };
    let after = |moment: DateTime<Utc>| (moment - due).as_seconds_f64() * 1000.0;
    Ok(Burst { queued: after(queued), first: after(first), last: after(last) })
}

//! Webhooks verified and committed before the 202, against one row a commit on the same Postgres.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::StatusCode;
use sha2::Sha256;

use crate::Scale;
use crate::load::Target;
use crate::table::{self, median};
use crate::under_test::{SECRET, Server};

const PUSH: &str = include_str!("../fixtures/webhooks/github/push.json");

fn target(server: &Server) -> anyhow::Result<Target> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes())?;
    mac.update(PUSH.as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Target {
        address: server.address,
        path: "/hooks/default/bench".to_owned(),
        headers: vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("x-github-event".to_owned(), "push".to_owned()),
            ("x-hub-signature-256".to_owned(), format!("sha256={hex}")),
        ],
        body: Bytes::from_static(PUSH.as_bytes()),
        expect: StatusCode::ACCEPTED,
        unique: Some("x-github-delivery"),
    })
}

/// Inserts one row a commit over `connections` connections into the server's own Postgres; rows a second.
async fn rows(server: &Server, connections: usize, span: Duration) -> anyhow::Result<f64> {
    let pool = server.database(u32::try_from(connections)?).await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS bench_rows (id bigserial PRIMARY KEY, body bytea, at timestamptz DEFAULT now())",
    )
    .execute(&pool)
    .await?;
    let mut tasks = tokio::task::JoinSet::new();
    let start = Instant::now();
    for _ in 0..connections {
        let pool = pool.clone();
        tasks.spawn(async move {
            let mut connection = pool.acquire().await?;
            let mut rows = 0_u64;
            while start.elapsed() < span {
                sqlx::query("INSERT INTO bench_rows (body) VALUES ($1)")
                    .bind(PUSH.as_bytes())
                    .execute(&mut *connection)
                    .await?;
                rows += 1;
            }
            anyhow::Ok(rows)
        });
    }
    let mut rows = 0;
    while let Some(done) = tasks.join_next().await {
        rows += done??;
    }
    let rate = rows as f64 / start.elapsed().as_secs_f64();
    pool.close().await;
    Ok(rate)
}

pub(crate) async fn measure(server: &Server, scale: &Scale) -> anyhow::Result<()> {
    let target = Arc::new(target(server)?);
    table::section(
        "Webhook: GitHub push (7 kB), verified and committed before the 202",
        &["c", "deliveries/s", "p50 ms", "p99 ms", "one row a commit, rows/s", "ratio"],
    );
    for connections in [1, 16] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..scale.rounds {
            if round % 2 == 0 {
                theirs.push(rows(server, connections, scale.span).await?);
                ours.push(target.run(connections, scale.span).await?);
            } else {
                ours.push(target.run(connections, scale.span).await?);
                theirs.push(rows(server, connections, scale.span).await?);
            }
        }
        let of = |get: fn(&crate::load::Run) -> f64| median(&ours.iter().map(get).collect::<Vec<_>>());
        let (rate, reference) = (of(|run| run.per_second), median(&theirs));
        table::row(&[
            connections.to_string(),
            format!("{rate:.0}"),
            format!("{:.2}", of(|run| run.p50_ms)),
            format!("{:.2}", of(|run| run.p99_ms)),
            format!("{reference:.0}"),
            format!("{:.2}", rate / reference),
        ]);
    }
    Ok(())
}

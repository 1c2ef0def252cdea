//! `make bench`: runlet beside its references, interleaved in one run, medians of rounds.
//!
//! Absolute figures move with the machine and its neighbours; the ratios inside one run are what counts.

#![expect(clippy::print_stdout, reason = "tables are what it is for")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]

mod asynchronous;
mod ci;
mod cold;
mod cron;
mod functions;
mod ledger;
mod load;
mod process;
mod queue;
mod reference;
mod stem;
mod table;
mod under_test;
mod warm;
mod webhook;

use std::time::Duration;

use reference::Language;

/// How much to measure.
struct Scale {
    rounds: usize,
    span: Duration,
    starts: usize,
}

fn main() -> anyhow::Result<()> {
    let role = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // Cargo hands `--bench` to every benchmark.
    match role.as_str() {
        "reference" => {
            let language = std::env::args().nth(2).and_then(|name| Language::named(&name));
            runtime.block_on(reference::serve(language.unwrap_or(Language::Python)))
        }
        _ => {
            let quick = std::env::var_os("RUNLET_BENCH_QUICK").is_some();
            let scale = if quick {
                Scale { rounds: 2, span: Duration::from_millis(500), starts: 10 }
            } else {
                Scale { rounds: 5, span: Duration::from_secs(1), starts: 40 }
            };
            runtime.block_on(all(&scale))
        }
    }
}

async fn all(scale: &Scale) -> anyhow::Result<()> {
    let server = under_test::Server::start().await?;
    let measured = measure(&server, scale).await;
    server.stop().await?;
    measured
}

async fn measure(server: &under_test::Server, scale: &Scale) -> anyhow::Result<()> {
    // `RUNLET_BENCH_ONLY=python,cold` leaves the other parts out.
    let only = std::env::var("RUNLET_BENCH_ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|word| word == part);
    table::heading();
    server.stems_are_there().await?;
    // The server gives back what only its start needed a few seconds after it.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let idle = server.memory()?;
    for language in [Language::Python, Language::Node] {
        if wanted(language.name()) {
            warm::measure(server, scale, language).await?;
        }
    }
    if wanted("cold") {
        cold::measure(server, scale).await?;
    }
    if wanted("stem") {
        stem::measure(server, scale).await?;
    }
    if wanted("ci") {
        ci::measure(server, scale).await?;
    }
    if wanted("webhook") {
        webhook::measure(server, scale).await?;
    }
    if wanted("async") {
        asynchronous::measure(server, scale).await?;
    }
    if wanted("cron") {
        cron::measure(server, scale).await?;
    }
    if wanted("queue") {
        queue::measure(server, scale).await?;
    }
    table::memory("idle, before the first call, with what is started ahead", &idle);
    table::memory("after all of the above, with its warm sandboxes", &server.memory()?);
    if wanted("functions") {
        functions::measure(server, scale).await?;
    }
    Ok(())
}

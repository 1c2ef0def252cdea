//! Sandboxes that are started ahead: the first call of functions that never ran, one after the other and ten at once; fresh starts
//! four at a time, beside crun; calls in a fork.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::task::JoinSet;

use crate::Scale;
use crate::cold;
use crate::table::{self, median};
use crate::under_test::{STEMS, Server};

/// Functions that are called for the first time at the same time.
const AT_ONCE: usize = 10;
/// Starts at a time.
const LANES: usize = 4;

fn manifest(name: &str, rest: &str) -> String {
    format!("schema = 1\nname = \"{name}\"\nruntime = \"python\"\nhandler = \"main.handle\"\n{rest}")
}

async fn deploy(server: &Server, name: &str, rest: &str) -> anyhow::Result<()> {
    let code = format!("def handle(event, context):\n    return event, \"{name}\"\n");
    server.function(&[("function.toml", &manifest(name, rest)), ("main.py", &code)]).await
}

pub(crate) async fn measure(server: &Server, scale: &Scale) -> anyhow::Result<()> {
    table::section("Started ahead", &["what", "figure"]);
    table::row(&["pool (python, node, exec)".to_owned(), format!("{STEMS:?}")]);
    let mut first = Vec::new();
    for number in 0..scale.starts {
        let name = format!("never-{number}");
        deploy(server, &name, "").await?;
        server.stems_are_there().await?;
        let target = server.call(&name, "1");
        let mut sender = target.connect().await?;
        let start = Instant::now();
        target.once(&mut sender, 0).await?;
        first.push(start.elapsed().as_secs_f64() * 1e3);
    }
    table::row(&["first call of a python function, p50 ms".to_owned(), format!("{:.1}", median(&first))]);
    let mut last = Vec::new();
    for round in 0..scale.rounds {
        last.push(at_once(server, round).await?);
    }
    let what = format!("{AT_ONCE} python functions called first at once, until the last answer, median of rounds, ms");
    table::row(&[what, format!("{:.1}", median(&last))]);
    deploy(server, "forks", "reset = \"fork\"\n").await?;
    let forks = Arc::new(server.call("forks", "1"));
    forks.run(1, Duration::from_millis(300)).await?;
    let mut times = Vec::new();
    for _ in 0..scale.rounds {
        times.push(forks.run(1, scale.span).await?.p50_ms);
    }
    table::row(&[
        "call of a python function with reset = \"fork\", one at a time, p50 ms".to_owned(),
        format!("{:.2}", median(&times)),
    ]);
    starts(server, scale).await
}

/// Milliseconds until all of them have answered.
async fn at_once(server: &Server, round: usize) -> anyhow::Result<f64> {
    let mut ready = Vec::new();
    for number in 0..AT_ONCE {
        let name = format!("crowd-{round}-{number}");
        deploy(server, &name, "").await?;
        let target = server.call(&name, "1");
        let sender = target.connect().await?;
        ready.push((target, sender));
    }
    server.stems_are_there().await?;
    let start = Instant::now();
    let mut calls = JoinSet::new();
    for (target, mut sender) in ready {
        calls.spawn(async move { target.once(&mut sender, 0).await });
    }
    while let Some(done) = calls.join_next().await {
        done??;
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Starts a second with four at a time: ours over HTTP, and those of crun.
async fn starts(server: &Server, scale: &Scale) -> anyhow::Result<()> {
    let target = Arc::new(server.call("true", ""));
    let directory = tempfile::tempdir()?;
    let crun = cold::on_path("crun");
    if crun {
        cold::bundle(directory.path(), &["/usr/bin/true"])?;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..scale.rounds {
        ours.push(target.run(LANES, scale.span).await?.per_second);
        if crun {
            let argv = cold::wrapped(&["crun", "run", "-b", &directory.path().to_string_lossy(), "ID"]);
            theirs.push(commands(&argv, round, scale.span).await?);
        }
    }
    let what = format!("fresh `true`, {LANES} at a time, starts/s");
    table::row(&[what.clone(), format!("{:.0}", median(&ours))]);
    if crun {
        table::row(&[format!("{what}: crun"), format!("{:.0}", median(&theirs))]);
    }
    Ok(())
}

async fn commands(argv: &[String], round: usize, span: Duration) -> anyhow::Result<f64> {
    let start = Instant::now();
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let argv = argv.to_vec();
        lanes.spawn(async move {
            let mut count = 0_usize;
            while start.elapsed() < span {
                let id = format!("bench-{}-{round}-{lane}-{count}", std::process::id());
                let argv: Vec<&str> = argv.iter().map(|part| if part == "ID" { &id } else { part.as_str() }).collect();
                let status = Command::new(argv[0]).args(&argv[1..]).stdin(std::process::Stdio::null()).status().await?;
                anyhow::ensure!(status.success(), "{argv:?}: {status}");
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0;
    while let Some(done) = lanes.join_next().await {
        count += done??;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

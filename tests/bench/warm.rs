//! Warm echo over HTTP, Python and Node.

use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use hyper::StatusCode;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::Scale;
use crate::load::{Run, Target};
use crate::process::cpu_us;
use crate::reference::Language;
use crate::table::{self, median};
use crate::under_test::Server;

/// 100 bytes of JSON.
const EVENT: &str =
    r#"{"repository":"octo/hello","ref":"refs/heads/main","commits":[{"id":"0123456789abcdef","n":1}],"x":1}"#;

async fn reference(language: Language) -> anyhow::Result<(Child, Target)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["reference", language.name()])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("its stdout")?).lines();
    let address = lines.next_line().await?.context("the reference did not start")?.parse()?;
    let target = Target {
        address,
        path: "/echo".to_owned(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: Bytes::from_static(EVENT.as_bytes()),
        expect: StatusCode::OK,
        unique: None,
    };
    Ok((child, target))
}

struct Contender {
    name: String,
    target: Arc<Target>,
    pid: u32,
    runs: Vec<(Run, f64)>,
}

impl Contender {
    async fn round(&mut self, connections: usize, scale: &Scale) -> anyhow::Result<()> {
        let before = cpu_us(self.pid);
        let run = self.target.run(connections, scale.span).await?;
        self.runs.push((run, (cpu_us(self.pid) - before) / run.requests as f64));
        Ok(())
    }

    fn median(&self, of: impl Fn(&(Run, f64)) -> f64) -> f64 {
        median(&self.runs.iter().map(of).collect::<Vec<_>>())
    }
}

pub(crate) async fn measure(server: &Server, scale: &Scale, language: Language) -> anyhow::Result<()> {
    let (child, target) = reference(language).await?;
    let pid = child.id().context("the reference has a pid")?;
    table::section(
        &format!("Warm {} echo over HTTP, 100 B of JSON", language.name()),
        &["target", "c", "req/s", "p50 ms", "p99 ms", "CPU us a call", "of the reference"],
    );
    let (target, called) = (Arc::new(target), Arc::new(server.call(&format!("echo-{}", language.name()), EVENT)));
    called.run(4, scale.span).await.context("warm up")?;
    for connections in [1, 16, 64] {
        let mut contenders = [
            Contender {
                name: format!("warp + 4 {} sockets (reference)", language.name()),
                target: target.clone(),
                pid,
                runs: Vec::new(),
            },
            Contender {
                name: "runlet: isolated, in the spool before the answer".to_owned(),
                target: called.clone(),
                pid: server.pid(),
                runs: Vec::new(),
            },
        ];
        for round in 0..scale.rounds {
            // The order is turned round by round, so that none always has the warmer machine.
            for step in 0..contenders.len() {
                let index = (round + step) % contenders.len();
                if let Some(contender) = contenders.get_mut(index) {
                    contender.round(connections, scale).await?;
                }
            }
        }
        let reference = contenders[0].median(|(run, _)| run.per_second);
        for contender in &contenders {
            let rate = contender.median(|(run, _)| run.per_second);
            table::row(&[
                contender.name.clone(),
                connections.to_string(),
                format!("{rate:.0}"),
                format!("{:.2}", contender.median(|(run, _)| run.p50_ms)),
                format!("{:.2}", contender.median(|(run, _)| run.p99_ms)),
                format!("{:.0}", contender.median(|(_, cpu)| *cpu)),
                format!("{:.2}", rate / reference),
            ]);
        }
    }
    Ok(())
}

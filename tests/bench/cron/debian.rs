//! Debian's cron with one job and with many, in mount namespaces of their own, so that no other crontab of the machine is in play.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::sleep;

/// Milliseconds after the minute of the first start of one job, and of the last start of `many`; `None` where there is no cron.
pub(crate) async fn measure(many: usize) -> Option<(f64, f64)> {
    let one = run(1).await.ok()??;
    let all = run(many).await.ok()??;
    Some((one.first, all.last))
}

struct Starts {
    first: f64,
    last: f64,
}

async fn run(jobs: usize) -> anyhow::Result<Option<Starts>> {
    let dir = tempfile::tempdir()?;
    let (table, out) = (dir.path().join("table"), dir.path().join("out"));
    std::fs::create_dir(&out)?;
    let job = |nth: usize| format!("* * * * * root /bin/date +\\%s.\\%N >{}/{nth}.$$\n", out.display());
    let jobs_text: String = (0..jobs).map(job).collect();
    std::fs::write(&table, format!("MAILTO=\"\"\n{jobs_text}"))?;
    let script = format!(
        "mount -t tmpfs none /etc/cron.d && mount -t tmpfs none /var/spool/cron && mkdir /var/spool/cron/crontabs && \
         mount --bind /dev/null /etc/crontab && mount -t tmpfs none /run && cp {} /etc/cron.d/bench && chmod 644 /etc/cron.d/bench && exec cron -f",
        table.display()
    );
    let child = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let starts = watch(child, &out, jobs).await?;
    Ok(starts)
}

/// Waits for the first minute that begins, and reads when its jobs started.
async fn watch(mut child: Child, out: &std::path::Path, jobs: usize) -> anyhow::Result<Option<Starts>> {
    for _ in 0..200 {
        sleep(Duration::from_secs(1)).await;
        if child.try_wait()?.is_some() {
            return Ok(None);
        }
        let mut starts: Vec<f64> = Vec::new();
        for entry in std::fs::read_dir(out)?.flatten() {
            starts.extend(std::fs::read_to_string(entry.path())?.trim().parse::<f64>());
        }
        if starts.len() >= jobs {
            child.kill().await?;
            let seconds = |start: &f64| start % 60.0 * 1000.0;
            let first = starts.iter().map(seconds).fold(f64::INFINITY, f64::min);
            return Ok(Some(Starts { first, last: starts.iter().map(seconds).fold(0.0, f64::max) }));
        }
    }
    child.kill().await?;
    Ok(None)
}

//! What functions cost that are deployed and not called: processes and memory of the server.

use std::time::Duration;

use crate::Scale;
use crate::table;
use crate::under_test::Server;

/// Resident memory of server and zygote, MB, and how many processes there are that are not Postgres'. Those come and go by themselves.
fn seen(server: &Server) -> anyhow::Result<(f64, usize)> {
    let memory = server.memory()?;
    let own = memory.iter().filter(|process| ["runlet", "runlet-zygote"].contains(&process.name.as_str()));
    let others = memory.iter().filter(|process| process.name != "postgres").count();
    Ok((own.map(|process| process.rss_mb).sum(), others))
}

pub(crate) async fn measure(server: &Server, scale: &Scale) -> anyhow::Result<()> {
    let count = if scale.rounds > 2 { 1000 } else { 100 };
    // Sandboxes of the parts before this one cool down meanwhile: at most a minute.
    let mut before = seen(server)?;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = seen(server)?;
        if now.1 == before.1 && (now.0 - before.0).abs() < 0.2 {
            break;
        }
        before = now;
    }
    for n in 0..count {
        let manifest = format!("schema = 1\nname = \"idle-{n}\"\nruntime = \"python\"\nhandler = \"main.handle\"\n");
        let code = format!("def handle(event, context):\n    return {n}\n");
        server.function(&[("function.toml", &manifest), ("main.py", &code)]).await?;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = seen(server)?;
    table::section(
        "Functions that are deployed and not called",
        &["how many", "more processes", "more MB, server and zygote"],
    );
    let processes = after.1.saturating_sub(before.1);
    table::row(&[count.to_string(), processes.to_string(), format!("{:.1}", after.0 - before.0)]);
    Ok(())
}

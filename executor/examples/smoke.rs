use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use runlet_executor::host::{Host, HostOptions, Zygote};
use runlet_executor::host::sandbox::*;
use tokio::io::AsyncReadExt;
fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() == Some("zygote") { return runlet_executor::zygote::main(); }
    let o = HostOptions { run_dir: "/run/runlet-smoke".into(), revisions_dir: "/var/tmp/smoke-rev".into(), cgroup_parent: "/runlet-smoke".into() };
    std::fs::create_dir_all("/var/tmp/smoke-rev").unwrap();
    let z = Zygote::start(&o).unwrap();
    eprintln!("reaped {:?}", z.reaped());
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    rt.block_on(async move {
        let host = Host::new(z).unwrap();
        let req = SandboxRequest { namespace: "default".parse().unwrap(), revision: None, runtime: runlet_core::manifest::RuntimeKind::Exec, limits: Default::default() };
        let script = std::env::args().nth(1).unwrap_or("id; cat /proc/self/status | grep -E 'Cap|Secc|NoNew'; ps aux; ls -la / /tmp /dev /etc; cat /proc/self/cgroup; echo; ip a; echo err >&2; exit 3".into());
        let n: u32 = std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(1);
        let mut times = vec![];
        for i in 0..n {
            let t = Instant::now();
            let s = host.create(req.clone()).await.unwrap();
            let created = t.elapsed();
            s.arm(Some(Instant::now() + Duration::from_secs(5)));
            let env = BTreeMap::from([("PATH".to_string(), "/usr/bin:/bin:/usr/sbin".to_string())]);
            let mut p = s.spawn(ProcessSpec { argv: vec!["sh".into(), "-c".into(), script.clone()], env, cwd: "/".into(), stdin: false, channel: false, files: vec![("/tmp/x".into(), "hello".into())] }).await.unwrap();
            let spawned = t.elapsed();
            let (mut out, mut err) = (vec![], vec![]);
            p.stdout.read_to_end(&mut out).await.unwrap();
            p.stderr.read_to_end(&mut err).await.unwrap();
            let end = p.end.await;
            let ended = t.elapsed();
            if i == 0 { println!("{}\n--\n{}\n{:?}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&err), end); }
            s.kill();
            let g = s.gone(Duration::from_secs(5)).await;
            if i == 0 { println!("{g:?}"); }
            times.push((created, spawned, ended, t.elapsed()));
        }
        times.sort_by_key(|t| t.3);
        println!("p50 created {:?} spawned {:?} ended {:?} gone {:?}", times[times.len()/2].0, times[times.len()/2].1, times[times.len()/2].2, times[times.len()/2].3);
        host.drained().await; host.close().await;
    });
    std::process::ExitCode::SUCCESS
}

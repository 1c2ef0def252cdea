//! The executor alone, without server and database: what a sandbox is on this host, step by step, as rows of a table.
//!
//! Made for hosts that have nothing but a kernel and a shell: `make verify-v2` runs it as the only program of a virtual machine with
//! pure cgroup v2. It runs anywhere as root: `cargo run --example smoke`.

#![expect(clippy::print_stdout, reason = "its rows are what it is for")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use runlet_core::engine::Network;
use runlet_core::limits::Limits;
use runlet_core::manifest::RuntimeKind;
use runlet_core::name::Namespace;
use runlet_core::unit::ByteSize;
use runlet_executor::host::sandbox::{EndCause, ProcessEnd, ProcessSpec, Sandbox, SandboxEnd, SandboxRequest};
use runlet_executor::host::{Host, HostOptions, Zygote};
use tokio::io::AsyncReadExt as _;

const PARENT: &str = "/runlet-smoke";
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|role| role == "zygote") {
        return runlet_executor::zygote::main();
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let dir = PathBuf::from("/run/runlet-smoke");
    let options = HostOptions {
        run_dir: dir.join("run"),
        revisions_dir: dir.join("revisions"),
        cgroup_parent: PARENT.to_owned(),
        work_dir: dir.join("work"),
        host_network: false,
    };
    std::fs::create_dir_all(&options.revisions_dir).map_err(|error| error.to_string())?;
    // Before the runtime: the zygote is forked by a process with one thread.
    let zygote = Zygote::start(&options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let host = Host::new(zygote).map_err(|error| error.to_string())?;
        let checked = check(&host).await;
        host.drained().await;
        host.close().await;
        checked?;
        row("no cgroup is left", !cgroup("").exists(), PARENT)
    })
}

async fn check(host: &Host) -> Result<(), String> {
    println!("| what | how it was | |\n|---|---|---|");
    create_and_limits(host).await?;
    bill(host).await?;
    pids(host).await?;
    oom(host).await?;
    deadline(host).await?;
    daemon(host).await
}

/// The cgroup of a sandbox, in the v2 hierarchy or in that of v1's memory.
fn cgroup(name: &str) -> PathBuf {
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let root = if v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
    PathBuf::from(format!("{root}{PARENT}")).join(name)
}

/// A row of the table; a thing that is not as it must be ends the run.
fn row(what: &str, is: bool, how: impl std::fmt::Display) -> Result<(), String> {
    println!("| {what} | {how} | {} |", if is { "ok" } else { "**WRONG**" });
    if is { Ok(()) } else { Err(format!("{what}: {how}")) }
}

fn limits() -> Limits {
    Limits { memory: ByteSize::mib(64), pids: 20, cpu: 0.5, tmp: ByteSize::mib(8), ..Limits::default() }
}

async fn sandbox(host: &Host) -> Result<Sandbox, String> {
    let namespace = Namespace::default_namespace();
    let request = SandboxRequest {
        namespace,
        revision: None,
        runtime: RuntimeKind::Exec,
        limits: limits(),
        network: Network::None,
        work: false,
        cache: None,
    };
    host.create(request).await.map_err(|error| error.to_string())
}

/// Runs a shell script in it; its end and its output.
async fn shell(sandbox: &Sandbox, script: &str) -> Result<(ProcessEnd, String), String> {
    let spec = ProcessSpec {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        cwd: "/tmp".to_owned(),
        stdin: false,
        channel: false,
        files: Vec::new(),
    };
    let mut process = sandbox.spawn(spec).await.map_err(|error| error.to_string())?;
    let mut output = String::new();
    let read = async {
        let _ = process.stdout.read_to_string(&mut output).await;
        process.end.await.unwrap_or(ProcessEnd::SandboxGone)
    };
    let end = tokio::time::timeout(PATIENCE, read).await.map_err(|_| format!("`{script}` does not end"))?;
    Ok((end, output.trim().to_owned()))
}

async fn end(sandbox: &Sandbox) -> Result<SandboxEnd, String> {
    sandbox.gone(PATIENCE).await.ok_or_else(|| "the sandbox does not end".to_owned())
}

fn read(name: &str, file: &str) -> String {
    match std::fs::read_to_string(cgroup(name).join(file)) {
        Ok(text) => text.trim().to_owned(),
        Err(error) => error.to_string(),
    }
}

async fn create_and_limits(host: &Host) -> Result<(), String> {
    let start = Instant::now();
    let sandbox = sandbox(host).await?;
    row("create", true, format!("{} ms", start.elapsed().as_millis()))?;
    let (ended, who) = shell(&sandbox, "id -u; echo $$; cat /proc/self/cgroup | wc -l").await?;
    row(
        "a program runs in it, as user 0 of its own",
        ended == ProcessEnd::Exit(0) && who.starts_with("0\n"),
        who.replace('\n', " "),
    )?;
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        for (file, want) in [("memory.max", "67108864"), ("pids.max", "20"), ("cpu.max", "50000 100000")] {
            let is = read(sandbox.name(), file);
            row(file, is == want, &is)?;
        }
        let swap = read(sandbox.name(), "memory.swap.max");
        row("memory.swap.max", swap == "0", &swap)?;
        let resized = sandbox.resize(Limits { memory: ByteSize::mib(96), cpu: 2.0, pids: 30, ..limits() }).await;
        row("resize", resized.is_ok(), format!("{resized:?}"))?;
        for (file, want) in [("memory.max", "100663296"), ("pids.max", "30"), ("cpu.max", "200000 100000")] {
            let is = read(sandbox.name(), file);
            row(&format!("{file} after it"), is == want, &is)?;
        }
    }
    let name = sandbox.name().to_owned();
    sandbox.kill();
    let end = end(&sandbox).await?;
    row("kill", end.cause == EndCause::Killed && end.remains.is_gone(), format!("{:?}", end.remains))?;
    let usage = end.usage;
    row("its bill", usage.cpu_us > Some(0) && usage.memory_peak > Some(0), format!("{usage:?}"))?;
    row("its cgroup is gone", !cgroup(&name).exists(), &name)
}

/// What is read of a sandbox that lives on: the bill of each call is its own.
async fn bill(host: &Host) -> Result<(), String> {
    let sandbox = sandbox(host).await?;
    let begun = sandbox.bill();
    row("a meter runs in a sandbox that lives", begun.cpu_us.is_some(), format!("{begun:?}"))?;
    // What the shell was on a processor, in nanoseconds, as the scheduler says.
    let burn = "n=0; while [ $n -lt 40000 ]; do n=$((n+1)); done; read used rest </proc/self/schedstat; echo $used";
    let (_, said) = shell(&sandbox, burn).await?;
    let used = said.parse::<i64>().unwrap_or(0) / 1000;
    let cpu = sandbox.bill().cpu_us.unwrap_or(0);
    let close = used > 0 && cpu >= used && (cpu - used) * 10 <= used;
    row("a burner's processor time, within 10 %", close, format!("{cpu} us billed, {used} us used"))?;
    shell(&sandbox, "dd if=/dev/zero of=/dev/null bs=20M count=1").await?;
    let large = sandbox.bill().memory_peak;
    row("the peak of one that takes 20 MiB", large >= Some(20 << 20), format!("{large:?}"))?;
    let (_, said) = shell(&sandbox, "echo small").await?;
    let small = sandbox.bill();
    // A kernel before 6.12 cannot forget a peak: then nothing is known of one that set none.
    let own = small.memory_peak.is_none_or(|peak| peak < 20 << 20);
    row(
        "the next one is billed for none of it",
        said == "small" && own && small.cpu_us < Some(cpu),
        format!("{small:?}"),
    )?;
    sandbox.kill();
    let end = end(&sandbox).await?;
    row("and is gone", end.remains.is_gone(), format!("{:?}", end.remains))
}

async fn pids(host: &Host) -> Result<(), String> {
    let sandbox = sandbox(host).await?;
    let script = "n=0; while [ $n -lt 60 ]; do sleep 50 & n=$((n+1)); done 2>/dev/null; echo all";
    let (_, said) = shell(&sandbox, script).await?;
    let current: u32 = read(sandbox.name(), "pids.current").parse().unwrap_or(0);
    row("a fork bomb stops at its limit", said != "all" && current <= 20, format!("{current} processes"))?;
    sandbox.kill();
    let end = end(&sandbox).await?;
    row("and all of it is gone", end.remains.is_gone(), format!("{:?}", end.remains))
}

async fn oom(host: &Host) -> Result<(), String> {
    let sandbox = sandbox(host).await?;
    let (ended, _) = shell(&sandbox, "dd if=/dev/zero of=/dev/null bs=300M count=1; exit 7").await?;
    let killed = sandbox.oom_killed().await;
    row("too much memory is killed by the kernel, and seen", killed, format!("{ended:?}"))?;
    sandbox.kill();
    let end = end(&sandbox).await?;
    row("and is in its record", end.oom && end.remains.is_gone(), format!("{end:?}"))?;
    let within = end.usage.memory_peak <= Some(64 << 20);
    row("its peak is within its limit", within, format!("{:?}", end.usage.memory_peak))
}

async fn deadline(host: &Host) -> Result<(), String> {
    let sandbox = sandbox(host).await?;
    sandbox.arm(Some(Instant::now() + Duration::from_secs(2)));
    let start = Instant::now();
    let (ended, _) = shell(&sandbox, "trap '' TERM INT HUP; while :; do :; done").await?;
    let end = end(&sandbox).await?;
    let took = start.elapsed();
    let in_time = took < Duration::from_secs(10) && end.cause == EndCause::Deadline && end.remains.is_gone();
    row("the deadline ends what ignores every signal", in_time, format!("{ended:?} after {} ms", took.as_millis()))
}

async fn daemon(host: &Host) -> Result<(), String> {
    let sandbox = sandbox(host).await?;
    let (ended, _) = shell(&sandbox, "(setsid sleep 600 >/dev/null 2>&1 &) ; exit 0").await?;
    row("a daemon is left behind in it", ended == ProcessEnd::Exit(0), format!("{ended:?}"))?;
    sandbox.kill();
    let end = end(&sandbox).await?;
    row("and goes with it", end.remains.is_gone(), format!("{:?}", end.remains))
}

//! The private Postgres as a process.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use runlet_core::problem::Code;
use runlet_core::store::Store;
use runlet_core::store::private::{PrivateOptions, PrivatePostgres};

use crate::host::{accept, base, invocation, revision, start_postgres};

const BASE: &str = "RUNLET_STORE_TEST_BASE";

fn options(base: PathBuf) -> PrivateOptions {
    PrivateOptions { base, bin_dir: None }
}

/// Waits until no process of that cluster is left.
fn wait_until_gone(pid: u32) {
    let until = Instant::now() + Duration::from_secs(20);
    let lives = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    while lives(pid) {
        assert!(Instant::now() < until, "Postgres {pid} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Not a test of its own: what the next test starts, to kill it.
#[test]
#[ignore = "started by another test"]
fn helper_that_gets_killed() {
    let base = std::env::var_os(BASE).expect("the other test sets it");
    let postgres = start_postgres(&options(PathBuf::from(base)));
    println!("\npid {}", postgres.pid());
    loop {
        std::thread::park();
    }
}

fn kill_its_server(base: &Path) {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "private::helper_that_gets_killed", "--ignored", "--nocapture"])
        .env(BASE, base)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let pid = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("pid ")?.parse().ok()).expect("it started");
    kill(Pid::from_raw(i32::try_from(server.id()).unwrap()), Signal::SIGKILL).unwrap();
    server.wait().unwrap();
    wait_until_gone(pid);
}

#[test]
fn it_dies_with_its_server_and_starts_again_with_its_data() {
    let options = options(base("killed"));
    kill_its_server(&options.base);
    let postgres = start_postgres(&options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(async {
        let store = Store::open(postgres.connect_options(), 4, "one").await.unwrap();
        store.deploy(revision("f", "")).await.unwrap();
        accept(&store, invocation("f")).await;
        store
    });
    let pid = postgres.pid();
    postgres.stop();
    wait_until_gone(pid);

    let down = runtime.block_on(store.ping(Duration::from_secs(10))).unwrap_err();
    assert_eq!(down.code(), Code::StoreDown, "{down:?}");
    kill_its_server(&options.base);
    let postgres = start_postgres(&options);
    runtime.block_on(async {
        store.ping(Duration::from_secs(10)).await.unwrap();
        assert_eq!(store.queue_depth().await.unwrap(), (1, 0));
        store.close().await;
    });

    // Killed itself, it is replaced even while its lock file is there.
    kill(Pid::from_raw(i32::try_from(postgres.pid()).unwrap()), Signal::SIGKILL).unwrap();
    let again = start_postgres(&options);
    drop(postgres);
    again.stop();
    std::fs::remove_dir_all(&options.base).unwrap();
}

#[test]
fn what_cannot_work_is_explained() {
    if Uid::effective().is_root() {
        let refused = PrivatePostgres::start(&options(base("root"))).unwrap_err().to_string();
        assert!(refused.contains("root"), "{refused}");
        let refused = PrivatePostgres::start_as(&options(base("root")), 0, 0).unwrap_err().to_string();
        assert!(refused.contains("root"), "{refused}");
    }
    let unprivileged =
        |options: &PrivateOptions| PrivatePostgres::start_as(options, 65534, 65534).unwrap_err().to_string();
    let long = base("long").join("x".repeat(100));
    assert!(unprivileged(&options(long)).contains("shorter"));
    let none = PrivateOptions { base: base("none"), bin_dir: Some(PathBuf::from("/")) };
    assert!(unprivileged(&none).contains("no initdb"));
    let old = base("old");
    std::fs::create_dir_all(old.join("pg-9")).unwrap();
    assert!(unprivileged(&options(old)).contains("postgresql-9"));
}

//! A clock that is set, and a server that was away: Debian's `libfaketime` steps the clock of the server and its Postgres.

use std::path::{Path, PathBuf};

use super::super::wait::scaled;
use super::*;

const NOTHING: &str = "def handle(event, context):\n    return None\n";

/// The library; `tests/setup.sh` installs it.
fn library() -> PathBuf {
    let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let all = places.iter().map(|place| Path::new(place).join("faketime/libfaketime.so.1"));
    all.into_iter().find(|path| path.exists()).expect("libfaketime is there: tests/setup.sh install")
}

/// A server whose clock a file sets, by an offset in seconds.
fn with_clock(host: &mut TestHost) -> PathBuf {
    let file = host.scratch().join("offset");
    set(&file, 0);
    let text = file.to_str().expect("ASCII").to_owned();
    host.environment = [
        ("LD_PRELOAD", library().to_str().expect("ASCII").to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", text),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DISABLE_SHM", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    file
}

fn set(file: &Path, seconds: i64) {
    // In one step: the server may read it at any moment, and its user must be able to.
    let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode;
    std::fs::set_permissions(file.parent().expect("it has one"), open(0o755)).expect("it is ours");
    let new = file.with_extension("new");
    std::fs::write(&new, format!("{seconds:+}\n")).expect("it is writable");
    std::fs::set_permissions(&new, open(0o644)).expect("it is ours");
    std::fs::rename(new, file).expect("it is ours");
}

/// Ticks that have more than one invocation.
fn doubles(host: &TestHost) -> String {
    host.psql(
        "SELECT count(*) FROM (SELECT convert_from(payload, 'UTF8')::json->>'fires_at', cause->>'trigger'
         FROM invocations WHERE cause_kind = 'cron' GROUP BY 1, 2 HAVING count(*) > 1) AS d",
    )
}

fn fired(host: &TestHost) -> u64 {
    let all = host.psql("SELECT count(*) FROM invocations WHERE cause_kind = 'cron'");
    all.parse().expect("a number")
}

#[test]
fn a_server_that_was_away_makes_good_for_a_thousand_ticks() {
    let mut host = TestHost::start();
    let all = "overlap = \"allow\"\nbacklog = 10000\nmisfire = \"all\"\nmisfire_limit = 1000\n";
    let pause = "schedule = \"*/10 * * * * *\"\nseconds = true\n";
    let functions = [
        ("all", every_second(all)),
        ("last", every_second(pause)),
        ("none", every_second(&format!("{pause}misfire = \"none\"\n"))),
    ];
    for (name, trigger) in &functions {
        host.python(name, &format!("memory = \"64MiB\"\n{trigger}"), NOTHING);
    }
    host.ticks_of_fate("all", "fired", 2);
    host.stop();
    let file = with_clock(&mut host);
    set(&file, 1200);
    host.restart();
    until("a thousand are made good for", secs(30), || fired(&host) >= 1000);
    let made_good = |function: &str| {
        host.psql(&format!(
            "SELECT count(*) FROM invocations WHERE function = '{function}' AND convert_from(payload, 'UTF8')::json->>'missed' = 'true'"
        ))
    };
    assert_eq!(made_good("all"), "1000");
    assert!(
        ["0", "1"].contains(&made_good("last").as_str()),
        "one stands for all: the last missed one, or the first on time"
    );
    assert_eq!(made_good("none"), "0");
    assert!(host.ticks("none").iter().filter(|tick| tick["fate"] == "missed").count() >= 99);
    assert_eq!(doubles(&host), "0");
    assert!(host.log().contains("ticks were missed"));
    for (name, _) in &functions {
        host.cli(&["rm", name]);
    }
    until("all is over", secs(60), || host.psql("SELECT count(*) FROM queue WHERE lease_until IS NOT NULL") == "0");
    host.finish();
}

#[test]
fn a_clock_that_is_set_an_hour_forward_and_back_fires_each_tick_once() {
    let mut host = TestHost::start();
    host.stop();
    let file = with_clock(&mut host);
    host.restart();
    // Every ten minutes, so that an hour holds six.
    host.python("f", "memory = \"64MiB\"\n[[trigger]]\ntype = \"cron\"\nschedule = \"*/10 * * * *\"\nmisfire = \"all\"\noverlap = \"allow\"\n", NOTHING);
    let cursor = || host.psql("SELECT cursor FROM cron_schedules");
    let before = cursor();
    set(&file, 3600);
    until("the hour is made good for", secs(20), || fired(&host) >= 6);
    let (after, ran) = (cursor(), fired(&host));
    assert!(after > before);
    set(&file, 0);
    // Every second goes on meanwhile: the service looks at the clock as often as it ever does.
    host.python("g", &every_second("overlap = \"allow\"\n"), NOTHING);
    host.ticks_of_fate("g", "fired", scaled(3, 10));
    assert_eq!((cursor_of(&host, "f"), fired_of(&host, "f")), (after, ran), "what was fired stays fired");
    set(&file, 3600);
    host.ticks_of_fate("g", "fired", scaled(5, 20));
    assert!(fired_of(&host, "f") <= ran + 1, "the same hour is no second one");
    assert_eq!(doubles(&host), "0");
    for name in ["f", "g"] {
        host.cli(&["rm", name]);
    }
    until("all is over", secs(60), || host.psql("SELECT count(*) FROM queue WHERE lease_until IS NOT NULL") == "0");
    host.finish();
}

fn cursor_of(host: &TestHost, function: &str) -> String {
    host.psql(&format!(
        "SELECT s.cursor FROM cron_schedules s JOIN triggers t ON t.id = s.trigger WHERE t.function = '{function}'"
    ))
}

fn fired_of(host: &TestHost, function: &str) -> u64 {
    let all =
        host.psql(&format!("SELECT count(*) FROM invocations WHERE cause_kind = 'cron' AND function = '{function}'"));
    all.parse().expect("a number")
}

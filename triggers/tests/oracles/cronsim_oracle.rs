//! `cronsim` from PyPI, in a virtual environment below `target/`: Debian's cron, rule by rule.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use runlet_core::clock::Timestamp;

use super::pattern::{Case, TICKS, cases, scale};
use super::reason::{Table, only_around_changes};

const VERSION: &str = "2.8";

/// Reads `zone|from|schedule` lines and prints the ticks of each, as seconds, on a line.
const PROGRAM: &str = "
import sys
from datetime import datetime, timezone
from itertools import islice
from zoneinfo import ZoneInfo
from cronsim import CronSim
for line in sys.stdin:
    zone, start, count, schedule = line.rstrip('\\n').split('|')
    zone = timezone.utc if zone == 'UTC' else ZoneInfo(zone)
    try:
        ticks = islice(CronSim(schedule, datetime.fromtimestamp(int(start), zone)), int(count))
        print(' '.join(str(int(tick.timestamp())) for tick in ticks))
    except Exception as error:
        print('!', type(error).__name__, error)
";

/// The interpreter that has `cronsim`; made once, and kept for the next run.
fn python() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp has a parent");
    let home = target.join(format!("oracles-cronsim-{VERSION}"));
    let python = home.join("bin/python3");
    if home.join("complete").exists() {
        return python;
    }
    let run = |program: &Path, args: &[&str]| {
        let output = Command::new(program).args(args).output().expect("python3 is there");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let path = home.to_str().expect("the path is text");
    run(Path::new("python3"), &["-m", "venv", "--clear", path]);
    run(
        &python,
        &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &format!("cronsim=={VERSION}"), "tzdata"],
    );
    std::fs::write(home.join("complete"), "").expect("it is writable");
    python
}

fn ask(cases: &[Case]) -> Vec<Result<Vec<Timestamp>, String>> {
    let mut child = Command::new(python())
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the interpreter starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let lines: String = cases
        .iter()
        .map(|case| format!("{}|{}|{TICKS}|{}\n", case.zone, case.from.timestamp(), case.schedule))
        .collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it does not panic").expect("it reads all");
    let moment = |text: &str| chrono::DateTime::from_timestamp(text.parse().ok()?, 0);
    let answer = |line: &str| match line.strip_prefix("! ") {
        Some(error) => Err(error.to_owned()),
        None => Ok(line.split(' ').map(|text| moment(text).expect("a number")).collect()),
    };
    String::from_utf8(output.stdout).expect("it is text").lines().map(answer).collect()
}

fn reason(case: &Case, theirs: &Result<Vec<Timestamp>, String>) -> Option<&'static str> {
    let Ok(ticks) = theirs else { return None };
    let fields = case.fields();
    let every = |field: &str, all: &str| field == all;
    if only_around_changes(case, ticks) && (every(fields[0], "0-59") || every(fields[1], "0-23")) {
        return Some("all hours or minutes are a rhythm for us however they are written; cronsim looks for a `*`");
    }
    if only_around_changes(case, ticks) && case.zone.name() == "Australia/Lord_Howe" {
        return Some("a change of half an hour: cronsim goes on in whole hours from a half one");
    }
    None
}

#[test]
fn every_difference_from_cronsim_has_a_reason() {
    let mut table = Table::new("cronsim");
    let cases = cases(scale());
    let answers = ask(&cases);
    assert_eq!(answers.len(), cases.len());
    for (case, theirs) in cases.iter().zip(&answers) {
        table.compare(case, theirs, reason);
    }
    table.finish();
}

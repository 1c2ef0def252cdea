//! Start of a CI stage: a process in a sandbox that is there, with the client's process, against `runc exec` and `podman exec`.
//!
//! Each starts `/bin/sh` on a script that does nothing and waits for its end. runlet also writes the stage down.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::Context as _;
use tokio::process::Command;

use crate::Scale;
use crate::cold::{bundle, on_path};
use crate::table::{self, median};
use crate::under_test::{Server, binary};

/// A job with just what the driver looks at.
const RESPONSE: &str = r#"{"id": 1, "token": "none", "job_info": {"name": "bench", "project_id": 1, "project_full_path": "bench/bench"}, "git_info": {"ref": "main"}, "runner_info": {"timeout": 3600}, "variables": [], "steps": []}"#;

/// A place where a process can be started, and how.
struct Place {
    name: &'static str,
    /// The command to be measured.
    start: Vec<String>,
    /// The command that removes the place.
    end: Vec<String>,
    env: Vec<(&'static str, PathBuf)>,
    /// Why it could not be made.
    missing: Option<String>,
}

fn words(program: &str, rest: &[&str]) -> Vec<String> {
    std::iter::once(program).chain(rest.iter().copied()).map(str::to_owned).collect()
}

impl Place {
    /// Makes the place with `make`, once; a peer that cannot be had is told as such.
    async fn new(name: &'static str, make: &[String], start: Vec<String>, end: Vec<String>) -> Self {
        let mut place = Self { name, start, end, env: Vec::new(), missing: None };
        place.missing = match make.first() {
            Some(program) if !on_path(program) => Some(format!("{program} is not installed")),
            _ => place.command(make).await.err().map(|error| error.to_string()),
        };
        place
    }

    /// Runs a command to its end. Its stderr goes to a file: a container that stays would hold a pipe open.
    async fn command(&self, argv: &[String]) -> anyhow::Result<()> {
        let (program, args) = argv.split_first().context("a program")?;
        let said = tempfile::NamedTempFile::new()?;
        let env = self.env.iter().map(|(name, path)| (*name, path));
        let mut command = Command::new(program);
        command.args(args).envs(env).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said.reopen()?);
        let status = command.status().await?;
        let said = std::fs::read_to_string(said.path())?;
        anyhow::ensure!(status.success(), "{program}: {status}: {}", said.lines().last().unwrap_or_default());
        Ok(())
    }
}

/// A job that is prepared, as GitLab Runner would do it.
async fn runlet(server: &Server, directory: &Path) -> anyhow::Result<Place> {
    let script = directory.join("script");
    std::fs::write(&script, "#!/bin/sh\n")?;
    let response = directory.join("response.json");
    std::fs::write(&response, RESPONSE)?;
    let binary = binary();
    let script = script.to_string_lossy();
    let place = Place {
        name: "runlet: `ci gitlab run`, sealed, on record",
        start: words(&binary, &["ci", "gitlab", "run", &script, "build_script"]),
        end: words(&binary, &["ci", "gitlab", "cleanup"]),
        env: vec![
            ("RUNLET_DATA_DIR", server.data()),
            ("JOB_RESPONSE_FILE", response),
            ("BUILD_FAILURE_EXIT_CODE", "1".into()),
            ("SYSTEM_FAILURE_EXIT_CODE", "2".into()),
        ],
        missing: None,
    };
    place.command(&words(&binary, &["ci", "gitlab", "prepare"])).await?;
    Ok(place)
}

async fn runc(directory: &Path) -> anyhow::Result<Place> {
    let bundled = directory.join("runc");
    std::fs::create_dir(&bundled)?;
    if on_path("runc") {
        bundle(&bundled, &["/usr/bin/sleep", "infinity"])?;
    }
    let id = format!("runlet-bench-{}", std::process::id());
    let make = words("runc", &["run", "-d", "-b", &bundled.to_string_lossy(), &id]);
    let start = words("runc", &["exec", &id, "/bin/sh", "/dev/null"]);
    Ok(Place::new("runc exec", &make, start, words("runc", &["delete", "-f", &id])).await)
}

/// With storage and state of its own and the plainest settings, so that it runs where there is no systemd and no overlay.
async fn podman(directory: &Path) -> anyhow::Result<Place> {
    let root = directory.join("podman");
    let files = root.join("files");
    for name in ["usr", "proc", "dev", "sys", "tmp", "etc", "run"] {
        std::fs::create_dir_all(files.join(name))?;
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), files.join(name))?;
    }
    let (storage, state) = (root.join("storage"), root.join("state"));
    let (storage, state, files) = (storage.to_string_lossy(), state.to_string_lossy(), files.to_string_lossy());
    let podman = |rest: &[&str]| {
        let head = ["--root", &storage, "--runroot", &state, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"];
        words("podman", &[&head[..], &["--events-backend", "none", "--runtime", "runc"], rest].concat())
    };
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
    let place = ["--network", "none", "-v", "/usr:/usr:ro", "--rootfs", &files, "/usr/bin/sleep", "infinity"];
    let make = podman(&[&["run", "-d", "--name", "bench"], &limits[..], &place].concat());
    let start = podman(&["exec", "bench", "/bin/sh", "/dev/null"]);
    Ok(Place::new("podman exec (runc, vfs)", &make, start, podman(&["rm", "-f", "-t", "0", "bench"])).await)
}

pub(crate) async fn measure(server: &Server, scale: &Scale) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let places =
        [runlet(server, directory.path()).await?, runc(directory.path()).await?, podman(directory.path()).await?];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); places.len()];
    for round in 0..scale.starts {
        for step in 0..places.len() {
            let index = (round + step) % places.len();
            let place = &places[index];
            if place.missing.is_none() {
                let start = Instant::now();
                place.command(&place.start).await?;
                times[index].push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    table::section("Start of a CI stage in a sandbox that is there, client included", &["target", "p50 ms", "min ms"]);
    for (place, times) in places.iter().zip(&times) {
        let cells = match &place.missing {
            Some(why) => {
                [format!("{}: left out, {}", place.name, why.replace('|', "/")), "-".to_owned(), "-".to_owned()]
            }
            None => {
                let least = times.iter().copied().fold(f64::INFINITY, f64::min);
                [place.name.to_owned(), format!("{:.1}", median(times)), format!("{least:.1}")]
            }
        };
        table::row(&cells);
        if place.missing.is_none() {
            place.command(&place.end).await?;
        }
    }
    Ok(())
}

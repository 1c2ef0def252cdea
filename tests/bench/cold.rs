//! A fresh sandbox that runs `true`: runlet over HTTP against runc, crun and bwrap as commands.

use std::path::Path;
use std::time::Instant;

use tokio::process::Command;

use crate::Scale;
use crate::table::{self, median};
use crate::under_test::Server;

/// One way to run `true` in isolation.
enum Starter {
    Runlet,
    Command { name: &'static str, argv: Vec<String> },
}

pub(crate) fn on_path(program: &str) -> bool {
    ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin", "/sbin"].iter().any(|dir| Path::new(dir).join(program).exists())
}

/// A bundle as `runc spec` makes it, on a root file system that binds the host's /usr.
pub(crate) fn bundle(directory: &Path, argv: &[&str]) -> anyhow::Result<()> {
    let root = directory.join("rootfs");
    for name in ["usr", "proc", "dev", "sys", "tmp"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
    }
    let generator = if on_path("runc") { "runc" } else { "crun" };
    let made = std::process::Command::new(generator).arg("spec").current_dir(directory).status()?;
    anyhow::ensure!(made.success(), "{generator} spec failed");
    let path = directory.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = serde_json::json!(argv);
    spec["root"]["readonly"] = true.into();
    let usr = serde_json::json!({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]});
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.push(usr);
    }
    std::fs::write(path, serde_json::to_vec(&spec)?)?;
    Ok(())
}

/// crun refuses a hybrid host: it gets a mount namespace without the v2 mount. The same `unshare` is put before the others, so
/// that all commands pay for it alike.
pub(crate) fn wrapped(argv: &[&str]) -> Vec<String> {
    let private = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
    let head = ["unshare", "-m", "--propagation", "private", "sh", "-c", private, "sh"];
    head.iter().chain(argv).map(|part| (*part).to_owned()).collect()
}

fn starters(directory: &Path) -> Vec<Starter> {
    let bundle = directory.to_string_lossy().into_owned();
    let mut all = vec![Starter::Runlet];
    for name in ["crun", "runc"] {
        if on_path(name) {
            all.push(Starter::Command { name, argv: wrapped(&[name, "run", "-b", &bundle, "ID"]) });
        }
    }
    if on_path("bwrap") {
        let argv = [
            "bwrap",
            "--unshare-all",
            "--ro-bind",
            "/usr",
            "/usr",
            "--symlink",
            "usr/lib",
            "/lib",
            "--symlink",
            "usr/lib64",
            "/lib64",
            "/usr/bin/true",
        ];
        all.push(Starter::Command { name: "bwrap", argv: wrapped(&argv) });
    }
    all.push(Starter::Command {
        name: "the wrapper alone (unshare, sh, umount): part of the three above",
        argv: wrapped(&["/usr/bin/true"]),
    });
    all
}

pub(crate) async fn measure(server: &Server, scale: &Scale) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    if on_path("runc") || on_path("crun") {
        bundle(directory.path(), &["/usr/bin/true"])?;
    }
    let starters = starters(directory.path());
    let target = server.call("true", "");
    let mut sender = target.connect().await?;
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); starters.len()];
    for round in 0..scale.starts {
        for step in 0..starters.len() {
            let index = (round + step) % starters.len();
            let start = Instant::now();
            match &starters[index] {
                Starter::Runlet => drop(target.once(&mut sender, round).await?),
                Starter::Command { name, argv } => {
                    let id = format!("bench-{}-{round}", std::process::id());
                    let argv: Vec<&str> =
                        argv.iter().map(|part| if part == "ID" { id.as_str() } else { part }).collect();
                    let mut command = Command::new(argv[0]);
                    let status = command.args(&argv[1..]).stdin(std::process::Stdio::null()).status().await?;
                    anyhow::ensure!(status.success(), "{name}: {status}");
                }
            }
            times[index].push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    table::section("Fresh sandbox, `true`, one at a time", &["target", "p50 ms", "min ms"]);
    for (starter, times) in starters.iter().zip(&times) {
        let name = match starter {
            Starter::Runlet => "runlet over HTTP: sealed, on record, gone before the answer",
            Starter::Command { name, .. } => name,
        };
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        table::row(&[name.to_owned(), format!("{:.1}", median(times)), format!("{least:.1}")]);
    }
    Ok(())
}

//! `runlet doctor`: what this host offers, what degrades, what to do. Needs no server; asks one if there is one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use runlet_core::disk::{Disk, Floor};
use runlet_core::finding::{Finding, Health};
use runlet_core::store::private::{self, PrivateOptions};
use runlet_executor::probe;
use serde_json::json;

use super::args::Global;
use super::errors::CliError;
use super::output::{self, Table};
use super::session::Session;
use super::words;
use crate::client::Call;
use crate::config::{self, Config, Flags};

/// Below this much free disk the database itself has no room.
const DISK_LEAST: u64 = 64 << 20;
/// Where a sandbox on the host's image looks for programs.
const PROGRAMS: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
/// How long a server may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `doctor` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Each point is ok, degraded (runlet works, something does not) or missing (runlet cannot work). The exit code is 69 if anything
is missing, otherwise 0. Run it as root, as the server is started.

Examples:
  sudo runlet doctor
  runlet doctor --config /etc/runlet.toml --json")]
pub(crate) struct DoctorArgs {
    /// Configuration file of the server [env: RUNLET_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Looks at everything and tells.
pub(crate) fn run(args: &DoctorArgs, global: &Global) -> Result<(), CliError> {
    // First of all, while this process has one thread: the probes start processes of their own.
    let mut findings = probe::host();
    match config::load(&flags(args, global)) {
        Ok(loaded) => {
            findings.push(configuration(&loaded.warnings));
            findings.extend(of_config(&loaded.config));
        }
        Err(error) => findings.push(Finding::missing(
            "configuration",
            error.to_string(),
            "the server does not start",
            "correct it; `runlet config check` shows the whole",
        )),
    }
    findings.push(program("python3", "python3", &["/usr/bin"]));
    findings.push(program("node", "nodejs", &PROGRAMS));
    findings.push(server(global)?);
    tell(&findings, global.json)?;
    match findings.iter().filter(|finding| finding.health == Health::Missing).count() {
        0 => Ok(()),
        missing => Err(CliError::Unfit { missing }),
    }
}

fn flags(args: &DoctorArgs, global: &Global) -> Flags {
    let data_dir = global.data_dir.as_ref().map(|path| ("data_dir", path.display().to_string()));
    Flags { config: args.config.clone(), values: data_dir.into_iter().collect() }
}

fn configuration(warnings: &[String]) -> Finding {
    if warnings.is_empty() {
        return Finding::ok("configuration", "readable, and no rule is broken");
    }
    let remedy = "take out what has no effect; `runlet config check` shows the whole";
    Finding::degraded("configuration", warnings.join("; "), "something may not do what it was written for", remedy)
}

/// What depends on the configuration.
fn of_config(config: &Config) -> Vec<Finding> {
    vec![database(config), disk(&config.data_dir, config.disk_floor), listen(config)]
}

fn database(config: &Config) -> Finding {
    const NAME: &str = "postgres";
    if let Some(url) = &config.database_url {
        return Finding::ok(
            NAME,
            format!("database_url is set: {url}; whether it answers shows at the server's start"),
        );
    }
    let options = PrivateOptions { base: config.data_dir.join("postgres"), bin_dir: config.postgres_bin.clone() };
    match private::look(&options) {
        Ok((dir, major)) => Finding::ok(NAME, format!("version {major} in {}, for the private one", dir.display())),
        Err(error) => Finding::missing(
            NAME,
            error.to_string(),
            "the server does not start: everything it knows is in Postgres",
            "Debian: apt-get install postgresql; or set database_url",
        ),
    }
}

fn disk(data_dir: &Path, floor: Floor) -> Finding {
    const NAME: &str = "disk";
    // Before the first start the directory is not there yet: its file system is that of the nearest one above.
    let there = data_dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let disk = Disk::new(there, floor);
    let remedy = "make room, set data_dir to a larger file system, or lower disk_floor";
    let Some(space) = disk.space() else {
        let found = format!("{} cannot be measured", there.display());
        return Finding::degraded(NAME, found, "nobody notices when it is full", remedy);
    };
    let floor = disk.floor(space.total);
    let found = format!("{} free for {}, floor {}", words::size(space.free), data_dir.display(), words::size(floor));
    match space.free {
        ..DISK_LEAST => Finding::missing(NAME, found, "the database cannot grow", remedy),
        free if free < floor => {
            Finding::degraded(NAME, found, "new work is refused with `disk_low` until there is more", remedy)
        }
        _ => Finding::ok(NAME, found),
    }
}

/// The rules of the configuration have been kept here: an address that others reach has something that speaks TLS before it.
fn listen(config: &Config) -> Finding {
    const NAME: &str = "listen";
    let (address, loopback) = (config.listen, config.listen.ip().is_loopback());
    if let Some(files) = config.tls() {
        return tls(address, &files);
    }
    match (loopback, config.behind_proxy) {
        (true, false) => Finding::ok(NAME, format!("{address}: this machine alone")),
        (true, true) => Finding::ok(NAME, format!("{address}, behind a proxy on this machine")),
        (false, true) => Finding::degraded(
            NAME,
            format!("{address} without TLS, because behind_proxy is set"),
            "whoever reaches this address without the proxy can read along, and forge X-Forwarded-For",
            "let nothing but the proxy reach it: a firewall, or a network of their own",
        ),
        (false, false) => Finding::missing(
            NAME,
            format!("{address} without TLS"),
            "tokens would go over the network unencrypted: the server does not start",
            "set tls.cert and tls.key, or listen on 127.0.0.1, or put a proxy in front and set behind_proxy = true",
        ),
    }
}

fn tls(address: SocketAddr, files: &crate::tls::Files) -> Finding {
    for file in [&files.cert, &files.key] {
        if let Err(error) = std::fs::File::open(file) {
            let found = format!("{address} with TLS, and {} cannot be read: {error}", file.display());
            return Finding::missing("listen", found, "the server does not start", "correct tls.cert and tls.key");
        }
    }
    Finding::ok("listen", format!("{address}, with TLS"))
}

fn program(name: &'static str, package: &str, dirs: &[&str]) -> Finding {
    if let Some(path) = dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file()) {
        return Finding::ok(name, path.display().to_string());
    }
    Finding::degraded(
        name,
        format!("there is no {name} in {}", dirs.join(", ")),
        "functions of that runtime cannot run on the host's image",
        format!("install it (Debian: apt-get install {package})"),
    )
}

/// Asks the server, where there is one.
fn server(global: &Global) -> Result<Finding, CliError> {
    const NAME: &str = "server";
    let session = Session::open(global)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
    let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, session.ask(Call::get("/healthz"))).await });
    let host = session.host();
    Ok(match asked {
        Ok(Ok(_)) => Finding::ok(NAME, format!("one runs at {host} and is well")),
        Ok(Err(CliError::Client(error))) => Finding::ok(NAME, format!("none runs, as far as can be seen: {error}")),
        Ok(Err(_)) | Err(_) => Finding::degraded(
            NAME,
            format!("one runs at {host} and is not well"),
            "it takes no work now",
            "look at its log: it stops, or its database does not answer",
        ),
    })
}

fn tell(findings: &[Finding], json: bool) -> Result<(), CliError> {
    if json {
        let fit = findings.iter().all(|finding| finding.health != Health::Missing);
        return output::line(&json!({ "fit": fit, "findings": findings }).to_string());
    }
    output::bytes(text(findings).as_bytes())
}

/// A line for each point, and below it what follows from it.
fn text(findings: &[Finding]) -> String {
    let mut table = Table::new(["POINT", "STATE", "FOUND"]);
    for finding in findings {
        table.row([finding.point.to_owned(), finding.health.as_str().to_owned(), finding.found.clone()]);
        let notes = [("so: ", &finding.effect), ("do: ", &finding.remedy)];
        for (word, note) in notes.into_iter().filter_map(|(word, note)| Some((word, note.as_ref()?))) {
            table.row([String::new(), String::new(), format!("{word}{note}")]);
        }
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_that_is_not_well_says_what_to_do() {
        let findings = [
            Finding::ok("kernel", "Linux 6.1"),
            Finding::degraded("node", "there is no node", "no node functions", "install it"),
        ];
        insta::assert_snapshot!(text(&findings), @r"
        POINT   STATE     FOUND
        kernel  ok        Linux 6.1
        node    degraded  there is no node
                          so: no node functions
                          do: install it
        ");
    }

    #[test]
    fn an_address_without_tls_is_pointed_out() {
        let with = |listen: &str, behind_proxy| {
            listen_of(&Config { listen: listen.parse().expect("an address"), behind_proxy, ..Config::default() })
        };
        assert_eq!(with("127.0.0.1:1", false), Health::Ok);
        assert_eq!(with("0.0.0.0:1", true), Health::Degraded);
        assert_eq!(with("0.0.0.0:1", false), Health::Missing);
    }

    fn listen_of(config: &Config) -> Health {
        listen(config).health
    }

    #[test]
    fn a_full_disk_is_measured_where_the_data_will_be() {
        let finding = disk(Path::new("/proc/nowhere/at/all"), Floor::Usual);
        assert_eq!(finding.health, Health::Missing, "{finding:?}");
        assert_eq!(program("python3", "python3", &["/nonexistent"]).health, Health::Degraded);
    }
}

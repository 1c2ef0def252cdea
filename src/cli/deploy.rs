//! `runlet deploy`: a directory becomes a revision.

use std::path::PathBuf;

use clap::Args;
use runlet_core::manifest::{FILE, Manifest};
use runlet_core::store::function::Function;
use runlet_runtimes::archive;

use super::errors::CliError;
use super::output;
use super::session::{Session, field};
use crate::client::Call;

/// What `deploy` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
The same content gives the same revision, whoever packs it. Triggers are those of the new revision at once.

Examples:
  runlet deploy examples/on-push
  runlet deploy . --json")]
pub(crate) struct DeployArgs {
    /// Directory with a function.toml
    dir: PathBuf,
}

/// Checks the manifest, packs the directory and uploads it.
pub(crate) async fn run(session: &Session, args: &DeployArgs) -> Result<(), CliError> {
    // The manifest is read here first: its errors need no server.
    let manifest = read_manifest(&args.dir)?;
    let tar = archive::pack(&args.dir).map_err(|source| CliError::Pack { dir: args.dir.clone(), source })?;
    let call =
        Call::put(format!("/v1/functions/{}", manifest.name)).header("content-type", "application/x-tar").body(tar);
    let answer = session.ask(call).await?;
    if session.json {
        return output::document(&answer.body);
    }
    let function: Function = field(&answer, "function")?;
    let new: bool = field(&answer, "new_revision")?;
    let hooks: Vec<String> = field(&answer, "hooks")?;
    let word = if new { "new" } else { "unchanged" };
    output::line(&format!("deployed {} revision sha256:{} ({word})", function.name, function.revision.short()))?;
    let base = session.host().url().unwrap_or_default();
    for hook in hooks {
        output::note(&format!("webhook: {base}{hook}"));
    }
    Ok(())
}

fn read_manifest(dir: &std::path::Path) -> Result<Manifest, CliError> {
    let path = dir.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            CliError::NoManifest { dir: dir.to_owned() }
        }
        _ => CliError::Read { what: path.display().to_string(), source },
    })?;
    Manifest::parse(&text).map_err(|error| CliError::Manifest { dir: dir.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_errors_name_file_and_line_without_a_server() {
        let dir = tempfile::tempdir().expect("a directory");
        let told = || read_manifest(dir.path()).expect_err("refused").to_string();
        assert_eq!(told(), format!("there is no function.toml in {}", dir.path().display()));
        let text = "schema = 1\nname = \"a\"\nruntime = \"cobol\"\nhandler = \"x\"\n";
        std::fs::write(dir.path().join(FILE), text).expect("writable");
        assert!(
            told().starts_with(&format!("{}/function.toml:3: runtime: `cobol`", dir.path().display())),
            "{}",
            told()
        );
    }
}

//! `runlet completions`: what a shell needs to complete runlet's commands.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::args::Cli;
use super::errors::CliError;
use super::output;

/// What `completions` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  runlet completions bash > /etc/bash_completion.d/runlet
  runlet completions zsh > \"${fpath[1]}/_runlet\"
  runlet completions fish > ~/.config/fish/completions/runlet.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "runlet", &mut script);
    output::document(&script)
}

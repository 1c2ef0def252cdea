//! Drivers of CI systems: thin clients that lease a sandbox for a job, run its stages there, and give it back.

mod gitlab;
mod prepare;
mod stage;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::args::Global;

/// What `ci` takes.
#[derive(Debug, Args)]
pub(crate) struct CiArgs {
    #[command(subcommand)]
    system: System,
}

#[derive(Debug, Subcommand)]
enum System {
    /// The driver for GitLab Runner's custom executor; docs/guide/gitlab.md has its configuration
    Gitlab(gitlab::GitlabArgs),
}

/// Runs a driver's verb. Its exit codes are those that the CI system asks for.
pub(crate) fn run(args: CiArgs, global: &Global) -> ExitCode {
    match args.system {
        System::Gitlab(args) => gitlab::run(args, global),
    }
}

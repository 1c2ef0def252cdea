//! `runlet`: one binary, three roles, told apart before any thread exists.
//!
//! `zygote` (hidden) makes sandboxes as root and is started by the server from a sealed copy of this binary; `serve` is the
//! server; everything else is a client of a server.

mod api;
mod cli;
mod client;
mod config;
mod frames;
mod http;
mod lifecycle;
mod log;
mod prepare;
mod serve;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|role| role == "zygote") {
        return runlet_executor::zygote::main();
    }
    let cli = cli::parse();
    match cli.command {
        cli::Command::Serve(args) => serve::run(&args),
        _ => cli::run(cli),
    }
}

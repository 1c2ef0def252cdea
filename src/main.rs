//! `runlet`: one binary, four roles, told apart before any thread exists.
//!
//! `zygote` (hidden) makes sandboxes as root and is started by the server from a sealed copy of this binary; `tls-keeper`
//! (hidden) reads the certificate for it; `serve` is the server; everything else is a client of a server.

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
mod stats;
mod tls;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next();
    if role.as_deref().is_some_and(|role| role == "zygote") {
        return runlet_executor::zygote::main();
    }
    if role.as_deref().is_some_and(|role| role == tls::ROLE) {
        return tls::main(arguments);
    }
    let cli = cli::parse();
    match cli.command {
        cli::Command::Serve(args) => serve::run(&args),
        _ => cli::run(cli),
    }
}

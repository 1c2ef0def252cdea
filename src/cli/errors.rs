//! What can go wrong on the command line: what is said, what to do next, and the exit code.
//!
//! Exit codes: 2 for a command that cannot be understood, the code's own number for a problem that the server (or the
//! same rule, checked here first) names, 69 for a server that does not answer, 130 for Ctrl-C.

mod advice;

use std::error::Error as _;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use hyper::header::RETRY_AFTER;
use runlet_core::manifest::ManifestError;
use runlet_core::name::{BadName, FunctionName};
use runlet_core::outcome::Outcome;
use runlet_core::problem::{Code, Problem};
use runlet_runtimes::archive::PackError;

use super::output::{self, clean};
use super::words;
use crate::client::host::BadHost;
use crate::client::{Answer, ClientError};
use crate::config::ConfigError;

const NO_INPUT: u8 = 66;
const UNAVAILABLE: u8 = 69;
const OS_ERROR: u8 = 71;
const IO_ERROR: u8 = 74;
const PROTOCOL: u8 = 76;
const USAGE: u8 = 2;
/// As `timeout(1)` does.
const TIME_OVER: u8 = 124;

/// Why a verb did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The server's address is not valid.
    #[error(transparent)]
    Host(#[from] BadHost),
    /// `RUNLET_NAMESPACE` is not valid.
    #[error("RUNLET_NAMESPACE is not valid")]
    Namespace(#[source] BadName),
    /// A variable is not UTF-8.
    #[error("{variable} is not UTF-8 text")]
    NotText {
        /// Its name.
        variable: &'static str,
    },
    /// The server cannot be reached, or the connection broke.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server refused, or the function failed.
    #[error("{}", problem.detail)]
    Problem {
        /// What the server said.
        problem: Box<Problem>,
        /// Its words, byte for byte.
        document: bytes::Bytes,
        /// After how many seconds a repeat makes sense.
        retry_after: Option<u32>,
    },
    /// The answer is not runlet's.
    #[error("the server's answer (status {status}) is not understood: {why}")]
    StrangeAnswer {
        /// The HTTP status.
        status: u16,
        /// What is strange about it.
        why: String,
    },
    /// There is no manifest to deploy.
    #[error("there is no function.toml in {}", dir.display())]
    NoManifest {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// The manifest breaks a rule.
    #[error("{}/{error}", dir.display())]
    Manifest {
        /// The function's directory.
        dir: PathBuf,
        /// The rule, with line and key.
        error: ManifestError,
    },
    /// The directory cannot be packed.
    #[error("cannot pack {}", dir.display())]
    Pack {
        /// The function's directory.
        dir: PathBuf,
        /// Why.
        source: PackError,
    },
    /// `--data` is not JSON.
    #[error("--data is not JSON")]
    DataNotJson(#[source] serde_json::Error),
    /// A file (or stdin) cannot be read.
    #[error("cannot read {what}")]
    Read {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nothing has run yet, so there is nothing to print.
    #[error("{id} is {state} and has no execution")]
    NothingRan {
        /// The invocation.
        id: String,
        /// Its state.
        state: String,
    },
    /// No revision of the function, or more than one, is what was named.
    #[error("`{wanted}` names {} of function `{function}`", if *several { "several revisions" } else { "no revision" })]
    NoRevision {
        /// What was typed.
        wanted: String,
        /// The function.
        function: FunctionName,
        /// Whether there is more than one.
        several: bool,
    },
    /// An invocation that was waited for did not succeed; stdout has said how it ended.
    #[error("{id} did not succeed")]
    Ended {
        /// The invocation.
        id: String,
        /// The code of its outcome.
        code: Code,
    },
    /// The time for waiting is over.
    #[error("{id} is still {state}")]
    StillRuns {
        /// The invocation.
        id: String,
        /// Its state.
        state: String,
    },
    /// `doctor` found that something is missing; stdout has said what.
    #[error("runlet cannot run on this host as it is: {missing} of the points above are missing")]
    Unfit {
        /// How many points.
        missing: usize,
    },
    /// Ctrl-C.
    #[error("interrupted: the call may still run on the server")]
    Interrupted {
        /// The function that was called.
        function: String,
    },
    /// stdout is a closed pipe: whoever reads has seen enough.
    #[error("stdout is closed")]
    StdoutClosed,
    /// stdout cannot be written.
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
    /// No event loop.
    #[error("cannot set up the event loop")]
    Runtime(#[source] io::Error),
}

impl CliError {
    /// Exit code of the process.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Host(_) | Self::Namespace(_) | Self::NotText { .. } => USAGE,
            Self::Client(ClientError::BadHeader(_) | ClientError::Trust(_)) => USAGE,
            Self::Client(_) => UNAVAILABLE,
            Self::Problem { problem, .. } => problem.code.exit_code(),
            Self::StrangeAnswer { .. } => PROTOCOL,
            Self::NoManifest { .. } | Self::Manifest { .. } | Self::Pack { .. } | Self::Config(_) => {
                Code::Invalid.exit_code()
            }
            Self::DataNotJson(_) => Code::BadJson.exit_code(),
            Self::NothingRan { .. } | Self::NoRevision { .. } => Code::NotFound.exit_code(),
            Self::Ended { code, .. } => code.exit_code(),
            Self::StillRuns { .. } => TIME_OVER,
            Self::Unfit { .. } => UNAVAILABLE,
            Self::Read { .. } => NO_INPUT,
            Self::Interrupted { .. } => 130,
            Self::StdoutClosed => 0,
            Self::Stdout(_) => IO_ERROR,
            Self::Runtime(_) => OS_ERROR,
        }
    }

    /// Whether the same request may work in a moment: the server restarts, or something is full.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Client(error) => !matches!(error, ClientError::BadHeader(_) | ClientError::Trust(_)),
            Self::Problem { problem, .. } => problem.code.retry_after().is_some(),
            _ => false,
        }
    }

    /// The text with its causes.
    fn text(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        text
    }

    /// All that goes to stderr.
    fn lines(&self) -> String {
        let mut text = format!("{} {}\n", output::error_word(), clean(&self.text()));
        if let Self::Problem { problem, .. } = self {
            if let Some(outcome) = &problem.outcome {
                text.push_str(&outcome_lines(outcome));
            }
            if let Some(execution) = &problem.execution {
                let _ = writeln!(text, "logs: runlet logs {execution}");
            }
        }
        if let Some(advice) = self.advice() {
            let _ = writeln!(text, "next: {}", clean(&advice));
        }
        text
    }
}

/// Says what went wrong, and returns the exit code. With `json`, the server's problem document goes to stdout as well.
pub(crate) fn report(error: &CliError, json: bool) -> ExitCode {
    if !matches!(error, CliError::StdoutClosed) {
        output::to_stderr(&error.lines());
    }
    if let CliError::Problem { document, .. } = error
        && json
    {
        // There is nobody left to tell that stdout is gone, and the exit code says more than that.
        let _ = output::document(document);
    }
    ExitCode::from(error.exit_code())
}

/// Lets a success through; takes anything else for the problem it describes.
pub(crate) fn check(answer: Answer) -> Result<Answer, CliError> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    match serde_json::from_slice::<Problem>(&answer.body) {
        Ok(problem) => {
            let retry_after = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Err(CliError::Problem { problem: Box::new(problem), document: answer.body, retry_after })
        }
        Err(_) => {
            let status = answer.status.as_u16();
            Err(CliError::StrangeAnswer { status, why: "it holds no problem document".to_owned() })
        }
    }
}

/// How an execution that did not succeed ended: the outcome, then the error as the code raised it.
pub(crate) fn outcome_lines(outcome: &Outcome) -> String {
    let mut text = format!("outcome: {}\n", words::outcome(outcome));
    if let Some(error) = &outcome.error {
        // Where runlet itself tells what happened, the type is the outcome's own word.
        let kind = if error.kind == outcome.kind.as_str() { "" } else { error.kind.as_str() };
        let separator = if kind.is_empty() || error.message.is_empty() { "" } else { ": " };
        let summary = format!("{kind}{separator}{}", error.message);
        let trace: Vec<&str> = error.trace.iter().flat_map(|line| line.lines()).collect();
        // Most tracebacks end with the error itself: it is not told twice.
        let summary = summary.lines().collect::<Vec<_>>();
        let rest = if trace.ends_with(&summary) { &[][..] } else { &summary[..] };
        for line in trace.iter().chain(rest) {
            let _ = writeln!(text, "  {}", clean(line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use runlet_core::outcome::{ErrorDetail, OutcomeKind};

    fn answer(status: u16, body: &str) -> Answer {
        let status = hyper::StatusCode::from_u16(status).expect("a status");
        Answer { status, headers: hyper::HeaderMap::new(), body: body.to_owned().into() }
    }

    fn problem(code: Code, outcome: Option<Outcome>) -> CliError {
        let execution = outcome.as_ref().map(|_| uuid::Uuid::nil().into());
        let detail = format!("this is {code}");
        let problem = Problem { code, status: code.status(), detail, execution, invocation: None, outcome };
        let body = serde_json::to_string(&problem).expect("serialisable");
        check(answer(code.status(), &body)).expect_err("no success")
    }

    #[test]
    fn a_failed_function_is_told_with_outcome_trace_and_logs() {
        let trace = vec!["File \"main.py\", line 3, in handle\n    boom()".to_owned()];
        let error = ErrorDetail { kind: "ValueError".into(), message: "bad \u{1b}[31minput".into(), trace };
        let outcome = Outcome { error: Some(error), ..Outcome::of(OutcomeKind::Error) };
        let error = problem(Code::FunctionError, Some(outcome));
        assert_eq!(error.exit_code(), 20);
        insta::assert_snapshot!(error.lines(), @r#"
        error: this is function_error
        outcome: error
          File "main.py", line 3, in handle
              boom()
          ValueError: bad \u{1b}[31minput
        logs: runlet logs exe_00000000000000000000000000
        "#);
    }

    #[test]
    fn every_code_has_its_exit_code_and_passing_ones_say_when() {
        for code in Code::ALL {
            let error = problem(code, None);
            assert_eq!(error.exit_code(), code.exit_code());
            assert_eq!(error.is_passing(), code.retry_after().is_some(), "{code}");
        }
        insta::assert_snapshot!(problem(Code::StoreDown, None).lines(), @r"
        error: this is store_down
        next: try again in 5 s
        ");
    }

    #[test]
    fn a_server_that_is_not_there_comes_with_the_next_command() {
        let told = |host: &str, kind: io::ErrorKind| {
            let host = host.parse().expect("an address");
            let error = CliError::Client(ClientError::Connect { host, source: kind.into() });
            assert_eq!(error.exit_code(), 69);
            error.lines()
        };
        insta::assert_snapshot!(told("/nowhere/runlet.sock", io::ErrorKind::NotFound), @r"
        error: no server answers at /nowhere/runlet.sock: entity not found
        next: start a server with `runlet serve` (as root), or name the one you mean: --data-dir or RUNLET_DATA_DIR, --host or RUNLET_HOST
        ");
        insta::assert_snapshot!(told("/nowhere/runlet.sock", io::ErrorKind::PermissionDenied), @r"
        error: no server answers at /nowhere/runlet.sock: permission denied
        next: run as root, or set RUNLET_HOST=http://host:port and RUNLET_TOKEN to a token of this server
        ");
        insta::assert_snapshot!(told("http://127.0.0.1:1", io::ErrorKind::ConnectionRefused), @r"
        error: no server answers at http://127.0.0.1:1: connection refused
        next: check the address in --host or RUNLET_HOST, and that `runlet serve` runs and listens there
        ");
    }

    #[test]
    fn another_program_s_answer_is_not_taken_for_runlet_s() {
        let error = check(answer(502, "<html>Bad gateway</html>")).expect_err("no success");
        assert_eq!(error.exit_code(), 76);
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        assert_eq!(CliError::StdoutClosed.exit_code(), 0);
    }
}

//! What to do next after an error, where that is known.

use std::io;

use runlet_core::problem::{Code, Problem};

use super::CliError;
use crate::client::ClientError;
use crate::client::host::Host;

impl CliError {
    /// What to do next, where that is known.
    pub(crate) fn advice(&self) -> Option<String> {
        match self {
            Self::Client(ClientError::Connect { host, source }) => Some(connect_advice(host, source)),
            Self::Client(ClientError::Unsafe { .. }) => Some(
                "if the server's certificate is your own authority's, name that in RUNLET_CA_FILE; the name in RUNLET_HOST \
                 must be one of the certificate's"
                    .to_owned(),
            ),
            Self::Client(ClientError::Broken { sent, .. }) if *sent > 1 << 20 => {
                Some("the server may have refused a body of this size; its log says so".to_owned())
            }
            Self::Client(ClientError::Broken { .. } | ClientError::NoAnswer { .. }) => {
                Some("look at the server's log; `runlet executions` shows whether something ran".to_owned())
            }
            Self::Problem { problem, retry_after, .. } => problem_advice(problem, *retry_after),
            Self::StrangeAnswer { .. } => {
                Some("check that RUNLET_HOST names a runlet server of this version".to_owned())
            }
            Self::NoManifest { .. } => {
                Some("name the directory of a function; examples/ has some to start from".to_owned())
            }
            Self::DataNotJson(_) => {
                Some("quote text as '\"text\"'; other bytes go in as --data @FILE or --data - (stdin)".to_owned())
            }
            Self::NothingRan { id, .. } => {
                Some(format!("`runlet logs -f {id}` waits for it, `runlet show {id}` tells more"))
            }
            Self::NoRevision { function, .. } => Some(format!("`runlet revisions {function}` lists them")),
            Self::Ended { id, .. } => {
                Some(format!("`runlet show {id}` tells more, `runlet logs {id}` prints its output"))
            }
            Self::StillRuns { id, .. } => Some(format!("`runlet show {id}` tells what it does")),
            Self::Interrupted { function } => Some(format!("`runlet executions --function {function}` shows it")),
            _ => None,
        }
    }
}

fn connect_advice(host: &Host, source: &io::Error) -> String {
    match (host, source.kind()) {
        (Host::Unix(_), io::ErrorKind::PermissionDenied) => {
            let url = host.url().unwrap_or_else(|| "http://host:port".to_owned());
            format!("run as root, or set RUNLET_HOST={url} and RUNLET_TOKEN to a token of this server")
        }
        (Host::Unix(_), _) => "start a server with `runlet serve` (as root), or name the one you mean: --data-dir or \
                               RUNLET_DATA_DIR, --host or RUNLET_HOST"
            .to_owned(),
        (Host::Http { .. } | Host::Https { .. }, _) => {
            "check the address in --host or RUNLET_HOST, and that `runlet serve` runs and listens there".to_owned()
        }
    }
}

fn problem_advice(problem: &Problem, retry_after: Option<u32>) -> Option<String> {
    let advice = match problem.code {
        Code::Unauthorized => {
            "set RUNLET_TOKEN to a token of this server; root makes one with `runlet token create NAME --role ROLE`"
        }
        Code::Forbidden => {
            "use a token with a higher role, or of that namespace; `runlet token ls` shows them to an admin"
        }
        Code::NotFound => "`runlet functions` and `runlet executions` list what is there",
        Code::Internal => "this is a fault of runlet: the server's log has the details",
        Code::DiskLow => "free space on the server's disk",
        // The function ran: whether it may run again is for its owner to know.
        _ if problem.outcome.is_some() => return None,
        code => {
            let seconds = retry_after.or(code.retry_after())?;
            return Some(format!("try again in {seconds} s"));
        }
    };
    Some(advice.to_owned())
}

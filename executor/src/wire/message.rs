//! The messages.

use std::collections::BTreeMap;

use runlet_core::engine::Network;
use runlet_core::execution::Usage;
use runlet_core::limits::Limits;
use runlet_core::manifest::RuntimeKind;
use runlet_core::name::{Namespace, RevisionDigest};
use serde::{Deserialize, Serialize};

use crate::host::sandbox::{ProcessEnd, SandboxEnd};

/// Version of these messages. Server and zygote are always one binary; a shim that outlives its server is told by it.
pub(crate) const VERSION: u32 = 1;

/// First message from the server to the zygote.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`VERSION`] of the server.
    pub(crate) version: u32,
    /// Where to work.
    pub(crate) options: crate::host::HostOptions,
}

/// Answer to [`Hello`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Welcome {
    /// The zygote is ready. Names of the sandboxes that an earlier life had left and that are gone now.
    Ready {
        /// Their names.
        reaped: Vec<String>,
    },
    /// It cannot work on this host; why, and what to do.
    Failed(String),
}

/// Server to zygote. Descriptors: the shim's control socket, the deadline timer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Create {
    /// Name of the sandbox to make: `[a-z0-9-]`.
    pub(crate) name: String,
    /// Owner.
    pub(crate) namespace: Namespace,
    /// The revision whose code is mounted.
    pub(crate) revision: Option<RevisionDigest>,
    /// The runtime whose runner is mounted.
    pub(crate) runtime: RuntimeKind,
    /// Limits.
    pub(crate) limits: Limits,
    /// What of the network it sees.
    pub(crate) network: Network,
    /// Whether it gets a working directory on disk.
    pub(crate) work: bool,
    /// Name of the namespace's cache that it gets.
    pub(crate) cache: Option<String>,
}

/// Server to shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToShim {
    /// Start a program. Descriptors: see [`Spawn::stdin`] and [`Spawn::channel`].
    Spawn(Spawn),
    /// Signal the process group of a program; number 0: every process but init.
    Signal {
        /// Which program.
        number: u32,
        /// Which signal.
        signal: i32,
    },
    /// Give a sandbox that is nobody's yet to a revision, for good.
    Specialise(Specialise),
    /// Change the limits.
    Resize(Limits),
    /// Has the kernel killed for lack of memory?
    Oom,
    /// What has it used so far?
    Usage,
    /// Kill everything.
    Kill,
}

/// Whose a sandbox becomes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Specialise {
    /// The revision whose code is mounted.
    pub(crate) revision: RevisionDigest,
    /// Its limits from now on.
    pub(crate) limits: Limits,
}

/// A program to start. Descriptors, in this order: stdin if `stdin`, stdout, stderr, the socket for fd 3 if `channel`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spawn {
    /// Names the program in later messages.
    pub(crate) number: u32,
    /// Program and arguments.
    pub(crate) argv: Vec<String>,
    /// Environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Working directory.
    pub(crate) cwd: String,
    /// Whether the first descriptor is its stdin.
    pub(crate) stdin: bool,
    /// Whether the last descriptor is for its fd 3.
    pub(crate) channel: bool,
    /// Files to write before.
    pub(crate) files: Vec<(String, String)>,
}

/// Shim to server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromShim {
    /// The sandbox is there; its init waits for programs.
    Created,
    /// It could not be made, and nothing of it is left.
    CreateFailed(String),
    /// What became of a program.
    Program(Program),
    /// The sandbox is the revision's now, or why not.
    Specialised(Option<String>),
    /// The limits are changed, or why not.
    Resized(Option<String>),
    /// Whether the kernel has killed for lack of memory.
    Oom(bool),
    /// What it has used so far.
    Usage(Usage),
    /// Everything of the sandbox is gone. Nothing follows.
    Gone(SandboxEnd),
}

/// Shim to the sandbox's init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToInit {
    /// Start a program. Descriptors as in [`Spawn`].
    Spawn(Spawn),
    /// Signal the process group of a program; number 0: every process but init.
    Signal {
        /// Which program.
        number: u32,
        /// Which signal.
        signal: i32,
    },
}

/// What became of a program: init to shim, and on to the server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Program {
    /// It runs.
    Started {
        /// Which program.
        number: u32,
    },
    /// It could not be started.
    Failed {
        /// Which program.
        number: u32,
        /// What the kernel said, and at which step.
        message: String,
        /// Its number.
        errno: i32,
    },
    /// It ended.
    Ended {
        /// Which program.
        number: u32,
        /// How.
        end: ProcessEnd,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use runlet_core::execution::Remains;

    use crate::host::sandbox::EndCause;

    /// Shims may outlive a server one day: the shape of what they say is a contract.
    #[test]
    fn version_one_is_what_it_was() {
        let create = Create {
            name: "python-1-0".to_owned(),
            namespace: Namespace::default_namespace(),
            revision: None,
            runtime: RuntimeKind::Python,
            limits: Limits::default(),
            network: Network::None,
            work: false,
            cache: None,
        };
        let spawn = Spawn {
            number: 1,
            argv: vec!["true".to_owned()],
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin".to_owned())]),
            cwd: "/".to_owned(),
            stdin: true,
            channel: false,
            files: vec![("/tmp/a".to_owned(), "b".to_owned())],
        };
        let end = SandboxEnd {
            cause: EndCause::Deadline,
            oom: false,
            usage: Usage { cpu_us: Some(1), memory_peak: Some(2), ..Usage::default() },
            remains: Remains::default(),
        };
        insta::assert_json_snapshot!((
            VERSION,
            create,
            [
                ToShim::Spawn(spawn),
                ToShim::Signal { number: 1, signal: 15 },
                ToShim::Specialise(Specialise {
                    revision: RevisionDigest::from_sha256(&[7; 32]),
                    limits: Limits::default(),
                }),
                ToShim::Resize(Limits::default()),
                ToShim::Oom,
                ToShim::Usage,
                ToShim::Kill
            ],
            [
                FromShim::Created,
                FromShim::CreateFailed("why".to_owned()),
                FromShim::Specialised(None),
                FromShim::Resized(None),
                FromShim::Oom(true),
                FromShim::Usage(Usage { cpu_us: Some(1), ..Usage::default() }),
                FromShim::Gone(end)
            ],
            [
                Program::Started { number: 1 },
                Program::Failed { number: 1, message: "execute: no such file".to_owned(), errno: 2 },
                Program::Ended { number: 1, end: ProcessEnd::Signal(9) },
            ],
        ));
    }
}

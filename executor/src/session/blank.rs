//! A sandbox in which none of a function's code has run: with its init alone, or with a runner that has said hello and waits.

use std::time::{Duration, Instant};

use runlet_core::engine::Stream;
use runlet_runtimes::frame::Frame;
use tokio::time::{sleep, timeout_at};

use super::runner::Runner;
use super::{OutputSink, Spout, native};
use crate::host::sandbox::{ProcessSpec, Sandbox};

/// How long a sandbox without a runner is waited for to end; longer than any lives.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How often it is looked whether a runner that lives behaves.
const LOOK: Duration = Duration::from_secs(1);

/// A sandbox in which none of a function's code has run.
#[derive(Debug)]
pub enum Blank {
    /// Only its init runs.
    Bare(Sandbox),
    /// A runner waits in it to be told what it serves.
    Booted(Box<Booted>),
}

/// A runner that waits, and what it has said.
#[derive(Debug)]
pub struct Booted {
    sandbox: Sandbox,
    runner: Runner,
    hello: Frame,
}

/// Nobody wants to know what an interpreter writes before it is anybody's.
struct Nobody;

impl OutputSink for Nobody {
    async fn write(&mut self, _: Stream, _: bytes::Bytes) {}
}

impl Blank {
    /// Starts a runner in a sandbox and waits for its first word.
    ///
    /// # Errors
    /// What went wrong, and the sandbox.
    pub async fn boot(sandbox: Sandbox, runner: ProcessSpec, deadline: Instant) -> Result<Self, (String, Sandbox)> {
        let first_word = async {
            let mut runner = native::start(&sandbox, runner).await.map_err(|error| error.to_string())?;
            let heard = runner.converse(|frame, _, _| Ok(Some(frame)), &mut Nobody, &mut Spout::closed()).await;
            let hello = heard.map_err(|halt| format!("its runner did not say hello: {halt:?}"))?;
            Ok::<_, String>((runner, hello))
        };
        match timeout_at(deadline.into(), first_word).await {
            Ok(Ok((runner, hello))) => Ok(Self::Booted(Box::new(Booted { sandbox, runner, hello }))),
            Ok(Err(reason)) => Err((reason, sandbox)),
            Err(_) => Err(("its runner did not say hello in time".to_owned(), sandbox)),
        }
    }

    /// Its sandbox.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        match self {
            Self::Bare(sandbox) => sandbox,
            Self::Booted(booted) => &booted.sandbox,
        }
    }

    /// The sandbox, for whoever destroys it or has no use for a runner.
    #[must_use]
    pub fn into_sandbox(self) -> Sandbox {
        self.into_parts().0
    }

    /// Waits until it is of no use any more. May be dropped at any point.
    pub async fn broken(&mut self) {
        match self {
            Self::Bare(sandbox) => {
                sandbox.gone(FOR_EVER).await;
            }
            Self::Booted(booted) => {
                let mut thrown = 0;
                while booted.runner.is_resting(&mut thrown) {
                    tokio::select! {
                        biased;
                        _ = booted.runner.end.wait() => {}
                        () = sleep(LOOK) => {}
                    }
                }
            }
        }
    }

    /// The sandbox, and the runner that waits in it with its first word.
    pub(super) fn into_parts(self) -> (Sandbox, Option<(Runner, Frame)>) {
        match self {
            Self::Bare(sandbox) => (sandbox, None),
            Self::Booted(booted) => (booted.sandbox, Some((booted.runner, booted.hello))),
        }
    }
}

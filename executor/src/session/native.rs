//! A runner that stays in its sandbox and serves one call after another over fd 3.

use std::time::{Duration, Instant};

use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_runtimes::frame::{Frame, Kind};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Answered, Breach};
use super::channel::Channel;
use super::greeting::{Greeted, Greeting};
use super::runner::{Halt, Runner};
use super::supervise::{Push, supervise};
use super::{Blank, BodyKind, Invocation, Invoked, Launch, OutputSink, Spout, verdict};
use crate::host::sandbox::{ProcessSpec, Sandbox, SandboxError};

/// How long the pipes of a sandbox that was killed may stay open.
const PIPE_PATIENCE: Duration = Duration::from_secs(5);

/// A runner that is ready in a sandbox; serves one call at a time.
#[derive(Debug)]
pub struct Session {
    sandbox: Sandbox,
    runner: Runner,
    /// Calls made so far; the number of the last one.
    calls: u64,
    /// What it has written since the last one, bytes.
    thrown: usize,
}

/// Body of the invoke frame.
#[derive(Serialize)]
struct InvokeHead<'a> {
    body: BodyKind,
    context: &'a RawValue,
}

impl Session {
    /// Starts the runner of `launch` in a sandbox, unless one waits there already, and waits until it is ready. What it writes
    /// meanwhile goes to `sink`.
    ///
    /// # Errors
    /// How it failed, and the sandbox, which has been told to end.
    pub async fn open(
        blank: Blank,
        launch: Launch,
        deadline: Instant,
        cancel: &CancellationToken,
        sink: &mut impl OutputSink,
    ) -> Result<Self, (Outcome, Sandbox)> {
        let (sandbox, waiting) = blank.into_parts();
        sandbox.arm(Some(deadline));
        let start = greet(&sandbox, waiting, launch, sink);
        let (done, push) = supervise(|| sandbox.kill(), deadline, cancel, start).await;
        let (outcome, runner) = match done {
            Some(Ok((mut runner, Ok(Greeted::Ready)))) if push.is_none() => {
                sandbox.arm(None);
                runner.output.drain(sink).await;
                runner.channel.trim();
                return Ok(Self { sandbox, runner, calls: 0, thrown: 0 });
            }
            Some(Ok((runner, greeted))) => (unready(&sandbox, greeted, deadline, push).await, Some(runner)),
            Some(Err(error)) => (verdict::of_start(&sandbox, error, push).await, None),
            None => (verdict::of_push(push.unwrap_or(Push::Overdue)), None),
        };
        sandbox.kill();
        if let Some(mut runner) = runner {
            runner.output.finish(PIPE_PATIENCE, sink).await;
        }
        Err((outcome, sandbox))
    }

    /// Makes a call and waits for its end. What the code writes meanwhile goes to `sink`, all of it before this returns.
    ///
    /// The sandbox lives on only if the call ended by an answer, in time and in order.
    pub async fn invoke(
        &mut self,
        call: Invocation,
        deadline: Instant,
        max_result: usize,
        cancel: &CancellationToken,
        sink: &mut impl OutputSink,
        spout: &mut Spout,
    ) -> Invoked {
        if self.calls > 0 {
            // Written behind the end of the last call: nobody's. Before the first call it is the start's.
            self.runner.output.discard();
        }
        self.calls += 1;
        self.thrown = 0;
        self.sandbox.arm(Some(deadline));
        let work = talk(&mut self.runner, self.calls, call, max_result, sink, spout);
        let (done, push) = supervise(|| self.sandbox.kill(), deadline, cancel, work).await;
        match done {
            Some(Ok(answered)) => {
                self.sandbox.arm(None);
                // From here on the timer cannot fire; before, it may have.
                let reusable =
                    push.is_none() && !answered.is_fatal() && Instant::now() < deadline && self.is_in_order();
                if !reusable {
                    self.sandbox.kill();
                }
                self.runner.output.drain(sink).await;
                self.runner.channel.trim();
                invoked(answered, reusable)
            }
            Some(Err(_)) if push.is_none() && self.runner.channel.went_unread() => {
                self.sandbox.kill();
                let why = "the sandbox had ended before it was given the call";
                Invoked { unread: true, ..Invoked::failed(Outcome::because(OutcomeKind::Lost, why)) }
            }
            Some(Err(halt)) => {
                let outcome = verdict::of_halt(&self.sandbox, halt, deadline, push).await;
                self.sandbox.kill();
                self.runner.output.finish(PIPE_PATIENCE, sink).await;
                Invoked::failed(outcome)
            }
            None => Invoked::failed(verdict::of_push(push.unwrap_or(Push::Overdue))),
        }
    }

    /// Whether it can serve a call, as far as can be seen without waiting.
    pub fn is_usable(&mut self) -> bool {
        self.sandbox.ended().is_none() && self.runner.is_usable()
    }

    /// Whether this idle session may stay: its process and sandbox live, and it has not spoken unasked. What it has written while
    /// idle is thrown away, up to a bound at which it may not stay.
    pub fn is_resting(&mut self) -> bool {
        self.sandbox.ended().is_none() && self.runner.is_resting(&mut self.thrown)
    }

    /// Its sandbox.
    #[must_use]
    pub const fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The sandbox and the runner in it, for who talks to it in another way.
    pub(super) fn into_parts(self) -> (Sandbox, Runner) {
        (self.sandbox, self.runner)
    }

    /// Ends the session; the sandbox is left for whoever destroys it.
    #[must_use]
    pub fn into_sandbox(self) -> Sandbox {
        self.sandbox
    }

    /// Whether nothing of the last call is under way, and the process lives.
    fn is_in_order(&mut self) -> bool {
        !self.runner.channel.has_unsent() && self.runner.channel.is_open() && self.runner.end.peek().is_none()
    }
}

/// Starts the runner, or takes the one that waits, and exchanges the first words with it.
async fn greet(
    sandbox: &Sandbox,
    waiting: Option<(Runner, Frame)>,
    launch: Launch,
    sink: &mut impl OutputSink,
) -> Result<(Runner, Result<Greeted, Halt>), SandboxError> {
    let mut greeting = Greeting::new(&launch.init);
    let mut runner = match waiting {
        None => start(sandbox, launch.process).await?,
        Some((mut runner, hello)) => {
            match greeting.hear(&hello, &mut runner.channel) {
                Ok(None) => {}
                Ok(Some(greeted)) => return Ok((runner, Ok(greeted))),
                Err(breach) => return Ok((runner, Err(breach.into()))),
            }
            runner
        }
    };
    let hear = |frame: Frame, channel: &mut Channel, _: &mut Spout| greeting.hear(&frame, channel);
    let greeted = runner.converse(hear, sink, &mut Spout::closed()).await;
    Ok((runner, greeted))
}

/// Starts a runner.
pub(super) async fn start(sandbox: &Sandbox, process: ProcessSpec) -> Result<Runner, SandboxError> {
    let process = sandbox.spawn(ProcessSpec { channel: true, ..process }).await?;
    Runner::new(process).ok_or_else(|| SandboxError::Protocol("it gave no channel to the runner".to_owned()))
}

/// Why a runner that was started is not ready.
async fn unready(sandbox: &Sandbox, greeted: Result<Greeted, Halt>, deadline: Instant, push: Option<Push>) -> Outcome {
    match (greeted, push) {
        (Ok(Greeted::InitError(detail)), _) => Outcome { error: Some(detail), ..Outcome::of(OutcomeKind::InitError) },
        // It became ready while it was being killed.
        (Ok(Greeted::Ready), push) => verdict::of_push(push.unwrap_or(Push::Overdue)),
        (Err(halt), push) => verdict::of_halt(sandbox, halt, deadline, push).await,
    }
}

/// Says what is to be done and listens to the answer.
async fn talk(
    runner: &mut Runner,
    number: u64,
    call: Invocation,
    max_result: usize,
    sink: &mut impl OutputSink,
    spout: &mut Spout,
) -> Result<Answered, Halt> {
    say(&mut runner.channel, number, call)?;
    let mut answer = Answer::new(number, max_result);
    runner.converse(|frame, _, spout| answer.hear(frame, spout), sink, spout).await
}

/// Queues the frames of a call.
pub(super) fn say(channel: &mut Channel, number: u64, call: Invocation) -> Result<(), Breach> {
    let head = InvokeHead { body: call.body_kind, context: &call.context };
    let bodiless = call.body_kind == BodyKind::None;
    channel.say(Kind::Invoke, number, bodiless, &head).map_err(|_| Breach::OwnFrame("context of the call"))?;
    if !bodiless {
        channel.say_body(number, call.body);
    }
    Ok(())
}

pub(super) fn invoked(answered: Answered, reusable: bool) -> Invoked {
    match answered {
        Answered::Result { body, content_type } => {
            Invoked { outcome: Outcome::ok(), result: body, content_type, reusable, unread: false }
        }
        Answered::Error { detail, .. } => {
            let outcome = Outcome { error: Some(detail), ..Outcome::of(OutcomeKind::Error) };
            Invoked { reusable, ..Invoked::failed(outcome) }
        }
    }
}

#[cfg(test)]
mod tests;

//! A call in a sandbox that it shares with others, from its own side.

use std::time::Instant;

use runlet_core::outcome::{Outcome, OutcomeKind};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::super::answer::Answer;
use super::super::native::invoked;
use super::super::{Invocation, Invoked, OutputSink, Spout};
use super::{Event, Request, Ticket};

/// Events on their way to a call; a slow ledger holds the sandbox up when there are so many.
const ON_THE_WAY: usize = 32;

/// What bounds a call.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    /// When it has to have ended.
    pub(crate) deadline: Instant,
    /// Most bytes of its result.
    pub(crate) max_result: usize,
    /// Ends it.
    pub(crate) cancel: &'a CancellationToken,
}

/// What became of a call.
#[derive(Debug)]
pub(crate) enum Joined {
    /// It ended like this.
    Done(Invoked),
    /// The sandbox took no more calls; no code of this one ran.
    NotTaken,
}

impl Ticket {
    /// Makes a call. `slot` is dropped when the runner is done with it, which may be later than this returns; `taken` is
    /// told the sandbox when the runner is given the event. Nobody who reads slowly holds others up: what waits in `spout` is
    /// bounded by `max_result`.
    pub(crate) async fn call(
        &self,
        invocation: Invocation,
        slot: Box<dyn Send + Sync>,
        terms: Terms<'_>,
        sink: &mut impl OutputSink,
        spout: &mut Spout,
        taken: impl FnOnce(&str),
    ) -> Joined {
        let (events, mut heard) = mpsc::channel(ON_THE_WAY);
        let Terms { deadline, max_result, cancel } = terms;
        if self.0.send(Request { invocation, deadline, events, slot }).await.is_err() {
            return Joined::NotTaken;
        }
        let work = follow(&mut heard, max_result, sink, spout, taken);
        // Whoever leaves drops `heard`: that is how the crew learns of it.
        let because = |kind, why: &str| Joined::Done(Invoked::failed(Outcome::because(kind, why)));
        tokio::select! {
            biased;
            joined = work => joined,
            () = cancel.cancelled() => because(OutcomeKind::Cancelled, "it was cancelled while it ran"),
            () = sleep_until(deadline.into()) => because(OutcomeKind::Timeout, "it ran longer than its timeout"),
        }
    }
}

/// Listens until the call has ended.
async fn follow(
    heard: &mut mpsc::Receiver<Event>,
    max_result: usize,
    sink: &mut impl OutputSink,
    spout: &mut Spout,
    taken: impl FnOnce(&str),
) -> Joined {
    let (mut taken, mut answer) = (Some(taken), None);
    loop {
        let event = tokio::select! {
            biased;
            event = heard.recv() => event,
            () = spout.flow(), if spout.has_waiting() => continue,
        };
        match event {
            Some(Event::Taken { number, sandbox }) => {
                answer = Some(Answer::new(number, max_result));
                if let Some(taken) = taken.take() {
                    taken(&sandbox);
                }
            }
            Some(Event::Output(stream, bytes)) => sink.write(stream, bytes).await,
            Some(Event::Frame(frame)) => {
                let Some(answer) = &mut answer else { continue };
                match answer.hear(frame, spout) {
                    Ok(None) => {}
                    Ok(Some(answered)) => return Joined::Done(invoked(answered, false)),
                    Err(breach) => return Joined::Done(Invoked::failed(breach.outcome())),
                }
            }
            Some(Event::Over(outcome)) => return Joined::Done(Invoked::failed(outcome)),
            None if answer.is_none() => return Joined::NotTaken,
            None => {
                let why = "the sandbox was given up by a fault while the code ran";
                return Joined::Done(Invoked::failed(Outcome::because(OutcomeKind::Lost, why)));
            }
        }
    }
}

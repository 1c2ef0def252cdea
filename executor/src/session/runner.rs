//! A runner in a sandbox: its channel, its output and its end, listened to at once.
//!
//! It knows nothing of the sandbox around it: who limits it and how it is killed is the business of whoever holds it.

use std::pin::pin;
use std::time::Duration;

use runlet_runtimes::frame::Frame;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::answer::Breach;
use super::channel::Channel;
use super::output::Output;
use super::{OutputSink, Spout};
use crate::host::sandbox::{Process, ProcessEnd};

/// How long a runner that has closed its channel may take to end: clearing up a large process takes its time.
const CLOSED_PATIENCE: Duration = Duration::from_secs(5);

/// What an idle runner may write before it is no longer worth keeping, bytes.
const IDLE_OUTPUT: usize = 1 << 20;

/// The three things a runner can be heard by.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) channel: Channel,
    pub(super) output: Output,
    pub(super) end: End,
}

/// Why a conversation ended before it was over.
#[derive(Debug)]
pub(super) enum Halt {
    /// The process ended.
    Ended(ProcessEnd),
    /// It broke the protocol.
    Broke(Breach),
}

impl From<Breach> for Halt {
    fn from(breach: Breach) -> Self {
        Self::Broke(breach)
    }
}

/// The end of a process, which may be asked for again and again.
#[derive(Debug)]
pub(super) struct End {
    receiver: oneshot::Receiver<ProcessEnd>,
    known: Option<ProcessEnd>,
}

impl End {
    pub(super) const fn new(receiver: oneshot::Receiver<ProcessEnd>) -> Self {
        Self { receiver, known: None }
    }

    /// Waits for it. When nobody is left who could tell, the sandbox is gone.
    pub(super) async fn wait(&mut self) -> ProcessEnd {
        if let Some(end) = self.known {
            return end;
        }
        let end = (&mut self.receiver).await.unwrap_or(ProcessEnd::SandboxGone);
        self.known = Some(end);
        end
    }

    /// It, if it is known.
    pub(super) fn peek(&mut self) -> Option<ProcessEnd> {
        if self.known.is_none() {
            self.known = match self.receiver.try_recv() {
                Ok(end) => Some(end),
                Err(oneshot::error::TryRecvError::Empty) => None,
                Err(oneshot::error::TryRecvError::Closed) => Some(ProcessEnd::SandboxGone),
            };
        }
        self.known
    }
}

enum Turn {
    Ended(ProcessEnd),
    Hear,
    Say,
    Output,
    Flow,
    Deaf,
}

impl Runner {
    /// A process as a runner; `None` if it has no channel.
    pub(super) fn new(process: Process) -> Option<Self> {
        let channel = Channel::new(process.channel?);
        Some(Self { channel, output: Output::new(process.stdout, process.stderr), end: End::new(process.end) })
    }

    /// Writes what is queued, hands every frame to `hear` until it has what it wants, and carries output meanwhile.
    /// Nothing is heard while `spout` is full: the code waits then.
    pub(super) async fn converse<T>(
        &mut self,
        mut hear: impl FnMut(Frame, &mut Channel, &mut Spout) -> Result<Option<T>, Breach>,
        sink: &mut impl OutputSink,
        spout: &mut Spout,
    ) -> Result<T, Halt> {
        let mut closing = pin!(sleep(CLOSED_PATIENCE));
        self.channel.write();
        loop {
            let turn = tokio::select! {
                biased;
                end = self.end.wait() => Turn::Ended(end),
                () = self.channel.readable(), if self.channel.is_open() && !spout.is_full() => Turn::Hear,
                () = self.channel.writable(), if self.channel.has_unsent() => Turn::Say,
                () = self.output.readable() => Turn::Output,
                () = spout.flow(), if spout.has_waiting() => Turn::Flow,
                () = &mut closing, if !self.channel.is_open() => Turn::Deaf,
            };
            match turn {
                Turn::Ended(end) => {
                    // Its last frame may have come with it.
                    self.channel.read_last();
                    return self.listen(&mut hear, spout)?.ok_or(Halt::Ended(end));
                }
                Turn::Hear => {
                    self.channel.read();
                    if let Some(heard) = self.listen(&mut hear, spout)? {
                        return Ok(heard);
                    }
                    if !self.channel.is_open() {
                        closing.as_mut().reset(Instant::now() + CLOSED_PATIENCE);
                    }
                    self.channel.write();
                }
                Turn::Say => self.channel.write(),
                Turn::Output => self.output.pump(sink).await,
                Turn::Flow => {}
                Turn::Deaf => return Err(Breach::Closed.into()),
            }
        }
    }

    /// Hands on the frames that have come.
    fn listen<T>(
        &mut self,
        hear: &mut impl FnMut(Frame, &mut Channel, &mut Spout) -> Result<Option<T>, Breach>,
        spout: &mut Spout,
    ) -> Result<Option<T>, Breach> {
        while let Some(frame) = self.channel.next()? {
            if let Some(heard) = hear(frame, &mut self.channel, spout)? {
                return if self.channel.is_used_up() { Ok(Some(heard)) } else { Err(Breach::AfterEnd) };
            }
        }
        Ok(None)
    }

    /// Whether it waits for a call, as far as can be seen without waiting.
    pub(super) fn is_usable(&mut self) -> bool {
        self.end.peek().is_none() && self.channel.is_quiet()
    }

    /// Whether it goes on waiting for a call. What it has written is thrown away, and counted in `thrown`: one that writes too
    /// much is not worth keeping.
    pub(super) fn is_resting(&mut self, thrown: &mut usize) -> bool {
        *thrown += self.output.discard();
        self.is_usable() && *thrown < IDLE_OUTPUT
    }
}

#[cfg(test)]
mod tests;

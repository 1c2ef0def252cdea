//! The task that owns a runner which serves several calls at a time.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use runlet_core::engine::Stream;
use runlet_core::outcome::Outcome;
use runlet_runtimes::frame::{Frame, Kind};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};

use super::super::answer::{Breach, is_fatal};
use super::super::native::{Session, say};
use super::super::runner::{Halt, Runner};
use super::super::{OutputSink, verdict};
use super::{Event, Leave, Request};
use crate::host::sandbox::{ProcessEnd, Sandbox};

/// How long a call that was given up may go on before its sandbox takes no more calls.
const GRACE: Duration = Duration::from_secs(2);

/// How far behind the last deadline everything is killed, should nobody have acted.
const BEHIND: Duration = Duration::from_secs(5);

/// How long a runner that has closed its channel may take to end.
const CLOSED_PATIENCE: Duration = Duration::from_secs(5);

/// How long the pipes of a sandbox that was killed may stay open.
const PIPE_PATIENCE: Duration = Duration::from_secs(5);

/// What may be written while nothing runs before the sandbox is no longer worth keeping.
const IDLE_OUTPUT: usize = 1 << 20;

/// A call that the runner has.
struct Call {
    events: mpsc::Sender<Event>,
    deadline: Instant,
    /// Since when nobody waits for it any more.
    given_up: Option<Instant>,
    /// Frees the slot when it goes.
    _slot: Box<dyn Send + Sync>,
}

/// A runner at work.
pub(super) struct AtWork {
    sandbox: Sandbox,
    runner: Runner,
    /// In the order in which they came.
    calls: BTreeMap<u64, Call>,
    next: u64,
    /// The numbers of calls that nobody waits for any more, as that becomes known.
    gone: FuturesUnordered<BoxFuture<'static, u64>>,
    armed: Option<Instant>,
    idle: Duration,
    idle_since: Instant,
    idle_output: usize,
    /// Nobody is taken any more.
    retired: bool,
}

enum Turn {
    Ended(ProcessEnd),
    Hear,
    Say,
    Output,
    Request(Option<Request>),
    Gone(u64),
    Grace,
    Idle,
    Deaf,
}

/// What a program writes past its runner cannot be told apart: it goes to the call that has run longest.
struct ToOldest<'a> {
    call: Option<&'a mpsc::Sender<Event>>,
    thrown: usize,
}

impl OutputSink for ToOldest<'_> {
    async fn write(&mut self, stream: Stream, bytes: Bytes) {
        match self.call {
            // One who has gone does not miss it.
            Some(call) => drop(call.send(Event::Output(stream, bytes)).await),
            None => self.thrown += bytes.len(),
        }
    }
}

fn oldest(calls: &BTreeMap<u64, Call>) -> ToOldest<'_> {
    let call = calls.values().find(|call| call.given_up.is_none()).map(|call| &call.events);
    ToOldest { call, thrown: 0 }
}

impl AtWork {
    pub(super) fn new(session: Session, idle: Duration) -> Self {
        let (sandbox, runner) = session.into_parts();
        Self {
            sandbox,
            runner,
            calls: BTreeMap::new(),
            next: 1,
            gone: FuturesUnordered::new(),
            armed: None,
            idle,
            idle_since: Instant::now(),
            idle_output: 0,
            retired: false,
        }
    }

    pub(super) fn into_sandbox(self) -> Sandbox {
        self.sandbox
    }

    /// Gives the runner a call, unless its caller has gone before.
    pub(super) async fn take(&mut self, request: Request) {
        let Request { invocation, deadline, events, slot } = request;
        let number = self.next;
        self.next += 1;
        if events.send(Event::Taken { number, sandbox: self.sandbox.name().to_owned() }).await.is_err() {
            return;
        }
        if let Err(breach) = say(&mut self.runner.channel, number, invocation) {
            let _ = events.send(Event::Over(breach.outcome())).await;
            return;
        }
        self.runner.channel.write();
        let watched = events.clone();
        self.gone.push(Box::pin(async move {
            watched.closed().await;
            number
        }));
        self.calls.insert(number, Call { events, deadline, given_up: None, _slot: slot });
        self.idle_output = 0;
        self.arm();
    }

    /// Serves until nobody is left, or the runner is no longer fit.
    pub(super) async fn run(&mut self, requests: &mut mpsc::Receiver<Request>, leave: impl Fn(Leave) -> bool) {
        let halt = self.work(requests, &leave).await;
        leave(Leave::Unfit);
        // Who comes from here on is told to look elsewhere.
        requests.close();
        let Err(halt) = halt else { return };
        let last = self.armed.unwrap_or_else(|| Instant::now() + BEHIND);
        let outcome = verdict::of_halt(&self.sandbox, halt, last, None).await;
        self.sandbox.kill();
        self.runner.output.finish(PIPE_PATIENCE, &mut oldest(&self.calls)).await;
        self.over(&outcome).await;
    }

    /// Tells all calls that there will be no answer.
    async fn over(&mut self, outcome: &Outcome) {
        for call in std::mem::take(&mut self.calls).into_values() {
            let _ = call.events.send(Event::Over(outcome.clone())).await;
        }
    }

    async fn work(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
        leave: &impl Fn(Leave) -> bool,
    ) -> Result<(), Halt> {
        let (mut closed, mut deaf) = (false, pin!(sleep(CLOSED_PATIENCE)));
        loop {
            if self.retired && !closed {
                leave(Leave::Unfit);
                requests.close();
                // Who has come already looks elsewhere.
                while requests.try_recv().is_ok() {}
                closed = true;
            }
            if closed && self.calls.values().all(|call| call.given_up.is_some()) {
                return Ok(());
            }
            let grace = self.calls.values().filter_map(|call| call.given_up).min().filter(|_| !self.retired);
            let (grace, idle) = (grace.map(|since| since + GRACE), self.idle_since + self.idle);
            let nothing = self.calls.is_empty();
            let channel = &self.runner.channel;
            let turn = tokio::select! {
                biased;
                end = self.runner.end.wait() => Turn::Ended(end),
                () = channel.readable(), if channel.is_open() => Turn::Hear,
                () = channel.writable(), if channel.has_unsent() => Turn::Say,
                () = self.runner.output.readable() => Turn::Output,
                Some(number) = self.gone.next() => Turn::Gone(number),
                // The body of one call goes before that of the next.
                request = requests.recv(), if !closed && !channel.has_unsent() => Turn::Request(request),
                () = sleep_until(grace.unwrap_or(idle).into()), if grace.is_some() => Turn::Grace,
                () = sleep_until(idle.into()), if nothing => Turn::Idle,
                () = &mut deaf, if !channel.is_open() => Turn::Deaf,
            };
            match turn {
                Turn::Ended(end) => {
                    self.runner.channel.read_last();
                    self.listen().await?;
                    return Err(Halt::Ended(end));
                }
                Turn::Hear => {
                    self.runner.channel.read();
                    self.listen().await?;
                    if !self.runner.channel.is_open() {
                        deaf.as_mut().reset(tokio::time::Instant::now() + CLOSED_PATIENCE);
                    }
                }
                Turn::Say => self.runner.channel.write(),
                Turn::Output => {
                    let mut sink = oldest(&self.calls);
                    self.runner.output.pump(&mut sink).await;
                    self.idle_output += sink.thrown;
                    self.retired |= self.idle_output > IDLE_OUTPUT;
                }
                Turn::Request(Some(request)) => self.take(request).await,
                Turn::Request(None) => closed = true,
                Turn::Gone(number) => self.give_up(number),
                Turn::Grace => self.retired = true,
                Turn::Idle if leave(Leave::Idle) => return Ok(()),
                Turn::Idle => self.idle_since = Instant::now(),
                Turn::Deaf => return Err(Breach::Closed.into()),
            }
        }
    }

    /// Hands the frames that have come to the calls they belong to.
    async fn listen(&mut self) -> Result<(), Breach> {
        while let Some(frame) = self.runner.channel.next()? {
            self.route(frame).await?;
        }
        Ok(())
    }

    async fn route(&mut self, frame: Frame) -> Result<(), Breach> {
        let number = frame.call;
        let Some(call) = self.calls.get(&number) else { return Err(Breach::NoSuchCall(number)) };
        let wanted = call.given_up.is_none();
        match frame.kind {
            Kind::Log => {
                let (stream, bytes) = output(frame)?;
                if wanted {
                    let _ = call.events.send(Event::Output(stream, bytes)).await;
                }
                Ok(())
            }
            Kind::Result | Kind::Data | Kind::Error => {
                let ends = frame.end;
                self.retired |= is_fatal(&frame);
                if ends {
                    // What was written before the end belongs in front of it.
                    self.runner.output.drain(&mut oldest(&self.calls)).await;
                }
                if wanted {
                    let _ = call.events.send(Event::Frame(frame)).await;
                }
                if ends {
                    self.calls.remove(&number);
                    self.arm();
                }
                Ok(())
            }
            got => Err(Breach::Unexpected { got, expected: "a log, a result, data or an error" }),
        }
    }

    /// Nobody waits for the call any more: the runner is told so.
    fn give_up(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number).filter(|call| call.given_up.is_none()) else { return };
        call.given_up = Some(Instant::now());
        // It is far below the size of a frame.
        if self.runner.channel.say(Kind::Cancel, number, true, &json!({})).is_ok() {
            self.runner.channel.write();
        }
    }

    /// Sets the moment at which the shim kills everything: behind the last deadline of all.
    fn arm(&mut self) {
        let last = self.calls.values().map(|call| call.deadline + BEHIND).max();
        if last.is_none() {
            self.idle_since = Instant::now();
            self.runner.channel.trim();
        }
        if last != self.armed {
            self.armed = last;
            self.sandbox.arm(last);
        }
    }
}

/// The body of a log frame: one byte that says which stream, then what was written.
fn output(mut frame: Frame) -> Result<(Stream, Bytes), Breach> {
    let stream = match frame.body.first() {
        Some(1) => Stream::Stdout,
        Some(2) => Stream::Stderr,
        other => return Err(Breach::Stream(other.copied())),
    };
    frame.body.advance(1);
    Ok((stream, frame.body))
}

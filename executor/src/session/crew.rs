//! A runner that serves several calls at a time.
//!
//! ```text
//!  call ─┐ request (with its slot)        ┌─ frames, by call id ─┐
//!  call ─┼──────────────────────► crew ◄──┤                      ├──► runner
//!  call ─┘ ◄──────── events ─────  │      └──────────────────────┘
//!                                  └ nobody left, idle, or broken: the sandbox is handed back to be destroyed
//! ```
//! One task owns the runner and knows whose frame is whose; what an answer means is the business of the call it belongs
//! to ([`Ticket::call`]). A call that is given up (cancelled, overdue, too large) is ended for its caller at once; its slot
//! comes free when the runner has answered it. If it does not in time, the sandbox takes no further calls.

mod at_work;
mod join;

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use runlet_core::engine::Stream;
use runlet_core::outcome::Outcome;
use runlet_runtimes::frame::Frame;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::native::Session;
use super::{Blank, Invocation, Launch, OutputSink};
use crate::host::sandbox::Sandbox;
use at_work::AtWork;

pub(crate) use join::{Joined, Terms};

/// Requests that may wait for a sandbox that is starting; more than any function may have calls in one.
const WAITING: usize = 1024;

/// The way into a sandbox that is shared. When the last one is dropped and the last call has ended, the sandbox ends.
#[derive(Debug, Clone)]
pub(crate) struct Ticket(mpsc::Sender<Request>);

/// Where the requests of all tickets arrive.
#[derive(Debug)]
pub(crate) struct Requests(mpsc::Receiver<Request>);

/// A ticket, and the other end of it.
pub(crate) fn ticket() -> (Ticket, Requests) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Ticket(sender), Requests(receiver))
}

/// A call that wants to be made.
struct Request {
    invocation: Invocation,
    deadline: Instant,
    events: mpsc::Sender<Event>,
    /// Dropped when the runner is done with the call.
    slot: Box<dyn Send + Sync>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("invocation", &self.invocation).finish_non_exhaustive()
    }
}

/// What a call is told.
enum Event {
    /// The runner is given the event now, under this number, in the sandbox of this name.
    Taken { number: u64, sandbox: String },
    /// Its code wrote this.
    Output(Stream, Bytes),
    /// The runner answers.
    Frame(Frame),
    /// There will be no answer.
    Over(Outcome),
}

/// Why nobody is to come any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It has been idle for long: only if nobody is on his way.
    Idle,
    /// It is no longer fit.
    Unfit,
}

/// A sandbox that is to be shared, and how.
#[derive(Debug)]
pub(crate) struct Crew {
    /// The runner to start.
    pub(crate) launch: Launch,
    /// It ends after so long without a call.
    pub(crate) idle: Duration,
    /// Ends a start that is under way.
    pub(crate) ended: CancellationToken,
}

/// Output of the start goes to the call that it is for.
struct ToFirst<'a>(&'a mpsc::Sender<Event>);

impl OutputSink for ToFirst<'_> {
    async fn write(&mut self, stream: Stream, bytes: Bytes) {
        // One who has gone does not miss it.
        let _ = self.0.send(Event::Output(stream, bytes)).await;
    }
}

/// Serves with a runner that is ready, until nobody is left or none has come for so long. Returns the sandbox, to be destroyed.
pub(crate) async fn serve(
    session: Session,
    idle: Duration,
    requests: Requests,
    leave: impl Fn(Leave) -> bool,
) -> Sandbox {
    let Requests(mut requests) = requests;
    let mut at_work = AtWork::new(session, idle);
    at_work.run(&mut requests, leave).await;
    at_work.into_sandbox()
}

impl Crew {
    /// Starts the runner when the first call comes, and serves until nobody is left. Returns the sandbox, to be destroyed.
    /// `leave` keeps others from coming, and says whether that has worked.
    pub(crate) async fn serve(self, sandbox: Blank, requests: Requests, leave: impl Fn(Leave) -> bool) -> Sandbox {
        let Requests(mut requests) = requests;
        let first = tokio::select! {
            first = requests.recv() => first,
            () = sleep(self.idle) => None,
            () = self.ended.cancelled() => None,
        };
        let Some(first) = first else {
            leave(Leave::Unfit);
            return sandbox.into_sandbox();
        };
        let mut sink = ToFirst(&first.events);
        match Session::open(sandbox, self.launch, first.deadline, &self.ended, &mut sink).await {
            Ok(session) => {
                let mut at_work = AtWork::new(session, self.idle);
                at_work.take(first).await;
                at_work.run(&mut requests, leave).await;
                at_work.into_sandbox()
            }
            Err((outcome, sandbox)) => {
                leave(Leave::Unfit);
                requests.close();
                // All who wait for it would meet the same.
                let _ = first.events.send(Event::Over(outcome.clone())).await;
                while let Some(request) = requests.recv().await {
                    let _ = request.events.send(Event::Over(outcome.clone())).await;
                }
                sandbox
            }
        }
    }
}

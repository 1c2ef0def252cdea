//! A call that is run by its caller for as long as there is one, and goes on by itself when the caller leaves.
//!
//! Most callers stay: to hand each call to a task of its own would cost them two wake-ups.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use runlet_core::engine::{EngineError, Reply};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

type Answer = Result<Reply, EngineError>;

/// Tells a call that its caller has left.
pub(super) type Left = oneshot::Receiver<Infallible>;

/// A call and who runs it.
pub(super) struct Detached {
    /// `None` once it has ended.
    call: Option<BoxFuture<'static, Answer>>,
    tasks: TaskTracker,
    /// Dropped with the caller.
    _here: oneshot::Sender<Infallible>,
}

impl Detached {
    /// The call that `make` makes, counted among `tasks` until it ends.
    pub(super) fn new<F>(tasks: &TaskTracker, make: impl FnOnce(Left) -> F) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let (here, left) = oneshot::channel();
        // On the heap first: such a future is large, and each layer around it would move it.
        let (call, token) = (make(left).boxed(), tasks.token());
        let call = async move {
            let answer = AssertUnwindSafe(call).catch_unwind().await;
            drop(token);
            answer.unwrap_or_else(|_| Err(EngineError::SandboxLost("the execution was cut off by a fault".to_owned())))
        };
        Self { call: Some(call.boxed()), tasks: tasks.clone(), _here: here }
    }
}

impl Future for Detached {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let Some(call) = &mut self.call else {
            return Poll::Ready(Err(EngineError::Stopping));
        };
        let answer = std::task::ready!(call.as_mut().poll(context));
        self.call = None;
        Poll::Ready(answer)
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.tasks.spawn(call);
        }
    }
}

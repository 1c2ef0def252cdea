//! Work that others may end: by cancelling it, or because its deadline has passed and nobody has acted.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// How far behind the deadline we step in. The shim keeps the deadline; this is for a shim that does not.
const BEHIND: Duration = Duration::from_secs(2);

/// How long work may go on after the kill before it is given up.
const AFTER_KILL: Duration = Duration::from_secs(15);

/// Why we killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Push {
    /// It was cancelled.
    Cancelled,
    /// Its deadline is long past.
    Overdue,
}

/// Does `work`, calls `kill` (once) if it must end early, and goes on with it until it has seen its end. The work is
/// given up, and `None` returned, only when it does not end after the kill.
pub(super) async fn supervise<T>(
    kill: impl Fn(),
    deadline: Instant,
    cancel: &CancellationToken,
    work: impl Future<Output = T>,
) -> (Option<T>, Option<Push>) {
    let mut work = pin!(work);
    let push = tokio::select! {
        biased;
        done = &mut work => return (Some(done), None),
        () = cancel.cancelled() => Push::Cancelled,
        () = sleep_until((deadline + BEHIND).into()) => Push::Overdue,
    };
    kill();
    tokio::select! {
        biased;
        done = &mut work => (Some(done), Some(push)),
        () = sleep(AFTER_KILL) => (None, Some(push)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn cancelling_kills_and_then_hears_the_end() {
        let cancel = CancellationToken::new();
        let killed = CancellationToken::new();
        let work = async {
            cancel.cancel();
            killed.cancelled().await;
            7
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let ended = supervise(|| killed.cancel(), deadline, &cancel, work).await;
        assert_eq!(ended, (Some(7), Some(Push::Cancelled)));
    }

    #[tokio::test]
    async fn work_that_is_done_is_left_alone_though_it_was_cancelled() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let kills = Cell::new(0);
        let ended = supervise(|| kills.set(1), Instant::now(), &cancel, async { 1 }).await;
        assert_eq!((ended, kills.get()), ((Some(1), None), 0));
    }

    #[tokio::test]
    async fn what_outlives_its_deadline_is_killed_once() {
        let kills = Cell::new(0);
        let killed = CancellationToken::new();
        let kill = || {
            kills.set(kills.get() + 1);
            killed.cancel();
        };
        let deadline = Instant::now().checked_sub(BEHIND).expect("the machine is up for longer");
        let ended = supervise(kill, deadline, &CancellationToken::new(), killed.cancelled()).await;
        assert_eq!((ended, kills.get()), ((Some(()), Some(Push::Overdue)), 1));
    }
}

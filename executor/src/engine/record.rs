//! The end of an execution goes on record, whatever the database does meanwhile.

use std::time::Duration;

use runlet_core::metric::{self, Stage};
use runlet_core::store::StoreError;
use runlet_core::store::ledger::{Finish, Ledger};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// First and longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Puts `finish` on record, trying again while the database is down. Returns whether it was written: `false` if the
/// execution had ended already, or its claim belongs to somebody else.
///
/// # Errors
/// The last error once `patience` is over or `give_up` is cancelled; at once an error that another try would not mend.
pub(super) async fn record(
    ledger: &Ledger,
    finish: &Finish,
    patience: Option<Duration>,
    give_up: &CancellationToken,
) -> Result<bool, StoreError> {
    let _timed = metric::timed(Stage::Record);
    let until = patience.map(|patience| Instant::now() + patience);
    let mut pause = PAUSES.0;
    loop {
        let error = match ledger.finish(finish.clone()).await {
            Ok(written) => return Ok(written),
            Err(error) => error,
        };
        let over = until.is_some_and(|until| Instant::now() >= until) || give_up.is_cancelled();
        if over || !matches!(error, StoreError::Down(_)) {
            return Err(error);
        }
        tracing::debug!(execution.id = %finish.execution, "the end of the execution waits for the database");
        tokio::select! {
            () = sleep(pause) => {}
            () = give_up.cancelled() => {}
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

//! Waiting for conditions: nothing here sleeps for luck.

use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(20);

/// Polls until `condition` gives a value; panics with `what` when `patience` is over.
pub(crate) fn until_some<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited {patience:?} in vain: {what}");
        std::thread::sleep(STEP);
    }
}

/// Polls until `condition` holds; panics with `what` when `patience` is over.
pub(crate) fn until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    until_some(what, patience, || condition().then_some(()));
}

/// `seconds` as a `Duration`, to keep the tests' lines short.
pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// `full` where `RUNLET_TEST_SCALE=full`, else `small`.
pub(crate) fn scaled<T>(small: T, full: T) -> T {
    if std::env::var("RUNLET_TEST_SCALE").is_ok_and(|scale| scale == "full") { full } else { small }
}

//! Pauses between tries of what may succeed later: each twice as long as the one before, up to a longest.

use std::time::Duration;

/// How long the next pause is. Refuses to know what is tried, and how one sleeps.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// What to wait for a database that is away: from 50 ms to a second.
    pub const DATABASE: Self = Self::new(Duration::from_millis(50), Duration::from_secs(1));

    /// Pauses from `first` to `most`.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// The pause before the next try.
    #[must_use]
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        pause
    }
}

/// The pause after the `nth` failure (from 1), where nobody remembers the ones before: `first`, doubled each time, and up to half of
/// that on top by `dice` (from 0 to 1), so that what failed together does not come back together. Never more than `most`.
#[must_use]
pub fn nth_pause(first: Duration, most: Duration, nth: u32, dice: f64) -> Duration {
    // The jitter has room below `most`, too: what has failed often would come back together otherwise.
    let ceiling = most.saturating_sub(most / 3).max(first.min(most));
    let doubled = 2_u32.checked_pow(nth.saturating_sub(1)).and_then(|times| first.checked_mul(times));
    let pause = doubled.unwrap_or(ceiling).min(ceiling);
    (pause + pause.mul_f64(dice.clamp(0.0, 1.0) / 2.0)).min(most)
}

/// A number from 0 to 1, another one each time.
#[must_use]
pub fn dice() -> f64 {
    // Without randomness there is no jitter, and that is all.
    f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_grow_to_the_longest_and_stay_there() {
        let mut backoff = Backoff::new(Duration::from_millis(300), Duration::from_secs(1));
        let pauses: Vec<u128> = (0..4).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [300, 600, 1000, 1000]);
    }

    #[test]
    fn the_nth_pause_is_known_without_the_ones_before() {
        let pause = |nth, dice| nth_pause(Duration::from_secs(1), Duration::from_secs(60), nth, dice).as_millis();
        assert_eq!([1, 2, 3, 6, 7, 1000].map(|nth| pause(nth, 0.0)), [1000, 2000, 4000, 32_000, 40_000, 40_000]);
        assert_eq!([1, 2, 7, 1000].map(|nth| pause(nth, 1.0)), [1500, 3000, 60_000, 60_000]);
    }

    proptest! {
        #[test]
        fn a_pause_is_never_below_the_first_and_never_above_the_most(
            first in 0_u64..100_000, most in 0_u64..10_000_000, nth in 0_u32..200, dice in 0.0..1.0_f64,
        ) {
            let (first, most) = (Duration::from_millis(first), Duration::from_millis(most));
            let pause = nth_pause(first, most, nth, dice);
            prop_assert!(pause <= most && pause >= first.min(most), "{pause:?}");
        }
    }
}

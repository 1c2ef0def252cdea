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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_stay_there() {
        let mut backoff = Backoff::new(Duration::from_millis(300), Duration::from_secs(1));
        let pauses: Vec<u128> = (0..4).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [300, 600, 1000, 1000]);
    }
}

//! How many stems are worth having: as many as were asked for at once not long ago.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is asked for within so long is asked for at once: it is about what it takes to fill an empty shelf.
const AT_ONCE: Duration = Duration::from_secs(1);

/// For so long a rush is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Most askings that are remembered, and so most stems that demand asks for: a start that nobody waits for takes processors from calls.
const MOST: usize = 16;

/// When stems of a runtime were asked for, whether there were any or not.
#[derive(Debug, Default)]
pub(super) struct Demand(VecDeque<Instant>);

impl Demand {
    /// One is asked for.
    pub(super) fn ask(&mut self, now: Instant) {
        if self.0.len() == MOST {
            // A rush that goes on is as good as the one before it.
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    /// When one was asked for last.
    pub(super) fn last(&self) -> Option<Instant> {
        self.0.back().copied()
    }

    /// The most that were asked for at once, of late.
    pub(super) fn most(&mut self, now: Instant) -> usize {
        while self.0.front().is_some_and(|asked| now.saturating_duration_since(*asked) > REMEMBERED) {
            self.0.pop_front();
        }
        let at_once = |(first, asked): (usize, &Instant)| {
            self.0.range(first..).take_while(|later| later.saturating_duration_since(*asked) < AT_ONCE).count()
        };
        self.0.iter().enumerate().map(at_once).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demand_is_the_greatest_rush_of_the_last_minute() {
        let mut demand = Demand::default();
        let begin = Instant::now();
        let at = |millis: u64| begin + Duration::from_millis(millis);
        assert_eq!(demand.most(at(0)), 0);
        // One every two seconds: never two at once.
        for n in 0..5 {
            demand.ask(at(n * 2000));
        }
        assert_eq!(demand.most(at(9000)), 1);
        // Seven within a second, an eighth after it.
        for n in 0..7 {
            demand.ask(at(20_000 + n * 100));
        }
        demand.ask(at(21_000));
        assert_eq!(demand.most(at(22_000)), 7);
        assert_eq!(demand.most(at(79_900)), 7, "it is remembered");
        assert_eq!(demand.most(at(80_950)), 1, "and forgotten");
        assert_eq!(demand.most(at(90_000)), 0);
    }

    #[test]
    fn it_stays_within_its_bound() {
        let mut demand = Demand::default();
        let now = Instant::now();
        for _ in 0..MOST * 3 {
            demand.ask(now);
        }
        assert_eq!(demand.most(now), MOST);
    }
}

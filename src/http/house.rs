//! The house: how many connections a listener has, and who leaves when it is full.
//!
//! When every place is taken, the connection whose client has wasted it for longest makes room: by asking nothing, by sending
//! half a head or a body drop by drop, by not taking its answer. So nobody can keep others out by holding connections open, and
//! a connection that the server is at work for is never cut for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runlet_core::metric;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::pulse::{Crowd, Pulse};

/// Who has just come, or has just been answered, is left alone for so long.
const MANNERS: Duration = Duration::from_millis(750);
/// How often a full house looks again for somebody to leave.
const LOOK: Duration = Duration::from_millis(25);

/// The connections of a listener. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct House(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: &'static str,
    places: Arc<Semaphore>,
    crowd: Crowd,
    guests: Mutex<(u64, HashMap<u64, Arc<Pulse>>)>,
}

/// A place in the house, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    house: House,
    number: u64,
    /// The pulse of the connection that has it.
    pub(super) pulse: Arc<Pulse>,
    _permit: OwnedSemaphorePermit,
}

impl House {
    pub(super) fn new(name: &'static str, places: usize) -> Self {
        let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
        Self(Arc::new(Inner { name, places, crowd: Crowd::default(), guests: Mutex::default() }))
    }

    fn guests(&self) -> MutexGuard<'_, (u64, HashMap<u64, Arc<Pulse>>)> {
        self.0.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is a free place.
    pub(super) async fn vacancy(&self) -> OwnedSemaphorePermit {
        loop {
            if self.0.places.available_permits() == 0 {
                self.ask_somebody_to_leave();
            }
            match timeout(LOOK, Arc::clone(&self.0.places).acquire_owned()).await {
                Ok(Ok(permit)) => return permit,
                // Nobody closes it.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => {}
            }
        }
    }

    /// Gives a place to a new connection.
    pub(super) fn seat(&self, permit: OwnedSemaphorePermit) -> Place {
        let pulse = Pulse::new(self.0.crowd.clone());
        let mut guests = self.guests();
        guests.0 += 1;
        let number = guests.0;
        guests.1.insert(number, Arc::clone(&pulse));
        drop(guests);
        metric::connections(self.0.name, 1.0);
        Place { house: self.clone(), number, pulse, _permit: permit }
    }

    fn ask_somebody_to_leave(&self) {
        let now = Instant::now();
        let guests = self.guests();
        let staying = guests.1.values().filter(|pulse| !pulse.leave.is_cancelled());
        let longest = staying.filter_map(|pulse| Some((pulse.wasted(now)?, pulse))).max_by_key(|(wasted, _)| *wasted);
        if let Some((wasted, pulse)) = longest
            && wasted >= MANNERS
        {
            metric::cut_off("room");
            pulse.leave.cancel();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.house.guests().1.remove(&self.number);
        metric::connections(self.house.0.name, -1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_idle_leaves_and_the_busy_stay() {
        let house = House::new("test", 2);
        let busy = house.seat(house.vacancy().await);
        let _request = busy.pulse.enter();
        let idle = house.seat(house.vacancy().await);
        let begin = Instant::now();
        let (_, ()) = tokio::join!(house.vacancy(), async {
            idle.pulse.leave.cancelled().await;
            assert!(begin.elapsed() >= MANNERS - Duration::from_millis(1), "{:?}", begin.elapsed());
            drop(idle);
        });
        assert!(!busy.pulse.leave.is_cancelled());
    }
}

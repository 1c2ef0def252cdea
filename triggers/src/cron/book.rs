//! The schedules that this server watches, ordered by their next tick. A copy of what the ledger says, and never more.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use chrono::SecondsFormat;
use runlet_core::clock::Timestamp;
use runlet_core::id::TriggerId;
use runlet_core::store::cron::{DueTick, DueTicks, Schedule};
use serde_json::json;

use super::plan::{self, Due, Tick};
use super::zone::Rhythm;

/// A schedule and its next tick.
#[derive(Debug)]
struct Entry {
    schedule: Schedule,
    rhythm: Rhythm,
    next: Option<Timestamp>,
}

/// All schedules.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: HashMap<TriggerId, Entry>,
    queue: BTreeSet<(Timestamp, TriggerId)>,
}

impl Book {
    /// Takes what the ledger says in the place of what was known. Returns cursors that a wrong clock set, with where they belong.
    pub(super) fn load(&mut self, schedules: Vec<Schedule>, now: Timestamp) -> Vec<(TriggerId, Timestamp, Timestamp)> {
        let mut known = std::mem::take(&mut self.entries);
        self.queue.clear();
        let mut wrong = Vec::new();
        for mut schedule in schedules {
            let cursor = plan::sane_cursor(schedule.cursor, now);
            if cursor != schedule.cursor {
                wrong.push((schedule.trigger, schedule.cursor, cursor));
                schedule.cursor = cursor;
            }
            let before = known.remove(&schedule.trigger);
            // What was computed is kept where nothing has changed: a reload of a thousand schedules costs next to nothing.
            let rhythm = match before {
                Some(before) if before.schedule.spec.rhythm() == schedule.spec.rhythm() => {
                    if before.schedule.cursor == schedule.cursor {
                        self.insert(Entry { schedule, ..before });
                        continue;
                    }
                    Ok(before.rhythm)
                }
                _ => super::rhythm(&schedule.spec),
            };
            match rhythm {
                Ok(rhythm) => {
                    let next = rhythm.after(schedule.cursor);
                    self.insert(Entry { schedule, rhythm, next });
                }
                // A schedule is checked at deploy; a later version may know another zone.
                Err(error) => {
                    tracing::error!(trigger.id = %schedule.trigger, %error, "a schedule on record is not understood: it does not run");
                }
            }
        }
        wrong
    }

    fn insert(&mut self, entry: Entry) {
        let trigger = entry.schedule.trigger;
        if let Some(next) = entry.next {
            self.queue.insert((next, trigger));
        }
        self.entries.insert(trigger, entry);
    }

    /// The moment of the next tick.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.queue.first().map(|(next, _)| *next)
    }

    /// How many schedules there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What is due at `now`, of the schedules that have waited longest, until there are about `most` ticks.
    pub(super) fn due(&self, now: Timestamp, most: usize) -> Vec<DueTicks> {
        let mut batch = Vec::new();
        let mut ticks = 0;
        for (_, trigger) in self.queue.iter().take_while(|(next, _)| *next <= now) {
            if ticks >= most {
                break;
            }
            let Some(entry) = self.entries.get(trigger) else { continue };
            let schedule = &entry.schedule;
            let Some(due) = plan::due(&entry.rhythm, &schedule.spec, schedule.cursor, now) else { continue };
            ticks += due.fire.len() + due.missed.len();
            if due.more_missed || !due.missed.is_empty() {
                tracing::warn!(
                    trigger.id = %trigger, namespace = %schedule.namespace, function.name = %schedule.function,
                    missed = due.missed.len(), more = due.more_missed, made_good = due.fire.iter().filter(|tick| tick.missed).count(),
                    "ticks were missed"
                );
            }
            batch.push(for_ledger(schedule, due));
        }
        batch
    }

    /// Moves the cursor of a schedule to where the ledger has it now.
    pub(super) fn advance(&mut self, trigger: TriggerId, cursor: Timestamp) {
        let Some(mut entry) = self.entries.remove(&trigger) else { return };
        if let Some(next) = entry.next {
            self.queue.remove(&(next, trigger));
        }
        entry.schedule.cursor = cursor;
        entry.next = entry.rhythm.after(cursor);
        self.insert(entry);
    }

    /// Puts a schedule aside until the next load: the ledger says something else of it than we do.
    pub(super) fn set_aside(&mut self, trigger: TriggerId) {
        if let Some(next) = self.entries.get_mut(&trigger).and_then(|entry| entry.next.take()) {
            self.queue.remove(&(next, trigger));
        }
        self.entries.remove(&trigger);
    }
}

fn for_ledger(schedule: &Schedule, due: Due) -> DueTicks {
    let Schedule { trigger, spec, cursor, .. } = schedule;
    let tick = |tick: &Tick| DueTick {
        at: tick.at,
        missed: tick.missed,
        delay: if tick.missed { Duration::ZERO } else { plan::jitter(*trigger, tick.at, spec.jitter.0) },
        body: body(schedule, *tick),
    };
    DueTicks {
        trigger: *trigger,
        rhythm: spec.rhythm(),
        from: *cursor,
        overlap: spec.overlap,
        backlog: spec.backlog,
        ticks: due.fire.iter().map(tick).collect(),
        missed: due.missed,
    }
}

/// The event that the function gets.
fn body(schedule: &Schedule, tick: Tick) -> Bytes {
    let spec = &schedule.spec;
    let mut event = json!({
        "fires_at": tick.at.to_rfc3339_opts(SecondsFormat::Secs, true),
        "schedule": spec.schedule,
        "zone": spec.zone,
        "missed": tick.missed,
    });
    if let (Some(data), Some(event)) = (&spec.data, event.as_object_mut()) {
        event.insert("data".to_owned(), data.clone());
    }
    Bytes::from(event.to_string())
}

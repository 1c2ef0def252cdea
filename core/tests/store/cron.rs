//! Schedules: cursors, ticks, and invocations made once.

use std::time::Duration;

use chrono::TimeDelta;
use runlet_core::clock::{self, Timestamp};
use runlet_core::precondition::Precondition;
use runlet_core::store::Store;
use runlet_core::store::cron::{Decision, DueTick, DueTicks, Fate, Fired, Live, Schedule};

use crate::host::*;

const TRIGGER: &str = "[[trigger]]\ntype = \"cron\"\nschedule = \"* * * * *\"\n";

/// What is due of a schedule: a tick at each of these seconds after its cursor.
fn due(schedule: &Schedule, seconds: &[i64]) -> DueTicks {
    let at = |second: &i64| schedule.cursor + TimeDelta::seconds(*second);
    let tick = |second| DueTick { at: at(second), missed: false, delay: Duration::ZERO, body: "{}".into() };
    DueTicks {
        trigger: schedule.trigger,
        rhythm: schedule.spec.rhythm(),
        from: schedule.cursor,
        overlap: schedule.spec.overlap,
        backlog: schedule.spec.backlog,
        ticks: seconds.iter().map(tick).collect(),
        missed: Vec::new(),
    }
}

fn all(fate: Fate) -> impl Fn(&DueTicks, Live) -> Decision {
    move |due, _| Decision { fates: vec![fate; due.ticks.len()], cancel: false }
}

/// Fires ticks at the moment of the last one.
async fn fire(store: &Store, due: &[DueTicks], decide: impl Fn(&DueTicks, Live) -> Decision + Send) -> Vec<Fired> {
    let last = due.iter().flat_map(|due| &due.ticks).map(|tick| tick.at).max().expect("a tick");
    store.fire(due, last, decide).await.unwrap()
}

async fn schedules(store: &Store) -> Vec<Schedule> {
    store.schedules().await.unwrap()
}

const MADE: &str = "SELECT count(*) FROM invocations";

#[tokio::test]
async fn servers_that_fire_at_once_make_one_invocation_a_tick() {
    let db = Db::new().await;
    let one = db.store("one").await;
    one.deploy(revision("f", &TRIGGER.repeat(50))).await.unwrap();
    let two = db.store("two").await;
    let due: Vec<DueTicks> = schedules(&one).await.iter().map(|schedule| due(schedule, &[60, 120])).collect();
    assert_eq!(due.len(), 50);
    let (first, second) = tokio::join!(fire(&one, &due, all(Fate::Fired)), fire(&two, &due, all(Fate::Fired)));
    assert_eq!(first.len() + second.len(), 50);
    assert_eq!(fire(&two, &due, all(Fate::Fired)).await.len(), 0, "and not later either");
    assert_eq!((db.number(MADE).await, db.number("SELECT count(*) FROM cron_ticks").await), (100, 100));
    assert_eq!(db.number("SELECT count(*) FROM queue").await, 100);
}

#[tokio::test]
async fn a_tick_that_is_on_record_is_not_made_again() {
    let db = Db::new().await;
    let store = db.store("one").await;
    store.deploy(revision("f", TRIGGER)).await.unwrap();
    let before = schedules(&store).await.remove(0);
    assert_eq!(fire(&store, &[due(&before, &[60])], all(Fate::Fired)).await.len(), 1);
    // A clock that was wrong by years took the cursor along; it is put back.
    let after = schedules(&store).await.remove(0);
    store.rewind_schedule(before.trigger, after.cursor, before.cursor).await.unwrap();
    let again = fire(&store, &[due(&before, &[60, 120])], all(Fate::Fired)).await;
    assert_eq!((again.len(), db.number(MADE).await), (1, 2));
}

#[tokio::test]
async fn held_ones_go_one_after_the_other() {
    let db = Db::new().await;
    let store = db.store("one").await;
    store.deploy(revision("f", TRIGGER)).await.unwrap();
    let schedule = schedules(&store).await.remove(0);
    let first_fires = |due: &DueTicks, live: Live| {
        assert_eq!(live, Live::default());
        let fates = (0..due.ticks.len()).map(|nth| if nth == 0 { Fate::Fired } else { Fate::Held }).collect();
        Decision { fates, cancel: false }
    };
    fire(&store, &[due(&schedule, &[60, 120, 180])], first_fires).await;
    let (ledger, _writers) = ledger(&store);
    for left in [true, true, false] {
        assert_eq!(store.release_held().await.unwrap(), left, "the one before is not over");
        let claimed = claim_one(&store, "one").await;
        assert!(store.claim("one", &room(9), LEASE).await.unwrap().work.is_empty(), "one at a time");
        noted(&store, &ledger, std::slice::from_ref(&claimed)).await;
        ledger.finish(finish(&claimed, runlet_core::outcome::Outcome::ok())).await.unwrap();
        store.release_held().await.unwrap();
    }
    assert_eq!(db.number("SELECT count(*) FROM queue").await, 0);
}

#[tokio::test]
async fn a_deploy_keeps_what_is_decided_unless_the_rhythm_changes() {
    let db = Db::new().await;
    let store = db.store("one").await;
    store.deploy(revision("f", TRIGGER)).await.unwrap();
    let first = schedules(&store).await.remove(0);
    store.deploy(revision("f", &format!("{TRIGGER}overlap = \"allow\"\n"))).await.unwrap();
    let second = schedules(&store).await.remove(0);
    assert_eq!((second.trigger, second.cursor), (first.trigger, first.cursor));
    store.deploy(revision("f", &TRIGGER.replace("* * * * *", "@daily"))).await.unwrap();
    let third = schedules(&store).await.remove(0);
    assert!(third.trigger == first.trigger && third.cursor > first.cursor);
    assert!(fire(&store, &[due(&first, &[60])], all(Fate::Fired)).await.is_empty(), "of the old rhythm");
    store.deploy(revision("f", "")).await.unwrap();
    assert!(schedules(&store).await.is_empty());
}

#[tokio::test]
async fn a_paused_schedule_is_not_fired_and_goes_on_from_its_end() {
    let db = Db::new().await;
    let store = db.store("one").await;
    store.deploy(revision("f", TRIGGER)).await.unwrap();
    let schedule = schedules(&store).await.remove(0);
    assert!(store.pause_schedule(&ns(), schedule.trigger, Some("a\0note"), clock::now()).await.unwrap());
    assert!(schedules(&store).await.is_empty());
    assert!(fire(&store, &[due(&schedule, &[60])], all(Fate::Fired)).await.is_empty());
    let listed = store.triggers(&ns(), None, Some(schedule.trigger), None, 1).await.unwrap().remove(0);
    assert_eq!(listed.paused.and_then(|paused| paused.note).as_deref(), Some("a\u{fffd}note"));
    let end: Timestamp = clock::now() + TimeDelta::hours(1);
    assert!(store.resume_schedule(&ns(), schedule.trigger, end).await.unwrap());
    assert_eq!(schedules(&store).await.remove(0).cursor, end);
}

#[tokio::test]
async fn old_ticks_go_and_stay_decided() {
    let db = Db::new().await;
    let store = db.store("one").await;
    store.deploy(revision("f", TRIGGER)).await.unwrap();
    let schedule = schedules(&store).await.remove(0);
    let seconds: Vec<i64> = (1..=250).collect();
    let due = due(&schedule, &seconds);
    fire(&store, std::slice::from_ref(&due), all(Fate::Skipped)).await;
    assert_eq!(store.prune_ticks(clock::now()).await.unwrap(), 150);
    assert_eq!(store.ticks(&ns(), schedule.trigger, 1000).await.unwrap().len(), 100);
    assert!(fire(&store, &[due], all(Fate::Fired)).await.is_empty());
    store.remove_function(&ns(), &name("f"), &Precondition::None).await.unwrap();
    assert_eq!(store.prune_ticks(clock::now()).await.unwrap(), 100);
}

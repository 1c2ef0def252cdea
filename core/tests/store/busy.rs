//! A queue through which much passes: what has gone, and plans that were made when it was empty, cost nothing.

use runlet_core::engine::Submission;
use runlet_core::invocation::InvocationState;
use runlet_core::outcome::Outcome;
use runlet_core::store::Store;
use runlet_core::store::ledger::Ledger;
use sqlx::{AssertSqlSafe, Executor as _};
use tokio::task::JoinSet;

use crate::host::*;

async fn accept_many(store: &Store, count: usize) {
    let invocations = (0..count).map(|_| invocation("f")).collect();
    store.accept(Submission { delivery: None, invocations }).await.unwrap().unwrap();
}

/// Claims and ends all that waits; how many.
async fn work_off(store: &Store, ledger: &Ledger) -> usize {
    let mut done = 0;
    loop {
        match work_off_once(store, ledger, 256).await {
            0 => return done,
            some => done += some,
        }
    }
}

/// Claims up to `most`, and ends them; how many.
async fn work_off_once(store: &Store, ledger: &Ledger, most: u32) -> usize {
    let claimed = store.claim("one", &room(most), LEASE).await.unwrap().work;
    let count = claimed.len();
    let mut ends = JoinSet::new();
    for claimed in claimed {
        let ledger = ledger.clone();
        ends.spawn(async move { ledger.finish(finish(&claimed, Outcome::ok())).await.unwrap() });
    }
    assert!(ends.join_all().await.into_iter().all(|written| written));
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_sweeps_the_queue() {
    let db = Db::new().await;
    let store = db.store("one").await;
    store.deploy(revision("f", "max_concurrency = 1000\n")).await.unwrap();
    let (ledger, _writers) = ledger(&store);
    for _ in 0..11 {
        accept_many(&store, 1000).await;
    }
    assert_eq!(work_off(&store, &ledger).await, 11_000);
    let sweeps = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'queue'";
    until("it is swept", async || db.number(sweeps).await > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_was_planned_on_an_empty_queue_reads_what_it_claims_and_no_more() {
    let db = Db::new().await;
    let store = db.store("one").await;
    store.deploy(revision("f", "max_concurrency = 1000\n")).await.unwrap();
    accept_many(&store, 1000).await;
    db.sql.execute("VACUUM queue").await.unwrap();
    db.sql.execute("DELETE FROM queue").await.unwrap();
    db.sql.execute("VACUUM queue").await.unwrap();
    assert!(store.claim("one", &room(1), LEASE).await.unwrap().work.is_empty(), "planned now");
    for _ in 0..3 {
        accept_many(&store, 1000).await;
    }
    let read = "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'queue_pkey'";
    let before = db.number(read).await;
    assert_eq!(store.claim("one", &room(32), LEASE).await.unwrap().work.len(), 32);
    // A connection tells of what it has read when it goes, at the latest.
    store.close().await;
    until("the claim is counted", async || db.number(read).await > before).await;
    let rows = db.number(read).await - before;
    assert!(rows <= 64, "{rows} rows of the queue were read to claim 32");
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_behind_a_transaction_that_lasts_pass_over_what_has_gone() {
    let db = Db::new().await;
    let store = db.store("one").await;
    store.deploy(revision("f", "max_concurrency = 1000\n")).await.unwrap();
    let (ledger, _writers) = ledger(&store);
    for _ in 0..4 {
        accept_many(&store, 1000).await;
    }
    db.sql.execute("UPDATE queue SET not_before = not_before - interval '1 hour'").await.unwrap();
    db.sql.execute("VACUUM queue").await.unwrap();
    let mut backup = db.sql.begin().await.unwrap();
    backup.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    backup.execute("SELECT FROM queue LIMIT 1").await.unwrap();

    let mut done = 0;
    while done < 4000 {
        done += work_off_once(&store, &ledger, 32).await;
    }
    // What comes back late, and what nobody has heard of yet, is found none the less.
    let late = accept(&store, invocation("f")).await;
    db.sql.execute("UPDATE queue SET not_before = not_before - interval '2 hours', priority = 7").await.unwrap();
    until("it is found", async || work_off_once(&store, &ledger, 32).await == 1).await;
    assert_eq!(get(&store, late).await.state, InvocationState::Succeeded);
    backup.rollback().await.unwrap();

    store.close().await;
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'runlet one'";
    until("connections have told what they read", async || db.number(connected).await == 0).await;
    let read = db.number("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'queue_lanes'").await;
    // From the front of the index 125 claims would walk over 2,000 entries each, on the average, more than once.
    assert!((4000..60_000).contains(&read), "{read} entries were read to claim 4,001 pieces");
}

/// A join of a batch with the table that it is about, row by row, costs the square of it.
#[tokio::test]
async fn no_batch_is_looked_through_for_each_of_its_rows() {
    let db = Db::new().await;
    let mut tx = db.sql.begin().await.unwrap();
    // As the sessions of frequent statements have it.
    for off in ["seqscan", "bitmapscan", "hashjoin", "mergejoin", "material"] {
        tx.execute(AssertSqlSafe(format!("SET LOCAL enable_{off} = off"))).await.unwrap();
    }
    tx.execute("SET LOCAL plan_cache_mode = force_generic_plan").await.unwrap();
    for (sql, parameters) in [
        (include_str!("../../src/store/ledger/finish_claimed.sql"), 28),
        (include_str!("../../src/store/ledger/finish.sql"), 24),
        (include_str!("../../src/store/ledger/note_claims.sql"), 6),
        (include_str!("../../src/store/message/take.sql"), 23),
    ] {
        tx.execute(AssertSqlSafe(format!("PREPARE batch AS {sql}"))).await.unwrap();
        let explain = format!("EXPLAIN (COSTS off) EXECUTE batch ({})", vec!["NULL"; parameters].join(", "));
        let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut *tx).await.unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains("Nested Loop") && !plan.contains("Join Filter"), "{plan}");
        tx.execute("DEALLOCATE batch").await.unwrap();
    }
}

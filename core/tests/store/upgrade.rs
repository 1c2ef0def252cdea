//! Rows of the first release, migrated: `tests/fixtures/upgrade/0.1.0.sql` is the database of a 0.1.0 server after real work, as `pg_dump`
//! writes it. Full size, between two binaries, it is `make verify-upgrade`.

use runlet_core::engine::Stream;
use runlet_core::id::{DeliveryId, ExecutionId, InvocationId};
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::store::retention::Retention;
use sqlx::{AssertSqlSafe, Executor as _};

use crate::host::*;

const DUMP: &str = include_str!("../../../tests/fixtures/upgrade/0.1.0.sql");

#[tokio::test]
async fn rows_of_the_first_release_are_taken_over() {
    let db = Db::empty().await;
    // Lines with a backslash are for psql. The dump empties the search path of its connection, which is thrown away after it.
    let dump: String = DUMP.lines().filter(|line| !line.starts_with('\\')).flat_map(|line| [line, "\n"]).collect();
    let mut connection = db.sql.acquire().await.unwrap().detach();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(dump))).await.unwrap();
    drop(connection);
    assert_eq!(db.number("SELECT max(version) FROM _sqlx_migrations").await, 1);
    let waiting = db.number("SELECT count(*) FROM queue").await;
    assert!(waiting > 0, "the dump has work that waits");

    let store = db.store("one").await;
    assert!(db.number("SELECT max(version) FROM _sqlx_migrations").await > 1);
    let functions = store.functions(&ns(), None, 100).await.unwrap();
    assert_eq!(functions.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["bad", "echo", "sh", "slow"]);
    for function in &functions {
        assert!(store.archive(&ns(), &function.revision).await.unwrap().is_some());
    }
    let ids: Vec<(InvocationId, Vec<uuid::Uuid>)> =
        sqlx::query_as("SELECT id, executions FROM invocations").fetch_all(&db.sql).await.unwrap();
    let mut output = Vec::new();
    for (id, executions) in ids {
        get(&store, id).await;
        assert!(store.payload(&ns(), id).await.unwrap().is_some());
        store.result(&ns(), id).await.unwrap();
        for execution in executions.into_iter().map(ExecutionId::from) {
            assert!(store.execution(&ns(), execution).await.unwrap().is_some());
            output.extend(store.read_logs(&ns(), execution, Stream::Stdout, 0, 1 << 20).await.unwrap());
        }
    }
    assert!(String::from_utf8(output).unwrap().contains("old {'n': 1}"));
    let delivery: DeliveryId = sqlx::query_scalar("SELECT id FROM deliveries").fetch_one(&db.sql).await.unwrap();
    assert_eq!(store.delivery_body(&ns(), delivery).await.unwrap().unwrap(), &b"{\"ref\": \"refs/heads/main\"}"[..]);
    let retention = Retention { usual: None, namespaces: [].into() };
    assert!(!store.history_size(&ns(), &retention).await.unwrap().days.is_empty());

    // The server of then is gone: its claims are lost and taken again, what waited is taken for the first time.
    sqlx::query("UPDATE queue SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL")
        .execute(&db.sql)
        .await
        .unwrap();
    store.reap_expired().await.unwrap();
    sqlx::query("UPDATE queue SET not_before = now()").execute(&db.sql).await.unwrap();
    let (ledger, _tasks) = ledger(&store);
    for _ in 0..waiting {
        let claimed = claim_one(&store, "one").await;
        assert_eq!(claimed.payload.as_deref(), Ok(&b"2"[..]));
        assert!(ledger.finish(finish(&claimed, Outcome::of(OutcomeKind::Ok))).await.unwrap());
    }
    assert_eq!(db.number("SELECT count(*) FROM queue").await, 0);
}

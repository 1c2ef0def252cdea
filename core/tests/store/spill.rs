//! Large bodies and long output in files: readers do not see the difference.

use bytes::Bytes;
use runlet_core::engine::{NewInvocation, Stream, Submission};
use runlet_core::name::{HookPath, Namespace};
use runlet_core::outcome::{Outcome, OutcomeKind};
use runlet_core::problem::Code;
use runlet_core::store::delivery::{NewDelivery, Verdict};
use runlet_core::store::log::Chunk;
use runlet_core::store::{Store, StoreError};

use crate::host::*;
use crate::ledger::{call, end};

fn large(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 5000])
}

async fn spilling(name: &str, alone: bool) -> (Db, Store, std::path::PathBuf) {
    let (db, dir) = (Db::new().await, base(name));
    let store = db.spilling("one", &dir, alone).await;
    store.deploy(revision("f", "")).await.unwrap();
    (db, store, dir)
}

fn delivery(body: Bytes) -> NewDelivery {
    NewDelivery {
        namespace: ns(),
        path: HookPath::new("gh").unwrap(),
        adapter: "github",
        provider_id: None,
        event: None,
        headers: std::collections::BTreeMap::new(),
        source: "test".to_owned(),
        body_size: body.len() as u64,
        body,
        verdict: Verdict::Accepted,
        reasons: Vec::new(),
    }
}

#[tokio::test]
async fn bodies_and_output_come_back_from_files() {
    let (db, store, dir) = spilling("bodies", true).await;
    let (ledger, _tasks) = ledger(&store);
    let mut start = call();
    start.call.payload = large(1);
    ledger.start(start.clone()).await.unwrap();
    let mut text = Vec::new();
    for n in 0..20_u8 {
        let bytes = Bytes::from(vec![n; 37]);
        let chunk = Chunk {
            execution: start.execution,
            stream: Stream::Stderr,
            offset: text.len() as u64,
            bytes: bytes.clone(),
        };
        store.append_logs(&ns(), std::slice::from_ref(&chunk)).await.unwrap();
        store.append_logs(&ns(), &[chunk]).await.expect("a repeat is harmless");
        text.extend(bytes);
    }
    let finish = end(&start, Outcome::of(OutcomeKind::Ok));
    assert!(
        ledger
            .finish(runlet_core::store::ledger::Finish { result: Some((large(2), "a/b".into())), ..finish })
            .await
            .unwrap()
    );
    let in_rows = "SELECT (SELECT sum(octet_length(payload) + octet_length(result)) FROM invocations)::bigint
        + (SELECT sum(octet_length(bytes)) FROM log_chunks)::bigint";
    assert_eq!(db.number(in_rows).await, 2 * 37, "only what is below the bound is in rows");
    assert_eq!(store.payload(&ns(), start.invocation).await.unwrap(), Some(large(1)));
    assert_eq!(store.result(&ns(), start.invocation).await.unwrap(), Some((large(2), "a/b".to_owned())));
    for (offset, limit) in [(0, 999), (0, 75), (50, 100), (73, 2), (74, 1), (200, 999), (739, 9), (740, 9)] {
        let read = store.read_logs(&ns(), start.execution, Stream::Stderr, offset as u64, limit).await.unwrap();
        let end = (offset + limit).min(text.len());
        assert_eq!(read, text[offset.min(end)..end], "{offset} {limit}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_delivery_and_its_invocation_share_their_file() {
    let (db, store, dir) = spilling("delivery", true).await;
    let work = NewInvocation { payload: large(3), ..invocation("f") };
    let submission = Submission { delivery: Some(delivery(large(3))), invocations: vec![work] };
    let accepted = store.accept(submission).await.unwrap().unwrap();
    let id = accepted.delivery.unwrap();
    assert_eq!(store.delivery_body(&ns(), id).await.unwrap(), Some(large(3)));
    assert_eq!(store.delivery(&ns(), id).await.unwrap().unwrap().body_kept, 5000);
    let refused = store.refuse_delivery(delivery(large(4)), Some(1 << 20)).await.unwrap();
    assert_eq!(store.delivery_body(&ns(), refused).await.unwrap(), Some(large(4)));
    let files: Vec<_> = walk(&dir);
    assert_eq!(files.len(), 2, "{files:?}");
    assert_eq!(claim_one(&store, "one").await.payload, Ok(large(3)));
    assert_eq!(db.number("SELECT count(*) FROM invocations WHERE payload_file LIKE 'one/%'").await, 1);
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn queued_work_of_a_shared_database_keeps_its_payload_in_the_row() {
    let (db, store, dir) = spilling("in-rows", false).await;
    let id = accept(&store, NewInvocation { payload: large(5), ..invocation("f") }).await;
    let other = db.store("two").await;
    assert_eq!(other.payload(&ns(), id).await.unwrap(), Some(large(5)));
    assert_eq!(claim_one(&other, "two").await.payload, Ok(large(5)));
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_file_that_is_elsewhere_or_gone_is_named() {
    let (db, store, dir) = spilling("gone", true).await;
    let id = accept(&store, NewInvocation { payload: large(6), ..invocation("f") }).await;
    let elsewhere = db.store("two").await.payload(&ns(), id).await.unwrap_err();
    assert!(matches!(&elsewhere, StoreError::Elsewhere { server } if server == "one"), "{elsewhere}");
    for file in walk(&dir) {
        std::fs::remove_file(file).unwrap();
    }
    let gone = store.payload(&ns(), id).await.unwrap_err();
    assert!(matches!(gone, StoreError::FileGone { .. }), "{gone}");
    assert_eq!((elsewhere.code(), gone.code()), (Code::NotFound, Code::NotFound));
    let claimed = claim_one(&store, "one").await;
    assert!(claimed.payload.unwrap_err().contains("gone"), "the work is told that it cannot be done");
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn the_size_of_the_history_adds_up() {
    let (_db, store, dir) = spilling("size", true).await;
    accept(&store, NewInvocation { payload: large(7), ..invocation("f") }).await;
    let retention = runlet_core::store::retention::Retention { usual: Some(30), namespaces: [].into() };
    let size = store.history_size(&ns(), &retention).await.unwrap();
    let today = size.days.iter().find(|day| day.day == runlet_core::clock::now().date_naive()).unwrap();
    assert_eq!((today.tables["invocations"].rows, today.tables["invocations"].body_bytes), (1, 5000));
    assert_eq!((today.files, today.tables.len()), (1, 4));
    assert!(today.file_bytes >= 5000 && today.tables["invocations"].disk_bytes > 0 && today.held);
    let other = store.history_size(&Namespace::new("other").unwrap(), &retention).await.unwrap();
    assert!(other.days.iter().all(|day| day.files == 0 && day.tables.values().all(|table| table.rows == 0)));
    std::fs::remove_dir_all(dir).unwrap();
}

/// All files below a directory.
fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

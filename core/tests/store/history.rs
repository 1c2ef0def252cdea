//! Reading the history: executions by filter, output by offset.

use bytes::Bytes;
use runlet_core::cause::CauseKind;
use runlet_core::clock;
use runlet_core::engine::Stream;
use runlet_core::execution::ExecutionState;
use runlet_core::id::ExecutionId;
use runlet_core::name::Namespace;
use runlet_core::outcome::Outcome;
use runlet_core::store::execution::ExecutionFilter;
use runlet_core::store::log::Chunk;

use crate::host::*;

#[tokio::test]
async fn executions_are_found_by_every_filter() {
    let (_db, store) = db_with_function().await;
    store.deploy(revision("g", "")).await.unwrap();
    let (ledger, _tasks) = ledger(&store);
    for function in ["f", "g", "f"] {
        accept(&store, invocation(function)).await;
    }
    let claimed = store.claim("one", &room(9), LEASE).await.unwrap().work;
    noted(&store, &ledger, &claimed).await;
    assert!(ledger.finish(finish(&claimed[0], Outcome::ok())).await.unwrap());
    let call = crate::ledger::call();
    ledger.start(call.clone()).await.unwrap();

    let all = ExecutionFilter { limit: 10, ..ExecutionFilter::default() };
    let found = async |filter: ExecutionFilter| -> Vec<ExecutionId> {
        store.executions(&ns(), &filter).await.unwrap().iter().map(|execution| execution.id).collect()
    };
    let ids = found(all.clone()).await;
    assert_eq!(ids, [call.execution, claimed[2].execution, claimed[1].execution, claimed[0].execution]);
    assert_eq!(found(ExecutionFilter { limit: 2, ..all.clone() }).await, ids[..2]);
    assert_eq!(found(ExecutionFilter { before: Some(ids[1]), ..all.clone() }).await, ids[2..]);
    assert_eq!(found(ExecutionFilter { function: Some(name("g")), ..all.clone() }).await, ids[2..3]);
    assert_eq!(found(ExecutionFilter { state: Some(ExecutionState::Succeeded), ..all.clone() }).await, ids[3..]);
    assert_eq!(found(ExecutionFilter { cause: Some(CauseKind::Http), ..all.clone() }).await, ids[..1]);
    assert_eq!(found(ExecutionFilter { invocation: Some(claimed[1].invocation), ..all.clone() }).await, ids[2..3]);
    let hour = chrono::TimeDelta::hours(1);
    assert_eq!(found(ExecutionFilter { since: Some(clock::now() - hour), ..all.clone() }).await, ids);
    assert!(found(ExecutionFilter { since: Some(clock::now() + hour), ..all.clone() }).await.is_empty());
    assert!(store.executions(&Namespace::new("other").unwrap(), &all).await.unwrap().is_empty());
    assert!(store.execution(&Namespace::new("other").unwrap(), ids[0]).await.unwrap().is_none());
}

#[tokio::test]
async fn output_is_addressed_by_byte() {
    let (_db, store) = db_with_function().await;
    let execution = ExecutionId::new();
    let text: Vec<u8> = (0..=255_u8).cycle().take(100_000).collect();
    let mut chunks: Vec<Chunk> = text
        .chunks(7_001)
        .enumerate()
        .map(|(n, bytes)| Chunk {
            execution,
            stream: Stream::Stdout,
            offset: n as u64 * 7_001,
            bytes: Bytes::copy_from_slice(bytes),
        })
        .collect();
    chunks.push(Chunk { execution, stream: Stream::Stderr, offset: 0, bytes: Bytes::from_static(b"\0\xff") });
    chunks.push(Chunk { execution, stream: Stream::Stderr, offset: 2, bytes: Bytes::new() });
    store.append_logs(&ns(), &chunks).await.unwrap();
    store.append_logs(&ns(), &chunks[3..5]).await.unwrap();
    store.append_logs(&ns(), &[]).await.unwrap();

    let read = async |stream, offset, limit| store.read_logs(&ns(), execution, stream, offset, limit).await.unwrap();
    for (offset, limit) in [(0, 100_000), (0, 1), (7_000, 2), (7_001, 7_001), (50_000, 20_000), (99_999, 9)] {
        let end = (offset + limit).min(text.len());
        assert_eq!(read(Stream::Stdout, offset as u64, limit).await, text[offset..end], "{offset} {limit}");
    }
    assert!(read(Stream::Stdout, 100_000, 9).await.is_empty());
    assert_eq!(read(Stream::Stderr, 0, 9).await, &b"\0\xff"[..]);
    let other = Namespace::new("other").unwrap();
    assert!(store.read_logs(&other, execution, Stream::Stdout, 0, 9).await.unwrap().is_empty());
}

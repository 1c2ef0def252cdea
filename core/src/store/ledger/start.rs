//! Writing starts of synchronous calls: invocation and execution, many at a time.

use uuid::Uuid;

use super::CallStart;
use super::batch::Write;
use crate::clock;
use crate::store::text::{clean, count, json};
use crate::store::{Store, StoreError};

/// Writes starts.
#[derive(Debug)]
pub(super) struct Starts(pub(super) Store);

impl Write for Starts {
    type What = CallStart;
    type Answer = ();

    fn weight(what: &CallStart) -> usize {
        what.call.payload.len()
    }

    async fn write(&self, batch: &[&CallStart]) -> Result<Vec<()>, StoreError> {
        let column = |get: fn(&CallStart) -> &str| -> Vec<&str> { batch.iter().map(|start| get(start)).collect() };
        let invocations: Vec<Uuid> = batch.iter().map(|start| start.invocation.uuid()).collect();
        let executions: Vec<Uuid> = batch.iter().map(|start| start.execution.uuid()).collect();
        let causes: Vec<String> = batch.iter().map(|start| json(&start.call.cause)).collect();
        let content_types: Vec<_> = batch.iter().map(|start| start.call.content_type.as_deref().map(clean)).collect();
        let mut placed = Vec::with_capacity(batch.len());
        for start in batch {
            let namespace = start.call.namespace.as_str();
            placed.push(self.0.place(start.invocation.uuid(), namespace, &start.call.payload).await?);
        }
        let payloads: Vec<&[u8]> = placed.iter().map(|placed| placed.bytes.as_ref()).collect();
        let files: Vec<Option<&str>> = placed.iter().map(|placed| placed.file.as_deref()).collect();
        let sizes: Vec<i64> = batch.iter().map(|start| count(start.call.payload.len() as u64)).collect();
        let deadlines: Vec<_> = batch.iter().map(|start| start.call.deadline).collect();
        // A start may come a second time, after an answer that got lost: then it is there already.
        sqlx::query!(
            "WITH entry AS (
               SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                   $9::text[], $10::bytea[], $11::bigint[], $12::timestamptz[], $15::text[])
                 AS e (invocation, execution, namespace, function, revision, cause_kind, cause, reset, content_type, payload, payload_size,
                   deadline, payload_file)
             ), called AS (
               INSERT INTO invocations (id, namespace, function, revision, cause_kind, cause, state, attempts, executions, content_type,
                   payload, payload_size, deadline, created_at, payload_file)
               SELECT invocation, namespace, function, revision, cause_kind, cause::jsonb, 'running', 1, ARRAY[execution], content_type,
                   payload, payload_size, deadline, $14, payload_file
               FROM entry
               ON CONFLICT DO NOTHING
             )
             INSERT INTO executions (id, invocation, namespace, function, revision, cause_kind, attempt, state, server, reset, created_at)
             SELECT execution, invocation, namespace, function, revision, cause_kind, 1, 'starting', $13, reset, $14
             FROM entry
             ON CONFLICT DO NOTHING",
            &invocations,
            &executions,
            &column(|start| start.call.namespace.as_str()) as &[&str],
            &column(|start| start.call.function.as_str()) as &[&str],
            &column(|start| start.revision.as_str()) as &[&str],
            &column(|start| start.call.cause.kind.as_str()) as &[&str],
            &causes,
            &column(|start| start.reset.as_str()) as &[&str],
            &content_types as &[Option<std::borrow::Cow<'_, str>>],
            &payloads as &[&[u8]],
            &sizes,
            &deadlines as &[Option<clock::Timestamp>],
            self.0.inner.server,
            clock::now(),
            &files as &[Option<&str>],
        )
        .execute(self.0.relaxed())
        .await?;
        Ok(vec![(); batch.len()])
    }
}

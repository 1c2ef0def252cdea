//! Writing starts of synchronous calls: invocation and execution, many at a time.

use std::borrow::Cow;

use sqlx::PgPool;
use uuid::Uuid;

use super::CallStart;
use super::batch::Write;
use crate::clock::Timestamp;
use crate::store::spill::Placed;
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
        self.0.starts(batch, self.0.relaxed()).await?;
        Ok(vec![(); batch.len()])
    }
}

impl Store {
    /// Writes starts that are on disk when this returns.
    pub(in crate::store) async fn write_starts(&self, starts: &[&CallStart]) -> Result<(), StoreError> {
        if starts.is_empty() { Ok(()) } else { self.starts(starts, self.hot().pool()).await }
    }

    /// The payloads of starts, large ones in files.
    pub(super) async fn place_payloads(&self, starts: &[&CallStart]) -> Result<Vec<Placed>, StoreError> {
        let mut placed = Vec::with_capacity(starts.len());
        for start in starts {
            let namespace = start.call.namespace.as_str();
            placed.push(self.place(start.invocation.uuid(), namespace, &start.call.payload).await?);
        }
        Ok(placed)
    }

    /// A start may come a second time, after an answer that got lost: then it is there already.
    async fn starts(&self, starts: &[&CallStart], pool: &PgPool) -> Result<(), StoreError> {
        let placed = self.place_payloads(starts).await?;
        let columns = Columns::of(starts.iter().copied(), &placed);
        sqlx::query!(
            "WITH entry AS (
               SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                   $9::text[], $10::bytea[], $11::bigint[], $12::timestamptz[], $14::timestamptz[], $15::text[])
                 AS e (invocation, execution, namespace, function, revision, cause_kind, cause, reset, content_type, payload, payload_size,
                   deadline, created_at, payload_file)
             ), called AS (
               INSERT INTO invocations (id, namespace, function, revision, cause_kind, cause, state, attempts, executions, content_type,
                   payload, payload_size, deadline, created_at, payload_file)
               SELECT invocation, namespace, function, revision, cause_kind, cause::jsonb, 'running', 1, ARRAY[execution], content_type,
                   payload, payload_size, deadline, created_at, payload_file
               FROM entry
               ON CONFLICT DO NOTHING
             )
             INSERT INTO executions (id, invocation, namespace, function, revision, cause_kind, attempt, state, server, reset, created_at)
             SELECT execution, invocation, namespace, function, revision, cause_kind, 1, 'starting', $13, reset, created_at
             FROM entry
             ON CONFLICT DO NOTHING",
            &columns.invocations,
            &columns.executions,
            &columns.namespaces as &[&str],
            &columns.functions as &[&str],
            &columns.revisions as &[&str],
            &columns.cause_kinds as &[&str],
            &columns.causes,
            &columns.resets as &[&str],
            &columns.content_types as &[Option<Cow<'_, str>>],
            &columns.payloads as &[&[u8]],
            &columns.sizes,
            &columns.deadlines as &[Option<Timestamp>],
            self.inner.server,
            &columns.created,
            &columns.payload_files as &[Option<&str>],
        )
        .execute(pool)
        .await?;
        Ok(())
    }
}

/// Starts, column by column.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) invocations: Vec<Uuid>,
    pub(super) executions: Vec<Uuid>,
    pub(super) namespaces: Vec<&'a str>,
    pub(super) functions: Vec<&'a str>,
    pub(super) revisions: Vec<&'a str>,
    pub(super) cause_kinds: Vec<&'static str>,
    pub(super) causes: Vec<String>,
    pub(super) resets: Vec<&'static str>,
    pub(super) content_types: Vec<Option<Cow<'a, str>>>,
    pub(super) payloads: Vec<&'a [u8]>,
    pub(super) payload_files: Vec<Option<&'a str>>,
    pub(super) sizes: Vec<i64>,
    pub(super) deadlines: Vec<Option<Timestamp>>,
    pub(super) created: Vec<Timestamp>,
}

impl<'a> Columns<'a> {
    /// Of starts, and of their payloads where they have been put.
    pub(super) fn of(starts: impl Iterator<Item = &'a CallStart>, payloads: &'a [Placed]) -> Self {
        let mut columns = Self::default();
        for (start, payload) in starts.zip(payloads) {
            columns.push(start, payload);
        }
        columns
    }

    fn push(&mut self, start: &'a CallStart, payload: &'a Placed) {
        let call = &start.call;
        self.invocations.push(start.invocation.uuid());
        self.executions.push(start.execution.uuid());
        self.namespaces.push(call.namespace.as_str());
        self.functions.push(call.function.as_str());
        self.revisions.push(start.revision.as_str());
        self.cause_kinds.push(call.cause.kind.as_str());
        self.causes.push(json(&call.cause));
        self.resets.push(start.reset.as_str());
        self.content_types.push(call.content_type.as_deref().map(clean));
        self.payloads.push(payload.bytes.as_ref());
        self.payload_files.push(payload.file.as_deref());
        self.sizes.push(count(call.payload.len() as u64));
        self.deadlines.push(call.deadline);
        self.created.push(start.at);
    }
}

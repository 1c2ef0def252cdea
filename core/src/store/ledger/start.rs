//! Writing starts of synchronous calls: invocation and execution, many at a time.

use std::borrow::Cow;

use sqlx::PgPool;
use uuid::Uuid;

use super::CallStart;
use super::batch::Write;
use crate::clock::Timestamp;
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
        if starts.is_empty() { Ok(()) } else { self.starts(starts, self.hot()).await }
    }

    /// A start may come a second time, after an answer that got lost: then it is there already.
    async fn starts(&self, starts: &[&CallStart], pool: &PgPool) -> Result<(), StoreError> {
        let columns = Columns::of(starts.iter().copied());
        sqlx::query!(
            "WITH entry AS (
               SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                   $9::text[], $10::bytea[], $11::bigint[], $12::timestamptz[], $14::timestamptz[])
                 AS e (invocation, execution, namespace, function, revision, cause_kind, cause, reset, content_type, payload, payload_size,
                   deadline, created_at)
             ), called AS (
               INSERT INTO invocations (id, namespace, function, revision, cause_kind, cause, state, attempts, executions, content_type,
                   payload, payload_size, deadline, created_at)
               SELECT invocation, namespace, function, revision, cause_kind, cause::jsonb, 'running', 1, ARRAY[execution], content_type,
                   payload, payload_size, deadline, created_at
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
    pub(super) sizes: Vec<i64>,
    pub(super) deadlines: Vec<Option<Timestamp>>,
    pub(super) created: Vec<Timestamp>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(starts: impl Iterator<Item = &'a CallStart>) -> Self {
        let mut columns = Self::default();
        for start in starts {
            columns.push(start);
        }
        columns
    }

    fn push(&mut self, start: &'a CallStart) {
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
        self.payloads.push(call.payload.as_ref());
        self.sizes.push(count(call.payload.len() as u64));
        self.deadlines.push(call.deadline);
        self.created.push(start.at);
    }
}

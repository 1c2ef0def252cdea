//! What is ready in a queue, and where to begin to look for it.

use std::collections::BTreeMap;

use bytes::Bytes;
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::{PRIORITIES, QueueKey};
use super::Choice;
use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::store::StoreError;
use crate::store::text::noun;

/// So many places are looked at again: publishers that work at the same time commit in another order than that of their places.
const LATE: i64 = 2000;

/// Where to begin to look: nothing below these places was ready when somebody looked last. What committed late may be below: whoever
/// uses hints takes without them once in a while.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints {
    floors: [i64; PRIORITIES as usize + 1],
    pub(super) live: Uuid,
}

impl Hints {
    /// Raises the floors over what has gone; returns how many have.
    pub(super) fn raise(&mut self, candidates: &[Candidate], choice: &Choice) -> usize {
        let mut gone = vec![false; candidates.len()];
        let places = choice.batches.iter().flat_map(|batch| &batch.messages).chain(&choice.unwanted);
        for place in places.chain(choice.dead.iter().map(|(place, _)| place)) {
            if let Some(gone) = gone.get_mut(*place) {
                *gone = true;
            }
        }
        for (priority, floor) in (0..).zip(&mut self.floors) {
            let of_priority = || candidates.iter().zip(&gone).filter(|(candidate, _)| candidate.priority == priority);
            let kept = of_priority().filter(|(_, gone)| !**gone).map(|(candidate, _)| candidate.place).min();
            let last = of_priority().map(|(candidate, _)| candidate.place + 1).max();
            *floor = kept.or(last).map_or(*floor, |place| (place - LATE).max(*floor));
        }
        gone.into_iter().filter(|gone| *gone).count()
    }
}

/// A message that is ready.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its id.
    pub id: MessageId,
    place: i64,
    /// Higher first.
    pub priority: i16,
    /// Its key.
    pub key: Option<String>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Content type of the body.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
    /// When it was published.
    pub published_at: Timestamp,
    /// Since when it is ready.
    pub ready_at: Timestamp,
    /// Invocations it was in that failed.
    pub attempts: u32,
}

/// What is ready, best first.
pub(super) async fn candidates(
    tx: &mut PgConnection,
    (namespace, queue): &QueueKey,
    hints: &Hints,
    limit: u32,
) -> Result<Vec<Candidate>, StoreError> {
    let priorities: Vec<i16> = (0..=PRIORITIES).rev().collect();
    let floors: Vec<i64> = hints.floors.iter().rev().copied().collect();
    let rows = sqlx::query!(
        r#"SELECT m.id AS "id!: MessageId", m.place AS "place!", m.priority AS "priority!", m.key, m.attributes AS "attributes!",
               m.content_type, m.body AS "body!", m.published_at AS "published_at!", m.ready_at AS "ready_at!", m.attempts AS "attempts!"
           FROM unnest($3::smallint[], $4::bigint[]) WITH ORDINALITY AS l (priority, floor, nth)
           CROSS JOIN LATERAL (
             SELECT * FROM messages c
             WHERE c.namespace = $1 AND c.queue = $2 AND c.priority = l.priority AND c.place >= l.floor
               AND c.due IS NULL AND NOT c.behind AND c.invocation IS NULL AND c.dead_at IS NULL
             ORDER BY c.place LIMIT $5
           ) m
           LIMIT $5"#,
        namespace.as_str(),
        queue,
        &priorities,
        &floors,
        i64::from(limit),
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Candidate {
                id: row.id,
                place: row.place,
                priority: row.priority,
                key: row.key,
                attributes: noun("messages", &row.id, row.attributes)?,
                content_type: row.content_type,
                body: row.body.into(),
                published_at: row.published_at,
                ready_at: row.ready_at,
                attempts: row.attempts.unsigned_abs(),
            })
        })
        .collect()
}

//! The cron triggers of a deployed manifest.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::TriggerId;
use crate::manifest::{CronTrigger, Manifest, TriggerSpec};
use crate::name::Namespace;
use crate::store::StoreError;
use crate::store::queue::Wakeup;
use crate::store::queue::news::notify;
use crate::store::text::json;

/// Puts the cron triggers of `manifest` in the place of the former ones; returns the ids of those there are now. The nth one of a
/// function stays the nth one: its pause outlives a deploy, and its cursor, too, unless its rhythm has changed.
pub(in crate::store) async fn replace(
    tx: &mut PgConnection,
    namespace: &Namespace,
    manifest: &Manifest,
    now: Timestamp,
) -> Result<Vec<Uuid>, StoreError> {
    let specs: Vec<&CronTrigger> = manifest
        .triggers
        .iter()
        .filter_map(|trigger| match trigger {
            TriggerSpec::Cron(spec) => Some(spec),
            TriggerSpec::Webhook(_) | TriggerSpec::Queue(_) => None,
        })
        .collect();
    let ids: Vec<Uuid> = specs.iter().map(|_| TriggerId::new().uuid()).collect();
    let texts: Vec<String> = specs.iter().map(|spec| json(*spec)).collect();
    let rhythms: Vec<String> = specs.iter().map(|spec| spec.rhythm()).collect();
    let kept = sqlx::query!(
        r#"INSERT INTO triggers (id, namespace, function, kind, path, ordinal, spec)
         SELECT t.id, $1, $2, 'cron', '', t.nth::integer - 1, t.spec::jsonb
         FROM unnest($3::uuid[], $4::text[]) WITH ORDINALITY AS t (id, spec, nth)
         ON CONFLICT (namespace, function, kind, path, ordinal) DO UPDATE SET spec = excluded.spec
         RETURNING id, ordinal"#,
        namespace.as_str(),
        manifest.name.as_str(),
        &ids,
        &texts,
    )
    .fetch_all(&mut *tx)
    .await?;
    let (kept, ordinals): (Vec<Uuid>, Vec<i32>) = kept.into_iter().map(|row| (row.id, row.ordinal)).unzip();
    sqlx::query!(
        "INSERT INTO cron_schedules AS s (trigger, namespace, rhythm, cursor)
         SELECT t.id, $1, r.rhythm, $5
         FROM unnest($2::uuid[], $3::integer[]) AS t (id, ordinal)
         JOIN unnest($4::text[]) WITH ORDINALITY AS r (rhythm, nth) ON r.nth = t.ordinal + 1
         ON CONFLICT (trigger) DO UPDATE SET rhythm = excluded.rhythm, cursor = excluded.cursor
         WHERE s.rhythm <> excluded.rhythm",
        namespace.as_str(),
        &kept,
        &ordinals,
        &rhythms,
        now,
    )
    .execute(&mut *tx)
    .await?;
    notify(tx, [Wakeup::Schedules]).await?;
    Ok(kept)
}

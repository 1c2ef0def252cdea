//! What is set for a function beside its revision.

use super::Function;
use crate::name::{FunctionName, Namespace};
use crate::precondition::Precondition;
use crate::settings::Settings;
use crate::store::text::count;
use crate::store::{Store, StoreError};

impl Store {
    /// Puts settings on record in place of those that are there, if those are as the caller wants them to be.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for a function that is not there, [`StoreError::Precondition`] when somebody else has changed
    /// them.
    pub async fn set_settings(
        &self,
        namespace: &Namespace,
        name: &FunctionName,
        settings: &Settings,
        precondition: &Precondition,
    ) -> Result<Function, StoreError> {
        let mut tx = self.pool().begin().await?;
        let before = sqlx::query!(
            r#"SELECT s.memory AS "memory?", s.cpu AS "cpu?", s.pids AS "pids?", s.set_at AS "set_at?"
               FROM functions f LEFT JOIN function_settings s ON s.namespace = f.namespace AND s.function = f.name
               WHERE f.namespace = $1 AND f.name = $2 FOR NO KEY UPDATE OF f"#,
            namespace.as_str(),
            name.as_str(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(before) = before else {
            return Err(StoreError::Missing(format!("there is no function `{name}` in this namespace")));
        };
        let before = super::settings(before.memory, before.cpu, before.pids, before.set_at);
        if !precondition.holds(Some(&before.version())) {
            return Err(StoreError::Precondition(format!(
                "the settings of function `{name}` are not as the request expects; look at them, then send their ETag in If-Match"
            )));
        }
        sqlx::query!(
            "INSERT INTO function_settings (namespace, function, memory, cpu, pids, set_at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (namespace, function) DO UPDATE
             SET memory = excluded.memory, cpu = excluded.cpu, pids = excluded.pids, set_at = excluded.set_at",
            namespace.as_str(),
            name.as_str(),
            settings.memory.map(|memory| count(memory.0)),
            settings.cpu,
            settings.pids.map(|pids| i32::try_from(pids).unwrap_or(i32::MAX)),
            settings.set_at.unwrap_or_else(crate::clock::now),
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        self.as_changed(namespace, name).await
    }
}

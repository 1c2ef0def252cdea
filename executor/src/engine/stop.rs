//! The end of the engine: a ladder from no new work to nothing left.

use std::time::Duration;

use tokio::time::timeout;

use super::LocalEngine;

/// How long executions that are killed may take to be on record, and sandboxes to be gone.
const AFTER_KILL: Duration = Duration::from_secs(15);

impl LocalEngine {
    /// No new work from now on: calls are refused, nothing is claimed, idle sandboxes end. What runs goes on.
    pub fn begin_stop(&self) {
        self.shared.stopping.cancel();
        self.shared.gate.close();
    }

    /// Ends everything. What runs may go on for `grace`; then it is killed. When this returns every execution is on
    /// record, unless the database is down, and every sandbox is gone.
    pub async fn stop(&self, grace: Duration) {
        self.begin_stop();
        let shared = &self.shared;
        let quiet = async { tokio::join!(shared.registry.empty(), shared.leases.quiet()) };
        if timeout(grace, quiet).await.is_err() {
            tracing::warn!(grace_s = grace.as_secs(), "executions still run: they are killed");
        }
        shared.registry.stop();
        shared.end_leases().await;
        if timeout(AFTER_KILL, shared.registry.empty()).await.is_err() {
            tracing::error!(
                "executions were killed and their end is not on record: they are declared lost at the next start"
            );
        }
        shared.ended.cancel();
        shared.tasks.close();
        if timeout(AFTER_KILL, shared.tasks.wait()).await.is_err() {
            tracing::error!("not everything has ended in time; the rest is cleared up at the next start");
        }
    }
}

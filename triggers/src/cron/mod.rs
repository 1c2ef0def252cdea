//! Schedules: ticks of the clock become invocations, each once, however many servers there are.
//!
//! ```text
//!  expr (fields) ─► zone (which moments) ─► plan (what is due, what was missed) ─► overlap (what else runs)
//!      pure             pure                    pure: the moment comes in             pure
//!                                                     └────────► Service ─► Store::fire: ticks and invocations, one transaction
//! ```
//! The service keeps no state that another server could not rebuild: what is decided is in the ledger.

mod book;
mod expr;
mod field;
mod overlap;
mod plan;
mod service;
mod zone;

pub use expr::{BadExpr, Expr};
pub use overlap::decide;
pub use plan::{Due, GRACE, Tick, due, jitter, sane_cursor};
pub use service::Service;
pub use zone::{Rhythm, zone};

use runlet_core::manifest::{CronTrigger, Manifest, TriggerSpec};

/// The rhythm of a trigger.
///
/// # Errors
/// [`BadExpr`] that names the field, or the zone.
pub fn rhythm(spec: &CronTrigger) -> Result<Rhythm, BadExpr> {
    Rhythm::new(&spec.schedule, &spec.zone, spec.seconds)
}

/// Checks the schedules of a manifest.
///
/// # Errors
/// Which trigger is wrong (from 1), which key, and why.
pub fn check(manifest: &Manifest) -> Result<(), String> {
    for (nth, trigger) in manifest.triggers.iter().enumerate() {
        let TriggerSpec::Cron(spec) = trigger else { continue };
        rhythm(spec).map_err(|error| {
            let key = if error.field == Some("zone") { "zone" } else { "schedule" };
            let what = if key == "zone" { error.message } else { error.to_string() };
            format!("trigger.{key} (of trigger {}): {what}", nth + 1)
        })?;
    }
    Ok(())
}

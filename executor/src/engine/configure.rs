//! Limits that change while a function runs: here, at once, and on record.
//!
//! ```text
//!  check ──► room for all of its sandboxes ──► each sandbox, one after the other ──► on record ──► later ones are made so
//!              └── none: refused                └── one refuses: all back              └── fails: all back
//! ```

use std::sync::Arc;
use std::time::Duration;

use runlet_core::clock;
use runlet_core::engine::EngineError;
use runlet_core::limits::Limits;
use runlet_core::manifest::Manifest;
use runlet_core::name::{FunctionName, Namespace};
use runlet_core::precondition::Precondition;
use runlet_core::settings::{Change, Settings, least};
use runlet_core::store::function::Function;
use runlet_core::unit::ByteSize;
use tokio::time::{Instant, sleep};

use super::Shared;
use super::job::Job;
use crate::admission::FunctionKey;
use crate::host::sandbox::{Reins, SandboxError};
use crate::pool::Warm;

/// How long idle sandboxes of others may take to go when their memory is needed.
const ROOM_PATIENCE: Duration = Duration::from_millis(800);

/// How often it is looked whether they are gone.
const LOOK: Duration = Duration::from_millis(5);

impl Shared {
    /// What is set for a function. While the database is away: as it was last seen, or nothing.
    pub(super) async fn settings(&self, namespace: &Namespace, function: &FunctionName) -> Settings {
        let current = self.store.current(namespace, function).await.ok().flatten();
        current.map(|current| current.function.settings).unwrap_or_default()
    }

    /// The limits of a revision of the function now, and which setting that is.
    pub(super) async fn limits(
        &self,
        namespace: &Namespace,
        function: &FunctionName,
        manifest: &Manifest,
    ) -> (Limits, i64) {
        let settings = self.settings(namespace, function).await;
        (settings.over(manifest.limits, manifest.runtime), settings.edition())
    }

    pub(super) async fn configure(
        self: &Arc<Self>,
        namespace: &Namespace,
        name: &FunctionName,
        change: Change,
        precondition: &Precondition,
    ) -> Result<Function, EngineError> {
        // One at a time: each sees what the one before has done. Nothing is left half done if the caller goes away.
        let (shared, namespace, name, precondition) =
            (Arc::clone(self), namespace.clone(), name.clone(), precondition.clone());
        let task = self.tasks.spawn(async move {
            let _one = shared.configuring.lock().await;
            shared.change(&namespace, &name, change, &precondition).await
        });
        task.await.map_err(|_| EngineError::Stopping)?
    }

    async fn change(
        &self,
        namespace: &Namespace,
        name: &FunctionName,
        change: Change,
        precondition: &Precondition,
    ) -> Result<Function, EngineError> {
        let function = self.store.function(namespace, name).await?.ok_or_else(|| EngineError::NotFound {
            what: "function",
            name: name.to_string(),
            namespace: namespace.clone(),
        })?;
        let before = function.settings;
        if !precondition.holds(Some(&before.version())) {
            // The store says it in its words, and changes nothing.
            return Ok(self.store.set_settings(namespace, name, &before, precondition).await?);
        }
        let settings = before.changed(&change, clock::now());
        check(&function, &settings, ByteSize(self.gate.bounds().memory))?;
        let key = (namespace.clone(), name.clone());
        let (old, new) = (function.limits(), settings.over(function.manifest.limits, function.manifest.runtime));
        // Those that are made from here on find it there.
        self.sizes.set(key.clone(), settings);
        let applied = self.apply(&key, old, before.edition(), new, settings.edition()).await;
        let stored = match applied {
            Ok(()) => {
                self.store.set_settings(namespace, name, &settings, precondition).await.map_err(EngineError::from)
            }
            Err(error) => Err(error),
        };
        if stored.is_err() {
            self.sizes.set(key.clone(), before);
            // Back is where they come from: there was room for that.
            let _ = self.apply(&key, new, settings.edition(), old, before.edition()).await;
        }
        stored
    }

    /// Gives all sandboxes of a function new limits, or none.
    async fn apply(
        &self,
        key: &FunctionKey,
        old: Limits,
        before: i64,
        new: Limits,
        edition: i64,
    ) -> Result<(), EngineError> {
        let until = Instant::now() + ROOM_PATIENCE;
        let rooms = loop {
            let rooms = self.gate.rooms_of(key);
            match self.gate.resize(&rooms, new.memory.0) {
                Ok(()) => break rooms,
                Err(missing) if Instant::now() >= until => {
                    let reason = format!(
                        "{} sandboxes of `{}` exist, and with {} each {} are missing on this host: lower memory, wait for other work to \
                         end, or raise the server's `memory`",
                        rooms.len(),
                        key.1,
                        new.memory,
                        ByteSize(missing),
                    );
                    return Err(EngineError::Conflict(reason));
                }
                // Idle sandboxes were told to leave: their memory is free in a moment.
                Err(_) => sleep(LOOK).await,
            }
        };
        let mut done: Vec<Reins> = Vec::new();
        for (_, reins) in self.sizes.of(&rooms) {
            match reins.resize(new).await {
                Ok(()) => {
                    reins.set_edition(edition);
                    done.push(reins);
                }
                Err(SandboxError::Gone) => {}
                Err(error) => {
                    for reins in done {
                        let _ = reins.resize(old).await;
                        reins.set_edition(before);
                    }
                    let _ = self.gate.resize(&rooms, old.memory.0);
                    return Err(EngineError::Conflict(error.to_string()));
                }
            }
        }
        Ok(())
    }

    /// A sandbox was made for the job: from now on its limits can be changed.
    pub(super) async fn hold(&self, job: &Job, room: u64, reins: Reins) {
        reins.set_edition(job.edition);
        let Some(settings) = self.sizes.put(room, &job.function_key(), reins.clone()) else { return };
        // They were changed while it was made. What does not work out now is tried again before its next call.
        let limits = settings.over(job.manifest.limits, job.manifest.runtime);
        if self.gate.resize(&[room], limits.memory.0).is_ok() && reins.resize(limits).await.is_ok() {
            reins.set_edition(settings.edition());
        }
    }

    /// Whether a warm sandbox has the limits that the job is to have; it gets them if that is possible.
    pub(super) async fn fit(&self, job: &Job, warm: &Warm) -> bool {
        let sandbox = warm.session.sandbox();
        if sandbox.edition() == job.edition {
            return true;
        }
        let done = warm.room.resize(job.limits.memory.0) && sandbox.resize(job.limits).await.is_ok();
        if done {
            sandbox.reins().set_edition(job.edition);
        }
        done
    }
}

/// What a function cannot have, whatever runs.
fn check(function: &Function, settings: &Settings, host: ByteSize) -> Result<(), EngineError> {
    let (limits, runtime) = (function.manifest.limits, function.manifest.runtime);
    let invalid = |reason: String| Err(EngineError::Invalid(reason));
    if let Some(memory) = settings.memory {
        let least = least(&limits, runtime);
        if memory < least {
            return invalid(format!(
                "memory: {memory} is too little: /tmp ({}) is memory, and the {} runtime itself needs {}; write at least {least}",
                limits.tmp,
                runtime.as_str(),
                runtime.floor(),
            ));
        }
        if memory > host {
            return invalid(format!("memory: {memory} is more than this host has for sandboxes, {host}"));
        }
    }
    if settings.cpu.is_some_and(|cpu| !(0.01..=1024.0).contains(&cpu)) {
        return invalid("cpu: write a number from 0.01 to 1024".to_owned());
    }
    if settings.pids.is_some_and(|pids| !(16..=1_000_000).contains(&pids)) {
        return invalid("pids: write a number from 16 to 1000000".to_owned());
    }
    Ok(())
}

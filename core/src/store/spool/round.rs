//! One round of the drain: records that are written together.
//!
//! A call whose start and end are both here is written once, complete. Everything may be written a second time: by a replay
//! after a death, or because an answer of the database got lost.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::NaiveDate;

use super::record::Said;
use crate::id::ExecutionId;
use crate::name::Namespace;
use crate::store::ledger::{CallStart, Finish};
use crate::store::log::Chunk;
use crate::store::{Store, StoreError};

/// Records that are written together.
#[derive(Debug, Default)]
pub(super) struct Round {
    outputs: BTreeMap<Namespace, Vec<Chunk>>,
    starts: Vec<CallStart>,
    ends: HashMap<ExecutionId, Finish>,
}

impl Round {
    pub(super) fn add(&mut self, said: Said) {
        match said {
            Said::Start(start) => self.starts.push(start),
            Said::Output(namespace, chunk) => self.outputs.entry(namespace).or_default().push(chunk),
            // The first end counts.
            Said::End(finish) => drop(self.ends.entry(finish.execution).or_insert(finish)),
        }
    }

    /// Writes everything: output first, so that whoever sees an end finds all output.
    ///
    /// # Errors
    /// When the database does not answer, or refuses a record. Part of it may be written then.
    pub(super) async fn write(&self, store: &Store) -> Result<(), StoreError> {
        for (namespace, chunks) in &self.outputs {
            store.append_logs(namespace, chunks).await?;
        }
        let (complete, open): (Vec<_>, Vec<_>) =
            self.starts.iter().partition(|start| self.ends.contains_key(&start.execution));
        let complete: Vec<(&CallStart, &Finish)> =
            complete.into_iter().filter_map(|start| Some((start, self.ends.get(&start.execution)?))).collect();
        let known = store.write_complete(&complete).await?;
        store.write_starts(&open).await?;
        let written: HashSet<ExecutionId> = complete.iter().map(|(start, _)| start.execution).collect();
        // Those that were there already, as started, are left to be ended.
        let left = |end: &&Finish| !written.contains(&end.execution) || known.contains(&end.execution.uuid());
        let ends: Vec<&Finish> = self.ends.values().filter(left).collect();
        store.write_ends(&ends).await
    }

    /// The first and the last day that its records are of.
    pub(super) fn days(&self) -> Option<(NaiveDate, NaiveDate)> {
        let days = || self.starts.iter().map(|start| start.at.date_naive());
        Some((days().min()?, days().max()?))
    }

    /// Writes each record for itself, so that one that the database refuses takes no other with it. Returns what must be tried
    /// again, because the database does not answer, and whether it has refused any.
    pub(super) async fn write_each(self, store: &Store) -> (Self, bool) {
        let (mut again, mut refused) = (Self::default(), false);
        let outputs = self.outputs.into_iter().flat_map(|(namespace, chunks)| {
            chunks.into_iter().map(move |chunk| Said::Output(namespace.clone(), chunk))
        });
        let rest = self.starts.into_iter().map(Said::Start).chain(self.ends.into_values().map(Said::End));
        for said in outputs.chain(rest) {
            let mut one = Self::default();
            one.add(said.clone());
            match one.write(store).await {
                Ok(()) => {}
                Err(StoreError::Down(_)) => again.add(said),
                Err(error) => {
                    refused = true;
                    tracing::error!(record = %name(&said), %error, "the database refuses a record of the spool");
                }
            }
        }
        (again, refused)
    }
}

fn name(said: &Said) -> String {
    match said {
        Said::Start(start) => format!("start of {}", start.execution),
        Said::Output(_, chunk) => format!("output of {} at {}", chunk.execution, chunk.offset),
        Said::End(finish) => format!("end of {}", finish.execution),
    }
}

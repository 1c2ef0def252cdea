//! What is set for a function beside its revision: limits that change while it runs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::limits::Limits;
use crate::manifest::RuntimeKind;
use crate::unit::ByteSize;

/// Limits that are set for a function. They go over those of its revision, over this one and the next.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct Settings {
    /// Memory of a sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "512MiB")]
    pub memory: Option<ByteSize>,
    /// CPUs, as a fraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// When they were set last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub set_at: Option<Timestamp>,
}

/// A change of them: what is not named stays.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Change {
    /// Memory; `Some(None)`: what the revision says.
    pub memory: Option<Option<ByteSize>>,
    /// CPUs.
    pub cpu: Option<Option<f64>>,
    /// Processes and threads.
    pub pids: Option<Option<u32>>,
}

impl Settings {
    /// Whether nothing is set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.memory.is_none() && self.cpu.is_none() && self.pids.is_none()
    }

    /// The settings after a change.
    #[must_use]
    pub fn changed(&self, change: &Change, at: Timestamp) -> Self {
        Self {
            memory: change.memory.unwrap_or(self.memory),
            cpu: change.cpu.unwrap_or(self.cpu),
            pids: change.pids.unwrap_or(self.pids),
            set_at: Some(at),
        }
    }

    /// The limits of a revision with these over them. Memory that the revision cannot start in is not set: a revision that
    /// was deployed later may need more.
    #[must_use]
    pub fn over(&self, limits: Limits, runtime: RuntimeKind) -> Limits {
        let least = least(&limits, runtime);
        Limits {
            memory: self.memory.filter(|memory| *memory >= least).unwrap_or(limits.memory),
            cpu: self.cpu.unwrap_or(limits.cpu),
            pids: self.pids.unwrap_or(limits.pids),
            ..limits
        }
    }

    /// Names the state they are in.
    #[must_use]
    pub fn version(&self) -> String {
        let memory = self.memory.map_or(0, |memory| memory.0);
        let at = self.set_at.map_or(0, |at| at.timestamp_micros());
        format!("{at}-{memory}-{}-{}", self.cpu.unwrap_or(0.0), self.pids.unwrap_or(0))
    }

    /// A number that is another one for each time they were set; 0: never.
    #[must_use]
    pub fn edition(&self) -> i64 {
        self.set_at.map_or(0, |at| at.timestamp_micros())
    }
}

/// The least memory that a sandbox of the runtime can have: /tmp counts, and so does the runtime itself.
#[must_use]
pub const fn least(limits: &Limits, runtime: RuntimeKind) -> ByteSize {
    ByteSize(limits.tmp.0.saturating_add(runtime.floor().0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_goes_over_what_the_revision_says_unless_it_cannot_start_in_it() {
        let limits = Limits::default();
        let set = Settings { memory: Some(ByteSize::mib(512)), pids: Some(7), ..Settings::default() };
        let over = set.over(limits, RuntimeKind::Python);
        assert_eq!((over.memory, over.cpu, over.pids, over.tmp), (ByteSize::mib(512), limits.cpu, 7, limits.tmp));
        let little = Settings { memory: Some(ByteSize::mib(39)), ..Settings::default() };
        assert_eq!(
            little.over(limits, RuntimeKind::Python).memory,
            limits.memory,
            "16 MiB of /tmp and 24 MiB of Python"
        );
        let just = Settings { memory: Some(ByteSize::mib(40)), ..Settings::default() };
        assert_eq!(just.over(limits, RuntimeKind::Python).memory, ByteSize::mib(40));
    }

    #[test]
    fn a_change_leaves_alone_what_it_does_not_name() {
        let now = crate::clock::now();
        let set = Settings { memory: Some(ByteSize::mib(512)), cpu: Some(2.0), ..Settings::default() };
        let changed = set.changed(&Change { memory: Some(None), pids: Some(Some(9)), ..Change::default() }, now);
        assert_eq!((changed.memory, changed.cpu, changed.pids), (None, Some(2.0), Some(9)));
        assert_ne!(changed.version(), set.version());
    }
}

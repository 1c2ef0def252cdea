//! What a sandbox may use.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::unit::{ByteSize, Span};

/// Limits of one sandbox. All are always set: there is no unlimited sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Longest time of one execution.
    #[schema(value_type = String, example = "10s")]
    pub timeout: Span,
    /// Memory of the whole sandbox, page cache and tmpfs included; swap is none.
    #[schema(value_type = String, example = "128MiB")]
    pub memory: ByteSize,
    /// CPUs, as a fraction: 0.5 is half of one.
    pub cpu: f64,
    /// Processes and threads.
    pub pids: u32,
    /// Size of the private /tmp (tmpfs: it counts as memory).
    #[schema(value_type = String, example = "16MiB")]
    pub tmp: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Span(std::time::Duration::from_secs(10)),
            memory: ByteSize::mib(128),
            cpu: 1.0,
            pids: 64,
            tmp: ByteSize::mib(16),
        }
    }
}

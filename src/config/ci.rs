//! What the operator says about jobs of CI systems.

use std::time::Duration;

use runlet_core::engine::Network;
use runlet_core::limits::Limits;
use runlet_core::unit::{ByteSize, Span};

/// The table `[ci]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CiConfig {
    /// What of the network jobs see.
    pub network: Network,
    /// A sandbox in which nothing has run for so long is gone.
    pub idle: Span,
    /// How long a sandbox lasts beyond the timeout of its job: for what a job does after its script.
    pub after: Span,
    /// From SIGTERM to SIGKILL for a step that is cancelled.
    pub kill_grace: Span,
    /// How long a job waits for room.
    pub wait: Span,
    /// The table `[ci.gitlab]`.
    pub gitlab: GitlabConfig,
}

/// Limits of GitLab's jobs: what a job gets that says nothing, and the most that it may ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GitlabConfig {
    /// Where a job says nothing.
    pub usual: Limits,
    /// At most.
    pub most: Limits,
}

impl Default for CiConfig {
    fn default() -> Self {
        let seconds = |n| Span(Duration::from_secs(n));
        Self {
            network: Network::None,
            idle: seconds(120),
            after: seconds(600),
            kill_grace: seconds(10),
            wait: seconds(3600),
            gitlab: GitlabConfig {
                usual: Limits {
                    timeout: seconds(3600),
                    memory: ByteSize::mib(512),
                    cpu: 1.0,
                    pids: 512,
                    tmp: ByteSize::mib(64),
                },
                most: Limits {
                    timeout: seconds(24 * 3600),
                    memory: ByteSize::mib(4096),
                    cpu: 4.0,
                    pids: 4096,
                    tmp: ByteSize::mib(1024),
                },
            },
        }
    }
}

/// What a job asks for. What is not said is as the operator says.
#[derive(Debug, Clone, Copy, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    /// Memory.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "512MiB")]
    pub memory: Option<ByteSize>,
    /// CPUs.
    #[serde(default)]
    pub cpu: Option<f64>,
    /// Processes.
    #[serde(default)]
    pub pids: Option<u32>,
    /// Size of /tmp.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "64MiB")]
    pub tmp: Option<ByteSize>,
    /// The job's timeout.
    #[serde(skip)]
    #[schema(ignore)]
    pub timeout: Option<Span>,
}

impl GitlabConfig {
    /// The limits that a job gets, and a line for each wish that is above what it may have.
    pub(crate) fn grant(&self, wish: Wish) -> (Limits, Vec<String>) {
        let mut notes = Vec::new();
        let mut cut = |what: &str, wanted: String, most: String| {
            notes.push(format!("{what}: {wanted} is more than a job may have here, it gets {most}"));
        };
        let (usual, most) = (self.usual, self.most);
        let mut limits = Limits {
            timeout: wish.timeout.unwrap_or(usual.timeout),
            memory: wish.memory.unwrap_or(usual.memory),
            cpu: wish.cpu.unwrap_or(usual.cpu),
            pids: wish.pids.unwrap_or(usual.pids),
            tmp: wish.tmp.unwrap_or(usual.tmp),
        };
        if limits.timeout > most.timeout {
            cut("timeout", limits.timeout.to_string(), most.timeout.to_string());
            limits.timeout = most.timeout;
        }
        if limits.memory > most.memory {
            cut("memory", limits.memory.to_string(), most.memory.to_string());
            limits.memory = most.memory;
        }
        if limits.cpu > most.cpu {
            cut("cpu", limits.cpu.to_string(), most.cpu.to_string());
            limits.cpu = most.cpu;
        }
        if limits.pids > most.pids {
            cut("pids", limits.pids.to_string(), most.pids.to_string());
            limits.pids = most.pids;
        }
        // It is memory, so it has to fit into that.
        let room = most.tmp.min(ByteSize(limits.memory.0 / 2));
        if limits.tmp > room {
            if wish.tmp.is_some() {
                cut("tmp", limits.tmp.to_string(), room.to_string());
            }
            limits.tmp = room;
        }
        (limits, notes)
    }
}

/// Why a wish cannot be: too little of something for anything to run.
pub(crate) fn too_little(limits: &Limits) -> Option<String> {
    if limits.memory < ByteSize::mib(16) {
        return Some(format!("memory: {} is too little for a job; ask for at least 16MiB", limits.memory));
    }
    if !limits.cpu.is_finite() || limits.cpu < 0.01 {
        return Some(format!("cpu: {} is too little for a job; ask for at least 0.01", limits.cpu));
    }
    if limits.pids < 4 {
        return Some(format!("pids: {} is too little for a job; ask for at least 4", limits.pids));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_granted_up_to_the_cap_and_said_when_cut() {
        let config = CiConfig::default().gitlab;
        let (limits, notes) = config.grant(Wish::default());
        assert_eq!((limits, notes.len()), (config.usual, 0));
        let wish = Wish { memory: Some(ByteSize::mib(65_536)), pids: Some(9), ..Wish::default() };
        let (limits, notes) = config.grant(wish);
        assert_eq!((limits.memory, limits.pids), (config.most.memory, 9));
        assert_eq!(notes, ["memory: 64GiB is more than a job may have here, it gets 4GiB"]);
        let (limits, notes) = config.grant(Wish { memory: Some(ByteSize::mib(64)), ..Wish::default() });
        assert_eq!((limits.tmp, notes.len()), (ByteSize::mib(32), 0), "/tmp shrinks with the memory");
        assert!(too_little(&Limits { cpu: f64::NAN, ..limits }).is_some());
    }
}

//! A cron trigger as the manifest declares it. What its schedule means is read by `runlet-triggers`.

use serde::{Deserialize, Serialize};

use crate::unit::Span;

/// What a tick does while earlier runs of the same trigger are not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is passed over.
    #[default]
    Skip,
    /// It waits for their end, unless another one waits already.
    BufferOne,
    /// It waits for its turn.
    BufferAll,
    /// It cancels them and starts when they are gone.
    Cancel,
    /// It starts beside them.
    Allow,
}

/// What becomes of ticks that came while nobody was there for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Misfire {
    /// They are passed over.
    None,
    /// The last one is made good for.
    #[default]
    Last,
    /// All are made good for, one after the other.
    All,
}

impl Overlap {
    /// Every policy.
    pub const ALL: [Self; 5] = [Self::Skip, Self::BufferOne, Self::BufferAll, Self::Cancel, Self::Allow];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::BufferOne => "buffer_one",
            Self::BufferAll => "buffer_all",
            Self::Cancel => "cancel",
            Self::Allow => "allow",
        }
    }
}

impl Misfire {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::None, Self::Last, Self::All];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Last => "last",
            Self::All => "all",
        }
    }
}

/// A cron trigger: a schedule that makes invocations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CronTrigger {
    /// Five fields (six with `seconds`), or `@daily` and its like.
    pub schedule: String,
    /// IANA zone of its wall clock.
    pub zone: String,
    /// Whether there are six fields, of which the first is the second.
    pub seconds: bool,
    /// What a tick does while earlier runs are not over.
    pub overlap: Overlap,
    /// What becomes of missed ticks.
    pub misfire: Misfire,
    /// Ticks missed longer ago than that are passed over.
    pub misfire_window: Span,
    /// At most so many missed ticks are made good for, the last ones.
    pub misfire_limit: u32,
    /// Most runs of the trigger that may run and wait at a time; ticks beyond it are passed over.
    pub backlog: u32,
    /// Each run starts up to so much later than its tick.
    pub jitter: Span,
    /// Goes to the function as `data` of its event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

impl CronTrigger {
    /// What the ticks depend on: with another one of these the trigger starts anew.
    #[must_use]
    pub fn rhythm(&self) -> String {
        format!("{} {} {}", if self.seconds { "seconds" } else { "minutes" }, self.zone, self.schedule)
    }
}

//! Why an invocation exists: which door it came in by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{DeliveryId, InvocationId, TriggerId};
use crate::lineage::Lineage;
use crate::trace::Trace;

/// The door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CauseKind {
    /// A call through the REST API or the CLI.
    Http,
    /// A webhook delivery.
    Webhook,
    /// A tick of a schedule.
    Cron,
    /// A message of a queue.
    Queue,
    /// A job of a CI system.
    Ci,
    /// A repeat of an earlier invocation, asked for by somebody.
    Rerun,
    /// Somebody leased a sandbox to run commands in it.
    Lease,
    /// The end of an invocation of another function, which names this one as its destination.
    Chain,
}

impl CauseKind {
    /// Every kind.
    pub const ALL: [Self; 8] =
        [Self::Http, Self::Webhook, Self::Cron, Self::Queue, Self::Ci, Self::Rerun, Self::Lease, Self::Chain];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Webhook => "webhook",
            Self::Cron => "cron",
            Self::Queue => "queue",
            Self::Ci => "ci",
            Self::Rerun => "rerun",
            Self::Lease => "lease",
            Self::Chain => "chain",
        }
    }
}

/// Why an invocation exists, as the code sees it in `context.cause`.
///
/// Headers that carry credentials are never in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cause {
    /// The door.
    pub kind: CauseKind,
    /// The trigger that made the invocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<TriggerId>,
    /// The delivery it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryId>,
    /// The invocation that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<InvocationId>,
    /// Where it comes from, where another invocation is its cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Box<Lineage>>,
    /// Request headers, names in lower case, without credentials.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The event in the one shape that all forges share, where an adapter made one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalised: Option<serde_json::Value>,
    /// The trace it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
    /// The job, where a CI system is the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<CiJob>>,
}

/// What a CI system says about a job. Words of its own, for people to find the job by; nothing here is a secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CiJob {
    /// Which CI system: `gitlab`.
    pub provider: String,
    /// The job's id there.
    pub id: String,
    /// The job's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The stage of the pipeline that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Path of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Id of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// Id of the pipeline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    /// Branch or tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#ref: Option<String>,
    /// Commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha: Option<String>,
    /// Where people look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

impl CiJob {
    /// Longest text of a field, bytes.
    pub const LONGEST: usize = 1024;

    /// The job with texts that are fit to be kept: cut where they are too long.
    #[must_use]
    pub fn cut(mut self) -> Self {
        let rest = [
            &mut self.name,
            &mut self.stage,
            &mut self.project,
            &mut self.project_id,
            &mut self.pipeline,
            &mut self.r#ref,
            &mut self.sha,
            &mut self.url,
        ];
        for text in [&mut self.provider, &mut self.id].into_iter().chain(rest.into_iter().flatten()) {
            text.truncate(text.floor_char_boundary(Self::LONGEST));
        }
        self
    }
}

impl Cause {
    /// A cause of `kind` with nothing else known.
    #[must_use]
    pub const fn of_kind(kind: CauseKind) -> Self {
        Self {
            kind,
            trigger: None,
            delivery: None,
            of: None,
            lineage: None,
            headers: BTreeMap::new(),
            normalised: None,
            trace: None,
            job: None,
        }
    }
    /// The facts of the event as variables for programs: `sha` becomes `RUNLET_EVENT_SHA`.
    pub fn event_variables(&self) -> impl Iterator<Item = (String, String)> {
        let facts = self.normalised.as_ref().and_then(serde_json::Value::as_object).into_iter().flatten();
        facts.filter_map(|(name, value)| {
            let value = match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Number(number) => number.to_string(),
                _ => return None,
            };
            Some((format!("RUNLET_EVENT_{}", name.to_ascii_uppercase()), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_the_event_become_variables() {
        let normalised = serde_json::json!({"ref": "refs/heads/main", "pull_request": 7, "more": {}});
        let cause = Cause { normalised: Some(normalised), ..Cause::of_kind(CauseKind::Webhook) };
        let variables: Vec<_> = cause.event_variables().collect();
        let expected = [("RUNLET_EVENT_PULL_REQUEST", "7"), ("RUNLET_EVENT_REF", "refs/heads/main")];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(Cause::of_kind(CauseKind::Http).event_variables().count(), 0);
    }
}

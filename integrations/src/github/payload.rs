//! The few fields of GitHub's payloads that rules and records need. Everything else is the function's.

use runlet_triggers::webhook::{Normalised, Refusal};
use serde::Deserialize;

use crate::loose::{Number, Object, Text, parse};

const BRANCH: &str = "refs/heads/";
const TAG: &str = "refs/tags/";

/// A payload.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Payload {
    #[serde(rename = "ref")]
    reference: Text,
    after: Text,
    repository: Object<Repository>,
    sender: Object<User>,
    pusher: Object<Pusher>,
    pull_request: Object<PullRequest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Repository {
    full_name: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    login: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pusher {
    name: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PullRequest {
    number: Number,
    user: Object<User>,
    head: Object<End>,
    base: Object<End>,
}

/// One end of a pull request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct End {
    #[serde(rename = "ref")]
    reference: Text,
    sha: Text,
}

impl Payload {
    /// Reads the fields out of a JSON object.
    pub(super) fn parse(json: &[u8]) -> Result<Self, Refusal> {
        let Object(payload) = parse(json)?;
        payload.ok_or_else(|| Refusal::Body("the payload is JSON, but no object".to_owned()))
    }

    /// The branch that was pushed, or that the pull request goes to. Other events are about no branch.
    pub(super) fn branch(&self, event: Option<&str>) -> Option<String> {
        if event == Some("push") {
            return self.reference.0.as_deref()?.strip_prefix(BRANCH).map(str::to_owned);
        }
        self.pull_request.0.as_ref()?.base.0.as_ref()?.reference.0.clone()
    }

    /// The payload in the shape that all forges share.
    pub(super) fn normalise(self, event: Option<&str>) -> Normalised {
        let branch = self.branch(event);
        let login = |user: Object<User>| user.0.and_then(|user| user.login.0);
        let common = Normalised {
            provider: "github",
            kind: event.unwrap_or("unknown").to_owned(),
            repository: self.repository.0.and_then(|repository| repository.full_name.0),
            branch,
            ..Normalised::default()
        };
        let sender = login(self.sender);
        if let Some(pull) = self.pull_request.0 {
            let head = pull.head.0.unwrap_or_default();
            return Normalised {
                reference: head.reference.0.map(|branch| format!("{BRANCH}{branch}")),
                sha: head.sha.0,
                author: login(pull.user).or(sender),
                pull_request: pull.number.0,
                ..common
            };
        }
        let pushed = event == Some("push");
        let tag = pushed && self.reference.0.as_deref().is_some_and(|reference| reference.starts_with(TAG));
        Normalised {
            kind: if tag { "tag".to_owned() } else { common.kind },
            reference: self.reference.0.filter(|_| pushed),
            sha: self.after.0.filter(|sha| pushed && sha.bytes().any(|byte| byte != b'0')),
            author: sender.or(self.pusher.0.and_then(|pusher| pusher.name.0)),
            ..common
        }
    }
}

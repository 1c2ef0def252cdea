//! Webhook triggers: which deliveries on a path become invocations of the function.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::field::{FieldPath, FieldValue};
use crate::name::{HookPath, SecretName};

/// Which adapter verifies and reads a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdapterKind {
    /// GitHub's `X-Hub-Signature-256`.
    Github,
    /// GitLab's `X-Gitlab-Token`, or its signing token in the form of Standard Webhooks.
    Gitlab,
    /// The signed form of Standard Webhooks, from any sender.
    StandardWebhooks,
    /// A hex HMAC-SHA256 of the raw body in `X-Signature-256` (with or without `sha256=`).
    Hmac,
    /// A CloudEvent, with a bearer token.
    Cloudevents,
    /// Nothing is verified; only for triggers that say `public = true`.
    None,
}

impl AdapterKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Github, Self::Gitlab, Self::StandardWebhooks, Self::Hmac, Self::Cloudevents, Self::None];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::StandardWebhooks => "standard-webhooks",
            Self::Hmac => "hmac",
            Self::Cloudevents => "cloudevents",
            Self::None => "none",
        }
    }
}

/// A webhook trigger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookTrigger {
    /// Path below `/hooks/{namespace}/`.
    pub path: HookPath,
    /// Who verifies the signature and reads the event's name.
    pub adapter: AdapterKind,
    /// The signing secret. The adapter `none`, and no other, has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretName>,
    /// Events it wants; empty means all.
    #[serde(default)]
    pub events: Vec<String>,
    /// Branches it wants (of events that are about one); empty means all. `*` stands for any run of characters.
    #[serde(default)]
    pub branches: Vec<String>,
    /// Fields of the payload that must hold one of these values, each of them.
    #[serde(rename = "match", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<FieldPath, Vec<FieldValue>>,
}

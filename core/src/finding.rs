//! What a look at the host finds: one point, how it is, what that means, what to do.

use serde::Serialize;

/// How a point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// As it should be.
    Ok,
    /// runlet works, and something does not.
    Degraded,
    /// runlet cannot work without it.
    Missing,
}

impl Health {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
        }
    }
}

/// One point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub point: &'static str,
    /// How it is.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What does not work because of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// It is as it should be.
    pub fn ok(point: &'static str, found: impl Into<String>) -> Self {
        Self { point, health: Health::Ok, found: found.into(), effect: None, remedy: None }
    }

    /// runlet works, but for `effect`.
    pub fn degraded(
        point: &'static str,
        found: impl Into<String>,
        effect: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            point,
            health: Health::Degraded,
            found: found.into(),
            effect: Some(effect.into()),
            remedy: Some(remedy.into()),
        }
    }

    /// runlet cannot work: `effect`.
    pub fn missing(
        point: &'static str,
        found: impl Into<String>,
        effect: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { health: Health::Missing, ..Self::degraded(point, found, effect, remedy) }
    }
}

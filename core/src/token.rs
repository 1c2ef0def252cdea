//! API tokens: who may do what.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::base32;

/// What a token may do. See the table in `docs/guide/tokens.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read functions, executions, logs.
    Viewer,
    /// What a viewer may, and call functions and cancel calls.
    Invoker,
    /// What an invoker may, and deploy and remove functions.
    Deployer,
    /// Everything in its namespace, tokens included.
    Admin,
    /// Lease sandboxes for CI jobs, and nothing else.
    Ci,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Invoker, Self::Deployer, Self::Admin, Self::Ci];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Invoker => "invoker",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
            Self::Ci => "ci",
        }
    }

    /// The role named `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether this role includes `other`. `ci` stands beside the others: only admin includes it.
    #[must_use]
    pub const fn includes(self, other: Self) -> bool {
        match (self, other) {
            (Self::Admin, _) | (Self::Ci, Self::Ci) => true,
            (Self::Ci, _) | (_, Self::Ci) => false,
            (have, need) => have.rank() >= need.rank(),
        }
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Ci => 0,
            Self::Viewer => 1,
            Self::Invoker => 2,
            Self::Deployer => 3,
            Self::Admin => 4,
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The secret of a token: 256 random bits, shown once, stored as their SHA-256.
///
/// A random 256-bit secret needs no slow hash: there is nothing to guess.
#[derive(Debug, Clone)]
pub struct TokenSecret(crate::secret::Secret);

impl TokenSecret {
    /// A new random secret, `rl_` and 52 characters of base32.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut halves = [[0_u8; 16]; 2];
        getrandom::fill(halves.as_flattened_mut())?;
        let text = halves.map(base32::text);
        Ok(Self::from_text(&format!("rl_{}", String::from_utf8_lossy(text.as_flattened()))))
    }

    /// The secret that somebody presents.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(crate::secret::Secret::new(text.as_bytes()))
    }

    /// The text, for the one moment it is handed to its owner.
    #[must_use]
    pub fn expose(&self) -> &str {
        std::str::from_utf8(self.0.expose()).unwrap_or_default()
    }

    /// What the store keeps.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.expose()).into()
    }
}

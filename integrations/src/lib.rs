//! The senders that runlet understands.
//!
//! A forge gets a module of its own that says how it signs ([`Adapter::verify`]) and what its requests mean
//! ([`Adapter::read`]); nothing outside this crate knows a forge's header or field. Reporting back to a forge and
//! the drivers of CI runners will live beside them, in the same modules.

pub mod callback;
pub mod gitlab_ci;

mod forge;
mod github;
mod gitlab;
mod hmac;
mod label;
mod loose;
mod plain;
mod public;
mod signature;
mod standard;

use runlet_core::manifest::AdapterKind;
use runlet_core::secret::Secret;
use runlet_triggers::webhook::Adapter;

/// Whether callbacks can be signed with a secret.
///
/// # Errors
/// What it is instead, in words that follow "the secret".
pub fn can_sign(secret: &Secret) -> Result<(), String> {
    standard::signed::Keys::read(secret).map(|_| ())
}

/// The adapter of a kind.
#[must_use]
pub fn adapter(kind: AdapterKind) -> &'static dyn Adapter {
    match kind {
        AdapterKind::Github => &github::Github,
        AdapterKind::Gitlab => &gitlab::Gitlab,
        AdapterKind::StandardWebhooks => &standard::Standard,
        AdapterKind::Hmac => &hmac::Generic,
        AdapterKind::None => &public::Public,
    }
}

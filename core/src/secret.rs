//! Values that must never be printed.

use std::fmt;

use crate::name::{Namespace, SecretName};

/// A secret value: its `Debug` and `Display` hide it, its memory is only reachable by [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps `value`.
    #[must_use]
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self(value.into())
    }

    /// The bytes, for the one place that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where secrets are looked up by name. Who may use which is decided here and nowhere else.
pub trait Secrets: Send + Sync + fmt::Debug {
    /// The secret's value; `None` if there is none of that name, or the namespace may not use it.
    fn get(&self, namespace: &Namespace, name: &SecretName) -> Option<Secret>;
}

//! API tokens on record.

use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::clock::Timestamp;
use crate::id::TokenId;
use crate::name::Namespace;
use crate::token::{Role, TokenSecret};

/// A token on record, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// The namespace it is good for.
    pub namespace: Namespace,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends to be good; `None`: never.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Store {
    /// Puts a token on record.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn create_token(
        &self,
        namespace: &Namespace,
        name: &str,
        role: Role,
        secret: &TokenSecret,
        expires_at: Option<Timestamp>,
    ) -> Result<Token, StoreError> {
        todo!()
    }

    /// Puts the token of the `admin.token` file on record, unless its hash is there already (revoked ones included).
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ensure_admin_token(&self, secret: &TokenSecret) -> Result<(), StoreError> {
        todo!()
    }

    /// The token whose secret this is, if it is neither expired nor revoked.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn token_of_secret(&self, secret: &TokenSecret) -> Result<Option<Token>, StoreError> {
        todo!()
    }

    /// All tokens of the namespace, newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tokens(&self, namespace: &Namespace) -> Result<Vec<Token>, StoreError> {
        todo!()
    }

    /// Revokes; returns whether there was such a token that was still good.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoke_token(&self, namespace: &Namespace, id: TokenId) -> Result<bool, StoreError> {
        todo!()
    }
}

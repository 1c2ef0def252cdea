//! API tokens on record.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::text::{clean, word};
use super::{Store, StoreError};
use crate::clock::{self, Timestamp};
use crate::id::TokenId;
use crate::name::Namespace;
use crate::token::{Role, TokenSecret};

/// A token on record, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it ends to be good; `None`: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[schema(value_type = Option<String>, format = DateTime)]
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
        let name = clean(name).into_owned();
        let id = TokenId::new();
        let created_at = clock::now();
        sqlx::query!(
            "INSERT INTO tokens (id, namespace, name, role, secret_hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            id.uuid(),
            namespace.as_str(),
            name,
            role.as_str(),
            &secret.hash(),
            created_at,
            expires_at,
        )
        .execute(self.pool())
        .await?;
        Ok(Token { id, namespace: namespace.clone(), name, role, created_at, expires_at, revoked_at: None })
    }

    /// Puts the token of the `admin.token` file on record, unless its hash is there already (revoked ones included).
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ensure_admin_token(&self, secret: &TokenSecret) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO tokens (id, namespace, name, role, secret_hash, created_at) VALUES ($1, 'default', 'admin.token', 'admin', $2, $3)
             ON CONFLICT (secret_hash) DO NOTHING",
            TokenId::new().uuid(),
            &secret.hash(),
            clock::now(),
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// The token whose secret this is, if it is neither expired nor revoked.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn token_of_secret(&self, secret: &TokenSecret) -> Result<Option<Token>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: TokenId", namespace AS "namespace: Namespace", name, role, created_at, expires_at, revoked_at
               FROM tokens WHERE secret_hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)"#,
            &secret.hash(),
            clock::now(),
        )
        .fetch_optional(self.pool())
        .await?;
        row.map(Row::token).transpose()
    }

    /// Up to `limit` tokens of the namespace, newest first, older than `before`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn tokens(
        &self,
        namespace: &Namespace,
        before: Option<TokenId>,
        limit: i64,
    ) -> Result<Vec<Token>, StoreError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id AS "id: TokenId", namespace AS "namespace: Namespace", name, role, created_at, expires_at, revoked_at
               FROM tokens WHERE namespace = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"#,
            namespace.as_str(),
            before.map(TokenId::uuid),
            limit.max(0),
        )
        .fetch_all(self.pool())
        .await?;
        rows.into_iter().map(Row::token).collect()
    }

    /// Revokes; returns whether there was such a token that was still good.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn revoke_token(&self, namespace: &Namespace, id: TokenId) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE tokens SET revoked_at = $3
             WHERE namespace = $1 AND id = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)",
            namespace.as_str(),
            id.uuid(),
            clock::now(),
        )
        .execute(self.pool())
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

/// A row of `tokens`.
struct Row {
    id: TokenId,
    namespace: Namespace,
    name: String,
    role: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl Row {
    fn token(self) -> Result<Token, StoreError> {
        let role = word("tokens", &self.id, &self.role)?;
        let Self { id, namespace, name, role: _, created_at, expires_at, revoked_at } = self;
        Ok(Token { id, namespace, name, role, created_at, expires_at, revoked_at })
    }
}

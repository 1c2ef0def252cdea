//! Who asks: a bearer token, or root on the unix socket.
//!
//! A token is looked up by the SHA-256 of its secret, which tells nothing by its timing. The answer is believed for a second,
//! so that a busy caller costs no query per call; revoking here takes effect at once, on other servers within that second.
//! While the database is away nobody can revoke: then what was known last is believed for ten minutes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use runlet_core::clock::{self, Timestamp};
use runlet_core::name::Namespace;
use runlet_core::problem::Code;
use runlet_core::store::current::{ASK, STALE};
use runlet_core::store::token::Token;
use runlet_core::store::{Store, StoreError};
use runlet_core::token::{Role, TokenSecret};

use tokio::time::timeout;

use super::errors::ApiError;
use super::routes::Access;
use crate::http::Peer;

const NAMESPACE: &str = "runlet-namespace";
const BELIEVED: Duration = Duration::from_secs(1);
const CACHED: usize = 1024;
/// A secret of ours has 55 characters: what is much longer is none, and is not hashed.
const LONGEST: usize = 256;

/// Who asks, and for which namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The namespace it acts in.
    pub namespace: Namespace,
    /// Whether it is root on the unix socket, which belongs to no namespace.
    pub local_admin: bool,
    /// Whether it is a CI system, which may see and do nothing but its jobs.
    pub only_ci: bool,
}

/// Tokens that were looked up a moment ago, by the hash of their secret.
#[derive(Debug, Default)]
pub(crate) struct TokenCache(Mutex<HashMap<[u8; 32], Cached>>);

#[derive(Debug, Clone)]
struct Cached {
    /// When the database was asked.
    asked: Instant,
    /// When it was last believed.
    at: Instant,
    namespace: Namespace,
    role: Role,
    expires_at: Option<Timestamp>,
}

impl TokenCache {
    fn get(&self, hash: &[u8; 32]) -> Option<(Namespace, Role)> {
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()?;
        let good = cached.at.elapsed() < BELIEVED && cached.expires_at.is_none_or(|end| clock::now() < end);
        good.then_some((cached.namespace, cached.role))
    }

    fn put(&self, hash: [u8; 32], token: &Token) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= CACHED {
            map.retain(|_, cached| cached.at.elapsed() < BELIEVED);
        }
        if map.len() < CACHED {
            let (namespace, role, expires_at) = (token.namespace.clone(), token.role, token.expires_at);
            let asked = Instant::now();
            map.insert(hash, Cached { asked, at: asked, namespace, role, expires_at });
        }
    }

    fn knows(&self, hash: &[u8; 32]) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(hash)
    }

    /// The last answer, which is believed for another moment: the database is away.
    fn last(&self, hash: &[u8; 32]) -> Option<(Namespace, Role)> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = map.get_mut(hash).filter(|cached| cached.asked.elapsed() < STALE)?;
        if cached.expires_at.is_some_and(|end| clock::now() >= end) {
            return None;
        }
        cached.at = Instant::now();
        Some((cached.namespace.clone(), cached.role))
    }

    /// Forgets everything: a token was revoked.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Finds out who asks, and whether he may.
///
/// # Errors
/// `unauthorized`, `forbidden`, or whatever keeps the database from telling.
pub(crate) async fn admit(
    store: &Store,
    cache: &TokenCache,
    headers: &HeaderMap,
    peer: Peer,
    access: Access,
) -> Result<Caller, ApiError> {
    let (need, or_ci) = match access {
        Access::Role(need) => (need, false),
        Access::RoleOrCi(need) => (need, true),
        Access::Operator => (Role::Viewer, false),
        Access::Anyone | Access::Signed => {
            return Ok(Caller { namespace: Namespace::default_namespace(), local_admin: false, only_ci: false });
        }
    };
    let wanted = wanted_namespace(headers)?;
    let Some(secret) = bearer(headers)? else {
        if let Peer::Unix { uid: 0 } = peer {
            let namespace = wanted.unwrap_or_else(Namespace::default_namespace);
            return Ok(Caller { namespace, local_admin: true, only_ci: false });
        }
        return Err(unauthorized("this needs a token: send `Authorization: Bearer rl_...`"));
    };
    let hash = secret.hash();
    let (namespace, role) = match cache.get(&hash) {
        Some(known) => known,
        None => look_up(store, cache, &secret, hash).await?,
    };
    if wanted.is_some_and(|wanted| wanted != namespace) {
        return Err(ApiError::new(
            Code::Forbidden,
            format!("this token is good for namespace `{namespace}` only; leave the header Runlet-Namespace out"),
        ));
    }
    // The figures name the functions of every namespace: they are for those of the operator's own.
    if access == Access::Operator && namespace != Namespace::default_namespace() {
        return Err(ApiError::new(
            Code::Forbidden,
            "this concerns the whole server: it takes a token of the namespace `default`",
        ));
    }
    let only_ci = or_ci && role == Role::Ci;
    if !role.includes(need) && !only_ci {
        return Err(ApiError::new(
            Code::Forbidden,
            format!("this needs the role {need}, and the token has the role {role}; ask an admin for another token"),
        ));
    }
    Ok(Caller { namespace, local_admin: false, only_ci })
}

/// Asks the database. One whose token was good a moment ago does not wait long for it.
async fn look_up(
    store: &Store,
    cache: &TokenCache,
    secret: &TokenSecret,
    hash: [u8; 32],
) -> Result<(Namespace, Role), ApiError> {
    let patience = if cache.knows(&hash) { ASK } else { Duration::MAX };
    let asked = timeout(patience, store.token_of_secret(secret)).await.unwrap_or_else(|_| Err(StoreError::away()));
    let token = match asked {
        Ok(token) => token,
        Err(error) => return cache.last(&hash).filter(|_| error.may_pass()).ok_or_else(|| error.into()),
    };
    let token = token.ok_or_else(|| unauthorized("this token is not known, has expired or was revoked"))?;
    cache.put(hash, &token);
    Ok((token.namespace, token.role))
}

fn unauthorized(detail: &str) -> ApiError {
    ApiError::new(Code::Unauthorized, detail)
}

fn wanted_namespace(headers: &HeaderMap) -> Result<Option<Namespace>, ApiError> {
    let Some(value) = headers.get(NAMESPACE) else { return Ok(None) };
    let text = value.to_str().unwrap_or("?");
    Namespace::new(text).map(Some).map_err(|error| ApiError::invalid(format!("header Runlet-Namespace: {error}")))
}

/// The secret of the `Authorization` header; `None` where there is no such header.
fn bearer(headers: &HeaderMap) -> Result<Option<TokenSecret>, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = || unauthorized("the Authorization header is malformed: write `Authorization: Bearer rl_...`, once");
    let text = value.to_str().map_err(|_| wrong())?;
    let (scheme, secret) = text.split_once(' ').ok_or_else(wrong)?;
    let secret = secret.trim();
    if values.next().is_some() || !scheme.eq_ignore_ascii_case("bearer") || secret.is_empty() || secret.len() > LONGEST
    {
        return Err(wrong());
    }
    Ok(Some(TokenSecret::from_text(secret)))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use runlet_core::id::TokenId;

    use super::*;

    fn token(expires_at: Option<Timestamp>) -> Token {
        Token {
            id: TokenId::new(),
            namespace: Namespace::default_namespace(),
            name: "t".to_owned(),
            role: Role::Viewer,
            created_at: clock::now(),
            expires_at,
            revoked_at: None,
        }
    }

    #[test]
    fn cached_tokens_end_with_their_expiry_and_on_revocation() {
        let cache = TokenCache::default();
        cache.put([1; 32], &token(None));
        cache.put([2; 32], &token(Some(clock::now())));
        assert!(cache.get(&[1; 32]).is_some());
        assert!(cache.get(&[2; 32]).is_none(), "it has expired");
        cache.clear();
        assert!(cache.get(&[1; 32]).is_none());
    }

    #[test]
    fn the_cache_is_bounded() {
        let cache = TokenCache::default();
        for number in 0..u16::try_from(CACHED).expect("it is small") + 10 {
            let mut hash = [0; 32];
            hash[..2].copy_from_slice(&number.to_le_bytes());
            cache.put(hash, &token(None));
        }
        assert_eq!(cache.0.lock().expect("not poisoned").len(), CACHED);
    }

    #[test]
    fn only_one_bearer_is_taken() {
        let with = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(|secret| secret.map(|secret| secret.expose().to_owned())).ok()
        };
        assert_eq!(with(&[]), Some(None));
        assert_eq!(with(&["Bearer rl_a"]), Some(Some("rl_a".to_owned())));
        assert_eq!(with(&["bearer  rl_a "]), Some(Some("rl_a".to_owned())));
        for bad in [&["Basic eDp5"][..], &["Bearer "], &["rl_a"], &["Bearer a", "Bearer b"]] {
            assert_eq!(with(bad), None, "{bad:?}");
        }
    }
}

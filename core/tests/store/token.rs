//! Tokens on record.

use runlet_core::clock;
use runlet_core::name::Namespace;
use runlet_core::token::{Role, TokenSecret};

use crate::host::*;

#[tokio::test]
async fn a_token_is_good_until_it_expires_or_is_revoked() {
    let db = Db::new().await;
    let store = db.store("one").await;
    let secret = TokenSecret::generate().unwrap();
    let token = store.create_token(&ns(), "laptop", Role::Deployer, &secret, None).await.unwrap();
    assert_eq!(store.token_of_secret(&secret).await.unwrap().unwrap(), token);
    assert!(store.token_of_secret(&TokenSecret::generate().unwrap()).await.unwrap().is_none());

    assert!(!store.revoke_token(&Namespace::new("other").unwrap(), token.id).await.unwrap());
    assert!(store.revoke_token(&ns(), token.id).await.unwrap());
    assert!(!store.revoke_token(&ns(), token.id).await.unwrap());
    assert!(store.token_of_secret(&secret).await.unwrap().is_none());

    let old = TokenSecret::generate().unwrap();
    let past = clock::now() - chrono::TimeDelta::seconds(1);
    let expired = store.create_token(&ns(), "old", Role::Ci, &old, Some(past)).await.unwrap();
    assert!(store.token_of_secret(&old).await.unwrap().is_none());
    let all = store.tokens(&ns(), None, 100).await.unwrap();
    assert_eq!((all.len(), &all[0]), (2, &expired));
    assert!(all[1].revoked_at.is_some());
}

#[tokio::test]
async fn the_admin_token_is_put_on_record_once_and_stays_revoked() {
    let db = Db::new().await;
    let store = db.store("one").await;
    let secret = TokenSecret::generate().unwrap();
    store.ensure_admin_token(&secret).await.unwrap();
    store.ensure_admin_token(&secret).await.unwrap();
    let token = store.token_of_secret(&secret).await.unwrap().unwrap();
    assert_eq!((token.role, token.namespace), (Role::Admin, ns()));
    store.revoke_token(&ns(), token.id).await.unwrap();
    store.ensure_admin_token(&secret).await.unwrap();
    assert!(store.token_of_secret(&secret).await.unwrap().is_none());
    assert_eq!(store.tokens(&ns(), None, 100).await.unwrap().len(), 1);
}

//! Deploying functions and their hooks.

use std::sync::Arc;

use futures_util::future::join_all;
use runlet_core::name::HookPath;
use runlet_core::precondition::Precondition;
use runlet_core::store::StoreError;

use crate::host::*;

fn hook(path: &str, adapter: &str, secret: &str, event: &str) -> String {
    format!(
        "[[trigger]]\ntype = \"webhook\"\npath = \"{path}\"\nadapter = \"{adapter}\"\nsecret = \"{secret}\"\nevents = [\"{event}\"]\n"
    )
}

#[tokio::test]
async fn the_same_content_is_the_same_revision() {
    let db = Db::new().await;
    let store = db.store("one").await;
    assert!(store.current(&ns(), &name("f")).await.unwrap().is_none());
    let first = store.deploy(revision("f", "")).await.unwrap();
    assert!(first.new_revision);
    assert!(store.current(&ns(), &name("f")).await.unwrap().is_some(), "its own deploy is seen at once");
    let same = store.deploy(revision("f", "")).await.unwrap();
    assert!(!same.new_revision);
    assert_eq!(same.function.deployed_at, first.function.deployed_at);
    let other = store.deploy(revision("f", "pids = 9\n")).await.unwrap();
    assert!(other.new_revision && other.function.deployed_at > first.function.deployed_at);
    assert_eq!(other.function.created_at, first.function.created_at);
    assert_eq!(store.current(&ns(), &name("f")).await.unwrap().unwrap().function.revision, other.function.revision);
    let old = &first.function.revision;
    assert_eq!(store.revision(&ns(), old).await.unwrap().unwrap(), first.function.manifest);
    assert_eq!(store.archive(&ns(), old).await.unwrap().unwrap(), revision("f", "").archive);

    for function in ["b", "a-b", "a", "c"] {
        store.deploy(revision(function, "")).await.unwrap();
    }
    let page = store.functions(&ns(), None, 2).await.unwrap();
    let rest = store.functions(&ns(), Some(&page[1].name), 9).await.unwrap();
    let names: Vec<_> = page.iter().chain(&rest).map(|function| function.name.as_str()).collect();
    assert_eq!(names, ["a", "a-b", "b", "c", "f"]);
}

#[tokio::test]
async fn triggers_follow_the_deploy_and_keep_their_ids() {
    let db = Db::new().await;
    let store = db.store("one").await;
    let path = HookPath::new("gh").unwrap();
    let two = hook("gh", "github", "s", "push") + &hook("gh", "github", "s", "issues") + &hook("x", "hmac", "t", "e");
    store.deploy(revision("f", &two)).await.unwrap();
    let before = store.hook(&ns(), &path).await.unwrap();
    assert_eq!(before.len(), 2);
    store.deploy(revision("f", &hook("gh", "github", "s", "release"))).await.unwrap();
    let after = store.hook(&ns(), &path).await.unwrap();
    assert_eq!((after.len(), after[0].id), (1, before[0].id));
    assert_eq!(after[0].spec.events, ["release"]);
    assert!(store.hook(&ns(), &HookPath::new("x").unwrap()).await.unwrap().is_empty());
    store.remove_function(&ns(), &name("f"), &Precondition::None).await.unwrap();
    assert!(store.hook(&ns(), &path).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_path_has_one_adapter_and_one_secret() {
    let db = Db::new().await;
    let store = db.store("one").await;
    store.deploy(revision("f", &hook("gh", "github", "s", "push"))).await.unwrap();
    store.deploy(revision("g", &hook("gh", "github", "s", "push"))).await.unwrap();
    for rest in [
        hook("gh", "hmac", "s", "push"),
        hook("gh", "github", "other", "push"),
        hook("new", "hmac", "s", "push") + &hook("new", "hmac", "t", "push"),
    ] {
        let refused = store.deploy(revision("h", &rest)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Conflict(_)), "{refused}");
    }
    assert!(store.function(&ns(), &name("h")).await.unwrap().is_none());

    let mut foreign = revision("h", &hook("gh", "hmac", "other", "push"));
    foreign.namespace = runlet_core::name::Namespace::new("team").unwrap();
    assert!(matches!(store.deploy(foreign.clone()).await, Err(StoreError::Conflict(_))), "there is no such namespace");
    store.ensure_namespace(&foreign.namespace).await.unwrap();
    store.ensure_namespace(&foreign.namespace).await.unwrap();
    store.deploy(foreign).await.unwrap();
}

#[tokio::test]
async fn one_asks_for_all_who_need_to_know_at_the_same_moment() {
    let (db, first) = db_with_function().await;
    first.close().await;
    let scans = "SELECT seq_scan + idx_scan FROM pg_stat_user_tables WHERE relname = 'function_settings'";
    let before = db.number(scans).await;
    let (store, ns, f) = (db.store("two").await, ns(), name("f"));
    let known = store.current(&ns, &f).await.unwrap().expect("it is there");
    // An answer is good for a second.
    until("it is asked for anew", async || {
        let answers = join_all((0..32).map(|_| store.current(&ns, &f))).await;
        answers.into_iter().all(|answer| !Arc::ptr_eq(&answer.unwrap().unwrap(), &known))
    })
    .await;
    store.close().await;
    until("its reading is counted", async || db.number(scans).await > before).await;
    assert_eq!(db.number(scans).await - before, 2, "once at first, once for all 32");
}

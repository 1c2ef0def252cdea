//! Messages of queues: what is kept of those that were too large.

use bytes::Bytes;
use runlet_core::clock;
use runlet_core::name::QueueName;
use runlet_core::store::StoreError;
use runlet_core::store::message::{CUT, NewMessage, Redrive};

use crate::host::*;

#[tokio::test]
async fn a_message_of_which_only_the_beginning_is_here_does_not_go_again() {
    let (_db, store) = db_with_function().await;
    store.make_queue(&ns(), &QueueName::new("q").unwrap(), clock::now()).await.unwrap();
    let dead = |body: &'static [u8]| NewMessage {
        body: Bytes::from_static(body),
        dead: Some("it is too large".to_owned()),
        ..NewMessage::default()
    };
    let cut = NewMessage { attributes: [(CUT.to_owned(), "20000000".to_owned())].into(), ..dead(b"begi") };
    let published = store.publish(&ns(), "q", &[cut, dead(b"whole")]).await.unwrap().expect("it is there");
    let only = store.redrive(&ns(), "q", &Redrive::These(vec![published[0].id])).await;
    let Err(StoreError::Conflict(reason)) = only else { panic!("{only:?}") };
    assert!(reason.starts_with("only the beginning of this message is here, the whole had 20000000 bytes"), "{reason}");
    assert_eq!(store.redrive(&ns(), "q", &Redrive::Oldest(9)).await.unwrap(), Some(1), "the whole one");
    assert_eq!(store.redrive(&ns(), "q", &Redrive::Oldest(9)).await.unwrap(), Some(0));
}

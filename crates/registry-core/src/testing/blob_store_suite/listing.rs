//! What there is.

use super::{Staged, Subject, assert_staged, bytes};
use crate::digest::{Algorithm, Digest};
use crate::ports::blob_store::{ObjectKey, Published};

/// Pages of any size, put together, are all objects with their sizes, in the byte order of their keys.
pub async fn objects_come_in_the_order_of_keys_page_by_page(subject: &impl Subject) {
    let store = subject.store();
    assert_eq!(store.list_objects(None, 10).await.unwrap(), []);
    let mut expected: Vec<(ObjectKey, u64)> = Vec::new();
    for number in 0..40u8 {
        let original = bytes(u64::from(number / 4), 10 + usize::from(number / 4));
        let staged = Staged::of(store.as_ref(), number, &original).await;
        let algorithm = if number % 4 == 3 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let candidates = staged.candidates(store.as_ref(), &Digest::of(algorithm, &original));
        let nth = match number % 4 {
            1 => 2,
            2 => 10,
            _ => 0,
        };
        let key = subject.nth(&candidates, nth);
        assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
        staged.discard(store.as_ref(), &[&key]).await;
        expected.push((key, original.len() as u64));
    }
    expected.sort();
    if !subject.stages_in_objects() {
        Staged::of(store.as_ref(), 200, b"staged is no object").await;
    }
    for limit in [1, 7, 39, 40, 41, 1000] {
        let mut listed: Vec<(ObjectKey, u64)> = Vec::new();
        loop {
            let page = subject.store().list_objects(listed.last().map(|(key, _)| key), limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            listed.extend(page);
            assert!(listed.len() <= expected.len(), "pages of {limit} do not come to an end");
        }
        assert_eq!(listed, expected, "pages of {limit}");
    }
    // A place in the order need not be an object.
    let deleted = expected.remove(20).0;
    let claim = store.claim_deletion(&deleted).await.unwrap().unwrap();
    store.delete(claim.as_ref(), &deleted).await.unwrap();
    assert_eq!(store.list_objects(Some(&deleted), 3).await.unwrap(), expected[20..23]);
    assert_eq!(store.list_objects(Some(&ObjectKey(String::new())), 2).await.unwrap(), expected[..2]);
    assert_eq!(store.list_objects(Some(&ObjectKey("~".into())), 2).await.unwrap(), []);
}

/// The list is that of what is staged, on every replica.
pub async fn staged_uploads_are_listed_and_nothing_else(subject: &impl Subject) {
    let store = subject.store();
    assert_staged(subject, &[]).await;
    let mut expected = Vec::new();
    for number in 0..5u8 {
        expected.push(Staged::of(store.as_ref(), number, b"staged").await.id);
    }
    let published = Staged::of(store.as_ref(), 9, b"published").await;
    let key = published.candidates(store.as_ref(), &Digest::sha256(b"published")).nth(0);
    assert_eq!(published.publish(store.as_ref(), &key).await, Published::Yes);
    published.discard(store.as_ref(), &[&key]).await;
    assert_staged(subject, &expected).await;
}

/// A store that works says so, and the probe leaves nothing behind.
pub async fn a_probe_says_that_bytes_can_be_written(subject: &impl Subject) {
    let store = subject.store();
    store.probe().await.unwrap();
    store.probe().await.unwrap();
    assert_staged(subject, &[]).await;
    assert_eq!(store.list_objects(None, 10).await.unwrap(), []);
}

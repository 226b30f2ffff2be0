//! Discarding staged bytes, and deleting objects.

use super::{Staged, Subject, assert_staged, bytes, contents, object};
use crate::digest::Digest;
use crate::ports::blob_store::{AppendError, Published};

/// Discarding removes everything, is not afraid of a writer, and may be done twice.
pub async fn discarded_bytes_are_gone(subject: &impl Subject) {
    let store = subject.store();
    let original = bytes(1, 700_000);
    let staged = Staged::of(store.as_ref(), 1, &original).await;
    let other = Staged::of(store.as_ref(), 2, b"other").await;
    staged.discard(subject.store().as_ref(), &[]).await;
    assert_staged(subject, &[other.id]).await;
    assert!(matches!(staged.first(store.as_ref(), 700_000).await, Err(AppendError::Lost)));
    assert!(matches!(store.append(staged.id, 700_000, &staged.staging).await, Err(AppendError::Lost)));
    let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Lost);
    assert_eq!(store.size_of(&key).await.unwrap(), None);
    staged.discard(store.as_ref(), &[]).await;
    Staged::new(9).discard(store.as_ref(), &[]).await;

    let mut writer = store.append(other.id, other.offset, &other.staging).await.unwrap();
    writer.write(bytes(2, 700_000).into()).await.unwrap();
    other.discard(subject.store().as_ref(), &[]).await;
    // The writer may notice or not; nobody can go on from what it writes.
    let staging = writer.checkpoint().await.unwrap_or_default();
    drop(writer);
    if subject.excludes_writers() {
        assert!(matches!(store.append(other.id, 700_005, &staging).await, Err(AppendError::Lost)));
    }
    assert!(matches!(store.append(other.id, 5, &other.staging).await, Err(AppendError::Lost)));
    assert_staged(subject, &[]).await;
}

/// An object does not depend on the upload that it came from.
pub async fn discarding_leaves_objects_alone(subject: &impl Subject) {
    let store = subject.store();
    let original = bytes(1, 300);
    let staged = Staged::of(store.as_ref(), 1, &original).await;
    let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
    staged.discard(store.as_ref(), &[&key]).await;
    assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), original);
}

/// Deleting one object deletes that one, for every replica.
pub async fn a_deleted_object_is_gone_and_no_other(subject: &impl Subject) {
    let store = subject.store();
    let key = object(store.as_ref(), 1, b"one").await;
    let staged = Staged::of(store.as_ref(), 2, b"one").await;
    let second = subject.nth(&staged.candidates(store.as_ref(), &Digest::sha256(b"one")), 1);
    assert_eq!(staged.publish(store.as_ref(), &second).await, Published::Yes);
    let claim = store.claim_deletion(&key).await.unwrap().expect("nobody else has it");
    assert_eq!(claim.key(), &key);
    store.delete(claim.as_ref(), &key).await.unwrap();
    for store in [store, subject.store()] {
        assert_eq!(store.size_of(&key).await.unwrap(), None);
        assert!(store.open(&key).await.unwrap().is_none());
        assert_eq!(contents(store.as_ref(), &second).await.unwrap().unwrap(), b"one");
    }
}

/// Whoever finds a doomed object gone already goes on.
pub async fn deleting_again_is_no_error(subject: &impl Subject) {
    let store = subject.store();
    let key = object(store.as_ref(), 1, b"one").await;
    let absent = Staged::new(2).candidates(store.as_ref(), &Digest::sha256(b"never there")).nth(0);
    for key in [&key, &key, &absent] {
        let claim = subject.store().claim_deletion(key).await.unwrap().expect("nobody else has it");
        store.delete(claim.as_ref(), key).await.unwrap();
        store.delete(claim.as_ref(), key).await.unwrap();
        assert_eq!(store.size_of(key).await.unwrap(), None);
    }
}

/// While a claim lives, nobody else gets one for that key; a claim ends when it is dropped.
pub async fn a_claim_excludes_others(subject: &impl Subject) {
    let (one, other) = (subject.store(), subject.store());
    let key = object(one.as_ref(), 1, b"one").await;
    let second = subject.nth(&Staged::new(2).candidates(one.as_ref(), &Digest::sha256(b"one")), 1);
    let claim = one.claim_deletion(&key).await.unwrap().expect("nobody else has it");
    if subject.reuses_keys() {
        assert!(one.claim_deletion(&key).await.unwrap().is_none());
        assert!(other.claim_deletion(&key).await.unwrap().is_none());
    }
    // Keys are claimed one by one.
    let neighbour = other.claim_deletion(&second).await.unwrap();
    assert!(neighbour.is_some());
    one.delete(claim.as_ref(), &key).await.unwrap();
    if subject.reuses_keys() {
        assert!(other.claim_deletion(&key).await.unwrap().is_none(), "still claimed after the object is gone");
    }
    drop(claim);
    assert!(other.claim_deletion(&key).await.unwrap().is_some());
}

/// Where keys are used again, an object can come back after it was deleted.
pub async fn a_key_can_be_used_again_after_deletion(subject: &impl Subject) {
    if !subject.reuses_keys() {
        return;
    }
    let store = subject.store();
    for number in 1..4 {
        let key = object(store.as_ref(), number, b"again and again").await;
        assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), b"again and again");
        let claim = store.claim_deletion(&key).await.unwrap().expect("nobody else has it");
        store.delete(claim.as_ref(), &key).await.unwrap();
        assert_eq!(contents(store.as_ref(), &key).await.unwrap(), None);
    }
}

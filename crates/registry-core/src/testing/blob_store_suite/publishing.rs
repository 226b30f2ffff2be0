//! Staged bytes become objects.

use bytes::Bytes;
use futures_util::future::join;

use super::{Staged, Subject, assert_same, bytes, contents, object};
use crate::digest::{Algorithm, Digest};
use crate::ports::blob_store::Published;

/// The object has the staged bytes, on every replica.
pub async fn staged_bytes_become_an_object(subject: &impl Subject) {
    let store = subject.store();
    let original = bytes(1, 100_000);
    let key = object(store.as_ref(), 1, &original).await;
    for store in [store, subject.store()] {
        assert_eq!(store.size_of(&key).await.unwrap(), Some(100_000));
        assert_same(&contents(store.as_ref(), &key).await.unwrap().unwrap(), &original, "the object");
    }
}

/// No bytes are a blob, too.
pub async fn the_empty_blob_is_an_object(subject: &impl Subject) {
    let store = subject.store();
    let key = object(store.as_ref(), 1, b"").await;
    assert_eq!(store.size_of(&key).await.unwrap(), Some(0));
    assert_eq!(contents(store.as_ref(), &key).await.unwrap().as_deref(), Some(&b""[..]));
}

/// After a crash the same call is made again, by whichever replica: the object is there and stays as it is.
pub async fn publishing_again_is_the_same(subject: &impl Subject) {
    let store = subject.store();
    let original = bytes(1, 5000);
    let staged = Staged::of(store.as_ref(), 1, &original).await;
    let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    for store in [store.clone(), store.clone(), subject.store()] {
        assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
        assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), original);
    }
    // Also after what was staged has been tidied up.
    staged.discard(store.as_ref(), &[&key]).await;
    assert_eq!(staged.publish(subject.store().as_ref(), &key).await, Published::Yes);
}

/// Two that publish at once have the same outcome.
pub async fn two_publish_at_once(subject: &impl Subject) {
    let (one, other) = (subject.store(), subject.store());
    for round in 0..20 {
        let original = bytes(u64::from(round), 3000);
        let staged = Staged::of(one.as_ref(), round, &original).await;
        let key = staged.candidates(one.as_ref(), &Digest::sha256(&original)).nth(0);
        let outcomes = join(staged.publish(one.as_ref(), &key), staged.publish(other.as_ref(), &key)).await;
        assert_eq!(outcomes, (Published::Yes, Published::Yes), "round {round}");
        assert_eq!(contents(one.as_ref(), &key).await.unwrap().unwrap(), original);
    }
}

/// What is neither staged nor there cannot be published, and no object appears.
pub async fn nothing_to_publish_is_lost(subject: &impl Subject) {
    let store = subject.store();
    let original = bytes(1, 100);
    let mut nothing = Staged::new(1);
    let key = nothing.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    nothing.offset = 100;
    assert_eq!(nothing.publish(store.as_ref(), &key).await, Published::Lost);

    let short = Staged::of(store.as_ref(), 2, &original[..99]).await;
    let key = short.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    assert_eq!(store.publish(short.id, 100, &short.staging, &key).await.unwrap(), Published::Lost);
    if !subject.stages_in_objects() {
        assert_eq!(store.size_of(&key).await.unwrap(), None);
    }

    // An object of another size is not the one meant.
    let published = Staged::of(store.as_ref(), 3, &original).await;
    let key = published.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    assert_eq!(published.publish(store.as_ref(), &key).await, Published::Yes);
    published.discard(store.as_ref(), &[&key]).await;
    assert_eq!(store.publish(published.id, 101, &published.staging, &key).await.unwrap(), Published::Lost);
    assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), original);
}

/// Only the checkpointed bytes, up to the size asked for, become the object.
pub async fn bytes_after_the_size_are_not_published(subject: &impl Subject) {
    let store = subject.store();
    let original = bytes(1, 5000);
    let staged = Staged::of(store.as_ref(), 1, &original).await;
    let mut overtaken = store.append(staged.id, staged.offset, &staged.staging).await.unwrap();
    overtaken.write(bytes(2, 700_000).into()).await.unwrap();
    let _ = overtaken.checkpoint().await.unwrap();
    drop(overtaken);
    let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    assert_eq!(staged.publish(subject.store().as_ref(), &key).await, Published::Yes);
    assert_eq!(store.size_of(&key).await.unwrap(), Some(5000));
    assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), original);
}

/// A writer that was overtaken and has not noticed keeps the publisher waiting, or is passed by; its bytes never
/// become part of the object.
pub async fn a_writer_that_still_holds_the_bytes_is_not_published_with_them(subject: &impl Subject) {
    let (store, other) = (subject.store(), subject.store());
    let original = bytes(1, 5000);
    let staged = Staged::of(store.as_ref(), 1, &original).await;
    let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    let mut overtaken = store.append(staged.id, staged.offset, &staged.staging).await.unwrap();
    overtaken.write(bytes(2, 600_000).into()).await.unwrap();
    let first = staged.publish(other.as_ref(), &key).await;
    assert!(matches!(first, Published::Busy | Published::Yes), "{first:?}");
    let _ = overtaken.write(bytes(3, 600_000).into()).await;
    let _ = overtaken.checkpoint().await;
    if first == Published::Busy {
        assert_eq!(store.size_of(&key).await.unwrap(), None, "busy, and yet it is there");
    }
    // One that waits goes on as soon as the writer lets go.
    let lets_go = async {
        tokio::task::yield_now().await;
        drop(overtaken);
    };
    let (second, ()) = join(staged.publish(other.as_ref(), &key), lets_go).await;
    assert_eq!(second, Published::Yes);
    assert_same(&contents(store.as_ref(), &key).await.unwrap().unwrap(), &original, "the object");
}

/// A writer that was held up until after the publish finds nothing to append to; and if it begins anew, what it
/// stages is never taken for the object, even if publishing is tried again.
pub async fn a_late_writer_never_changes_the_object(subject: &impl Subject) {
    let store = subject.store();
    let original = bytes(1, 5000);
    let staged = Staged::of(store.as_ref(), 1, &original).await;
    let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);

    if let Ok(mut late) = subject.store().append(staged.id, 5000, &staged.staging).await {
        let _ = late.write(bytes(2, 5000).into()).await;
        let _ = late.checkpoint().await;
    }
    assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), original);

    let mut later = Staged::new(1);
    later.append(subject.store().as_ref(), &bytes(3, 6000)).await;
    for store in [store.clone(), subject.store()] {
        assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
        assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), original);
    }
}

/// Uploads of one digest may have to use different keys; those are different objects.
pub async fn every_candidate_is_an_object_of_its_own(subject: &impl Subject) {
    let store = subject.store();
    let original = bytes(1, 300);
    let mut keys = Vec::new();
    for (number, algorithm) in [(1, Algorithm::Sha256), (2, Algorithm::Sha256), (3, Algorithm::Sha512)] {
        let staged = Staged::of(store.as_ref(), number, &original).await;
        let candidates = staged.candidates(store.as_ref(), &Digest::of(algorithm, &original));
        assert_eq!(candidates, staged.candidates(subject.store().as_ref(), &Digest::of(algorithm, &original)));
        let key = subject.nth(&candidates, u32::from(number == 2));
        if !subject.stages_in_objects() {
            assert_eq!(store.size_of(&key).await.unwrap(), None, "{key}");
        }
        assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
        keys.push(key);
    }
    for key in &keys {
        assert_eq!(contents(store.as_ref(), key).await.unwrap().unwrap(), original, "{key}");
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3);
}

/// More bytes than any buffer holds, in one writer with several checkpoints.
pub async fn a_large_upload_is_published_whole(subject: &impl Subject) {
    let store = subject.store();
    let piece = Bytes::from(bytes(1, 1_000_003));
    let mut staged = Staged::new(1);
    let mut writer = store.append(staged.id, 0, &staged.staging).await.unwrap();
    for number in 0..24u64 {
        writer.write(piece.clone()).await.unwrap();
        if number % 10 == 9 {
            staged.staging = writer.checkpoint().await.unwrap();
        }
    }
    staged.staging = writer.checkpoint().await.unwrap();
    drop(writer);
    staged.offset = 24 * 1_000_003;
    let original = piece.repeat(24);
    let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
    assert_same(&contents(store.as_ref(), &key).await.unwrap().unwrap(), &original, "24 MB");
}

//! The end of an upload, and what may come between its steps.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use registry_core::digest::{Algorithm, Digest};
use registry_core::ports::blob_store::BlobStore;
use registry_core::ports::metadata::{BlobIndex, GarbageStore, UploadStore};
use registry_core::ports::steps;
use registry_core::services::{FinishUpload, UploadError};
use registry_core::upload::{StagingState, UploadId, UploadState};

use crate::world::{Counted, World, at_once, body, cut, range, repository_of, sha256};

/// A session whose finishing request met a writer that would not let go: it is `finalising`, its bytes still staged.
pub async fn finalising(world: &World, content: &str) -> UploadId {
    let id = world.start("app").await.id;
    world.write(id, None, &mut *body(&[content])).await.unwrap();
    let (blobs, length) = (world.blobs.clone(), content.len() as u64);
    let held = Arc::new(Mutex::new(None));
    let holder = held.clone();
    world.moments.at(steps::UPLOAD_SEALED, move || {
        *holder.lock().unwrap() = Some(at_once(blobs.append(id, length, &StagingState::default())).unwrap());
    });
    let busy = world.finish(id, &sha256(content), &mut *body(&[])).await;
    assert!(matches!(busy, Err(UploadError::Busy)), "{busy:?}");
    held.lock().unwrap().take();
    id
}

#[tokio::test]
async fn the_same_request_again_has_the_same_outcome() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let digest = sha256("abc");
    world.finish(id, &digest, &mut *body(&["abc"])).await.unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    world.finish(id, &digest, &mut Counted(3, taken.clone())).await.unwrap();
    assert_eq!(taken.load(Ordering::SeqCst), 3, "the body is read, so that the client comes to read the answer");
    let other = world.finish(id, &sha256("other"), &mut *body(&["other"])).await;
    assert!(matches!(other, Err(UploadError::Unknown)), "{other:?}");
    assert_eq!(world.blob("app", &digest).await.as_deref(), Some("abc"));
}

#[tokio::test]
async fn what_a_crashed_request_sealed_the_next_one_finishes() {
    let world = World::new().await;
    let id = finalising(&world, "abc").await;
    let other = world.finish(id, &sha256("other"), &mut *body(&[])).await;
    assert!(matches!(other, Err(UploadError::Unknown)), "{other:?}");
    let piece = world.write(id, None, &mut *body(&["def"])).await;
    assert!(matches!(piece, Err(UploadError::Unknown)), "{piece:?}");
    world.finish(id, &sha256("abc"), &mut *body(&["abc"])).await.unwrap();
    assert_eq!(world.blob("app", &sha256("abc")).await.as_deref(), Some("abc"));
    assert_eq!(world.session(id).await.unwrap().state, UploadState::Done { digest: sha256("abc") });
}

#[tokio::test]
async fn an_empty_session_ends_as_the_empty_blob_or_not_at_all() {
    for digest in [sha256(""), Digest::of(Algorithm::Sha512, b"")] {
        let world = World::new().await;
        let id = world.start("app").await.id;
        for wrong in [sha256("x"), Digest::of(Algorithm::Sha512, b"x")] {
            let refused = world.finish(id, &wrong, &mut *body(&[])).await;
            assert!(matches!(refused, Err(UploadError::DigestMismatch)), "{refused:?}");
            assert_eq!(world.session(id).await.unwrap().state, UploadState::Open);
        }
        world.finish(id, &digest, &mut *body(&[])).await.unwrap();
        assert_eq!(world.blob("app", &digest).await.as_deref(), Some(""));
    }
}

#[tokio::test]
async fn an_end_without_bytes_may_say_where_the_upload_stands() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    world.write(id, None, &mut *body(&["abc"])).await.unwrap();
    let request = |first| FinishUpload { id, range: range(first, first), length: None, digest: sha256("abc") };
    let refused = world.services.finish_upload(request(2), |_| true, &mut *body(&[])).await;
    assert!(matches!(refused, Err(UploadError::OutOfOrder(session)) if session.told.offset == 3));
    world.services.finish_upload(request(3), |_| true, &mut *body(&[])).await.unwrap();
}

#[tokio::test]
async fn a_session_ends_only_where_it_was_made() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let request = FinishUpload { id, range: None, length: None, digest: sha256("") };
    let refused = world.services.finish_upload(request, |_| false, &mut *body(&[])).await;
    assert!(matches!(refused, Err(UploadError::Unknown)), "{refused:?}");
    assert_eq!(world.session(id).await.unwrap().state, UploadState::Open);
}

#[tokio::test]
async fn after_a_wrong_digest_a_right_piece_or_a_right_digest_can_follow() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    world.write(id, None, &mut *body(&["abc"])).await.unwrap();
    let refused = world.finish(id, &sha256("abcdef"), &mut *body(&["xyz"])).await;
    assert!(matches!(refused, Err(UploadError::DigestMismatch)), "{refused:?}");
    let session = world.session(id).await.unwrap();
    assert_eq!((session.state, session.durable.offset, session.told.offset), (UploadState::Open, 6, 3));
    let refused = world.finish(id, &sha256("abcdef"), &mut *body(&[])).await;
    assert!(matches!(refused, Err(UploadError::DigestMismatch)), "{refused:?}");
    world.finish(id, &sha256("abcdef"), &mut *body(&["def"])).await.unwrap();
    assert_eq!(world.blob("app", &sha256("abcdef")).await.as_deref(), Some("abcdef"));
}

#[tokio::test]
async fn a_digest_that_was_not_running_is_computed_from_the_stored_bytes() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    world.write(id, None, &mut *body(&["abc"])).await.unwrap();
    let refused = world.finish(id, &Digest::of(Algorithm::Sha512, b"abx"), &mut *body(&[])).await;
    assert!(matches!(refused, Err(UploadError::DigestMismatch)), "{refused:?}");
    let digest = Digest::of(Algorithm::Sha512, b"abc");
    world.finish(id, &digest, &mut *body(&[])).await.unwrap();
    assert_eq!(world.blob("app", &digest).await.as_deref(), Some("abc"));
    let id = world.start("app").await.id;
    world.write(id, None, &mut *body(&["lost"])).await.unwrap();
    world.blobs.discard(id, &StagingState::default()).await.unwrap();
    let refused = world.finish(id, &digest, &mut *body(&[])).await;
    assert!(matches!(refused, Err(UploadError::Unknown)), "{refused:?}");
    assert_eq!(world.session(id).await, None);
}

#[tokio::test]
async fn bytes_that_are_stored_already_are_stored_once() {
    let world = World::new().await;
    let digest = world.push("app", "abc").await;
    assert_eq!(world.push("other", "abc").await, digest);
    assert_eq!((world.objects().await.len(), world.ledger().await.len()), (1, 1));
    assert_eq!(world.blobs.list_staged().await.unwrap(), []);
    assert_eq!(world.blob("other", &digest).await.as_deref(), Some("abc"));
}

#[tokio::test]
async fn bytes_lost_between_seal_and_publish_end_the_session() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let blobs = world.blobs.clone();
    world.moments.at(steps::UPLOAD_SEALED, move || {
        at_once(blobs.discard(id, &StagingState::default())).unwrap();
    });
    let refused = world.finish(id, &sha256("abc"), &mut *body(&["abc"])).await;
    assert!(matches!(refused, Err(UploadError::Unknown)), "{refused:?}");
    world.assert_empty().await;
}

#[tokio::test]
async fn a_blob_that_another_request_committed_and_a_collection_removed_was_stored_all_the_same() {
    let world = World::new().await;
    let session = world.start("app").await;
    let (id, repository, digest) = (session.id, repository_of(&session), sha256("abc"));
    let (metadata, blobs, now) = (world.metadata.clone(), world.blobs.clone(), world.services.ports().clock.now());
    let sealed = digest.clone();
    world.moments.at(steps::UPLOAD_SEALED, move || {
        let Some(UploadState::Finalising { key, .. }) = at_once(metadata.find_upload(id)).unwrap().map(|s| s.state)
        else {
            panic!("it is sealed");
        };
        at_once(blobs.publish(id, 3, &StagingState::default(), &key)).unwrap();
        at_once(metadata.commit_upload(id, &sealed, now, now)).unwrap();
        at_once(metadata.delete_blob(&repository, &sealed, now)).unwrap();
        at_once(metadata.collect_blob(&sealed, now)).unwrap().unwrap();
        let claim = at_once(blobs.claim_deletion(&key)).unwrap().unwrap();
        at_once(blobs.delete(claim.as_ref(), &key)).unwrap();
    });
    world.finish(id, &digest, &mut *body(&["abc"])).await.unwrap();
}

#[tokio::test]
async fn an_upload_cancelled_before_its_commit_is_not_stored() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let (metadata, now) = (world.metadata.clone(), world.services.ports().clock.now());
    world.moments.at(steps::UPLOAD_PUBLISHED, move || {
        assert!(at_once(metadata.end_upload(id, None, now)).unwrap().is_some());
    });
    let refused = world.finish(id, &sha256("abc"), &mut *body(&["abc"])).await;
    assert!(matches!(refused, Err(UploadError::Unknown)), "{refused:?}");
    assert_eq!(world.blob("app", &sha256("abc")).await, None);
}

#[tokio::test]
async fn a_cut_last_piece_can_be_sent_again() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    assert!(world.finish(id, &sha256("abcdef"), &mut *cut(&["abc"])).await.is_err());
    world.finish(id, &sha256("abcdef"), &mut *body(&["abcdef"])).await.unwrap();
    assert_eq!(world.blob("app", &sha256("abcdef")).await.as_deref(), Some("abcdef"));
}

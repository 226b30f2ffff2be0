//! Sessions: pieces, resumption, writers that overtake each other, giving up.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use registry_core::error::StoreErrorKind;
use registry_core::ports::blob_store::BlobStore;
use registry_core::ports::metadata::UploadStore;
use registry_core::ports::metadata::uploads::{CheckpointStep, WriteStart};
use registry_core::ports::steps;
use registry_core::services::{BodyError, Settings, UploadError, WriteUpload};
use registry_core::upload::{Checkpoint, StagingState, UploadState};

use crate::world::{World, at_once, body, body_then, cut, range, sha256, soon, stalled, untouched};

#[tokio::test]
async fn pieces_follow_each_other_with_and_without_ranges() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let session = world.write(id, None, &mut *body(&["", "hello", " "])).await.unwrap();
    assert_eq!((session.durable.offset, session.told.offset), (6, 6));
    let session = world.write(id, range(6, 10), &mut *body(&["wor", "ld"])).await.unwrap();
    assert_eq!(session.durable.offset, 11);
    assert_eq!(Some(session), world.session(id).await, "the answer is what was recorded");
    let status = world.services.upload_status(id, |_| true).await.unwrap();
    assert_eq!(status.told.offset, 11);
    let digest = sha256("hello world");
    world.finish(id, &digest, &mut *body(&[])).await.unwrap();
    assert_eq!(world.blob("app", &digest).await.as_deref(), Some("hello world"));
}

#[tokio::test]
async fn a_piece_without_bytes_changes_nothing() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    world.write(id, None, &mut *body(&["abc"])).await.unwrap();
    let before = world.session(id).await.unwrap();
    for range in [None, range(3, 5)] {
        let session = world.write(id, range, &mut *body(&["", ""])).await.unwrap();
        assert_eq!((&session, Some(&before)), (&before, world.session(id).await.as_ref()));
    }
    let refused = world.write(id, range(1, 5), &mut *body(&[])).await;
    assert!(matches!(refused, Err(UploadError::OutOfOrder(session)) if session.told.offset == 3));
}

#[tokio::test]
async fn a_session_that_ends_while_an_empty_piece_comes_is_unknown() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let (metadata, now) = (world.metadata.clone(), world.services.ports().clock.now());
    let ended = move || assert!(at_once(metadata.end_upload(id, None, now)).unwrap().is_some());
    let refused = world.write(id, None, &mut *body_then(&[], ended)).await;
    assert!(matches!(refused, Err(UploadError::Unknown)), "{refused:?}");
}

#[tokio::test]
async fn a_piece_in_the_wrong_place_learns_the_right_one() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    world.write(id, None, &mut *cut(&["abc"])).await.unwrap_err();
    for (first, last) in [(4, 5), (2, 3)] {
        let refused = world.write(id, range(first, last), &mut *body(&["xy"])).await;
        assert!(matches!(refused, Err(UploadError::OutOfOrder(session)) if session.told.offset == 3));
    }
    assert_eq!(world.write(id, None, &mut *body(&["def"])).await.unwrap().durable.offset, 6);
    world.finish(id, &sha256("abcdef"), &mut *body(&[])).await.unwrap();
}

#[tokio::test]
async fn a_piece_is_as_long_as_its_range() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    for pieces in [&["1234"][..], &["123456"], &["123", "456"]] {
        let refused = world.write(id, range(0, 4), &mut *body(pieces)).await;
        assert!(matches!(refused, Err(UploadError::SizeMismatch)), "{pieces:?} {refused:?}");
        assert_eq!(world.session(id).await.unwrap().durable.offset, 0, "nothing of it is recorded");
    }
    for announced in [4, 6] {
        let request = WriteUpload { id, range: range(0, 4), length: Some(announced) };
        let refused = world.services.write_upload(request, |_| true, &mut *untouched()).await;
        assert!(matches!(refused, Err(UploadError::SizeMismatch)), "{announced} {refused:?}");
    }
    let request = WriteUpload { id, range: range(0, 4), length: Some(5) };
    let session = world.services.write_upload(request, |_| true, &mut *body(&["123", "45"])).await.unwrap();
    assert_eq!(session.durable.offset, 5);
    let nothing = WriteUpload { id, range: range(5, 9), length: Some(0) };
    assert!(world.services.write_upload(nothing, |_| true, &mut *body(&[])).await.is_ok());
}

#[tokio::test]
async fn what_came_before_a_cut_is_kept_and_told_on_asking() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let refused = world.write(id, range(0, 9), &mut *cut(&["ab", "c"])).await;
    assert!(matches!(refused, Err(UploadError::Body(BodyError::Disconnected))), "{refused:?}");
    let session = world.session(id).await.unwrap();
    assert_eq!((session.durable.offset, session.told.offset), (3, 0));
    let status = world.services.upload_status(id, |_| true).await.unwrap();
    assert_eq!((status.durable.offset, status.told.offset), (3, 3));
    world.finish(id, &sha256("abcdef"), &mut *body(&["def"])).await.unwrap();
    assert_eq!(world.blob("app", &sha256("abcdef")).await.as_deref(), Some("abcdef"));
}

#[tokio::test]
async fn a_cut_piece_sent_again_without_asking_begins_where_it_began() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    world.write(id, None, &mut *cut(&["abc"])).await.unwrap_err();
    assert_eq!(world.write(id, None, &mut *body(&["abcdef"])).await.unwrap().durable.offset, 6);
    world.finish(id, &sha256("abcdef"), &mut *body(&[])).await.unwrap();
}

#[tokio::test]
async fn an_upload_may_be_as_long_as_the_limit_and_no_longer() {
    let world = World::with(Settings { max_blob_bytes: Some(10), ..Settings::default() }).await;
    let id = world.start("app").await.id;
    world.write(id, None, &mut *body(&["123456"])).await.unwrap();
    for (at, announced) in [(None, Some(5)), (None, Some(6)), (range(6, 10), None), (range(6, 11), Some(6))] {
        let request = WriteUpload { id, range: at, length: announced };
        let refused = world.services.write_upload(request, |_| true, &mut *untouched()).await;
        assert!(matches!(refused, Err(UploadError::TooLarge)), "{at:?} {announced:?} {refused:?}");
    }
    let refused = world.write(id, None, &mut *body(&["789", "0A"])).await;
    assert!(matches!(refused, Err(UploadError::TooLarge)), "{refused:?}");
    assert_eq!(world.session(id).await.unwrap().durable.offset, 6);
    let request = WriteUpload { id, range: None, length: Some(4) };
    let session = world.services.write_upload(request, |_| true, &mut *body(&["78", "90"])).await.unwrap();
    assert_eq!(session.durable.offset, 10);
}

#[tokio::test]
async fn the_offset_is_recorded_each_time_that_enough_bytes_came() {
    let world = World::with(Settings { checkpoint_bytes: 4, ..Settings::default() }).await;
    let id = world.start("app").await.id;
    let metadata = world.metadata.clone();
    world.moments.at(steps::UPLOAD_CHECKPOINTED, move || {
        let session = at_once(metadata.find_upload(id)).unwrap().unwrap();
        assert_eq!((session.durable.offset, session.told.offset), (6, 0), "after the second piece, and untold");
    });
    world.write(id, None, &mut *body(&["abc", "def", "ghi"])).await.unwrap();
    assert_eq!(world.moments.count(steps::UPLOAD_BYTES_DURABLE), 2);
    assert_eq!(world.moments.count(steps::UPLOAD_CHECKPOINTED), 2);
    let id = world.start("app").await.id;
    world.write(id, None, &mut *body(&["abcd"])).await.unwrap();
    assert_eq!(world.moments.count(steps::UPLOAD_CHECKPOINTED), 4, "exactly enough is enough");
}

#[tokio::test]
async fn a_writer_whose_upload_was_taken_over_on_another_replica_records_nothing() {
    for checkpoint_bytes in [1000, 4] {
        let world = World::with(Settings { checkpoint_bytes, ..Settings::default() }).await;
        let id = world.start("app").await.id;
        let (metadata, now) = (world.metadata.clone(), world.services.ports().clock.now());
        world.moments.at(steps::UPLOAD_BYTES_DURABLE, move || {
            at_once(metadata.begin_write(id, WriteStart::AtTold, now)).unwrap();
        });
        let refused = world.write(id, None, &mut *body(&["abcdef"])).await;
        assert!(matches!(refused, Err(UploadError::Superseded)), "{refused:?}");
        assert_eq!(world.session(id).await.unwrap().durable.offset, 0);
    }
}

#[tokio::test]
async fn a_newer_request_need_not_wait_for_a_stalled_one() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let (mut old, mut new) = (stalled(&["abc"]), body(&["abcdef"]));
    let (older, newer) = tokio::join!(world.write(id, None, &mut *old), world.write(id, None, &mut *new));
    assert!(matches!(older, Err(UploadError::Superseded)), "{older:?}");
    assert_eq!(newer.unwrap().durable.offset, 6);
    world.finish(id, &sha256("abcdef"), &mut *body(&[])).await.unwrap();
}

#[tokio::test]
async fn a_writer_elsewhere_that_does_not_let_go_is_busy() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let elsewhere = world.blobs.append(id, 0, &StagingState::default()).await.unwrap();
    let refused = world.write(id, None, &mut *body(&["abc"])).await;
    assert!(matches!(refused, Err(UploadError::Busy)), "{refused:?}");
    drop(elsewhere);
    assert_eq!(world.write(id, None, &mut *body(&["abc"])).await.unwrap().durable.offset, 3);
}

#[tokio::test]
async fn an_upload_whose_bytes_are_gone_is_unknown_and_leaves_nothing() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    world.write(id, None, &mut *body(&["abc"])).await.unwrap();
    world.blobs.discard(id, &StagingState::default()).await.unwrap();
    let refused = world.write(id, None, &mut *body(&["def"])).await;
    assert!(matches!(refused, Err(UploadError::Unknown)), "{refused:?}");
    world.assert_empty().await;
}

#[tokio::test]
async fn a_session_is_known_where_it_was_made_and_while_it_is_open() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let request = || WriteUpload { id, range: None, length: None };
    let elsewhere = world.services.write_upload(request(), |_| false, &mut *untouched()).await;
    assert!(matches!(elsewhere, Err(UploadError::Unknown)));
    assert!(matches!(world.services.upload_status(id, |_| false).await, Err(UploadError::Unknown)));
    assert!(matches!(world.services.cancel_upload(id, |_| false).await, Err(UploadError::Unknown)));
    world.finish(id, &sha256("abc"), &mut *body(&["abc"])).await.unwrap();
    let finished = world.services.write_upload(request(), |_| true, &mut *untouched()).await;
    assert!(matches!(finished, Err(UploadError::Unknown)));
    assert!(matches!(world.services.upload_status(id, |_| true).await, Err(UploadError::Unknown)));
    assert!(matches!(world.services.cancel_upload(id, |_| true).await, Err(UploadError::Unknown)));
    assert_eq!(world.blob("app", &sha256("abc")).await.as_deref(), Some("abc"), "and not cancelled");
}

#[tokio::test]
async fn a_cancelled_upload_leaves_nothing_and_is_cancelled_once() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    world.write(id, None, &mut *body(&["abc"])).await.unwrap();
    world.services.cancel_upload(id, |_| true).await.unwrap();
    world.assert_empty().await;
    assert!(matches!(world.services.cancel_upload(id, |_| true).await, Err(UploadError::Unknown)));
}

#[tokio::test]
async fn cancelling_does_not_wait_for_a_stalled_writer() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let mut stalled = stalled(&["abc"]);
    let (written, cancelled) =
        tokio::join!(world.write(id, None, &mut *stalled), soon(world.services.cancel_upload(id, |_| true)));
    assert!(matches!(written, Err(UploadError::Superseded)), "{written:?}");
    cancelled.unwrap();
    assert_eq!(world.session(id).await, None);
}

#[tokio::test]
async fn an_upload_cancelled_while_it_is_finalised_leaves_nothing() {
    let world = World::new().await;
    let id = crate::finishing::finalising(&world, "abc").await;
    assert!(matches!(world.session(id).await.unwrap().state, UploadState::Finalising { .. }));
    world.services.cancel_upload(id, |_| true).await.unwrap();
    world.assert_empty().await;
}

#[tokio::test]
async fn asking_for_the_status_of_what_was_told_already_does_not_keep_a_session_alive() {
    let world = World::new().await;
    let session = world.start("app").await;
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(world.services.upload_status(session.id, |_| true).await.unwrap(), session);
    assert_eq!(world.session(session.id).await, Some(session));
}

#[tokio::test]
async fn a_damaged_hash_state_is_a_failure_and_not_a_wrong_blob() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let session = world.session(id).await.unwrap();
    let to = Checkpoint { hashes: b"damaged".to_vec(), ..session.durable };
    let step = CheckpointStep { id, epoch: session.epoch, from: 0, to, tell: true };
    assert!(world.metadata.checkpoint_upload(step, world.services.ports().clock.now()).await.unwrap());
    let failed = world.write(id, None, &mut *body(&["abc"])).await;
    assert!(matches!(failed, Err(UploadError::Store(error)) if error.kind == StoreErrorKind::Corrupt));
}

#[tokio::test]
async fn a_client_that_pauses_is_waited_for() {
    let world = World::new().await;
    let id = world.start("app").await.id;
    let mut pauses = Box::pin(stream::iter(["abc", "def"]).then(|piece| async move {
        tokio::task::yield_now().await;
        Ok(Bytes::from(piece))
    }));
    let written = world.write(id, None, &mut pauses).await.unwrap();
    assert_eq!(written.durable.offset, 6);
}

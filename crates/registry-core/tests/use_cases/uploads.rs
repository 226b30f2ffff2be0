//! One request that brings a whole blob.

use std::sync::{Arc, Mutex};

use registry_core::digest::{Algorithm, Digest};
use registry_core::ports::metadata::UploadStore;
use registry_core::ports::steps;
use registry_core::services::{BodyError, Settings, UploadError};

use crate::world::{World, at_once, body, cut, sha256, untouched};

#[tokio::test]
async fn a_blob_sent_at_once_reads_back() {
    let world = World::new().await;
    let digest = sha256("hello world");
    let target = world.target("app").await;
    world.services.upload_blob(target, digest.clone(), None, &mut *body(&["hello ", "", "world"])).await.unwrap();
    assert_eq!(world.blob("app", &digest).await.as_deref(), Some("hello world"));
    assert_eq!(world.objects().await.len(), 1);
    assert_eq!(world.blob("other", &digest).await, None, "it is visible where it was pushed and nowhere else");
}

#[tokio::test]
async fn the_empty_blob_is_a_blob() {
    let world = World::new().await;
    let digest = world.push("app", "").await;
    assert_eq!(world.blob("app", &digest).await.as_deref(), Some(""));
}

#[tokio::test]
async fn bytes_of_another_digest_leave_nothing() {
    let world = World::new().await;
    let target = world.target("app").await;
    let refused = world.services.upload_blob(target, sha256("said"), None, &mut *body(&["sent"])).await;
    assert!(matches!(refused, Err(UploadError::DigestMismatch)), "{refused:?}");
    world.assert_empty().await;
}

#[tokio::test]
async fn a_cut_body_leaves_nothing() {
    let world = World::new().await;
    let target = world.target("app").await;
    let refused = world.services.upload_blob(target, sha256("whole"), None, &mut *cut(&["who"])).await;
    assert!(matches!(refused, Err(UploadError::Body(BodyError::Disconnected))), "{refused:?}");
    world.assert_empty().await;
}

#[tokio::test]
async fn a_blob_may_be_as_long_as_the_limit_and_no_longer() {
    let world = World::with(Settings { max_blob_bytes: Some(4), ..Settings::default() }).await;
    assert_eq!(world.services.settings().max_blob_bytes, Some(4));
    let target = world.target("app").await;
    for announced in [5, 6] {
        let refused = world.services.upload_blob(target.clone(), sha256(""), Some(announced), &mut *untouched()).await;
        assert!(matches!(refused, Err(UploadError::TooLarge)), "{refused:?}");
    }
    for pieces in [&["12345"][..], &["123", "456"]] {
        let refused =
            world.services.upload_blob(target.clone(), sha256(&pieces.concat()), None, &mut *body(pieces)).await;
        assert!(matches!(refused, Err(UploadError::TooLarge)), "{refused:?}");
    }
    world.assert_empty().await;
    let fits = sha256("1234");
    world.services.upload_blob(target, fits.clone(), Some(4), &mut *body(&["12", "34"])).await.unwrap();
    assert_eq!(world.blob("app", &fits).await.as_deref(), Some("1234"));
}

#[tokio::test]
async fn sha512_runs_from_the_first_byte_where_it_was_asked_for_and_only_there() {
    let world = World::new().await;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let runs = Arc::new(Mutex::new(None));
        let (metadata, seen, now) = (world.metadata.clone(), runs.clone(), world.services.ports().clock.now());
        world.moments.at(steps::UPLOAD_CREATED, move || {
            let open = at_once(metadata.idle_uploads(now + crate::world::MICROSECOND, 9)).unwrap();
            let session = open.into_iter().filter_map(|id| at_once(metadata.find_upload(id)).unwrap());
            let mut open = session.filter(|session| session.durable.offset == 0);
            *seen.lock().unwrap() = Some(open.next().unwrap().durable.digest(Algorithm::Sha512).unwrap().is_some());
        });
        let content = format!("{algorithm:?}");
        let digest = Digest::of(algorithm, content.as_bytes());
        let target = world.target("app").await;
        world.services.upload_blob(target, digest.clone(), None, &mut *body(&[&content])).await.unwrap();
        assert_eq!(*runs.lock().unwrap(), Some(algorithm == Algorithm::Sha512));
        assert_eq!(world.blob("app", &digest).await, Some(content));
    }
}

//! Versions of generic packages: published once, read, deleted.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use registry_core::digest::{Algorithm, Digest};
use registry_core::error::StoreErrorKind;
use registry_core::ports::metadata::UploadStore;
use registry_core::ports::steps;
use registry_core::precondition::Precondition;
use registry_core::services::{Deletion, PublishArtifact, Settings, UploadError};
use registry_core::upload::UploadState;

use crate::world::{MICROSECOND, World, at_once, body, if_absent, if_match, sha256, untouched};

#[tokio::test]
async fn a_version_is_kept_with_all_that_was_said_of_it() {
    let world = World::new().await;
    let published = world.publish("tool", "1.0", "bytes").await.unwrap();
    assert_eq!((published.digest.clone(), published.size), (sha256("bytes"), 5));
    assert_eq!((published.content_type.as_str(), published.filename.as_str()), ("text/plain", "file.txt"));
    let registry = world.registry("generic").await.id;
    let (package, version) = (published.package.clone(), published.version.clone());
    let described = world.services.describe_artifact(registry, &package, &version).await.unwrap();
    assert_eq!(described.as_ref(), Some(&published));
    let (read, reader) = world.services.read_artifact(registry, &package, &version).await.unwrap().unwrap();
    assert_eq!((read, reader.size()), (published, 5));
    let other = "2.0".parse().unwrap();
    assert_eq!(world.services.describe_artifact(registry, &package, &other).await.unwrap(), None);
    assert!(world.services.read_artifact(registry, &package, &other).await.unwrap().is_none());
}

#[tokio::test]
async fn a_version_that_exists_is_refused_before_its_body_is_read() {
    let world = World::new().await;
    let first = world.publish("tool", "1.0", "bytes").await.unwrap();
    let request = world.artifact("tool", "1.0").await;
    let refused = world.services.publish_artifact(request, &mut *untouched()).await;
    assert!(matches!(refused, Err(UploadError::VersionExists)), "{refused:?}");
    let kept = world.services.describe_artifact(world.registry("generic").await.id, &first.package, &first.version);
    assert_eq!(kept.await.unwrap(), Some(first));
}

#[tokio::test]
async fn of_two_who_publish_at_once_one_wins_and_the_other_leaves_nothing() {
    let world = World::new().await;
    let (replica, request) = (world.replica(), world.artifact("tool", "1.0").await);
    world.moments.at(steps::UPLOAD_SEALED, move || {
        at_once(replica.publish_artifact(request, &mut *body(&["winner"]))).unwrap();
    });
    let refused = world.publish("tool", "1.0", "loser").await;
    assert!(matches!(refused, Err(UploadError::VersionExists)), "{refused:?}");
    let ledger = world.ledger().await;
    let blobs: Vec<_> = ledger.iter().map(|entry| entry.blob.clone()).collect();
    assert_eq!(blobs, [Some((sha256("winner"), 6))]);
    assert_eq!(world.objects().await.len(), 1);
}

#[tokio::test]
async fn the_digest_that_a_publisher_gives_is_compared_whatever_its_algorithm() {
    let world = World::new().await;
    for digest in [sha256("other"), Digest::of(Algorithm::Sha512, b"other")] {
        let request = PublishArtifact { digest: Some(digest), ..world.artifact("tool", "1.0").await };
        let refused = world.services.publish_artifact(request, &mut *body(&["bytes"])).await;
        assert!(matches!(refused, Err(UploadError::DigestMismatch)), "{refused:?}");
        world.assert_empty().await;
    }
    for (version, algorithm) in [("1", Algorithm::Sha256), ("2", Algorithm::Sha512)] {
        let (runs, metadata) = (Arc::new(Mutex::new(None)), world.metadata.clone());
        let (seen, now) = (runs.clone(), world.services.ports().clock.now() + MICROSECOND);
        world.moments.at(steps::UPLOAD_CREATED, move || {
            let sessions = at_once(metadata.idle_uploads(now, 9)).unwrap();
            let sessions = sessions.into_iter().map(|id| at_once(metadata.find_upload(id)).unwrap().unwrap());
            let mut open = sessions.filter(|session| session.state == UploadState::Open);
            let session = open.next().expect("the session was just made");
            *seen.lock().unwrap() = Some(session.durable.digest(Algorithm::Sha512).unwrap().is_some());
        });
        let digest = Some(Digest::of(algorithm, b"bytes"));
        let request = PublishArtifact { digest, ..world.artifact("tool", version).await };
        let published = world.services.publish_artifact(request, &mut *body(&["bytes"])).await.unwrap();
        assert_eq!(published.digest, sha256("bytes"));
        let runs = runs.lock().unwrap().take();
        assert_eq!(runs, Some(algorithm == Algorithm::Sha512), "it runs from the first byte, where it is needed");
    }
}

#[tokio::test]
async fn a_file_may_be_as_long_as_the_limit_and_no_longer() {
    let world = World::with(Settings { max_artifact_bytes: Some(4), ..Settings::default() }).await;
    let announced = PublishArtifact { length: Some(5), ..world.artifact("tool", "1").await };
    let refused = world.services.publish_artifact(announced, &mut *untouched()).await;
    assert!(matches!(refused, Err(UploadError::TooLarge)), "{refused:?}");
    let refused = world.publish("tool", "1", "12345").await;
    assert!(matches!(refused, Err(UploadError::TooLarge)), "{refused:?}");
    world.assert_empty().await;
    let fits = PublishArtifact { length: Some(4), ..world.artifact("tool", "1").await };
    assert_eq!(world.services.publish_artifact(fits, &mut *body(&["1234"])).await.unwrap().size, 4);
}

#[tokio::test]
async fn a_version_is_deleted_once_and_its_bytes_go_with_the_next_collection() {
    let world = World::new().await;
    let artifact = world.publish("tool", "1.0", "bytes").await.unwrap();
    let registry = world.registry("generic").await.id;
    let delete = || world.services.delete_artifact(registry, &artifact.package, &artifact.version, &Precondition::NONE);
    assert_eq!(delete().await.unwrap(), Deletion::Deleted);
    assert_eq!(delete().await.unwrap(), Deletion::Unknown);
    assert!(world.services.read_artifact(registry, &artifact.package, &artifact.version).await.unwrap().is_none());
    let report = world.services.collect_garbage(Default::default()).await.unwrap();
    assert_eq!((report.blobs_deleted, report.bytes_freed), (1, 5));
    assert_eq!(world.objects().await, []);
}

#[tokio::test]
async fn a_version_is_deleted_only_where_it_is_as_the_client_expects() {
    let world = World::new().await;
    let artifact = world.publish("tool", "1.0", "bytes").await.unwrap();
    let registry = world.registry("generic").await.id;
    let delete = async |precondition: Precondition| {
        let (package, version) = (&artifact.package, &artifact.version);
        let deletion = world.services.delete_artifact(registry, package, version, &precondition).await.unwrap();
        let left = world.services.describe_artifact(registry, package, version).await.unwrap();
        assert_eq!(left.is_some(), deletion == Deletion::PreconditionFailed);
        deletion
    };
    for refused in [if_match(&sha256("other")), if_absent()] {
        assert_eq!(delete(refused).await, Deletion::PreconditionFailed);
    }
    assert_eq!(delete(if_match(&artifact.digest)).await, Deletion::Deleted);
    for precondition in [if_match(&artifact.digest), if_match(&sha256("other")), if_absent()] {
        assert_eq!(delete(precondition).await, Deletion::Unknown);
    }
}

#[tokio::test]
async fn missing_or_torn_bytes_of_a_version_are_a_failure_and_never_sent() {
    let world = World::new().await;
    let artifact = world.publish("tool", "1.0", "bytes").await.unwrap();
    let registry = world.registry("generic").await.id;
    let [key] = &world.objects().await[..] else { panic!("one object") };
    for damage in [Some(Bytes::from_static(b"byte")), None] {
        world.blobs.damage(key, damage);
        let read = world.services.read_artifact(registry, &artifact.package, &artifact.version).await;
        assert_eq!(read.err().map(|error| error.kind), Some(StoreErrorKind::Corrupt));
    }
}

//! Reading, keeping, mounting and deleting blobs.

use bytes::Bytes;
use registry_core::error::StoreErrorKind;
use registry_core::ports::metadata::blob_index::DeleteBlob;
use registry_core::registry::{Format, Repository};
use registry_core::services::{BlobSource, Mounted, UploadError};

use crate::world::{HOUR, MICROSECOND, World, principal, sha256};

#[tokio::test]
async fn who_may_push_keeps_a_blob_by_asking_and_who_reads_does_not() {
    for for_push in [true, false] {
        let world = World::new().await;
        let digest = world.push("app", "layer").await;
        let repository = world.repository("app").await;
        world.clock.advance(13 * HOUR);
        let described = world.services.describe_blob(&repository, &digest, for_push).await.unwrap().unwrap();
        assert_eq!((described.digest, described.size), (digest.clone(), 5));
        world.clock.advance(12 * HOUR);
        world.services.collect_garbage(Default::default()).await.unwrap();
        assert_eq!(world.blob("app", &digest).await.is_some(), for_push);
    }
}

#[tokio::test]
async fn a_blob_that_is_not_there_is_none() {
    let world = World::new().await;
    let repository = world.repository("app").await;
    for for_push in [true, false] {
        assert_eq!(world.services.describe_blob(&repository, &sha256("x"), for_push).await.unwrap(), None);
    }
    assert!(world.services.read_blob(&repository, &sha256("x"), false).await.unwrap().is_none());
}

#[tokio::test]
async fn a_blob_comes_from_here_where_the_store_has_no_place_for_it_elsewhere() {
    let world = World::new().await;
    let (digest, repository) = (world.push("app", "layer").await, world.repository("app").await);
    for redirect in [true, false] {
        let source = world.services.read_blob(&repository, &digest, redirect).await.unwrap();
        assert!(matches!(source, Some(BlobSource::Here(reader)) if reader.size() == 5));
    }
}

#[tokio::test]
async fn missing_or_torn_bytes_are_a_failure_and_never_sent() {
    let world = World::new().await;
    let digest = world.push("app", "layer").await;
    let [key] = &world.objects().await[..] else { panic!("one object") };
    for damage in [Some(Bytes::from_static(b"laye")), None] {
        world.blobs.damage(key, damage);
        let read = world.services.read_blob(&world.repository("app").await, &digest, false).await;
        assert_eq!(read.err().map(|error| error.kind), Some(StoreErrorKind::Corrupt));
    }
}

#[tokio::test]
async fn a_blob_goes_from_one_repository_unless_a_manifest_names_it() {
    let world = World::new().await;
    let (free, named) = (world.push("app", "free").await, world.push("app", "named").await);
    world.tag("app", "v1", &named).await;
    let repository = world.repository("app").await;
    assert_eq!(world.services.delete_blob(&repository, &named).await.unwrap(), DeleteBlob::Referenced);
    assert_eq!(world.services.delete_blob(&repository, &free).await.unwrap(), DeleteBlob::Deleted);
    assert_eq!(world.services.delete_blob(&repository, &free).await.unwrap(), DeleteBlob::Unknown);
}

#[tokio::test]
async fn a_mounted_blob_is_there_for_a_full_grace() {
    let world = World::new().await;
    let digest = world.push("app", "layer").await;
    world.clock.advance(20 * HOUR);
    let (from, to) = (world.repository("app").await, world.repository("copy").await);
    assert_eq!(world.services.mount_blob(&from, &to, &digest).await.unwrap(), Mounted::Yes);
    world.clock.advance(24 * HOUR - MICROSECOND);
    world.services.collect_garbage(Default::default()).await.unwrap();
    assert_eq!(world.blob("app", &digest).await, None);
    assert_eq!(world.blob("copy", &digest).await.as_deref(), Some("layer"));
    world.clock.advance(MICROSECOND);
    world.services.collect_garbage(Default::default()).await.unwrap();
    assert_eq!(world.blob("copy", &digest).await, None);
    assert_eq!(world.services.mount_blob(&from, &to, &digest).await.unwrap(), Mounted::No);
}

#[tokio::test]
async fn nothing_is_mounted_under_the_name_of_a_registry() {
    let world = World::new().await;
    let digest = world.push("app", "layer").await;
    let from = world.repository("app").await;
    let to = Repository { name: "oci/app".parse().unwrap(), ..from.clone() };
    let refused = world.services.mount_blob(&from, &to, &digest).await;
    assert!(matches!(refused, Err(UploadError::NameTaken)), "{refused:?}");
}

#[tokio::test]
async fn a_source_is_found_where_one_may_read_and_nowhere_else() {
    let world = World::new().await;
    world.prepare("mirror", Format::Oci, None).await;
    let digest = world.push("secret/app", "layer").await;
    world.push("mirror/app", "layer").await;
    let find = async |scopes: &[&str]| world.services.find_mount_source(&principal(scopes), &digest).await.unwrap();
    let (secret, mirror) = (world.repository("secret/app").await, world.repository("mirror/app").await);
    assert_eq!(find(&["oci:secret/*:pull"]).await, Some(secret));
    assert_eq!(find(&["mirror:app:pull"]).await, Some(mirror));
    assert_eq!(find(&["oci:app:pull", "mirror:app:push", "generic:*:pull"]).await, None);
}

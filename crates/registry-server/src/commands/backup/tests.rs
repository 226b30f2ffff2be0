//! The moments at which a backup and a collection can meet, one at a time.

use bytes::Bytes;
use registry_core::names::{PackageName, RegistryName, Version};
use registry_core::package::{Artifact, ArtifactDescription};
use registry_core::precondition::Precondition;
use registry_core::registry::{Format, RegistryId};
use registry_core::services::{CollectGarbage, Deletion, PublishArtifact};
use tempfile::TempDir;

use super::*;
use crate::compose::Composition;
use crate::config::{Sources, load};

struct Registry {
    folder: TempDir,
    composition: Composition,
    generic: RegistryId,
}

impl Registry {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources { folder: folder.path().to_owned(), ..Sources::default() };
        let mut configuration = load(&sources).unwrap().configuration;
        configuration.storage.data_dir = folder.path().join("data");
        let composition = Composition::open(&configuration).await.unwrap();
        composition.services.prepare_registries(&compose::registries(&configuration)).await.unwrap();
        let name = RegistryName::default_generic();
        let generic = composition.services.find_registry(&name, Format::Generic).await.unwrap().unwrap().id;
        Self { folder, composition, generic }
    }

    /// Publishes a version whose bytes are its name.
    async fn publish(&self, version: &str) -> Artifact {
        let request = PublishArtifact {
            registry: self.generic,
            package: package(),
            description: ArtifactDescription {
                version: version.parse().unwrap(),
                content_type: "text/plain".into(),
                filename: "f".parse().unwrap(),
            },
            digest: None,
            length: None,
        };
        let mut body = futures_util::stream::iter([Ok(Bytes::copy_from_slice(version.as_bytes()))]);
        self.composition.services.publish_artifact(request, &mut body).await.unwrap()
    }

    /// Deletes a version and collects its bytes.
    async fn delete(&self, version: &str) {
        let services = &self.composition.services;
        let version: Version = version.parse().unwrap();
        let deleted = services.delete_artifact(self.generic, &package(), &version, &Precondition::NONE).await.unwrap();
        assert_eq!(deleted, Deletion::Deleted);
        let report = services.collect_garbage(CollectGarbage::default()).await.unwrap();
        assert_eq!(report.blobs_deleted, 1);
    }

    fn backup(&self, name: &str) -> Backup {
        let target = self.folder.path().join(name);
        let backup = Backup { data: self.folder.path().join("data"), target, copy: false, shards: BTreeSet::new() };
        backup.prepare().unwrap();
        backup
    }

    fn live(&self) -> &SqlMetadata {
        &self.composition.metadata
    }
}

fn package() -> PackageName {
    "mypkg".parse().unwrap()
}

/// How many objects a backup has.
fn objects(backup: &Backup) -> usize {
    let blobs = backup.target.join(BLOBS);
    let shards = std::fs::read_dir(blobs).unwrap().map(|shard| shard.unwrap().path()).filter(|path| path.is_dir());
    shards.map(|shard| std::fs::read_dir(shard).unwrap().count()).sum()
}

#[tokio::test]
async fn what_was_collected_after_it_was_taken_is_in_no_backup() {
    let registry = Registry::new().await;
    registry.publish("1.0.0").await;
    registry.publish("2.0.0").await;
    let mut backup = registry.backup("backup");
    backup.take_all(registry.live()).await.unwrap();
    registry.delete("1.0.0").await;
    assert_eq!(objects(&backup), 2, "a link outlives the collection");
    let report = backup.take_snapshot(registry.live()).await.unwrap();
    assert_eq!((report, objects(&backup)), (BackupReport { objects: 1, bytes: 5 }, 1));
}

#[tokio::test]
async fn what_was_pushed_after_all_was_taken_is_taken_with_the_snapshot() {
    let registry = Registry::new().await;
    let mut backup = registry.backup("backup");
    backup.take_all(registry.live()).await.unwrap();
    registry.publish("1.0.0").await;
    let report = backup.take_snapshot(registry.live()).await.unwrap();
    assert_eq!((report.objects, objects(&backup)), (1, 1));
}

#[tokio::test]
async fn a_snapshot_that_was_overtaken_by_a_collection_is_not_used() {
    let registry = Registry::new().await;
    registry.publish("1.0.0").await;
    let mut backup = registry.backup("backup");
    let partial = backup.target.join(PARTIAL_METADATA);
    registry.live().backup_to(&partial).await.unwrap();
    registry.delete("1.0.0").await;
    let snapshot = compose::open_metadata(&partial).await.unwrap();
    assert_eq!(backup.complete(&snapshot, registry.live()).await.unwrap(), None);
    snapshot.close().await;
    std::fs::remove_file(&partial).unwrap();
    let report = backup.take_snapshot(registry.live()).await.unwrap();
    assert_eq!(report, BackupReport::default(), "the next one is");
}

#[tokio::test]
async fn an_object_that_is_lost_is_an_error_and_leaves_no_metadata() {
    let registry = Registry::new().await;
    let artifact = registry.publish("1.0.0").await;
    let blobs = registry.folder.path().join("data").join(BLOBS);
    let digest = artifact.digest.clone();
    std::fs::remove_file(blobs.join(&digest.encoded()[..2]).join(digest.encoded())).unwrap();
    let backup = registry.backup("backup");
    let target = backup.target.clone();
    let error = backup.make(registry.live()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("the bytes of {digest} are missing: `registry-server check` says more"));
    assert!(!target.join(METADATA_FILE).exists());
}

#[test]
fn a_copy_gets_its_name_when_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    assert_eq!(copy(&from, &to).unwrap_err().kind(), io::ErrorKind::NotFound);
    std::fs::write(&from, "bytes").unwrap();
    // What an interrupted copy left.
    std::fs::write(to.with_extension("partial"), "by").unwrap();
    copy(&from, &to).unwrap();
    copy(&from, &to).unwrap();
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "bytes");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

//! The SQLite adapter of the metadata store.

use registry_adapters::sql::{SqlMetadata, SqliteOptions};
use registry_core::names::RegistryName;
use registry_core::ports::metadata::RegistryStore;
use registry_core::ports::metadata::registries::{CreateRegistry, NewRegistry};
use registry_core::registry::{Format, Mode, RegistrySettings};
use registry_core::time::Timestamp;

#[tokio::test]
async fn a_store_opens_again_with_what_it_held() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metadata.sqlite");
    let store = SqlMetadata::open_sqlite(&path, SqliteOptions::default()).await.unwrap();
    let new = NewRegistry {
        name: RegistryName::default_oci(),
        format: Format::Oci,
        mode: Mode::Local,
        settings: RegistrySettings::default(),
    };
    let created = store.create_registry(new, Timestamp::from_micros(1)).await.unwrap();
    let CreateRegistry::Created(registry) = created else { panic!("{created:?}") };
    store.close().await;
    assert!(store.registries().await.is_err());
    let store = SqlMetadata::open_sqlite(&path, SqliteOptions::default()).await.unwrap();
    assert_eq!(store.registries().await.unwrap(), [registry]);
    store.close().await;
}

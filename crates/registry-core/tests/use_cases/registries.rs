//! Which registry a name means.

use std::time::Duration;

use registry_core::names::{RegistryName, RepositoryName};
use registry_core::ports::clock::Clock;
use registry_core::ports::metadata::RegistryStore;
use registry_core::ports::metadata::registries::NewRegistry;
use registry_core::registry::{Format, Mode, References, RegistrySettings};
use registry_core::services::{PrepareRefusal, PreparedRegistry};

use crate::world::{MICROSECOND, World, sha256};

impl World {
    /// The registry and the repository that a name means.
    async fn meaning(&self, name: &str) -> Option<(String, String)> {
        let name: RepositoryName = name.parse().unwrap();
        let resolved = self.services.resolve_repository(&name).await.unwrap()?;
        assert_eq!(resolved.registry.id, resolved.repository.registry);
        Some((resolved.registry.name.to_string(), resolved.repository.name.to_string()))
    }
}

fn means(registry: &str, repository: &str) -> Option<(String, String)> {
    Some((registry.to_owned(), repository.to_owned()))
}

#[tokio::test]
async fn the_first_of_several_segments_may_name_a_registry_of_images() {
    let world = World::new().await;
    world.prepare("mirror", Format::Oci, None).await;
    assert_eq!(world.meaning("team/app").await, means("oci", "team/app"));
    assert_eq!(world.meaning("oci/team/app").await, means("oci", "team/app"));
    assert_eq!(world.meaning("mirror/team/app").await, means("mirror", "team/app"));
    assert_eq!(world.meaning("mirror").await, means("oci", "mirror"), "a single segment is a repository");
    assert_eq!(world.meaning("generic/app").await, means("oci", "generic/app"), "that is a registry of files");
}

#[tokio::test]
async fn a_registry_is_found_by_its_name_and_format() {
    let world = World::new().await;
    let find = async |name: &str, format| {
        let found = world.services.find_registry(&name.parse().unwrap(), format).await.unwrap();
        found.map(|registry| registry.name.to_string())
    };
    assert_eq!(find("oci", Format::Oci).await.as_deref(), Some("oci"));
    assert_eq!(find("generic", Format::Generic).await.as_deref(), Some("generic"));
    assert_eq!(find("oci", Format::Generic).await, None);
    assert_eq!(find("other", Format::Oci).await, None);
}

#[tokio::test]
async fn a_registry_made_elsewhere_is_seen_within_two_seconds() {
    let world = World::new().await;
    assert_eq!(world.meaning("late/app").await, means("oci", "late/app"));
    let new = NewRegistry {
        name: "late".parse().unwrap(),
        format: Format::Oci,
        mode: Mode::Local,
        settings: RegistrySettings::default(),
    };
    world.metadata.create_registry(new, world.clock.now()).await.unwrap();
    world.clock.advance(Duration::from_secs(2) - MICROSECOND);
    assert_eq!(world.meaning("late/app").await, means("oci", "late/app"));
    world.clock.advance(MICROSECOND);
    assert_eq!(world.meaning("late/app").await, means("late", "app"));
}

#[tokio::test]
async fn preparing_again_changes_settings_where_some_are_given() {
    let world = World::new().await;
    let lenient = RegistrySettings { references: References::Lenient, ..RegistrySettings::default() };
    world.prepare("oci", Format::Oci, Some(lenient.clone())).await;
    assert_eq!(world.registry("oci").await.settings, lenient);
    world.prepare("oci", Format::Oci, Some(lenient.clone())).await;
    world.prepare("oci", Format::Oci, None).await;
    assert_eq!(world.registry("oci").await.settings, lenient);
    world.prepare("oci", Format::Oci, Some(RegistrySettings::default())).await;
    assert_eq!(world.registry("oci").await.settings, RegistrySettings::default());
    assert_eq!(world.registry("generic").await.settings, RegistrySettings::default());
}

#[tokio::test]
async fn a_registry_of_another_format_or_under_a_name_in_use_is_refused() {
    let world = World::new().await;
    world.push("team/app", "layer").await;
    let prepare = async |name: &str, format| {
        let name: RegistryName = name.parse().unwrap();
        let wanted = PreparedRegistry { name, format, mode: Mode::Local, settings: None };
        world.services.prepare_registries(&[wanted]).await
    };
    assert!(matches!(prepare("oci", Format::Generic).await, Err(PrepareRefusal::Differs(_))));
    assert!(matches!(prepare("team", Format::Oci).await, Err(PrepareRefusal::NameTaken(_))));
    assert!(prepare("team", Format::Generic).await.is_ok(), "which never stands first in a path of images");
    assert_eq!(world.blob("team/app", &sha256("layer")).await.as_deref(), Some("layer"));
}

#[tokio::test]
async fn no_upload_starts_under_the_name_of_a_registry() {
    let world = World::new().await;
    let target = registry_core::upload::UploadTarget::Repository {
        registry: world.registry("oci").await.id,
        repository: "oci/app".parse().unwrap(),
    };
    let refused = world.services.start_upload(target, false).await;
    assert!(matches!(refused, Err(registry_core::services::UploadError::NameTaken)), "{refused:?}");
}

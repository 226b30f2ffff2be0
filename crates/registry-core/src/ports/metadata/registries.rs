//! Registries, and the repositories inside the `oci` ones.

use async_trait::async_trait;

use super::NameRange;
use crate::error::StoreError;
use crate::names::{RegistryName, RepositoryName};
use crate::registry::{Format, Mode, Registry, RegistryId, RegistrySettings};
use crate::time::Timestamp;

/// A registry to be made.
#[derive(Clone, Debug)]
pub struct NewRegistry {
    /// Its name.
    pub name: RegistryName,
    /// What it holds.
    pub format: Format,
    /// Where its content comes from.
    pub mode: Mode,
    /// What is decided for it.
    pub settings: RegistrySettings,
}

/// What became of a registry to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateRegistry {
    /// It was made.
    Created(Registry),
    /// One of that name is there already; it is returned and unchanged.
    Exists(Registry),
    /// The name, of an `oci` registry, is the first segment of a repository in the default registry.
    NameTaken,
}

/// Registries and repositories.
#[async_trait]
pub trait RegistryStore: Send + Sync {
    /// Every registry, sorted by name. There are few: administrators make them by hand.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn registries(&self) -> Result<Vec<Registry>, StoreError>;

    /// Makes a registry. The name of an `oci` registry (the default one included) and the first segments in use in the
    /// default registry exclude each other: both are rows of one table with one primary key.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn create_registry(&self, new: NewRegistry, now: Timestamp) -> Result<CreateRegistry, StoreError>;

    /// Replaces the settings of a registry; false when there is none of that identity.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn change_settings(&self, id: RegistryId, settings: RegistrySettings) -> Result<bool, StoreError>;

    /// The next at most `limit` repositories of a registry that hold a manifest, sorted by name.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn repositories(
        &self,
        registry: RegistryId,
        range: &NameRange,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StoreError>;

    /// Answers when the store does; for readiness.
    ///
    /// # Errors
    /// [`StoreError`] says why it does not.
    async fn ping(&self) -> Result<(), StoreError>;
}

//! Registries, and the repositories inside the `oci` ones.

use async_trait::async_trait;

use super::{MemoryMetadata, contains};
use crate::error::StoreError;
use crate::names::RepositoryName;
use crate::ports::metadata::registries::{CreateRegistry, NewRegistry};
use crate::ports::metadata::{NameRange, RegistryStore};
use crate::registry::{Format, Registry, RegistryId, RegistrySettings};
use crate::time::Timestamp;

#[async_trait]
impl RegistryStore for MemoryMetadata {
    async fn registries(&self) -> Result<Vec<Registry>, StoreError> {
        Ok(self.state().registries.values().cloned().collect())
    }

    async fn create_registry(&self, new: NewRegistry, now: Timestamp) -> Result<CreateRegistry, StoreError> {
        let mut state = self.state();
        if let Some(registry) = state.registries.get(&new.name) {
            return Ok(CreateRegistry::Exists(registry.clone()));
        }
        let id = RegistryId(i64::try_from(state.registries.len()).expect("there are few registries") + 1);
        // Only these stand first in /v2/<name>.
        if new.format == Format::Oci {
            if state.first_segments.contains_key(new.name.as_str()) {
                return Ok(CreateRegistry::NameTaken);
            }
            state.first_segments.insert(new.name.as_str().to_owned(), Some(id));
        }
        let NewRegistry { name, format, mode, settings } = new;
        let registry = Registry { id, name: name.clone(), format, mode, settings, created_at: now };
        state.registries.insert(name, registry.clone());
        Ok(CreateRegistry::Created(registry))
    }

    async fn change_settings(&self, id: RegistryId, settings: RegistrySettings) -> Result<bool, StoreError> {
        let mut state = self.state();
        let Some(registry) = state.registries.values_mut().find(|registry| registry.id == id) else {
            return Ok(false);
        };
        registry.settings = settings;
        Ok(true)
    }

    async fn repositories(
        &self,
        registry: RegistryId,
        range: &NameRange,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, StoreError> {
        let state = self.state();
        let listed = state.repositories.iter().filter(|(repository, content)| {
            repository.registry == registry
                && contains(range, repository.name.as_str())
                && !content.manifests.is_empty()
        });
        Ok(listed.map(|(repository, _)| repository.name.clone()).take(limit).collect())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

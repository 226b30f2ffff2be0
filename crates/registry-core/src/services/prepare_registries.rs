//! The registries that a server has from its first start, and those of its configuration.

use super::Services;
use crate::error::StoreError;
use crate::names::RegistryName;
use crate::ports::metadata::registries::{CreateRegistry, NewRegistry};
use crate::registry::{Format, Mode, RegistrySettings};

/// A registry as the configuration names it.
#[derive(Clone, Debug)]
pub struct PreparedRegistry {
    /// Its name.
    pub name: RegistryName,
    /// What it holds.
    pub format: Format,
    /// Where its content comes from.
    pub mode: Mode,
    /// Its settings; they replace those it has. `None` leaves them.
    pub settings: Option<RegistrySettings>,
}

/// A registry of the configuration cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PrepareRefusal {
    /// It exists with another format or mode.
    #[error("the registry {0} exists with another format or mode")]
    Differs(RegistryName),
    /// Its name is the first segment of a repository in the default registry.
    #[error("the name {0} is in use as the first segment of a repository")]
    NameTaken(RegistryName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Services {
    /// Makes the registries that are not there yet. Replicas may do it at once.
    ///
    /// # Errors
    /// [`PrepareRefusal`].
    pub async fn prepare_registries(&self, registries: &[PreparedRegistry]) -> Result<(), PrepareRefusal> {
        for wanted in registries {
            let new = NewRegistry {
                name: wanted.name.clone(),
                format: wanted.format,
                mode: wanted.mode,
                settings: wanted.settings.clone().unwrap_or_default(),
            };
            let registry = match self.ports.metadata.create_registry(new, self.now()).await? {
                CreateRegistry::Created(registry) | CreateRegistry::Exists(registry) => registry,
                CreateRegistry::NameTaken => return Err(PrepareRefusal::NameTaken(wanted.name.clone())),
            };
            if (registry.format, registry.mode) != (wanted.format, wanted.mode) {
                return Err(PrepareRefusal::Differs(registry.name));
            }
            if let Some(settings) = &wanted.settings
                && *settings != registry.settings
            {
                self.ports.metadata.change_settings(registry.id, settings.clone()).await?;
            }
        }
        self.forget_registries();
        Ok(())
    }
}

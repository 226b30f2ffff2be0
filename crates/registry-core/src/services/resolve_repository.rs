//! Which registry and repository a name in `/v2/<name>` means.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Services;
use crate::error::StoreError;
use crate::names::{RegistryName, RepositoryName};
use crate::registry::{Format, Registry, Repository};
use crate::time::Timestamp;

/// For how long the list of registries is believed; a change on another replica is seen after that.
const KNOWN_FOR: Duration = Duration::from_secs(2);

/// A repository that a request names.
#[derive(Clone, Debug)]
pub struct ResolvedRepository {
    /// Its registry.
    pub registry: Arc<Registry>,
    /// Its identity: the canonical name.
    pub repository: Repository,
}

type Known = Option<(Arc<Vec<Arc<Registry>>>, Timestamp)>;

#[derive(Default)]
pub(super) struct KnownRegistries(Mutex<Known>);

impl Services {
    /// The registries, sorted by name; at most [`KNOWN_FOR`] old.
    pub(super) async fn known_registries(&self) -> Result<Arc<Vec<Arc<Registry>>>, StoreError> {
        let now = self.now();
        {
            let known = self.registries.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((registries, until)) = &*known
                && now < *until
            {
                return Ok(Arc::clone(registries));
            }
        }
        let registries: Vec<_> = self.ports.metadata.registries().await?.into_iter().map(Arc::new).collect();
        let registries = Arc::new(registries);
        *self.registries.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Arc::clone(&registries), now + KNOWN_FOR));
        Ok(registries)
    }

    pub(super) fn forget_registries(&self) {
        *self.registries.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The registry of that name and format.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn find_registry(
        &self,
        name: &RegistryName,
        format: Format,
    ) -> Result<Option<Arc<Registry>>, StoreError> {
        let registries = self.known_registries().await?;
        Ok(registries.iter().find(|registry| registry.name == *name && registry.format == format).cloned())
    }

    /// What `name` means: if the first of several segments names an `oci` registry, the rest in that; else all of it
    /// in the default one. `None` when the rest is not a repository's name, or there is no default registry.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn resolve_repository(&self, name: &RepositoryName) -> Result<Option<ResolvedRepository>, StoreError> {
        let registries = self.known_registries().await?;
        let find = |wanted: &str| {
            registries
                .iter()
                .find(|registry| registry.format == Format::Oci && registry.name.as_str() == wanted)
                .cloned()
        };
        let named = name.as_str().split_once('/').and_then(|(first, rest)| Some((find(first)?, rest)));
        let (registry, name) = match named {
            Some((registry, rest)) => match rest.parse() {
                Ok(rest) => (registry, rest),
                Err(_) => return Ok(None),
            },
            None => match find(RegistryName::default_oci().as_str()) {
                Some(registry) => (registry, name.clone()),
                None => return Ok(None),
            },
        };
        let repository = Repository { registry: registry.id, name };
        Ok(Some(ResolvedRepository { registry, repository }))
    }
}

//! Registries: named collections of one format and one mode.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{RegistryName, RepositoryName};
use crate::permission::AnonymousAccess;
use crate::time::Timestamp;

/// The identity of a registry in the metadata store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryId(pub i64);

/// What a registry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Container images and other OCI artifacts.
    Oci,
    /// Plain files, one for each version of a package.
    Generic,
}

/// Where a registry's content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It hosts what is pushed to it.
    Local,
}

macro_rules! text_of {
    ($type:ident { $($variant:ident = $text:literal),* $(,)? }) => {
        impl $type {
            /// The name in configuration, documents and the database.
            pub const fn as_str(self) -> &'static str {
                match self { $($type::$variant => $text),* }
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $type {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($text => Ok($type::$variant),)*
                    _ => Err(UnknownWord),
                }
            }
        }
    };
}

/// A word is not one of the known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a known word here")]
pub struct UnknownWord;

text_of!(Format { Oci = "oci", Generic = "generic" });
text_of!(Mode { Local = "local" });

/// Whether a manifest may name what its repository does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum References {
    /// Every descriptor must be there: otherwise `MANIFEST_BLOB_UNKNOWN`.
    #[default]
    Strict,
    /// Missing blobs and children are stored as they are (sparse and proxied manifests).
    Lenient,
}

/// What an administrator decides for one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySettings {
    /// Whether manifests may name what is not there.
    pub references: References,
    /// What a stranger may do here; `None` follows the server's setting.
    pub anonymous: Option<AnonymousAccess>,
    /// Whether a blob is fetched from where it lies, by a URL that is valid for a few minutes, where the store has such.
    #[serde(skip_serializing_if = "is_false")]
    pub redirect: bool,
}

// Releases before this setting refuse a document that names it.
fn is_false(value: &bool) -> bool {
    !value
}

/// A repository, by its canonical name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    /// The `oci` registry it lies in.
    pub registry: RegistryId,
    /// Its name inside that registry.
    pub name: RepositoryName,
}

/// A registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Its identity.
    pub id: RegistryId,
    /// Its name, unique over all formats.
    pub name: RegistryName,
    /// What it holds.
    pub format: Format,
    /// Where its content comes from.
    pub mode: Mode,
    /// What was decided for it.
    pub settings: RegistrySettings,
    /// When it was made.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_and_what_older_releases_refuse_is_named_only_where_it_is_wanted() {
        for redirect in [false, true] {
            let settings = RegistrySettings { redirect, ..RegistrySettings::default() };
            let document = serde_json::to_string(&settings).unwrap();
            assert_eq!(document.contains("redirect"), redirect, "{document}");
            assert_eq!(serde_json::from_str::<RegistrySettings>(&document).unwrap(), settings);
        }
    }
}

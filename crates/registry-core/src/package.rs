//! Packages, versions and files of the registries that are not `oci`.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::names::{FileName, PackageName, Version};
use crate::time::Timestamp;

/// One version of a generic package: one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The package.
    pub package: PackageName,
    /// The version.
    pub version: Version,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The media type that the publisher gave.
    pub content_type: String,
    /// The name that a download gets.
    pub filename: FileName,
    /// When it was committed.
    pub uploaded_at: Timestamp,
}

/// A package in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageSummary {
    /// The package.
    pub package: PackageName,
    /// How many versions it has; at least 1.
    pub version_count: u64,
    /// The last of its versions in the order of versions.
    pub latest_version: Version,
    /// When a version was last added or removed.
    pub updated_at: Timestamp,
}

/// What a publisher said of a version before its bytes came; kept with the upload until commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactDescription {
    /// The version to publish.
    pub version: Version,
    /// The media type.
    pub content_type: String,
    /// The name that a download gets.
    pub filename: FileName,
}

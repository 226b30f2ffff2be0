//! Names: validated once, where they enter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A name breaks its grammar; the text says which, for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must match {grammar} and have at most {limit} characters")]
pub struct InvalidName {
    /// What was being named, with its article.
    pub what: &'static str,
    /// The grammar as a regular expression.
    pub grammar: &'static str,
    /// The longest permitted text, in characters.
    pub limit: usize,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $grammar:expr, $limit:expr, $valid:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if text.len() <= $limit && $valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidName { what: $what, grammar: $grammar, limit: $limit })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

/// The grammar of a tag (OCI distribution-spec, *Pulling manifests*).
pub const TAG_GRAMMAR: &str = "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}";
/// The grammar of a repository's name (OCI distribution-spec, *Pulling manifests*).
pub const REPOSITORY_GRAMMAR: &str = "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(\\/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)*";

name! {
    /// The name of a registry: one path segment, so that it can stand first in `/v2/<registry>/<repository>`.
    RegistryName, "a registry's name", "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*", 64, is_path_component
}
name! {
    /// The canonical name of a repository inside its registry, e.g. `team/sub/app`.
    RepositoryName, "a repository's name", REPOSITORY_GRAMMAR, 255, is_repository_name
}
name! {
    /// A tag.
    Tag, "a tag", TAG_GRAMMAR, 128, is_tag
}
name! {
    /// The name of a generic package: one path segment.
    PackageName, "a package's name", "[a-zA-Z0-9][a-zA-Z0-9._-]*", 128, is_package_name
}
name! {
    /// A version of a generic package: one path segment.
    Version, "a version", "[a-zA-Z0-9][a-zA-Z0-9._+~-]*", 128, is_version
}
name! {
    /// The name that a downloaded file gets: no path separators, no control characters, not `.` or `..`.
    FileName, "a file's name", "[^/\\\\\\x00-\\x1f\\x7f]+, and neither . nor ..,", 255, is_file_name
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, without backtracking.
fn is_path_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !bytes.first().copied().is_some_and(alphanumeric) || !bytes.last().copied().is_some_and(alphanumeric) {
        return false;
    }
    let mut separators = bytes.split(|byte| alphanumeric(*byte)).filter(|separator| !separator.is_empty());
    separators.all(|separator| match separator {
        b"." | b"_" | b"__" => true,
        _ => separator.iter().all(|byte| *byte == b'-'),
    })
}

fn is_repository_name(text: &str) -> bool {
    text.split('/').all(is_path_component)
}

fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_package_name(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_version(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+' | b'~'))
}

fn is_file_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.chars().any(|c| c.is_control() || matches!(c, '/' | '\\'))
}

impl RepositoryName {
    /// The first path segment.
    pub fn first_segment(&self) -> &str {
        self.0.split('/').next().expect("split yields at least one part")
    }
}

impl RegistryName {
    /// The registry that `/v2/<name>` means when no registry is named: `oci`.
    pub fn default_oci() -> Self {
        Self("oci".to_owned())
    }

    /// The registry behind `/api/v1/artifacts`: `generic`.
    pub fn default_generic() -> Self {
        Self("generic".to_owned())
    }
}

/// What a manifest is asked for by: a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// The manifest that the tag points at now.
    Tag(Tag),
    /// The manifest with this digest.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repository_names() {
        for name in ["a", "a/b", "team/sub/app", "a.b", "a_b", "a__b", "a-b", "a---b", "0/1", "library/a-b.c_d"] {
            assert!(name.parse::<RepositoryName>().is_ok(), "{name}");
        }
        let long = "a".repeat(256);
        for name in [
            "", "/", "a/", "/a", "a//b", "A", "a___b", "a..b", "a.-b", "-a", "a-", "..", "a/../b", "a\0", "é", "a b",
            "a%2fb", &long,
        ] {
            assert!(name.parse::<RepositoryName>().is_err(), "{name:?}");
        }
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
        assert_eq!("team/sub/app".parse::<RepositoryName>().unwrap().first_segment(), "team");
    }

    #[test]
    fn tags() {
        for tag in ["latest", "_x", "1.0-rc_1", &"a".repeat(128)] {
            assert!(tag.parse::<Tag>().is_ok(), "{tag}");
        }
        for tag in ["", ".x", "-x", "a/b", "a:b", "a b", "ä", &"a".repeat(129)] {
            assert!(tag.parse::<Tag>().is_err(), "{tag:?}");
        }
    }

    #[test]
    fn a_reference_is_shown_as_it_is_written() {
        let digest = Digest::sha256(b"abc");
        assert_eq!(Reference::Tag("latest".parse().unwrap()).to_string(), "latest");
        assert_eq!(Reference::Digest(digest.clone()).to_string(), digest.to_string());
    }

    #[test]
    fn packages_versions_and_files() {
        for name in ["mypkg", "My_Pkg-2.0", "0"] {
            assert!(name.parse::<PackageName>().is_ok(), "{name}");
        }
        for name in ["", ".", "..", ".hidden", "-x", "a/b", "a b", "a\0b", "a%b", &"a".repeat(129)] {
            assert!(name.parse::<PackageName>().is_err(), "{name:?}");
        }
        for version in ["1", "1.0.0", "v1.2.3-rc.1+build~5", "2024-01-01"] {
            assert!(version.parse::<Version>().is_ok(), "{version}");
        }
        for version in ["", "..", "+1", "~1", "1/2", "1 2", &"1".repeat(129)] {
            assert!(version.parse::<Version>().is_err(), "{version:?}");
        }
        for file in ["f", "model.gguf", "with space.txt", "übung.txt", "..."] {
            assert!(file.parse::<FileName>().is_ok(), "{file}");
        }
        for file in ["", ".", "..", "a/b", "a\\b", "a\nb", "a\u{7f}", "a\u{85}b"] {
            assert!(file.parse::<FileName>().is_err(), "{file:?}");
        }
        assert_eq!(
            "..".parse::<PackageName>().unwrap_err().to_string(),
            "a package's name must match [a-zA-Z0-9][a-zA-Z0-9._-]* and have at most 128 characters"
        );
    }

    proptest! {
        #[test]
        fn names_made_from_the_grammar_are_accepted(name in "[a-z0-9]{1,9}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}(/[a-z0-9]{1,9}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}){0,4}") {
            prop_assert!(name.parse::<RepositoryName>().is_ok());
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in any::<String>()) {
            let _ = (text.parse::<RepositoryName>(), text.parse::<Tag>(), text.parse::<PackageName>(),
                     text.parse::<Version>(), text.parse::<FileName>(), text.parse::<RegistryName>());
        }
    }
}

//! The manifest document: what the registry must know of it, read without ever changing a byte.
//!
//! OCI image-spec `manifest.md` and `image-index.md`; Docker image manifest version 2, schema 2.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::digest::Digest;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The deepest nesting of a manifest's JSON.
pub const MAX_DEPTH: usize = 100;
/// The most descriptors a manifest may hold.
pub const MAX_DESCRIPTORS: usize = 20_000;

/// What the registry takes from a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFacts {
    /// The media type it is stored under and served with.
    pub media_type: String,
    /// `artifactType`, or the config's media type where an image manifest has none (distribution-spec,
    /// *Listing referrers*); empty when neither is there.
    pub artifact_type: String,
    /// The digest of its `subject`.
    pub subject: Option<Digest>,
    /// The blobs that must be in the repository: config and layers, without non-distributable ones; sorted, unique.
    pub blobs: Vec<Digest>,
    /// The manifests that an index names; sorted, unique.
    pub children: Vec<Digest>,
    /// Its annotations, as a JSON object; empty when it has none.
    pub annotations: String,
}

/// A manifest cannot be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidManifest {
    /// It is no JSON object of the expected shape.
    #[error("the manifest is not valid: {0}")]
    Malformed(String),
    /// Its `mediaType` differs from the request's Content-Type.
    #[error("the manifest says mediaType {document:?}, the request says Content-Type {header:?}")]
    MediaTypeMismatch {
        /// What the document says.
        document: String,
        /// What the header says.
        header: String,
    },
    /// The type is none that can be stored.
    #[error("the media type {0:?} is not a manifest's")]
    UnsupportedMediaType(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<i64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    /// Go writes an index without members as `null`.
    #[serde(default, deserialize_with = "given")]
    manifests: Option<Option<Vec<Descriptor>>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
    // Schema 1 and other documents that we cannot check are refused by these.
    fs_layers: Option<IgnoredAny>,
}

/// A field that is there, with whatever value.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: Option<String>,
    digest: String,
    size: i64,
}

impl Descriptor {
    /// Layers that clients fetch from elsewhere and need not push (image-spec `layer.md`; Docker's foreign layers).
    fn is_non_distributable(&self) -> bool {
        self.media_type.as_deref().is_some_and(|media_type| {
            media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
                || media_type == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        })
    }

    fn digest(&self) -> Result<Digest, InvalidManifest> {
        if self.size < 0 {
            return Err(InvalidManifest::Malformed(format!("descriptor {} has a negative size", self.digest)));
        }
        self.digest.parse().map_err(|error| InvalidManifest::Malformed(format!("digest {:?}: {error}", self.digest)))
    }
}

impl ManifestFacts {
    /// Reads the facts from `bytes`, which the client sent as `content_type` (`None`: it sent none).
    ///
    /// # Errors
    /// [`InvalidManifest`], with a text for the client.
    pub fn read(bytes: &[u8], content_type: Option<&str>) -> Result<Self, InvalidManifest> {
        check_depth(bytes)?;
        let document: Document =
            serde_json::from_slice(bytes).map_err(|error| InvalidManifest::Malformed(error.to_string()))?;
        let header = content_type.map(|value| value.split(';').next().unwrap_or("").trim().to_ascii_lowercase());
        let media_type = match (document.media_type.clone(), header) {
            (Some(document), Some(header)) if document.to_ascii_lowercase() != header => {
                return Err(InvalidManifest::MediaTypeMismatch { document, header });
            }
            (Some(media_type), _) | (None, Some(media_type)) => media_type,
            (None, None) => {
                if matches!(document.manifests, Some(Some(_))) { OCI_INDEX } else { OCI_MANIFEST }.to_owned()
            }
        };
        if document.fs_layers.is_some() || matches!(document.schema_version, Some(1)) {
            return Err(InvalidManifest::UnsupportedMediaType(media_type));
        }
        if document.schema_version != Some(2) {
            return Err(InvalidManifest::Malformed("schemaVersion must be 2".into()));
        }
        let is_index = match media_type.as_str() {
            OCI_INDEX | DOCKER_LIST => true,
            OCI_MANIFEST | DOCKER_MANIFEST => false,
            _ => return Err(InvalidManifest::UnsupportedMediaType(media_type)),
        };
        let lists = [document.layers.as_ref(), document.manifests.as_ref().and_then(Option::as_ref)];
        if lists.into_iter().flatten().map(Vec::len).sum::<usize>() > MAX_DESCRIPTORS {
            return Err(InvalidManifest::Malformed(format!("more than {MAX_DESCRIPTORS} descriptors")));
        }
        let subject = document.subject.as_ref().map(Descriptor::digest).transpose()?;
        let annotations = match &document.annotations {
            Some(annotations) if !annotations.is_empty() => {
                serde_json::to_string(annotations).expect("a map of strings is JSON")
            }
            _ => String::new(),
        };
        if is_index {
            if document.config.is_some() || document.layers.is_some() {
                return Err(InvalidManifest::Malformed("an index has neither config nor layers".into()));
            }
            let children = document.manifests.ok_or(InvalidManifest::Malformed("an index has manifests".into()))?;
            let children = children.unwrap_or_default();
            return Ok(Self {
                artifact_type: document.artifact_type.unwrap_or_default(),
                media_type,
                subject,
                blobs: Vec::new(),
                children: digests(&children)?,
                annotations,
            });
        }
        if matches!(document.manifests, Some(Some(_))) {
            return Err(InvalidManifest::Malformed("an image manifest has no manifests".into()));
        }
        let config = document.config.ok_or(InvalidManifest::Malformed("an image manifest has a config".into()))?;
        let artifact_type =
            document.artifact_type.filter(|text| !text.is_empty()).or(config.media_type.clone()).unwrap_or_default();
        let mut parts = document.layers.unwrap_or_default();
        parts.retain(|layer| !layer.is_non_distributable());
        parts.push(config);
        Ok(Self { media_type, artifact_type, subject, blobs: digests(&parts)?, children: Vec::new(), annotations })
    }
}

fn digests(descriptors: &[Descriptor]) -> Result<Vec<Digest>, InvalidManifest> {
    let mut digests = descriptors.iter().map(Descriptor::digest).collect::<Result<Vec<_>, _>>()?;
    digests.sort();
    digests.dedup();
    Ok(digests)
}

/// Refuses nesting beyond [`MAX_DEPTH`] before a parser meets it.
fn check_depth(bytes: &[u8]) -> Result<(), InvalidManifest> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in bytes {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(InvalidManifest::Malformed(format!("nested more than {MAX_DEPTH} deep")));
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn descriptor(media_type: &str, content: &str) -> String {
        let digest = Digest::sha256(content.as_bytes());
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#, content.len())
    }

    #[test]
    fn an_image_names_its_blobs() {
        let config = descriptor("application/vnd.oci.image.config.v1+json", "config");
        let layer = descriptor("application/vnd.oci.image.layer.v1.tar", "layer");
        let foreign = descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar", "foreign");
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[{layer},{layer},{foreign}],"annotations":{{"b":"2","a":"1"}},"unknown":[{{}}]}}"#
        );
        let facts = ManifestFacts::read(text.as_bytes(), Some(&format!("{OCI_MANIFEST}; charset=utf-8"))).unwrap();
        let mut blobs = vec![Digest::sha256(b"config"), Digest::sha256(b"layer")];
        blobs.sort();
        assert_eq!(facts.blobs, blobs);
        assert_eq!(facts.artifact_type, "application/vnd.oci.image.config.v1+json");
        assert_eq!(facts.annotations, r#"{"a":"1","b":"2"}"#);
        assert_eq!((facts.media_type.as_str(), facts.subject), (OCI_MANIFEST, None));
    }

    #[test]
    fn an_index_names_its_children_and_its_subject() {
        let child = descriptor(OCI_MANIFEST, "child");
        let subject = descriptor(OCI_MANIFEST, "subject");
        let text = format!(r#"{{"schemaVersion":2,"artifactType":"a/b","manifests":[{child}],"subject":{subject}}}"#);
        let facts = ManifestFacts::read(text.as_bytes(), Some(OCI_INDEX)).unwrap();
        assert_eq!(facts.children, [Digest::sha256(b"child")]);
        assert_eq!(facts.subject, Some(Digest::sha256(b"subject")));
        assert_eq!((facts.artifact_type.as_str(), facts.blobs.len()), ("a/b", 0));
        assert_eq!(ManifestFacts::read(text.as_bytes(), None).unwrap().media_type, OCI_INDEX);
        // As Go writes a list that nobody made.
        let none = ManifestFacts::read(br#"{"schemaVersion":2,"manifests":null}"#, Some(OCI_INDEX)).unwrap();
        assert_eq!(none.children, []);
    }

    #[test]
    fn what_cannot_be_a_manifest_is_refused() {
        let config = descriptor("c", "config");
        let image = format!(r#"{{"schemaVersion":2,"config":{config}}}"#);
        assert!(ManifestFacts::read(image.as_bytes(), Some(OCI_MANIFEST)).is_ok());
        let mismatch = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
        assert!(matches!(
            ManifestFacts::read(mismatch.as_bytes(), Some(OCI_MANIFEST)),
            Err(InvalidManifest::MediaTypeMismatch { .. })
        ));
        for (text, media_type) in
            [(r#"{"schemaVersion":1,"fsLayers":[]}"#, OCI_MANIFEST), (image.as_str(), "text/plain")]
        {
            let refusal = ManifestFacts::read(text.as_bytes(), Some(media_type));
            assert!(matches!(refusal, Err(InvalidManifest::UnsupportedMediaType(_))), "{text} {refusal:?}");
        }
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let negative = image.replace(r#""size":6"#, r#""size":-1"#);
        let bad_digest = image.replace("sha256:", "sha256:x");
        for (text, media_type) in [
            ("", OCI_MANIFEST),
            ("null", OCI_MANIFEST),
            ("{}", OCI_MANIFEST),
            (r#"{"schemaVersion":2}"#, OCI_MANIFEST),
            (r#"{"schemaVersion":2}"#, OCI_INDEX),
            (r#"{"schemaVersion":3,"manifests":[]}"#, OCI_INDEX),
            (image.as_str(), OCI_INDEX),
            (r#"{"schemaVersion":2,"manifests":[]}"#, OCI_MANIFEST),
            (deep.as_str(), OCI_MANIFEST),
            (negative.as_str(), OCI_MANIFEST),
            (bad_digest.as_str(), OCI_MANIFEST),
            (&image[..image.len() - 1], OCI_MANIFEST),
        ] {
            let refusal = ManifestFacts::read(text.as_bytes(), Some(media_type));
            assert!(matches!(refusal, Err(InvalidManifest::Malformed(_))), "{text:.80} {refusal:?}");
        }
    }

    #[test]
    fn a_manifest_holds_so_many_descriptors_and_no_more() {
        let config = descriptor("c", "config");
        let image = |layers: usize| {
            let layers = vec![descriptor("l", ""); layers].join(",");
            ManifestFacts::read(
                format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#).as_bytes(),
                Some(OCI_MANIFEST),
            )
        };
        let index = |children: usize| {
            let children = vec![descriptor("l", ""); children].join(",");
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{children}]}}"#);
            ManifestFacts::read(text.as_bytes(), Some(OCI_INDEX))
        };
        // The empty blob is one, of no bytes.
        assert_eq!(image(MAX_DESCRIPTORS).unwrap().blobs.len(), 2);
        assert_eq!(index(MAX_DESCRIPTORS).unwrap().children, [Digest::sha256(b"")]);
        for refusal in [image(MAX_DESCRIPTORS + 1), index(MAX_DESCRIPTORS + 1)] {
            assert!(
                matches!(&refusal, Err(InvalidManifest::Malformed(why)) if why.contains("descriptors")),
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn parts_that_do_not_belong_and_older_schemas_are_refused() {
        let layer = descriptor("l", "layer");
        for text in [
            format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[{layer}]}}"#),
            format!(r#"{{"schemaVersion":2,"manifests":[],"config":{layer}}}"#),
        ] {
            let refusal = ManifestFacts::read(text.as_bytes(), Some(OCI_INDEX));
            assert!(matches!(refusal, Err(InvalidManifest::Malformed(_))), "{text} {refusal:?}");
        }
        for text in [r#"{"schemaVersion":1}"#, r#"{"schemaVersion":2,"fsLayers":[]}"#] {
            let refusal = ManifestFacts::read(text.as_bytes(), Some(OCI_MANIFEST));
            assert!(matches!(refusal, Err(InvalidManifest::UnsupportedMediaType(_))), "{text} {refusal:?}");
        }
    }

    #[test]
    fn no_annotations_and_empty_ones_are_the_same() {
        let config = descriptor("c", "config");
        for more in ["", r#","annotations":{}"#, r#","annotations":null"#] {
            let text = format!(r#"{{"schemaVersion":2,"config":{config}{more}}}"#);
            assert_eq!(ManifestFacts::read(text.as_bytes(), Some(OCI_MANIFEST)).unwrap().annotations, "");
        }
    }

    #[test]
    fn depth_counts_outside_strings_only() {
        let brackets = "[".repeat(500);
        let config = descriptor("c", "config");
        let text = format!(r#"{{"schemaVersion":2,"config":{config},"annotations":{{"k":"\"{brackets}"}}}}"#);
        assert!(ManifestFacts::read(text.as_bytes(), Some(OCI_MANIFEST)).is_ok());
        let limit = format!(r#"{{"schemaVersion":2,"config":{config},"x":{}{}}}"#, "[".repeat(99), "]".repeat(99));
        assert!(ManifestFacts::read(limit.as_bytes(), Some(OCI_MANIFEST)).is_ok());
        let beyond = limit.replace(r#""x":["#, r#""x":[["#).replace("]}", "]]}");
        assert!(ManifestFacts::read(beyond.as_bytes(), Some(OCI_MANIFEST)).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ManifestFacts::read(&bytes, Some(OCI_MANIFEST));
        }

        #[test]
        fn near_manifests_do_not_panic(text in r#"\{"schemaVersion":2(,"(config|layers|manifests|subject)":(\{"digest":"sha256:[0-9a-f]{0,64}","size":-?[0-9]{1,20}\}|\[\{"digest":"","size":0\}\]|null|7)){0,3}\}"#) {
            let _ = ManifestFacts::read(text.as_bytes(), Some(OCI_MANIFEST));
            let _ = ManifestFacts::read(text.as_bytes(), Some(OCI_INDEX));
        }
    }
}

//! Blobs, images and indexes made from nothing, and their pushing and pulling by plain HTTP.

use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::http::Answer;
use crate::server::Server;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `sha256:…` of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// `sha512:…` of `bytes`.
pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

/// An image: a manifest and its blobs.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// Its media type.
    pub media_type: &'static str,
    /// The config and the layers.
    pub blobs: Vec<Vec<u8>>,
}

impl Image {
    /// An image with these layers.
    pub fn new(layers: Vec<Vec<u8>>) -> Self {
        Self::with(layers, json!({}))
    }

    /// An image with these layers; the members of `more` stand in its manifest too (`subject`, `artifactType`, …).
    pub fn with(layers: Vec<Vec<u8>>, more: Value) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = config.to_string().into_bytes();
        let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() });
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer)).collect::<Vec<_>>(),
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            manifest[name] = value.clone();
        }
        let mut blobs = layers;
        blobs.push(config);
        Self { manifest: manifest.to_string().into_bytes(), media_type: OCI_MANIFEST, blobs }
    }

    /// An index over these manifests; it has no blobs of its own.
    pub fn index(children: &[&Image]) -> Self {
        let manifests: Vec<Value> = children.iter().map(|child| child.descriptor()).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        Self { manifest: manifest.to_string().into_bytes(), media_type: OCI_INDEX, blobs: Vec::new() }
    }

    /// The manifest's digest.
    pub fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    /// The manifest's descriptor.
    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.manifest.len() })
    }
}

/// A repository on a server, as the administrator uses it.
pub struct Repository<'a> {
    /// The server.
    pub server: &'a Server,
    /// The name.
    pub name: String,
}

impl Server {
    /// A repository on this server.
    pub fn repository(&self, name: &str) -> Repository<'_> {
        Repository { server: self, name: name.to_owned() }
    }
}

impl Repository<'_> {
    /// `/v2/<name>/<rest>`
    pub fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.name)
    }

    /// Starts an upload: its location.
    #[track_caller]
    pub fn start_upload(&self) -> String {
        let answer = self.server.request("POST", &self.path("blobs/uploads/"), &[], b"").expect(202);
        answer.header("location").expect("a started upload has a location").to_owned()
    }

    /// PATCHes a piece without a range.
    #[track_caller]
    pub fn patch(&self, location: &str, bytes: &[u8]) -> Answer {
        self.server.request("PATCH", location, &["Content-Type: application/octet-stream"], bytes)
    }

    /// PATCHes a piece that begins at `first`.
    #[track_caller]
    pub fn patch_at(&self, location: &str, first: usize, bytes: &[u8]) -> Answer {
        let range = format!("Content-Range: {first}-{}", first + bytes.len().max(1) - 1);
        self.server.request("PATCH", location, &["Content-Type: application/octet-stream", &range], bytes)
    }

    /// PUTs the end of an upload.
    #[track_caller]
    pub fn finish(&self, location: &str, digest: &str, bytes: &[u8]) -> Answer {
        self.server.request("PUT", &with_digest(location, digest), &["Content-Type: application/octet-stream"], bytes)
    }

    /// GETs the status of an upload; [`offset`] reads it.
    #[track_caller]
    pub fn status(&self, location: &str) -> Answer {
        self.server.request("GET", location, &[], b"")
    }

    /// Pushes a blob by POST and PUT: its digest.
    #[track_caller]
    pub fn push_blob(&self, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        let location = self.start_upload();
        self.finish(&location, &digest, bytes).expect(201);
        digest
    }

    /// HEADs a blob.
    #[track_caller]
    pub fn head_blob(&self, digest: &str) -> Answer {
        self.server.request("HEAD", &self.path(&format!("blobs/{digest}")), &[], b"")
    }

    /// GETs a blob.
    #[track_caller]
    pub fn get_blob(&self, digest: &str) -> Answer {
        self.server.get(&self.path(&format!("blobs/{digest}")))
    }

    /// PUTs a manifest under a tag or digest.
    #[track_caller]
    pub fn put_manifest(&self, reference: &str, image: &Image) -> Answer {
        let content_type = format!("Content-Type: {}", image.media_type);
        self.server.request("PUT", &self.path(&format!("manifests/{reference}")), &[&content_type], &image.manifest)
    }

    /// GETs a manifest.
    #[track_caller]
    pub fn get_manifest(&self, reference: &str) -> Answer {
        self.server.get(&self.path(&format!("manifests/{reference}")))
    }

    /// Pushes all blobs of an image and then its manifest.
    #[track_caller]
    pub fn push(&self, reference: &str, image: &Image) {
        for blob in &image.blobs {
            self.push_blob(blob);
        }
        self.put_manifest(reference, image).expect(201);
    }

    /// Pulls what `push` pushed, and compares every byte.
    #[track_caller]
    pub fn assert_holds(&self, reference: &str, image: &Image) {
        let manifest = self.get_manifest(reference).expect(200);
        assert_eq!(manifest.body, image.manifest);
        assert_eq!(manifest.header("content-type"), Some(image.media_type));
        for blob in &image.blobs {
            assert_eq!(self.get_blob(&sha256(blob)).expect(200).body, *blob);
        }
    }

    /// DELETEs a manifest or tag.
    #[track_caller]
    pub fn delete_manifest(&self, reference: &str) -> Answer {
        self.server.request("DELETE", &self.path(&format!("manifests/{reference}")), &[], b"")
    }
}

/// The offset in `Range: 0-<last>` of a session's answer. Exactly one byte reads the same as none: it counts as none.
#[track_caller]
pub fn offset(answer: &Answer) -> usize {
    let range = answer.header("range").expect("a session says its range");
    let last: usize = range.strip_prefix("0-").expect("it begins at 0").parse().expect("a number");
    if last == 0 { 0 } else { last + 1 }
}

/// `location` with `digest=` in its query.
pub fn with_digest(location: &str, digest: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}

//! Images that can run, and how they lie in folders.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::oci::{Image, OCI_INDEX, OCI_MANIFEST, sha256};

/// This machine's architecture, as images call it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Another architecture than this machine's.
pub fn other_architecture() -> &'static str {
    if architecture() == "arm64" { "amd64" } else { "arm64" }
}

/// The command of an image that says `text`.
pub fn saying(text: &str) -> Value {
    json!(["/bin/busybox", "echo", text])
}

/// A folder that builders make an image of: busybox, on nothing, which says `text`.
pub fn build_context(folder: &Path, busybox: &Path, text: &str) {
    fs::create_dir_all(folder).expect("a folder can be made");
    fs::copy(busybox, folder.join("busybox")).expect("busybox can be copied");
    let recipe = format!("FROM scratch\nCOPY busybox /bin/busybox\nCMD {}\n", saying(text));
    for name in ["Containerfile", "Dockerfile"] {
        fs::write(folder.join(name), &recipe).expect("a file can be written");
    }
}

/// A layer: a tar archive (POSIX ustar) with one program.
pub fn layer(path: &str, program: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, path.as_bytes());
    put(100, b"0000755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", program.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u64 = header.iter().copied().map(u64::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(program);
    // Whole blocks, and two empty ones at the end.
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

/// An image of busybox for `architecture`, which says `text`.
pub fn image(busybox: &Path, architecture: &str, text: &str) -> Image {
    let layer = layer("bin/busybox", &fs::read(busybox).expect("busybox can be read"));
    image_of(layer, architecture, text)
}

/// The same of a layer that is there.
pub fn image_of(layer: Vec<u8>, architecture: &str, text: &str) -> Image {
    let config = json!({
        "architecture": architecture, "os": "linux", "config": { "Cmd": saying(text) },
        "rootfs": { "type": "layers", "diff_ids": [sha256(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    Image { manifest: manifest.to_string().into_bytes(), media_type: OCI_MANIFEST, blobs: vec![layer, config] }
}

/// An index over images of these architectures.
pub fn index(images: &[(&str, &Image)]) -> Image {
    let manifests: Vec<Value> = images
        .iter()
        .map(|(architecture, image)| {
            let mut descriptor = image.descriptor();
            descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
            descriptor
        })
        .collect();
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
    Image { manifest: manifest.to_string().into_bytes(), media_type: OCI_INDEX, blobs: Vec::new() }
}

/// The descriptor of some bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() })
}

/// Writes an OCI image layout whose tag `1` is `top`; `more` are the images that it names.
pub fn write_layout(folder: &Path, top: &Image, more: &[&Image]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder can be made");
    for image in more.iter().copied().chain([top]) {
        for blob in image.blobs.iter().chain([&image.manifest]) {
            fs::write(blobs.join(&sha256(blob)["sha256:".len()..]), blob).expect("a file can be written");
        }
    }
    let mut descriptor = top.descriptor();
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "1" });
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor] });
    fs::write(folder.join("index.json"), index.to_string()).expect("a file can be written");
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file can be written");
}

/// Asserts that an OCI image layout holds the manifests and blobs of these images, byte for byte.
#[track_caller]
pub fn assert_layout_holds(folder: &Path, images: &[&Image]) {
    for image in images {
        for blob in image.blobs.iter().chain([&image.manifest]) {
            let digest = sha256(blob);
            let path = folder.join("blobs/sha256").join(&digest["sha256:".len()..]);
            let stored = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(stored == *blob, "{digest} was changed");
        }
    }
}

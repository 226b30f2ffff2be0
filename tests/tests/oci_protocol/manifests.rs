//! Manifests: what is stored comes back byte for byte, and what is not a manifest is refused.

use registry_tests::oci::{OCI_INDEX, OCI_MANIFEST, Repository, sha256, sha512};
use registry_tests::{Answer, Image, Random, Server, ServerBuilder};
use serde_json::{Value, json};

use crate::absent;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A descriptor of `digest`.
fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn put(repository: &Repository<'_>, reference: &str, media_type: &str, bytes: &[u8]) -> Answer {
    let content_type = format!("Content-Type: {media_type}");
    repository.server.request("PUT", &repository.path(&format!("manifests/{reference}")), &[&content_type], bytes)
}

/// Documents that name `blob` (which is there) in every way that clients do: what they are, their type, and the bytes.
fn documents(blob: &str, child: &Image) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let config = descriptor("application/vnd.oci.image.config.v1+json", blob, 7);
    let layer = descriptor("application/vnd.oci.image.layer.v1.tar", blob, 7);
    let image = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer] });
    let with = |more: Value| {
        let mut document = image.clone();
        for (name, value) in more.as_object().expect("members are an object") {
            document[name] = value.clone();
        }
        document.to_string().into_bytes()
    };
    let elsewhere = |media_type: &str| {
        let mut layer = descriptor(media_type, &sha256(media_type.as_bytes()), 7);
        layer["urls"] = json!(["https://example.org/layer"]);
        with(json!({ "layers": [layer] }))
    };
    let mut embedded = layer.clone();
    embedded["data"] = json!("Y29udGVudA==");
    let docker = json!({
        "schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
        "config": descriptor("application/vnd.docker.container.image.v1+json", blob, 7),
        "layers": [descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", blob, 7)],
    });
    let list = |media_type: &str, manifests: Value| {
        json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests }).to_string().into_bytes()
    };
    vec![
        ("an image", OCI_MANIFEST, with(json!({}))),
        ("an image, indented", OCI_MANIFEST, serde_json::to_vec_pretty(&image).expect("JSON can be written")),
        (
            "members in another order, with spaces and escapes of its own",
            OCI_MANIFEST,
            format!("{{ \"layers\":[ ],\n\t\"config\" : {config},\"annotations\":{{\"a\\u00e9\":\"\\/\"}},\"schemaVersion\":2 }}\n")
                .into_bytes(),
        ),
        ("no media type of its own", OCI_MANIFEST, with(json!({ "mediaType": OCI_MANIFEST, "x": 1 }))),
        ("unknown members", OCI_MANIFEST, with(json!({ "org.example": { "deep": [1, 2.50, null, {"é": "ü"}] } }))),
        ("no layers", OCI_MANIFEST, with(json!({ "layers": [] }))),
        ("the same layer twice", OCI_MANIFEST, with(json!({ "layers": [layer, layer] }))),
        ("embedded data", OCI_MANIFEST, with(json!({ "layers": [embedded] }))),
        ("a layer that is fetched elsewhere", OCI_MANIFEST, elsewhere("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")),
        ("a foreign layer", OCI_MANIFEST, elsewhere("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")),
        ("an artifact", OCI_MANIFEST, with(json!({ "artifactType": "application/vnd.example+json" }))),
        ("a missing subject", OCI_MANIFEST, with(json!({ "subject": descriptor(OCI_MANIFEST, &absent(), 7) }))),
        ("an image for docker", DOCKER_MANIFEST, docker.to_string().into_bytes()),
        ("an index", OCI_INDEX, list(OCI_INDEX, json!([child.descriptor()]))),
        ("an empty index", OCI_INDEX, list(OCI_INDEX, json!([]))),
        ("a list for docker", DOCKER_LIST, list(DOCKER_LIST, json!([child.descriptor()]))),
    ]
}

#[test]
fn every_kind_comes_back_byte_for_byte() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let blob = repository.push_blob(b"content");
    let child = Image::new(vec![]);
    repository.push("child", &child);
    let by_digest = |bytes: &[u8]| [sha256(bytes), sha512(bytes)];
    for (number, (what, media_type, bytes)) in documents(&blob, &child).into_iter().enumerate() {
        let tag = format!("tag-{number}");
        let stored = put(&repository, &tag, media_type, &bytes);
        assert_eq!(stored.status, 201, "{what}: {}", stored.text());
        assert_eq!(stored.header("docker-content-digest"), Some(sha256(&bytes).as_str()), "{what}");
        let location = repository.path(&format!("manifests/{}", sha256(&bytes)));
        assert_eq!(stored.header("location"), Some(location.as_str()), "{what}");
        for digest in by_digest(&bytes) {
            let stored = put(&repository, &digest, media_type, &bytes).expect(201);
            assert_eq!(stored.header("docker-content-digest"), Some(digest.as_str()), "{what}");
        }
        let [digest, long] = by_digest(&bytes);
        for (reference, digest) in [(&tag, &digest), (&digest, &digest), (&long, &long)] {
            let got = repository.get_manifest(reference).expect(200);
            assert!(got.body == bytes, "{what}: the bytes differ");
            let path = repository.path(&format!("manifests/{reference}"));
            for answer in [&got, &server.request("HEAD", &path, &[], b"").expect(200)] {
                assert_eq!(answer.header("content-type"), Some(media_type), "{what}");
                assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()), "{what}");
                assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()), "{what}");
            }
        }
    }
    // An index of indexes.
    let inner = Image::index(&[&child, &child]);
    let nested = Image::index(&[&inner]);
    put(&repository, "missing", OCI_INDEX, &nested.manifest).expect(404);
    put(&repository, "inner", OCI_INDEX, &inner.manifest).expect(201);
    put(&repository, "nested", OCI_INDEX, &nested.manifest).expect(201);
    repository.assert_holds("nested", &nested);
}

/// A valid manifest of exactly `length` bytes.
fn manifest_of(blob: &str, length: usize) -> Vec<u8> {
    let document = |padding: usize| {
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", blob, 7), "layers": [],
            "annotations": { "padding": "x".repeat(padding) },
        })
        .to_string()
        .into_bytes()
    };
    document(length - document(0).len())
}

#[test]
fn a_manifest_may_have_4_mib_and_not_a_byte_more() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let blob = repository.push_blob(b"content");
    for length in [3_900_000, 4 << 20] {
        let manifest = manifest_of(&blob, length);
        put(&repository, "big", OCI_MANIFEST, &manifest).expect(201);
        assert!(repository.get_manifest("big").expect(200).body == manifest);
    }
    let beyond = manifest_of(&blob, (4 << 20) + 1);
    assert_eq!(put(&repository, "beyond", OCI_MANIFEST, &beyond).expect(413).oci_code(), "SIZE_INVALID");
    // When the length is not said beforehand too.
    let mut chunked = format!("{:x}\r\n", beyond.len()).into_bytes();
    chunked.extend_from_slice(&beyond);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let headers = ["Transfer-Encoding: chunked", "Content-Type: application/vnd.oci.image.manifest.v1+json"];
    let path = repository.path("manifests/beyond");
    assert_eq!(server.request("PUT", &path, &headers, &chunked).expect(413).oci_code(), "SIZE_INVALID");
    assert_eq!(repository.get_manifest("beyond").expect(404).oci_code(), "MANIFEST_UNKNOWN");
}

#[test]
fn the_limit_is_configurable() {
    let server = ServerBuilder::new().config("limits:\n  max_manifest_bytes: 1KiB").start();
    let repository = server.repository("team/app");
    let blob = repository.push_blob(b"content");
    put(&repository, "1", OCI_MANIFEST, &manifest_of(&blob, 1_024)).expect(201);
    put(&repository, "2", OCI_MANIFEST, &manifest_of(&blob, 1_025)).expect(413);
}

#[test]
fn the_stored_type_is_sent_whatever_the_client_accepts() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let blob = repository.push_blob(b"content");
    let child = Image::new(vec![]);
    repository.push("child", &child);
    for (what, media_type, bytes) in documents(&blob, &child) {
        put(&repository, "1", media_type, &bytes).expect(201);
        for accept in [
            OCI_MANIFEST,
            DOCKER_LIST,
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            &format!("{DOCKER_MANIFEST}, {DOCKER_LIST};q=0.5, */*;q=0.1"),
            "text/html",
            "",
        ] {
            let header = format!("Accept: {accept}");
            let got = server.request("GET", &repository.path("manifests/1"), &[&header], b"").expect(200);
            assert_eq!(got.header("content-type"), Some(media_type), "{what} for {accept:?}");
            assert!(got.body == bytes, "{what} for {accept:?}");
        }
    }
}

#[test]
fn a_manifest_that_is_known_is_not_sent_again() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let image = Image::new(vec![]);
    repository.push("1", &image);
    let etag = repository.get_manifest("1").expect(200).header("etag").expect("a manifest has an ETag").to_owned();
    let header = format!("If-None-Match: {etag}");
    for reference in ["1", &image.digest()] {
        let path = repository.path(&format!("manifests/{reference}"));
        assert_eq!(server.request("GET", &path, &[&header], b"").expect(304).body, b"");
        server.request("GET", &path, &["If-None-Match: \"other\""], b"").expect(200);
    }
}

#[test]
fn what_a_manifest_names_must_be_there() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let image = Image::new(vec![Random::new(1).bytes(100), Random::new(2).bytes(100)]);
    for (pushed, missing) in [(0, 3), (1, 2), (2, 1)] {
        if pushed > 0 {
            repository.push_blob(&image.blobs[pushed - 1]);
        }
        let refused = repository.put_manifest("1", &image).expect(404);
        let errors = refused.json()["errors"].as_array().expect("errors are a list").clone();
        assert_eq!(errors.len(), missing, "{errors:?}");
        for error in errors {
            assert_eq!(error["code"], "MANIFEST_BLOB_UNKNOWN");
            let digest = error["detail"]["digest"].as_str().expect("the digest is named");
            assert!(image.blobs[pushed..].iter().any(|blob| sha256(blob) == digest), "{digest}");
        }
        repository.get_manifest("1").expect(404);
    }
    repository.push_blob(&image.blobs[2]);
    repository.put_manifest("1", &image).expect(201);
    // The blobs of another repository are not there.
    server.repository("other").put_manifest("1", &image).expect(404);

    let index = Image::index(&[&image, &Image::new(vec![])]);
    let refused = repository.put_manifest("index", &index).expect(404);
    assert_eq!(refused.json()["errors"][0]["detail"]["digest"], Image::new(vec![]).digest());
}

#[test]
fn a_lenient_registry_takes_what_names_missing_parts() {
    let config = "registries:\n  sparse:\n    format: oci\n    references: lenient";
    let server = ServerBuilder::new().config(config).start();
    let image = Image::new(vec![Random::new(3).bytes(100)]);
    let index = Image::index(&[&image]);
    let lenient = server.repository("sparse/team/app");
    for (tag, manifest) in [("image", &image), ("index", &index)] {
        lenient.put_manifest(tag, manifest).expect(201);
        assert_eq!(lenient.get_manifest(tag).expect(200).body, manifest.manifest);
        server.repository("team/app").put_manifest(tag, manifest).expect(404);
    }
    // What comes later is kept with it.
    let layer = lenient.push_blob(&image.blobs[0]);
    server.gc("0s");
    lenient.get_blob(&layer).expect(200);
}

#[test]
fn an_index_of_a_builders_cache_keeps_its_layers() {
    let server = Server::start();
    let repository = server.repository("team/cache");
    let layer = Random::new(4).bytes(1_000);
    let config = b"{\"layers\":[]}";
    // As BuildKit writes it: plain blobs where an index has manifests, and no platform.
    let manifests = json!([
        descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &sha256(&layer), layer.len()),
        descriptor("application/vnd.buildkit.cacheconfig.v0", &sha256(config), config.len()),
    ]);
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests }).to_string();
    let missing = put(&repository, "cache", OCI_INDEX, index.as_bytes()).expect(404);
    assert_eq!(missing.oci_code(), "MANIFEST_BLOB_UNKNOWN");
    repository.push_blob(&layer);
    repository.push_blob(config);
    put(&repository, "cache", OCI_INDEX, index.as_bytes()).expect(201);
    server.gc("0s");
    assert!(repository.get_blob(&sha256(&layer)).expect(200).body == layer);
    assert_eq!(repository.get_blob(&sha256(config)).expect(200).body, config);
    let blob = repository.path(&format!("blobs/{}", sha256(&layer)));
    server.request("DELETE", &blob, &[], b"").expect(409);
    // With the index they go.
    let digest = sha256(index.as_bytes());
    repository.delete_manifest(&digest).expect(202);
    assert_eq!(server.gc("0s")["blobs_deleted"], 2);
}

#[test]
fn what_is_no_manifest_is_refused() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let blob = repository.push_blob(b"content");
    let config = descriptor("application/vnd.oci.image.config.v1+json", &blob, 7);
    let mut bad_digest = config.clone();
    bad_digest["digest"] = json!("sha256:baddigeststring");
    let mut bad_size = config.clone();
    bad_size["size"] = json!(-1);
    let image = |config: &Value| {
        json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [] }).to_string()
    };
    let schema_1 = json!({ "schemaVersion": 1, "name": "team/app", "tag": "1", "fsLayers": [], "history": [] });
    for (what, media_type, document) in [
        ("nothing", OCI_MANIFEST, String::new()),
        ("no JSON", OCI_MANIFEST, "manifest".to_owned()),
        ("JSON cut off", OCI_MANIFEST, image(&config).trim_end_matches('}').to_owned()),
        ("more than one document", OCI_MANIFEST, image(&config).repeat(2)),
        ("no object", OCI_MANIFEST, "[]".to_owned()),
        ("no version", OCI_MANIFEST, json!({ "mediaType": OCI_MANIFEST, "config": config, "layers": [] }).to_string()),
        ("no config", OCI_MANIFEST, json!({ "schemaVersion": 2, "layers": [] }).to_string()),
        ("an index without manifests", OCI_INDEX, json!({ "schemaVersion": 2 }).to_string()),
        ("an index with layers", OCI_INDEX, json!({ "schemaVersion": 2, "manifests": [], "layers": [] }).to_string()),
        ("a bad digest", OCI_MANIFEST, image(&bad_digest)),
        ("a bad size", OCI_MANIFEST, image(&bad_size)),
        ("another type than it says", OCI_INDEX, image(&config)),
        ("a type that is no manifest's", "application/json", image(&config).replace(OCI_MANIFEST, "application/json")),
        ("schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws", schema_1.to_string()),
        ("nested too deep", OCI_MANIFEST, format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000))),
    ] {
        let refused = put(&repository, "1", media_type, document.as_bytes());
        assert_eq!(refused.status, 400, "{what}: {}", refused.text());
        assert_eq!(refused.oci_code(), "MANIFEST_INVALID", "{what}");
        repository.get_manifest("1").expect(404);
    }
    // Not under a digest that it does not have, nor under one that is none.
    let manifest = image(&config);
    for reference in [absent(), sha512(b"other"), "sha256:baddigeststring".to_owned(), "md5:abc".to_owned()] {
        let refused = put(&repository, &reference, OCI_MANIFEST, manifest.as_bytes()).expect(400);
        assert_eq!(refused.oci_code(), "DIGEST_INVALID", "{reference}");
    }
    let malformed = repository.get_manifest("sha256:baddigeststring");
    assert!(matches!(malformed.status, 400 | 404), "{}", malformed.text());
    assert_eq!(repository.get_manifest(&absent()).expect(404).oci_code(), "MANIFEST_UNKNOWN");
    // Without a Content-Type the document's own word counts.
    server.request("PUT", &repository.path("manifests/1"), &[], manifest.as_bytes()).expect(201);
    assert_eq!(repository.get_manifest("1").expect(200).header("content-type"), Some(OCI_MANIFEST));
}

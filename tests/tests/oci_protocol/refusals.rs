//! Refusals: one shape, and only the specification's codes.

use registry_tests::oci::sha256;
use registry_tests::{Answer, Image, Server};

use crate::absent;

/// The codes of the specification.
const CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

#[track_caller]
fn assert_shape(answer: &Answer) {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let document = answer.json();
    assert_eq!(document.as_object().map(serde_json::Map::len), Some(1), "{document}");
    let errors = document["errors"].as_array().expect("there is a list of errors");
    assert!(!errors.is_empty());
    for error in errors {
        assert_eq!(error.as_object().map(serde_json::Map::len), Some(3), "{error}");
        assert!(CODES.contains(&error["code"].as_str().expect("a code is text")), "{error}");
        assert!(!error["message"].as_str().expect("a message is text").is_empty(), "{error}");
        assert!(error.get("detail").is_some(), "{error}");
    }
}

#[test]
fn refusals_have_one_shape() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let blob = repository.push_blob(b"content");
    let absent = absent();
    let image = String::from_utf8(Image::new(vec![b"layer".to_vec()]).manifest).expect("JSON is UTF-8");
    for (method, target, body, status, code) in [
        ("GET", format!("/v2/team/app/blobs/{absent}"), "", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/team/app/blobs/sha256:bad".to_owned(), "", 400, "DIGEST_INVALID"),
        ("GET", "/v2/team/app/manifests/absent".to_owned(), "", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/never/tags/list".to_owned(), "", 404, "NAME_UNKNOWN"),
        ("GET", "/v2/NEVER/tags/list".to_owned(), "", 400, "NAME_INVALID"),
        ("GET", "/v2/team/app/tags/list?n=x".to_owned(), "", 400, "UNSUPPORTED"),
        ("GET", "/v2/team/app/blobs/uploads/absent".to_owned(), "", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "/v2/team/app".to_owned(), "", 404, "UNSUPPORTED"),
        ("GET", "/v2/team/app/referrers/x".to_owned(), "", 400, "DIGEST_INVALID"),
        ("POST", format!("/v2/team/app/blobs/uploads/?digest={absent}"), "x", 400, "DIGEST_INVALID"),
        ("PUT", "/v2/team/app/manifests/1".to_owned(), "x", 400, "MANIFEST_INVALID"),
        ("PUT", "/v2/team/app/manifests/1".to_owned(), &image, 404, "MANIFEST_BLOB_UNKNOWN"),
        ("PUT", format!("/v2/team/app/manifests/{blob}"), &image, 404, "MANIFEST_BLOB_UNKNOWN"),
        ("DELETE", "/v2/team/app/manifests/absent".to_owned(), "", 404, "MANIFEST_UNKNOWN"),
        ("DELETE", format!("/v2/team/app/blobs/{absent}"), "", 404, "BLOB_UNKNOWN"),
        ("POST", "/v2/team/app/manifests/1".to_owned(), "", 405, "UNSUPPORTED"),
        ("PATCH", format!("/v2/team/app/blobs/{blob}"), "", 405, "UNSUPPORTED"),
        ("DELETE", "/v2/team/app/tags/list".to_owned(), "", 405, "UNSUPPORTED"),
        ("PUT", "/v2/_catalog".to_owned(), "", 405, "UNSUPPORTED"),
        ("POST", "/v2/".to_owned(), "", 405, "UNSUPPORTED"),
    ] {
        let refused = server.request(method, &target, &[], body.as_bytes());
        // A manifest sent to another digest is told that it does not have it, before it is looked into.
        let expected = if target.contains(&blob) && method == "PUT" { (400, "DIGEST_INVALID") } else { (status, code) };
        assert_eq!((refused.status, refused.oci_code().as_str()), expected, "{method} {target}: {}", refused.text());
        assert_shape(&refused);
        let strange = server.anonymous(method, &target, &[], body.as_bytes());
        assert!(matches!(strange.status, 400 | 401 | 404 | 405), "{method} {target}: {}", strange.status);
        assert_shape(&strange);
    }
    assert_shape(&server.anonymous("GET", "/v2/", &[], b"").expect(401));
    assert_shape(&server.with_token("wrong", "GET", "/v2/", &[], b"").expect(401));
}

#[test]
fn the_answer_to_head_is_that_to_get_without_its_body() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let image = Image::new(vec![b"layer".to_vec()]);
    repository.push("1", &image);
    let blob = sha256(&image.blobs[0]);
    for path in ["manifests/1", "manifests/absent", &format!("blobs/{blob}"), &format!("blobs/{}", absent()), "blobs/x"]
    {
        let path = repository.path(path);
        let (head, get) = (server.request("HEAD", &path, &[], b""), server.get(&path));
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.body, b"");
        for name in ["content-length", "content-type", "docker-content-digest", "etag"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
    }
    let base = server.request("HEAD", "/v2/", &[], b"").expect(200);
    assert_eq!(base.header("docker-distribution-api-version"), Some("registry/2.0"));
}

//! Every way of uploading a blob, under either algorithm.

use registry_tests::oci::{Repository, sha256, sha512, with_digest};
use registry_tests::{Answer, Random, Server, ServerBuilder};

use crate::ALGORITHMS;

/// Uploads `content` in one particular way: the answer to the last request.
type Way = fn(&Repository<'_>, &str, &[u8]) -> Answer;

/// As chunked transfer coding (RFC 9112): the length of the body is not known beforehand.
fn chunked(content: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for piece in content.chunks(70_000) {
        body.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        body.extend_from_slice(piece);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

fn location(answer: &Answer) -> String {
    answer.header("location").expect("the session has a location").to_owned()
}

/// Thirds of `content`, with where each begins.
fn thirds(content: &[u8]) -> [(usize, &[u8]); 3] {
    let (one, two) = (content.len() / 3, content.len() / 3 * 2);
    [(0, &content[..one]), (one, &content[one..two]), (two, &content[two..])]
}

const WAYS: [(&str, Way); 9] = [
    ("one POST", |repository, digest, content| {
        let target = with_digest(&repository.path("blobs/uploads/"), digest);
        repository.server.request("POST", &target, &["Content-Type: application/octet-stream"], content)
    }),
    ("one POST of unknown length", |repository, digest, content| {
        let target = with_digest(&repository.path("blobs/uploads/"), digest);
        repository.server.request("POST", &target, &["Transfer-Encoding: chunked"], &chunked(content))
    }),
    ("POST and PUT", |repository, digest, content| {
        let session = repository.start_upload();
        repository.finish(&session, digest, content)
    }),
    ("POST that names the algorithm, and PUT", |repository, digest, content| {
        let algorithm = digest.split(':').next().expect("a digest names its algorithm");
        let target = format!("{}?digest-algorithm={algorithm}", repository.path("blobs/uploads/"));
        let session = location(&repository.server.request("POST", &target, &[], b"").expect(202));
        repository.finish(&session, digest, content)
    }),
    ("POST, one streamed PATCH and PUT", |repository, digest, content| {
        let session = repository.start_upload();
        let headers = ["Transfer-Encoding: chunked", "Content-Type: application/octet-stream"];
        let patched = repository.server.request("PATCH", &session, &headers, &chunked(content)).expect(202);
        repository.finish(&location(&patched), digest, b"")
    }),
    ("POST, one PATCH without a range and PUT", |repository, digest, content| {
        let patched = repository.patch(&repository.start_upload(), content).expect(202);
        repository.finish(&location(&patched), digest, b"")
    }),
    ("three PATCHes and PUT", |repository, digest, content| {
        let mut session = repository.start_upload();
        for (first, piece) in thirds(content).into_iter().filter(|(_, piece)| !piece.is_empty()) {
            let patched = repository.patch_at(&session, first, piece).expect(202);
            assert_eq!(patched.header("range"), Some(format!("0-{}", first + piece.len() - 1).as_str()));
            session = location(&patched);
        }
        repository.finish(&session, digest, b"")
    }),
    ("two PATCHes and the last piece in the PUT", |repository, digest, content| {
        let mut session = repository.start_upload();
        let [start, middle, (first, end)] = thirds(content);
        for (first, piece) in [start, middle].into_iter().filter(|(_, piece)| !piece.is_empty()) {
            session = location(&repository.patch_at(&session, first, piece).expect(202));
        }
        if end.is_empty() {
            return repository.finish(&session, digest, b"");
        }
        let range = format!("Content-Range: {first}-{}", content.len() - 1);
        repository.server.request("PUT", &with_digest(&session, digest), &[&range], end)
    }),
    ("a PATCH, and a PUT with the rest and no range", |repository, digest, content| {
        let (start, rest) = content.split_at(content.len() / 2);
        let patched = repository.patch(&repository.start_upload(), start).expect(202);
        repository.finish(&location(&patched), digest, rest)
    }),
];

#[test]
fn every_way_of_uploading_stores_the_same_blob() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let mut random = Random::new(1);
    for length in [0, 1, 2, 4_096, 300_001] {
        let content = random.bytes(length);
        for (algorithm, compute) in ALGORITHMS {
            let digest = compute(&content);
            for (way, upload) in WAYS {
                let context = format!("{length} bytes under {algorithm} by {way}");
                repository.head_blob(&digest).expect(404);
                let created = upload(&repository, &digest, &content);
                assert_eq!(created.status, 201, "{context}: {}", created.text());
                assert_eq!(created.header("location"), Some(repository.path(&format!("blobs/{digest}")).as_str()));
                assert_eq!(created.header("docker-content-digest"), Some(digest.as_str()), "{context}");

                let head = repository.head_blob(&digest).expect(200);
                assert_eq!(head.header("content-length"), Some(length.to_string().as_str()), "{context}");
                let got = repository.get_blob(&digest).expect(200);
                assert!(got.body == content, "{context}: the bytes differ");
                assert_eq!(got.header("docker-content-digest"), Some(digest.as_str()), "{context}");
                let blob = repository.path(&format!("blobs/{digest}"));
                server.request("DELETE", &blob, &[], b"").expect(202);
            }
        }
    }
    // Nothing of all that is left.
    server.gc("0s");
    let (clean, findings) = server.check(&[]);
    assert!(clean, "{findings}");
}

#[test]
fn the_same_bytes_may_have_both_digests() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let content = Random::new(2).bytes(1_000);
    for (_, compute) in ALGORITHMS {
        let session = repository.start_upload();
        repository.finish(&session, &compute(&content), &content).expect(201);
    }
    for (_, compute) in ALGORITHMS {
        assert_eq!(repository.get_blob(&compute(&content)).expect(200).body, content);
    }
    let blob = repository.path(&format!("blobs/{}", sha256(&content)));
    server.request("DELETE", &blob, &[], b"").expect(202);
    assert_eq!(repository.get_blob(&sha512(&content)).expect(200).body, content);
}

#[test]
fn a_blob_that_is_there_may_be_uploaded_again() {
    let server = Server::start();
    let content = Random::new(3).bytes(10_000);
    let digest = sha256(&content);
    for name in ["team/app", "team/app", "other"] {
        let repository = server.repository(name);
        for (way, upload) in WAYS {
            assert_eq!(upload(&repository, &digest, &content).status, 201, "{way}");
        }
        assert_eq!(repository.get_blob(&digest).expect(200).body, content);
    }
    // All of them are one object.
    server.gc("0s");
    let (clean, findings) = server.check(&[]);
    assert!(clean, "{findings}");
}

#[test]
fn a_wrong_digest_stores_nothing() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let content = Random::new(4).bytes(10_000);
    for (algorithm, compute) in ALGORITHMS {
        let wrong = compute(b"something else");
        for (way, upload) in WAYS {
            let refused = upload(&repository, &wrong, &content).expect(400);
            assert_eq!(refused.oci_code(), "DIGEST_INVALID", "{algorithm} by {way}");
            for digest in [&wrong, &compute(&content)] {
                repository.head_blob(digest).expect(404);
                repository.get_blob(digest).expect(404);
            }
        }
    }
}

#[test]
fn digests_that_are_none_are_refused() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let hex = "a".repeat(64);
    for digest in [
        "",
        "sha256",
        "sha256:",
        "sha256:baddigeststring",
        &format!("sha256:{}", &hex[1..]),
        &format!("sha256:{hex}a"),
        &format!("sha256:{}", hex.to_uppercase()),
        &format!("sha512:{hex}"),
        &format!("md5:{}", &hex[..32]),
        &format!("sha384:{}", "a".repeat(96)),
        &hex,
    ] {
        let session = repository.start_upload();
        let refused = repository.finish(&session, digest, b"content").expect(400);
        assert_eq!(refused.oci_code(), "DIGEST_INVALID", "{digest}");
        // The refusal came before anything was written.
        assert_eq!(repository.status(&session).expect(204).header("range"), Some("0-0"), "{digest}");
        let target = with_digest(&repository.path("blobs/uploads/"), digest);
        assert_eq!(server.request("POST", &target, &[], b"content").expect(400).oci_code(), "DIGEST_INVALID");
    }
    let session = repository.start_upload();
    assert_eq!(server.request("PUT", &session, &[], b"content").expect(400).oci_code(), "DIGEST_INVALID");
    let target = format!("{}?digest-algorithm=md5", repository.path("blobs/uploads/"));
    assert_eq!(server.request("POST", &target, &[], b"").expect(400).oci_code(), "DIGEST_INVALID");
}

#[test]
fn a_blob_over_the_limit_is_413() {
    let server = ServerBuilder::new().config("limits:\n  max_blob_bytes: 9999").start();
    let repository = server.repository("team/app");
    let fits = vec![7; 9_999];
    let beyond = vec![7; 10_000];
    for (way, upload) in WAYS {
        assert_eq!(upload(&repository, &sha256(&fits), &fits).status, 201, "{way}");
        // In pieces, the piece that goes beyond is the one refused.
        let session = repository.start_upload();
        repository.patch(&session, &beyond[..5_000]).expect(202);
        let refused = repository.patch_at(&session, 5_000, &beyond[5_000..]).expect(413);
        assert_eq!(refused.oci_code(), "SIZE_INVALID");
        repository.head_blob(&sha256(&beyond)).expect(404);
    }
    let target = with_digest(&repository.path("blobs/uploads/"), &sha256(&beyond));
    server.request("POST", &target, &[], &beyond).expect(413);
    server.request("POST", &target, &["Transfer-Encoding: chunked"], &chunked(&beyond)).expect(413);
    // The next request works.
    repository.push_blob(b"small");
}

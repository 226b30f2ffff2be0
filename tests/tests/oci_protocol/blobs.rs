//! Blobs: parts, conditions, visibility and deletion.

use registry_tests::oci::sha256;
use registry_tests::{Image, Random, Server};

use crate::absent;

/// containerd names the registry that it wants in the query, also where there is no mirror of it.
#[test]
fn the_namespace_of_a_mirror_is_passed_over() {
    let server = Server::start();
    let image = registry_tests::Image::new(vec![Random::new(5).bytes(1_000)]);
    server.repository("library/app").push("1", &image);
    for method in ["HEAD", "GET"] {
        let manifest = server.request(method, "/v2/library/app/manifests/1?ns=docker.io", &[], b"").expect(200);
        assert_eq!(manifest.header("docker-content-digest"), Some(image.digest().as_str()));
        let blob = format!("/v2/library/app/blobs/{}?ns=docker.io", registry_tests::oci::sha256(&image.blobs[0]));
        assert_eq!(server.request(method, &blob, &[], b"").expect(200).header("content-length"), Some("1000"));
    }
}

#[test]
fn parts_of_a_blob() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let content = Random::new(1).bytes(2_000);
    let digest = repository.push_blob(&content);
    let blob = repository.path(&format!("blobs/{digest}"));
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=0-499", 0, 499),
        ("bytes=500-1499", 500, 1_499),
        ("bytes=500-", 500, 1_999),
        ("bytes=1999-", 1_999, 1_999),
        ("bytes=-500", 1_500, 1_999),
        ("bytes=-9999", 0, 1_999),
        ("bytes=1500-9999", 1_500, 1_999),
    ] {
        let part = server.request("GET", &blob, &[&format!("Range: {range}")], b"").expect(206);
        assert!(part.body == content[first..=last], "{range}");
        assert_eq!(part.header("content-range"), Some(format!("bytes {first}-{last}/2000").as_str()), "{range}");
        assert_eq!(part.header("content-length"), Some((last - first + 1).to_string().as_str()), "{range}");
        assert_eq!(part.header("docker-content-digest"), Some(digest.as_str()), "{range}");
    }
    for range in ["bytes=2000-", "bytes=5000-10000", "bytes=500-0", "bytes=-0"] {
        let refused = server.request("GET", &blob, &[&format!("Range: {range}")], b"").expect(416);
        assert_eq!(refused.header("content-range"), Some("bytes */2000"), "{range}");
    }
    // What is no range of bytes is as if it were not there (RFC 9110, section 14.2).
    for range in ["lines=1-2", "bytes", "bytes=a-b"] {
        assert_eq!(
            server.request("GET", &blob, &[&format!("Range: {range}")], b"").expect(200).body,
            content,
            "{range}"
        );
    }
    assert_eq!(server.get(&blob).expect(200).header("accept-ranges"), Some("bytes"));
}

/// As containerd's lazy pulling asks, which takes a 200 for the whole layer.
#[test]
fn several_parts_of_a_blob_at_once() {
    let server = Server::start();
    let repository = server.repository("team/app");
    const SIZE: usize = 3_000_000;
    let content = Random::new(6).bytes(SIZE);
    let digest = repository.push_blob(&content);
    let blob = repository.path(&format!("blobs/{digest}"));
    let get = |range: &str, headers: &[&str]| {
        let range = format!("Range: bytes={range}");
        server.request("GET", &blob, &[&[range.as_str()], headers].concat(), b"")
    };
    for (range, expected) in [
        ("0-9,100-109", vec![(0, 9), (100, 109)]),
        (
            "2000000-2999997, 0-0 ,1000-1000999,-1",
            vec![(2_000_000, 2_999_997), (0, 0), (1_000, 1_000_999), (2_999_999, 2_999_999)],
        ),
        // What is not there is left out; what overlaps or touches is one.
        ("3000000-,10-19,3000005-3000009,0-4,2-6,7-7", vec![(10, 19), (0, 7)]),
    ] {
        let answer = get(range, &[]).expect(206);
        assert_eq!(answer.header("content-range"), None, "each part has its own");
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
        assert_eq!(answer.header("etag"), Some(format!("\"{digest}\"").as_str()));
        let parts = answer.parts();
        let ranges: Vec<&str> = parts.iter().map(|(_, range, _)| range.as_str()).collect();
        let expected_ranges: Vec<String> =
            expected.iter().map(|(first, last)| format!("bytes {first}-{last}/{SIZE}")).collect();
        assert_eq!(ranges, expected_ranges, "{range}");
        for ((content_type, _, bytes), (first, last)) in parts.iter().zip(expected) {
            assert_eq!(content_type, "application/octet-stream");
            assert!(*bytes == content[first..=last], "{range}: {first}");
        }
    }
    // Where one is left, the answer is as if it alone had been asked for.
    for range in ["5-9,0-4", "0-9,3-5", "0-9,3000000-", "0-4,5-9,"] {
        let answer = get(range, &[]).expect(206);
        assert_eq!(answer.header("content-range"), Some(format!("bytes 0-9/{SIZE}").as_str()), "{range}");
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"), "{range}");
        assert!(answer.body == content[..10], "{range}");
    }
    let refused = get("3000000-,5-4", &[]).expect(416);
    assert_eq!(refused.header("content-range"), Some(format!("bytes */{SIZE}").as_str()));
    // What is no list of ranges, or one so long that it can only do harm, is as if it were not there.
    let many = (0..201).map(|n| format!("{}-{}", 2 * n, 2 * n)).collect::<Vec<_>>().join(",");
    for range in ["0-9,x", many.as_str()] {
        assert!(get(range, &[]).expect(200).body == content, "{range}");
    }
    // Parts only of what the client began with, and only by GET.
    assert_eq!(get("0-1,5-6", &[&format!("If-Range: \"{digest}\"")]).expect(206).parts().len(), 2);
    assert!(get("0-1,5-6", &["If-Range: \"other\""]).expect(200).body == content);
    get("0-1,5-6", &[&format!("If-None-Match: \"{digest}\"")]).expect(304);
    let head = server.request("HEAD", &blob, &["Range: bytes=0-1,5-6"], b"").expect(200);
    assert_eq!(head.header("content-length"), Some(SIZE.to_string().as_str()));
}

#[test]
fn conditions_on_a_blob() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let content = Random::new(2).bytes(2_000);
    let digest = repository.push_blob(&content);
    let blob = repository.path(&format!("blobs/{digest}"));
    let etag = server.get(&blob).expect(200).header("etag").expect("a blob has an ETag").to_owned();
    for known in [etag.clone(), "*".to_owned(), format!("\"other\", {etag}"), format!("W/{etag}")] {
        let header = format!("If-None-Match: {known}");
        assert_eq!(server.request("GET", &blob, &[&header], b"").expect(304).body, b"", "{known}");
        server.request("HEAD", &blob, &[&header], b"").expect(304);
    }
    server.request("GET", &blob, &["If-None-Match: \"other\""], b"").expect(200);
    // A part only of what the client began with.
    let part = ["Range: bytes=1000-", &format!("If-Range: {etag}")];
    assert!(server.request("GET", &blob, &part, b"").expect(206).body == content[1_000..]);
    let whole = ["Range: bytes=1000-", "If-Range: \"other\""];
    assert!(server.request("GET", &blob, &whole, b"").expect(200).body == content);
}

#[test]
fn a_blob_is_seen_only_where_it_was_pushed() {
    let server = Server::start();
    let digest = server.repository("team/app").push_blob(b"content");
    for name in ["team/other", "other", "team", "team/app/below"] {
        let repository = server.repository(name);
        // It is there, and holds something else.
        repository.push_blob(name.as_bytes());
        assert_eq!(repository.head_blob(&digest).expect(404).header("docker-content-digest"), None);
        assert_eq!(repository.get_blob(&digest).expect(404).oci_code(), "BLOB_UNKNOWN");
        let blob = repository.path(&format!("blobs/{digest}"));
        assert_eq!(server.request("DELETE", &blob, &[], b"").expect(404).oci_code(), "BLOB_UNKNOWN");
    }
    assert_eq!(server.repository("team/app").get_blob(&digest).expect(200).body, b"content");
}

#[test]
fn digests_may_come_percent_encoded() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let digest = repository.push_blob(b"content").replace(':', "%3A");
    assert_eq!(repository.get_blob(&digest).expect(200).body, b"content");
}

#[test]
fn a_blob_that_is_not_there() {
    let server = Server::start();
    let repository = server.repository("team/app");
    assert_eq!(repository.get_blob(&absent()).expect(404).oci_code(), "BLOB_UNKNOWN");
    assert_eq!(repository.head_blob(&absent()).expect(404).body, b"");
    for malformed in ["sha256:baddigeststring", "sha256:", "latest"] {
        assert_eq!(repository.get_blob(malformed).expect(400).oci_code(), "DIGEST_INVALID");
        repository.head_blob(malformed).expect(400);
    }
}

#[test]
fn a_deleted_blob_is_gone_and_may_come_back() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let digest = repository.push_blob(b"content");
    server.repository("other").push_blob(b"content");
    let blob = repository.path(&format!("blobs/{digest}"));
    for _ in 0..2 {
        server.request("DELETE", &blob, &[], b"").expect(202);
        repository.head_blob(&digest).expect(404);
        repository.get_blob(&digest).expect(404);
        assert_eq!(server.request("DELETE", &blob, &[], b"").expect(404).oci_code(), "BLOB_UNKNOWN");
        // The other repository has its own.
        assert_eq!(server.repository("other").get_blob(&digest).expect(200).body, b"content");
        repository.push_blob(b"content");
        assert_eq!(repository.get_blob(&digest).expect(200).body, b"content");
    }
}

#[test]
fn a_blob_in_use_is_not_deleted() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let image = Image::new(vec![Random::new(3).bytes(1_000)]);
    repository.push("1", &image);
    for blob in &image.blobs {
        let path = repository.path(&format!("blobs/{}", sha256(blob)));
        let refused = server.request("DELETE", &path, &[], b"").expect(409);
        assert_eq!(refused.oci_code(), "DENIED");
    }
    repository.assert_holds("1", &image);
    repository.delete_manifest(&image.digest()).expect(202);
    for blob in &image.blobs {
        server.request("DELETE", &repository.path(&format!("blobs/{}", sha256(blob))), &[], b"").expect(202);
    }
}

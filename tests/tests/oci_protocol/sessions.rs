//! Upload sessions: order, status, going on, cancelling.

use registry_tests::oci::{Repository, sha256, with_digest};
use registry_tests::{Random, Server};

/// Asserts what the status of a session says.
#[track_caller]
fn assert_range(repository: &Repository<'_>, session: &str, range: &str) {
    let status = repository.status(session).expect(204);
    assert_eq!(status.header("range"), Some(range));
    assert_eq!(status.header("location"), Some(session));
    assert_eq!(status.header("docker-upload-uuid"), session.rsplit('/').next());
}

#[test]
fn a_session_names_itself() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let started = server.request("POST", &repository.path("blobs/uploads/"), &[], b"").expect(202);
    let session = started.header("location").expect("a location");
    assert!(session.starts_with(&repository.path("blobs/uploads/")), "{session}");
    assert_eq!(started.header("range"), Some("0-0"));
    assert_eq!(started.header("docker-upload-uuid"), session.rsplit('/').next());
    assert_range(&repository, session, "0-0");
    // Without the slash at the end, as some clients have it.
    server.request("POST", &repository.path("blobs/uploads"), &[], b"").expect(202);
}

#[test]
fn a_piece_out_of_order_is_416_and_the_upload_goes_on() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let content = Random::new(1).bytes(3_000);
    let session = repository.start_upload();

    // Before anything, in front of, behind and over what is there; by PATCH and by PUT.
    let out_of_order = |first: usize| {
        let refused = repository.patch_at(&session, first, &content[first..first + 500]).expect(416);
        assert_eq!(refused.oci_code(), "BLOB_UPLOAD_INVALID");
        let range = format!("Content-Range: {first}-{}", first + 499);
        let target = with_digest(&session, &sha256(&content));
        let put = server.request("PUT", &target, &[&range], &content[first..first + 500]).expect(416);
        assert_eq!(put.oci_code(), "BLOB_UPLOAD_INVALID");
        (refused.header("range").map(str::to_owned), put.header("range").map(str::to_owned))
    };
    assert_eq!(out_of_order(1_000), (Some("0-0".into()), Some("0-0".into())));
    assert_range(&repository, &session, "0-0");
    repository.patch_at(&session, 0, &content[..1_000]).expect(202);
    for first in [0, 999, 1_001, 2_500] {
        assert_eq!(out_of_order(first), (Some("0-999".into()), Some("0-999".into())));
        assert_range(&repository, &session, "0-999");
    }
    repository.patch_at(&session, 1_000, &content[1_000..2_000]).expect(202);
    let range = "Content-Range: 2000-2999";
    server.request("PUT", &with_digest(&session, &sha256(&content)), &[range], &content[2_000..]).expect(201);
    assert_eq!(repository.get_blob(&sha256(&content)).expect(200).body, content);
}

#[test]
fn a_put_out_of_order_without_a_body_is_416() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let session = repository.start_upload();
    repository.patch(&session, b"12345").expect(202);
    let target = with_digest(&session, &sha256(b"12345"));
    server.request("PUT", &target, &["Content-Range: 3-4"], b"").expect(416);
    server.request("PUT", &target, &[], b"").expect(201);
}

#[test]
fn ranges_that_are_none_or_do_not_fit_change_nothing() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let session = repository.start_upload();
    repository.patch(&session, b"12345").expect(202);
    for range in ["9-5", "5", "5-", "-5", "a-b", "5-99999999999999999999", ""] {
        let header = format!("Content-Range: {range}");
        let refused = server.request("PATCH", &session, &[&header], b"67890").expect(416);
        assert_eq!(refused.oci_code(), "BLOB_UPLOAD_INVALID", "{range:?}");
    }
    for range in ["5-8", "5-10"] {
        let header = format!("Content-Range: {range}");
        assert_eq!(server.request("PATCH", &session, &[&header], b"67890").expect(400).oci_code(), "SIZE_INVALID");
        let headers = [header.as_str(), "Transfer-Encoding: chunked"];
        let refused = server.request("PATCH", &session, &headers, b"5\r\n67890\r\n0\r\n\r\n").expect(400);
        assert_eq!(refused.oci_code(), "SIZE_INVALID", "{range:?}");
    }
    assert_range(&repository, &session, "0-4");
    // As HTTP itself writes ranges.
    server.request("PATCH", &session, &["Content-Range: bytes 5-9/10"], b"67890").expect(202);
    repository.finish(&session, &sha256(b"1234567890"), b"").expect(201);
}

#[test]
fn an_empty_piece_changes_nothing() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let session = repository.start_upload();
    assert_eq!(repository.patch(&session, b"").expect(202).header("range"), Some("0-0"));
    repository.patch(&session, b"12345").expect(202);
    assert_eq!(repository.patch(&session, b"").expect(202).header("range"), Some("0-4"));
    repository.finish(&session, &sha256(b"12345"), b"").expect(201);
}

#[test]
fn a_wrong_digest_leaves_the_session_open() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let session = repository.start_upload();
    repository.patch(&session, b"12345").expect(202);
    repository.finish(&session, &sha256(b"other"), b"").expect(400);
    assert_range(&repository, &session, "0-4");
    // A wrong last piece too: the right one begins where the client was last told.
    repository.finish(&session, &sha256(b"1234567890"), b"wrong").expect(400);
    repository.finish(&session, &sha256(b"1234567890"), b"67890").expect(201);
    assert_eq!(repository.get_blob(&sha256(b"1234567890")).expect(200).body, b"1234567890");
}

#[test]
fn the_same_put_again_has_the_same_answer() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let session = repository.start_upload();
    let digest = sha256(b"1234567890");
    repository.patch(&session, b"12345").expect(202);
    repository.finish(&session, &digest, b"67890").expect(201);
    let again = repository.finish(&session, &digest, b"67890").expect(201);
    assert_eq!(again.header("docker-content-digest"), Some(digest.as_str()));
    // But no other, and nothing can be added.
    assert_eq!(repository.finish(&session, &sha256(b"other"), b"").expect(404).oci_code(), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(repository.patch(&session, b"more").expect(404).oci_code(), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(repository.status(&session).expect(404).oci_code(), "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn a_cancelled_session_is_gone() {
    let server = Server::start();
    let repository = server.repository("team/app");
    for content in [&b""[..], b"12345"] {
        let session = repository.start_upload();
        repository.patch(&session, content).expect(202);
        server.request("DELETE", &session, &[], b"").expect(204);
        let unknown = [
            repository.status(&session),
            repository.patch(&session, b"more"),
            repository.finish(&session, &sha256(content), b""),
            server.request("DELETE", &session, &[], b""),
        ];
        for answer in unknown {
            assert_eq!(answer.expect(404).oci_code(), "BLOB_UPLOAD_UNKNOWN");
        }
        repository.head_blob(&sha256(content)).expect(404);
    }
}

#[test]
fn a_session_belongs_to_its_repository() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let session = repository.start_upload();
    let elsewhere = session.replace("/team/app/", "/other/");
    let other = server.repository("other");
    let unknown = [
        other.status(&elsewhere),
        other.patch(&elsewhere, b"12345"),
        other.finish(&elsewhere, &sha256(b""), b""),
        server.request("DELETE", &elsewhere, &[], b""),
    ];
    for answer in unknown {
        assert_eq!(answer.expect(404).oci_code(), "BLOB_UPLOAD_UNKNOWN");
    }
    assert_range(&repository, &session, "0-0");
    for never in ["0", "not-an-identifier", "00000000-0000-4000-8000-000000000000"] {
        let never = repository.path(&format!("blobs/uploads/{never}"));
        assert_eq!(repository.status(&never).expect(404).oci_code(), "BLOB_UPLOAD_UNKNOWN");
    }
}

//! A bucket that stands in the host of a URL, as AWS has it, and not in its path.

use registry_tests::oci::sha256;
use registry_tests::tools::skip;
use registry_tests::{Random, Server, StoreProxy};

use crate::{Bucket, MIB, fetch, objects, push};

#[test]
fn a_bucket_may_be_named_by_the_host() {
    let Some(bucket) = Bucket::new("the bucket in the host") else { return };
    let Some(domain) = &bucket.s3.domain else {
        return skip(
            "the bucket in the host",
            "FOUNDRY_S3_DOMAIN says no domain for the server at FOUNDRY_S3_ENDPOINT",
        );
    };
    let host = format!("{}.{domain}", bucket.s3.bucket);
    let proxy = StoreProxy::start(&bucket.endpoint);
    // The domain has no address: whatever is for it comes by way of the proxy.
    let server = Server::builder()
        .config("registries:\n  oci:\n    redirect: true")
        .s3_below(bucket.s3, &format!("http://{domain}"), &bucket.prefix)
        .environment("FOUNDRY_STORAGE__S3__PATH_STYLE", "false")
        .environment("HTTP_PROXY", &proxy.endpoint())
        .start();
    let repository = server.repository("team/app");
    let mut random = Random::new(7);

    // An object, a multipart upload, one that is given up and looked for, and the pages of a list.
    let small = random.bytes(10_000);
    let large = random.bytes(17 * MIB);
    push(&server, &small);
    let location = repository.start_upload();
    repository.patch(&location, &large[..9 * MIB]).expect(202);
    repository.finish(&location, &sha256(&large), &large[9 * MIB..]).expect(201);
    let location = repository.start_upload();
    repository.patch(&location, &large[..9 * MIB]).expect(202);
    server.request("DELETE", &location, &[], b"").expect(204);
    let (sound, findings) = server.check(&["--deep"]);
    assert!(sound && findings.contains("\"objects\":2"), "{findings}");
    assert_eq!(objects(&bucket), 2);

    // A URL for clients names the bucket in the same way, and is signed for that.
    for bytes in [&small, &large] {
        let sent = repository.get_blob(&sha256(bytes)).expect(307);
        let url = sent.header("location").unwrap().to_owned();
        let target = url.strip_prefix(&format!("http://{host}")).unwrap_or_else(|| panic!("{url}"));
        let address = bucket.endpoint.strip_prefix("http://").unwrap();
        assert!(fetch(address, &host, target).expect(200).body == *bytes);
    }

    for bytes in [&small, &large] {
        server.request("DELETE", &repository.path(&format!("blobs/{}", sha256(bytes))), &[], b"").expect(202);
    }
    assert_eq!(server.gc("0s")["objects_deleted"], 2);
    assert_eq!(objects(&bucket), 0);

    let seen = proxy.take();
    assert!(seen.len() > 10, "{seen:?}");
    for seen in seen {
        assert!(seen.host == host && !seen.target.starts_with(&format!("/{}", bucket.s3.bucket)), "{seen:?}");
    }
}

//! Tags, and the deletion of tags and manifests.

use registry_tests::oci::{OCI_MANIFEST, sha512};
use registry_tests::{Image, Random, Server};

use crate::absent;

fn image(seed: u64) -> Image {
    Image::new(vec![Random::new(seed).bytes(100)])
}

#[test]
fn a_tag_moves_and_what_it_left_stays() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let (old, new) = (image(1), image(2));
    repository.push("latest", &old);
    repository.push("latest", &new);
    repository.assert_holds("latest", &new);
    repository.assert_holds(&old.digest(), &old);
}

#[test]
fn which_tags_there_may_be() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let image = image(3);
    for tag in ["1", "latest", "_", "V1.0-rc.1_x", &"t".repeat(128), "list", "uploads"] {
        repository.push(tag, &image);
        repository.assert_holds(tag, &image);
    }
    for tag in [".hidden", "-x", &"t".repeat(129), "a+b", "a%20b", "%C3%A9"] {
        let refused = repository.put_manifest(tag, &image).expect(400);
        assert_eq!(refused.oci_code(), "MANIFEST_INVALID", "{tag}");
    }
    assert_eq!(repository.get_manifest("absent").expect(404).oci_code(), "MANIFEST_UNKNOWN");
}

#[test]
fn one_push_may_set_several_tags() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let image = image(4);
    repository.push("first", &image);
    let content_type = format!("Content-Type: {OCI_MANIFEST}");
    for digest in [image.digest(), sha512(&image.manifest)] {
        let algorithm = digest.split(':').next().expect("a digest names its algorithm");
        let tags = ["one", "two", "three"].map(|tag| format!("{algorithm}-{tag}"));
        let target = format!("manifests/{digest}?tag={}&tag={}&tag={}", tags[0], tags[1], tags[2]);
        let stored = server.request("PUT", &repository.path(&target), &[&content_type], &image.manifest).expect(201);
        let named: Vec<_> = stored.headers.iter().filter(|(name, _)| name == "oci-tag").map(|(_, tag)| tag).collect();
        assert_eq!(named, tags.iter().collect::<Vec<_>>());
        for tag in &tags {
            let got = repository.get_manifest(tag).expect(200);
            assert_eq!(got.header("docker-content-digest"), Some(digest.as_str()));
            assert_eq!(got.body, image.manifest);
        }
    }
    // One bad tag, and none is set.
    let target = format!("manifests/{}?tag=good&tag=.bad", image.digest());
    let refused = server.request("PUT", &repository.path(&target), &[&content_type], &image.manifest).expect(400);
    assert_eq!(refused.oci_code(), "MANIFEST_INVALID");
    repository.get_manifest("good").expect(404);
    // More than can be meant.
    let many: Vec<String> = (0..101).map(|number| format!("tag=t{number}")).collect();
    let target = format!("manifests/{}?{}", image.digest(), many.join("&"));
    server.request("PUT", &repository.path(&target), &[&content_type], &image.manifest).expect(414);
    repository.get_manifest("t0").expect(404);
}

#[test]
fn deleting_a_tag_leaves_the_manifest() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let image = image(5);
    for tag in ["1", "2"] {
        repository.push(tag, &image);
    }
    repository.delete_manifest("1").expect(202);
    repository.get_manifest("1").expect(404);
    server.request("HEAD", &repository.path("manifests/1"), &[], b"").expect(404);
    repository.assert_holds("2", &image);
    repository.assert_holds(&image.digest(), &image);
    assert_eq!(repository.delete_manifest("1").expect(404).oci_code(), "MANIFEST_UNKNOWN");
    // With its last tag gone it is still there, and so are its blobs after a collection.
    repository.delete_manifest("2").expect(202);
    server.gc("0s");
    repository.assert_holds(&image.digest(), &image);
}

#[test]
fn deleting_a_manifest_takes_its_tags_along() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let (image, other) = (image(6), image(7));
    for tag in ["1", "2"] {
        repository.push(tag, &image);
    }
    repository.push("other", &other);
    repository.delete_manifest(&image.digest()).expect(202);
    for reference in ["1", "2", &image.digest()] {
        repository.get_manifest(reference).expect(404);
        server.request("HEAD", &repository.path(&format!("manifests/{reference}")), &[], b"").expect(404);
    }
    assert_eq!(repository.delete_manifest(&image.digest()).expect(404).oci_code(), "MANIFEST_UNKNOWN");
    repository.assert_holds("other", &other);
    let tags = server.get(&repository.path("tags/list")).expect(200).json();
    assert_eq!(tags["tags"], serde_json::json!(["other"]));
    // The blobs have their grace: it can be pushed again without them.
    repository.put_manifest("1", &image).expect(201);
    repository.assert_holds("1", &image);
}

#[test]
fn children_outlive_their_index_and_may_go_before_it() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let (first, second) = (image(8), image(9));
    let index = Image::index(&[&first, &second]);
    for child in [&first, &second] {
        repository.push(&child.digest(), child);
    }
    repository.push("index", &index);
    repository.delete_manifest(&first.digest()).expect(202);
    assert_eq!(repository.get_manifest("index").expect(200).body, index.manifest);
    repository.delete_manifest(&index.digest()).expect(202);
    server.gc("0s");
    repository.get_manifest(&first.digest()).expect(404);
    repository.assert_holds(&second.digest(), &second);
}

#[test]
fn repositories_are_apart() {
    let server = Server::start();
    let image = image(10);
    server.repository("team/app").push("1", &image);
    for name in ["team", "team/app/below", "team/application", "app"] {
        let repository = server.repository(name);
        for reference in ["1", &image.digest()] {
            assert_eq!(repository.get_manifest(reference).expect(404).oci_code(), "MANIFEST_UNKNOWN");
            repository.delete_manifest(reference).expect(404);
        }
    }
    server.repository("team/app").assert_holds("1", &image);
}

/// Of two who read a tag and write it, the second must not undo what the first did.
#[test]
fn a_write_happens_only_where_its_precondition_holds() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let image = |text: &str| Image::new(vec![text.as_bytes().to_vec()]);
    let (one, two) = (image("one"), image("two"));
    repository.push("latest", &one);
    repository.push("two", &two);
    let path = |reference: &str| repository.path(&format!("manifests/{reference}"));
    let put = |reference: &str, condition: &str| {
        let content_type = format!("Content-Type: {}", two.media_type);
        server.request("PUT", &path(reference), &[content_type.as_str(), condition], &two.manifest)
    };
    let delete = |path: &str, condition: &str| server.request("DELETE", path, &[condition], b"");
    let tag = |image: &Image| format!("\"{}\"", image.digest());
    for condition in [
        "If-None-Match: *",
        "If-Match: \"x\"",
        &format!("If-Match: {}", tag(&two)),
        &format!("If-None-Match: {}", tag(&one)),
    ] {
        assert_eq!(put("latest", condition).expect(412).oci_code(), "DENIED", "{condition}");
        delete(&path("latest"), condition).expect(412);
        repository.assert_holds("latest", &one);
    }
    put("new", &format!("If-Match: {}", tag(&one))).expect(412);
    repository.get_manifest("new").expect(404);
    put(&two.digest(), "If-None-Match: *").expect(412);
    // A manifest, or a blob, is what its digest says and nothing else.
    let by_digest = path(&one.digest());
    delete(&by_digest, &format!("If-Match: {}", tag(&two))).expect(412);
    repository.assert_holds("latest", &one);
    let blob = repository.push_blob(b"blob");
    let blob_path = repository.path(&format!("blobs/{blob}"));
    delete(&blob_path, "If-Match: \"x\"").expect(412);
    repository.head_blob(&blob).expect(200);
    // What is not there is not there, whatever was expected.
    delete(&path("none"), "If-Match: *").expect(404);
    delete(&repository.path(&format!("blobs/{}", absent())), "If-Match: \"x\"").expect(404);

    put("latest", &format!("If-Match: {}", tag(&one))).expect(201);
    repository.assert_holds("latest", &two);
    put("new", "If-None-Match: *").expect(201);
    delete(&path("new"), &format!("If-Match: {}", tag(&two))).expect(202);
    repository.get_manifest("new").expect(404);
    delete(&by_digest, &format!("If-Match: \"x\", {}", tag(&one))).expect(202);
    delete(&blob_path, &format!("If-Match: \"{blob}\"")).expect(202);
}

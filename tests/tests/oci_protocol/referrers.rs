//! What refers to a manifest.

use registry_tests::oci::{OCI_INDEX, OCI_MANIFEST, sha512};
use registry_tests::{Answer, Image, Random, Repository, Server};
use serde_json::{Value, json};

use crate::absent;
use crate::lists::next;

const SBOM: &str = "application/vnd.example.sbom";
const SIGNATURE: &str = "application/vnd.example.signature+json";

/// An artifact of that type which refers to `subject`.
fn referrer(subject: &Value, artifact_type: &str, number: u64) -> Image {
    let more =
        json!({ "subject": subject, "artifactType": artifact_type, "annotations": { "number": number.to_string() } });
    Image::with(vec![Random::new(number).bytes(10)], more)
}

fn list(repository: &Repository<'_>, digest: &str, query: &str) -> Answer {
    let answer = repository.server.get(&repository.path(&format!("referrers/{digest}{query}"))).expect(200);
    assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
    assert_eq!(answer.json()["schemaVersion"], 2);
    assert_eq!(answer.json()["mediaType"], OCI_INDEX);
    answer
}

fn digests(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let manifests = json["manifests"].as_array().expect("an index has manifests");
    manifests.iter().map(|manifest| manifest["digest"].as_str().expect("a digest is text").to_owned()).collect()
}

fn sorted(images: &[&Image]) -> Vec<String> {
    let mut digests: Vec<_> = images.iter().map(|image| image.digest()).collect();
    digests.sort();
    digests
}

#[test]
fn nothing_refers_to_what_is_not_there() {
    let server = Server::start();
    let repository = server.repository("never/pushed");
    for digest in [absent(), sha512(b"nothing")] {
        assert_eq!(list(&repository, &digest, "").json()["manifests"], json!([]));
    }
    let refused = server.get(&repository.path("referrers/sha256:baddigeststring")).expect(400);
    assert_eq!(refused.oci_code(), "DIGEST_INVALID");
}

#[test]
fn referrers_are_listed_described_and_filtered() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let subject = Image::new(vec![Random::new(100).bytes(10)]);
    repository.push("1", &subject);
    let sbom = referrer(&subject.descriptor(), SBOM, 1);
    let signatures = [referrer(&subject.descriptor(), SIGNATURE, 2), referrer(&subject.descriptor(), SIGNATURE, 3)];
    // Without a type of its own, an image's is that of its config; an index may refer too.
    let plain = Image::with(vec![Random::new(4).bytes(10)], json!({ "subject": subject.descriptor() }));
    let mut index = Image::index(&[&sbom]);
    let mut document: Value = serde_json::from_slice(&index.manifest).expect("an index is JSON");
    document["subject"] = subject.descriptor();
    document["artifactType"] = json!(SBOM);
    index.manifest = document.to_string().into_bytes();
    let all = [&sbom, &signatures[0], &signatures[1], &plain, &index];
    for image in all {
        for blob in &image.blobs {
            repository.push_blob(blob);
        }
        let stored = repository.put_manifest(&image.digest(), image).expect(201);
        assert_eq!(stored.header("oci-subject"), Some(subject.digest().as_str()));
    }
    // A push without a subject says nothing of one.
    assert_eq!(repository.put_manifest("1", &subject).expect(201).header("oci-subject"), None);

    let everything = list(&repository, &subject.digest(), "");
    assert_eq!(digests(&everything), sorted(&all));
    assert_eq!(everything.header("oci-filters-applied"), None);
    let described = |image: &Image| {
        let json = everything.json();
        let manifests = json["manifests"].as_array().expect("an index has manifests").clone();
        manifests.into_iter().find(|manifest| manifest["digest"] == image.digest()).expect("it is listed")
    };
    assert_eq!(
        described(&sbom),
        json!({
            "mediaType": OCI_MANIFEST, "digest": sbom.digest(), "size": sbom.manifest.len(),
            "artifactType": SBOM, "annotations": { "number": "1" },
        })
    );
    assert_eq!(described(&plain)["artifactType"], "application/vnd.oci.image.config.v1+json");
    assert_eq!(described(&index)["mediaType"], OCI_INDEX);

    for (artifact_type, expected) in [
        (SBOM, sorted(&[&sbom, &index])),
        ("application/vnd.example.signature%2Bjson", sorted(&[&signatures[0], &signatures[1]])),
        ("application/vnd.example.absent", vec![]),
    ] {
        let filtered = list(&repository, &subject.digest(), &format!("?artifactType={artifact_type}"));
        assert_eq!(digests(&filtered), expected, "{artifact_type}");
        assert_eq!(filtered.header("oci-filters-applied"), Some("artifactType"));
    }
    // Only here.
    assert_eq!(digests(&list(&server.repository("other"), &subject.digest(), "")), Vec::<String>::new());
}

#[test]
fn referrers_in_pages() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let subject = Image::new(vec![]);
    repository.push("1", &subject);
    let referrers: Vec<Image> = (0..7)
        .map(|number| referrer(&subject.descriptor(), if number % 2 == 0 { SIGNATURE } else { SBOM }, number))
        .collect();
    for image in &referrers {
        repository.push(&image.digest(), image);
    }
    let signatures: Vec<&Image> = referrers.iter().step_by(2).collect();
    let kept = "artifactType=application/vnd.example.signature%2Bjson";
    for (query, expected) in [("", sorted(&referrers.iter().collect::<Vec<_>>())), (kept, sorted(&signatures))] {
        for size in [1, 2, 3, expected.len(), 100] {
            let mut target = Some(repository.path(&format!("referrers/{}?n={size}&{query}", subject.digest())));
            let mut found = Vec::new();
            while let Some(here) = target {
                let page = server.get(&here).expect(200);
                // The filter goes on through the pages.
                assert_eq!(page.header("oci-filters-applied").is_some(), !query.is_empty());
                assert!(digests(&page).len() <= size);
                found.extend(digests(&page));
                target = next(&page);
            }
            assert_eq!(found, expected, "{size} a page, {query}");
        }
    }
}

/// oras-go reads 4 MiB of an answer and no more, so that nothing would be found of a subject with longer ones.
#[test]
fn pages_of_referrers_with_long_annotations_are_short() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let subject = Image::new(vec![]);
    repository.push("1", &subject);
    let long = "x".repeat(1_000_000);
    let referrers: Vec<Image> = (0..8)
        .map(|number| {
            let more =
                json!({ "subject": subject.descriptor(), "annotations": { "long": long, "n": number.to_string() } });
            Image::with(vec![], more)
        })
        .collect();
    for image in &referrers {
        repository.push(&image.digest(), image);
    }
    let mut target = Some(repository.path(&format!("referrers/{}", subject.digest())));
    let mut found = Vec::new();
    while let Some(here) = target {
        let page = server.get(&here).expect(200);
        assert!(page.body.len() < 4 << 20, "{} bytes", page.body.len());
        found.extend(digests(&page));
        target = next(&page);
    }
    assert_eq!(found, sorted(&referrers.iter().collect::<Vec<_>>()));
}

#[test]
fn the_subject_may_come_later_and_go_earlier() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let subject = Image::new(vec![Random::new(5).bytes(10)]);
    let sbom = referrer(&subject.descriptor(), SBOM, 6);
    repository.push(&sbom.digest(), &sbom);
    assert_eq!(digests(&list(&repository, &subject.digest(), "")), [sbom.digest()]);
    repository.push("1", &subject);
    repository.delete_manifest(&subject.digest()).expect(202);
    server.gc("0s");
    assert_eq!(digests(&list(&repository, &subject.digest(), "")), [sbom.digest()]);
    repository.assert_holds(&sbom.digest(), &sbom);
    repository.delete_manifest(&sbom.digest()).expect(202);
    assert_eq!(digests(&list(&repository, &subject.digest(), "")), Vec::<String>::new());
}

#[test]
fn subjects_and_referrers_under_sha512() {
    let server = Server::start();
    let repository = server.repository("team/app");
    let subject = Image::new(vec![Random::new(7).bytes(10)]);
    let long = sha512(&subject.manifest);
    repository.push(&long, &subject);
    let descriptor = json!({ "mediaType": OCI_MANIFEST, "digest": long, "size": subject.manifest.len() });
    let sbom = referrer(&descriptor, SBOM, 8);
    repository.push(&sbom.digest(), &sbom);
    repository.put_manifest(&sha512(&sbom.manifest), &sbom).expect(201);
    let mut expected = vec![sbom.digest(), sha512(&sbom.manifest)];
    expected.sort();
    assert_eq!(digests(&list(&repository, &long, "")), expected);
    // The same manifest's other digest is another subject.
    assert_eq!(digests(&list(&repository, &subject.digest(), "")), Vec::<String>::new());
}

//! Manifests and tags.

use bytes::Bytes;
use registry_core::digest::{Algorithm, Digest};
use registry_core::manifest::{InvalidManifest, OCI_MANIFEST};
use registry_core::names::Reference;
use registry_core::precondition::Precondition;
use registry_core::registry::{References, Repository};
use registry_core::services::{Deletion, ManifestRefusal, PutManifestRequest};

use crate::world::{HOUR, MICROSECOND, World, if_absent, if_match, image, sha256};

fn tag(name: &str) -> Reference {
    Reference::Tag(name.parse().unwrap())
}

async fn request(world: &World, reference: Reference, content: Bytes) -> PutManifestRequest {
    PutManifestRequest {
        repository: world.repository("app").await,
        reference,
        tags: Vec::new(),
        content_type: Some(OCI_MANIFEST.into()),
        content,
        references: References::Strict,
        precondition: Precondition::NONE,
    }
}

#[tokio::test]
async fn a_manifest_is_found_by_its_tags_and_by_its_digest() {
    let world = World::new().await;
    let content = image(&world.push("app", "config").await);
    let mut put = request(&world, tag("v1"), content.clone()).await;
    put.tags = ["v1", "latest"].map(|name| name.parse().unwrap()).to_vec();
    let (digest, subject) = world.services.put_manifest(put).await.unwrap();
    assert_eq!((&digest, subject), (&Digest::sha256(&content), None));
    let repository = world.repository("app").await;
    for reference in [tag("v1"), tag("latest"), Reference::Digest(digest.clone())] {
        let found = world.services.read_manifest(&repository, &reference).await.unwrap().unwrap();
        assert_eq!((&found.digest, &found.content), (&digest, &content));
        let described = world.services.describe_manifest(&repository, &reference).await.unwrap().unwrap();
        assert_eq!((&described.digest, described.size), (&digest, content.len() as u64));
    }
    assert_eq!(world.services.read_manifest(&repository, &tag("v2")).await.unwrap(), None);
    assert_eq!(world.services.describe_manifest(&repository, &tag("v2")).await.unwrap(), None);
}

#[tokio::test]
async fn a_manifest_sent_to_a_digest_has_it() {
    let world = World::new().await;
    let content = image(&world.push("app", "config").await);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of(algorithm, &content);
        let put = request(&world, Reference::Digest(digest.clone()), content.clone()).await;
        assert_eq!(world.services.put_manifest(put).await.unwrap().0, digest);
        let other = Reference::Digest(Digest::of(algorithm, b"other"));
        let refused = world.services.put_manifest(request(&world, other.clone(), content.clone()).await).await;
        assert!(matches!(refused, Err(ManifestRefusal::DigestMismatch)), "{refused:?}");
        let stored = world.services.read_manifest(&world.repository("app").await, &other).await.unwrap();
        assert_eq!(stored, None);
    }
}

#[tokio::test]
async fn what_a_manifest_names_must_be_there_unless_the_registry_is_lenient() {
    let world = World::new().await;
    world.push("other", "config").await;
    let content = image(&sha256("config"));
    let refused = world.services.put_manifest(request(&world, tag("v1"), content.clone()).await).await;
    assert!(matches!(refused, Err(ManifestRefusal::Missing(missing)) if missing == [sha256("config")]));
    let put = PutManifestRequest { references: References::Lenient, ..request(&world, tag("v1"), content).await };
    world.services.put_manifest(put).await.unwrap();
}

#[tokio::test]
async fn who_refers_to_a_manifest_is_told_its_subject() {
    let world = World::new().await;
    let (config, subject) = (world.push("app", "config").await, sha256("subject"));
    let text = String::from_utf8(image(&config).to_vec()).unwrap();
    let content = text.replacen('{', &format!(r#"{{"subject":{{"digest":"{subject}","size":7}},"#), 1);
    let put = request(&world, tag("signature"), content.into()).await;
    assert_eq!(world.services.put_manifest(put).await.unwrap().1, Some(subject));
}

#[tokio::test]
async fn a_document_that_is_no_manifest_and_a_name_that_is_a_registrys_are_refused() {
    let world = World::new().await;
    let refused = world.services.put_manifest(request(&world, tag("v1"), "{}".into()).await).await;
    assert!(matches!(refused, Err(ManifestRefusal::Invalid(InvalidManifest::Malformed(_)))), "{refused:?}");
    let put = request(&world, tag("v1"), image(&sha256("config"))).await;
    let repository = Repository { name: "oci/app".parse().unwrap(), ..put.repository.clone() };
    let refused = world.services.put_manifest(PutManifestRequest { repository, ..put }).await;
    assert!(matches!(refused, Err(ManifestRefusal::NameTaken)), "{refused:?}");
}

#[tokio::test]
async fn deleting_a_tag_leaves_the_manifest_and_deleting_the_manifest_takes_its_tags() {
    let world = World::new().await;
    let config = world.push("app", "config").await;
    let digest = Reference::Digest(world.tag("app", "v1", &config).await);
    world.tag("app", "v2", &config).await;
    let repository = world.repository("app").await;
    let delete = async |reference: &Reference| {
        world.services.delete_manifest(&repository, reference, &Precondition::NONE).await.unwrap()
    };
    assert_eq!(delete(&tag("v1")).await, Deletion::Deleted);
    assert_eq!(delete(&tag("v1")).await, Deletion::Unknown);
    assert!(world.services.read_manifest(&repository, &digest).await.unwrap().is_some());
    assert_eq!(delete(&digest).await, Deletion::Deleted);
    assert_eq!(delete(&digest).await, Deletion::Unknown);
    assert_eq!(world.services.read_manifest(&repository, &tag("v2")).await.unwrap(), None);
}

#[tokio::test]
async fn a_manifest_is_stored_only_where_what_is_there_is_as_the_client_expects() {
    let world = World::new().await;
    let (one, two) = (image(&world.push("app", "one").await), image(&world.push("app", "two").await));
    let (first, second) = (Digest::sha256(&one), Digest::sha256(&two));
    let repository = world.repository("app").await;
    let put = async |reference: Reference, content: &Bytes, precondition: Precondition| {
        let request = PutManifestRequest { precondition, ..request(&world, reference, content.clone()).await };
        match world.services.put_manifest(request).await {
            Ok(_) => true,
            Err(ManifestRefusal::PreconditionFailed) => false,
            Err(other) => panic!("{other:?}"),
        }
    };
    let current = async |reference: Reference| {
        let found = world.services.describe_manifest(&repository, &reference).await.unwrap();
        found.map(|manifest| manifest.digest)
    };
    assert!(!put(tag("v1"), &one, if_match(&first)).await, "there is nothing yet");
    assert_eq!((current(tag("v1")).await, current(Reference::Digest(first.clone())).await), (None, None));
    assert!(put(tag("v1"), &one, if_absent()).await);
    assert!(!put(tag("v1"), &two, if_absent()).await);
    assert!(!put(tag("v1"), &two, if_match(&second)).await);
    assert_eq!(current(tag("v1")).await, Some(first.clone()));
    assert_eq!(current(Reference::Digest(second.clone())).await, None, "what is refused is not stored");
    assert!(put(tag("v1"), &two, if_match(&first)).await);
    assert_eq!(current(tag("v1")).await, Some(second.clone()));
    assert!(!put(Reference::Digest(first.clone()), &one, if_absent()).await);
    assert!(put(Reference::Digest(first.clone()), &one, if_match(&first)).await);
}

#[tokio::test]
async fn a_tag_or_manifest_is_deleted_only_where_it_is_as_the_client_expects() {
    let world = World::new().await;
    let (config, other) = (world.push("app", "config").await, sha256("other"));
    let digest = world.tag("app", "v1", &config).await;
    let repository = world.repository("app").await;
    let delete = async |reference: &Reference, precondition: Precondition| {
        let deletion = world.services.delete_manifest(&repository, reference, &precondition).await.unwrap();
        let left = world.services.describe_manifest(&repository, reference).await.unwrap();
        assert_eq!(left.is_some(), deletion == Deletion::PreconditionFailed, "{reference:?}");
        deletion
    };
    for reference in [tag("v1"), Reference::Digest(digest.clone())] {
        for refused in [if_match(&other), if_absent()] {
            assert_eq!(delete(&reference, refused).await, Deletion::PreconditionFailed);
        }
        assert_eq!(delete(&reference, if_match(&digest)).await, Deletion::Deleted);
        for precondition in [if_match(&digest), if_match(&other), if_absent()] {
            assert_eq!(delete(&reference, precondition).await, Deletion::Unknown);
        }
    }
}

#[tokio::test]
async fn the_blobs_of_a_deleted_manifest_stay_for_a_full_grace() {
    let world = World::new().await;
    let config = world.push("app", "config").await;
    let digest = Reference::Digest(world.tag("app", "v1", &config).await);
    world.clock.advance(48 * HOUR);
    world.services.collect_garbage(Default::default()).await.unwrap();
    let app = world.repository("app").await;
    let deleted = world.services.delete_manifest(&app, &digest, &Precondition::NONE).await.unwrap();
    assert_eq!(deleted, Deletion::Deleted);
    world.clock.advance(24 * HOUR - MICROSECOND);
    world.services.collect_garbage(Default::default()).await.unwrap();
    assert_eq!(world.blob("app", &config).await.as_deref(), Some("config"));
    world.clock.advance(MICROSECOND);
    world.services.collect_garbage(Default::default()).await.unwrap();
    assert_eq!(world.objects().await, []);
}

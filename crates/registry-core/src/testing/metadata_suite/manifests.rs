//! Manifests: what they are, what they need, and what goes with them.

use super::world::{image, index, strict, with_tags};
use super::{Subject, World, at};
use crate::digest::{Algorithm, Digest};
use crate::names::Reference;
use crate::ports::metadata::manifests::{ManifestDescription, NewManifest, PutManifest, StoredManifest};
use crate::registry::{Format, Repository};

/// By tag and by digest, in its repository alone; the bytes need not be text.
pub async fn a_manifest_is_found_byte_for_byte(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let mut new = with_tags(image(&repository, "x", &[]), &["latest", "v1"]);
    new.content = (0..=255).cycle().take(100_000).collect::<Vec<u8>>().into();
    new.digest = Digest::of(Algorithm::Sha512, &new.content);
    new.facts.media_type = "application/x-odd; type".into();
    let stored = StoredManifest {
        digest: new.digest.clone(),
        media_type: new.facts.media_type.clone(),
        content: new.content.clone(),
    };
    let description =
        ManifestDescription { digest: new.digest.clone(), media_type: new.facts.media_type.clone(), size: 100_000 };
    world.put(new).await;
    let mirror = world.registry("mirror", Format::Oci).await;
    let namesake = Repository { registry: mirror, name: repository.name.clone() };
    for reference in [
        Reference::Digest(stored.digest.clone()),
        Reference::Tag("latest".parse().unwrap()),
        Reference::Tag("v1".parse().unwrap()),
    ] {
        let found = world.other.find_manifest(&repository, &reference).await.unwrap();
        assert_eq!(found.as_ref(), Some(&stored));
        let described = world.other.describe_manifest(&repository, &reference).await.unwrap();
        assert_eq!(described.as_ref(), Some(&description));
        for elsewhere in [&world.repository("team/other"), &namesake] {
            assert_eq!(world.other.find_manifest(elsewhere, &reference).await.unwrap(), None);
            assert_eq!(world.other.describe_manifest(elsewhere, &reference).await.unwrap(), None);
        }
    }
    for reference in [Reference::Digest(Digest::sha256(b"none")), Reference::Tag("Latest".parse().unwrap())] {
        assert_eq!(world.other.find_manifest(&repository, &reference).await.unwrap(), None);
        assert_eq!(world.other.describe_manifest(&repository, &reference).await.unwrap(), None);
    }
}

/// Its tags are moved all the same.
pub async fn sent_again_it_changes_nothing(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let blob = world.push_until(&repository, "layer", at(10)).await;
    let new = with_tags(image(&repository, "x", &[&blob]), &["one", "one"]);
    let digest = world.put(new.clone()).await;
    let mut again = with_tags(new.clone(), &["one", "two"]);
    again.facts.media_type = "application/x-other".into();
    world.put(again).await;
    let found = world.other.find_manifest(&repository, &Reference::Digest(digest.clone())).await.unwrap().unwrap();
    assert_eq!((found.media_type, found.content), (new.facts.media_type.clone(), new.content.clone()));
    for tag in ["one", "two"] {
        assert_eq!(world.resolve(&repository, tag).await, Some(digest.clone()));
    }
    // Deleted once, it is gone with its only reference.
    assert!(world.store.delete_manifest(&repository, &digest, at(10), at(5)).await.unwrap());
    assert!(!world.holds_manifest(&repository, &digest).await);
    world.assert_leased_until(&repository, &blob, at(10)).await;
}

async fn refused(world: &World, new: NewManifest) -> Vec<Digest> {
    let digest = new.digest.clone();
    let repository = new.repository.clone();
    let existed = world.exists(&repository).await;
    match world.store.put_manifest(new, at(0)).await.unwrap() {
        PutManifest::Missing(missing) => {
            assert!(!world.holds_manifest(&repository, &digest).await);
            assert_eq!(world.exists(&repository).await, existed);
            missing
        }
        other => panic!("{other:?}"),
    }
}

/// Blobs and children of another repository are not there, either.
pub async fn what_is_missing_is_listed_and_nothing_stored(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (repository, other) = (world.repository("team/app"), world.repository("team/other"));
    let here = world.push(&repository, "here").await;
    let there = world.push(&other, "there").await;
    let nowhere = Digest::sha256(b"nowhere");
    let child_here = world.tagged(&repository, "child", &["tag"]).await;
    let child_there = world.tagged(&other, "child there", &[]).await;

    let new = with_tags(image(&repository, "x", &[&here, &there, &nowhere]), &["tag", "new"]);
    let mut missing = refused(&world, strict(new)).await;
    missing.sort();
    let mut expected = vec![there.clone(), nowhere.clone()];
    expected.sort();
    assert_eq!(missing, expected);
    assert_eq!(world.resolve(&repository, "new").await, None);
    assert_eq!(world.resolve(&repository, "tag").await, Some(child_here.clone()));

    let mut missing = refused(&world, strict(index(&repository, "x", &[&child_here, &child_there, &nowhere]))).await;
    missing.sort();
    let mut expected = vec![child_there, nowhere.clone()];
    expected.sort();
    assert_eq!(missing, expected);

    let new = strict(image(&world.repository("never/seen"), "x", &[&here]));
    assert_eq!(refused(&world, new).await, std::slice::from_ref(&here));
    // A blob must be one: a manifest of that digest does not do.
    assert_eq!(
        refused(&world, strict(image(&repository, "x", &[&child_here]))).await,
        std::slice::from_ref(&child_here)
    );

    world.put(strict(with_tags(image(&repository, "x", &[&here]), &["new"]))).await;
    world.put(strict(image(&world.repository("never/seen"), "names nothing", &[]))).await;
}

/// Sparse and proxied manifests are stored as they are.
pub async fn what_is_missing_does_not_matter_when_lenient(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("never/seen");
    let nowhere = Digest::sha256(b"nowhere");
    let one = world.put(image(&repository, "x", &[&nowhere])).await;
    let two = world.put(index(&repository, "x", &[&nowhere, &one])).await;
    assert!(world.holds_manifest(&repository, &one).await && world.holds_manifest(&repository, &two).await);
    assert!(!world.holds_blob(&repository, &nowhere).await);
}

/// BuildKit's cache index names layers as children.
pub async fn a_child_is_there_as_a_manifest_or_as_a_blob(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let layer = world.push(&repository, "layer").await;
    let manifest = world.put(image(&repository, "manifest", &[])).await;
    let index = world.put(strict(index(&repository, "index", &[&layer, &manifest]))).await;
    assert!(world.holds_manifest(&repository, &index).await);
}

/// As an upload there is, whether something is missing or not; nothing is stored.
pub async fn a_manifest_under_a_registrys_name_is_refused(subject: &impl Subject) {
    let world = World::new(subject).await;
    world.registry("mirror", Format::Oci).await;
    let repository = world.repository("mirror/app");
    let missing = Digest::sha256(b"nowhere");
    for new in [image(&repository, "x", &[]), strict(image(&repository, "y", &[&missing]))] {
        assert_eq!(world.store.put_manifest(new, at(0)).await.unwrap(), PutManifest::NameTaken);
        assert!(!world.exists(&repository).await);
    }
}

/// And nothing else: not its children, not what refers to it, not what others have.
pub async fn deleting_a_manifest_takes_its_tags_with_it(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (repository, other) = (world.repository("team/app"), world.repository("team/other"));
    let child = world.tagged(&repository, "child", &["child"]).await;
    let tags: Vec<String> = (0..300).map(|number| format!("tag-{number}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let digest = world.put(with_tags(index(&repository, "index", &[&child]), &tags)).await;
    let mut referrer = image(&repository, "referrer", &[]);
    referrer.facts.subject = Some(digest.clone());
    let referrer = world.put(referrer).await;
    world.put(with_tags(index(&other, "index", &[&child]), &["tag-1"])).await;

    assert!(world.store.delete_manifest(&repository, &digest, at(9), at(5)).await.unwrap());
    assert!(!world.holds_manifest(&repository, &digest).await);
    let left = world.other.tags(&repository, None, 1_000).await.unwrap().unwrap();
    assert_eq!(left, ["child".parse().unwrap()]);
    assert_eq!(world.resolve(&repository, "tag-1").await, None);
    assert!(world.holds_manifest(&repository, &child).await);
    assert!(world.holds_manifest(&repository, &referrer).await);
    assert_eq!(world.other.referrers(&repository, &digest, None, None, 10).await.unwrap().0.len(), 1);
    assert_eq!(world.resolve(&other, "tag-1").await, Some(digest.clone()));

    assert!(!world.store.delete_manifest(&repository, &digest, at(9), at(5)).await.unwrap());
    let nowhere = world.repository("never/seen");
    assert!(!world.store.delete_manifest(&nowhere, &digest, at(9), at(5)).await.unwrap());
    assert!(!world.exists(&nowhere).await);
}

/// Whether it was reviewed or not; longer leases stay, and what another manifest names stays when its lease ends.
pub async fn deleting_a_manifest_leases_what_it_named(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let reviewed = world.push_until(&repository, "reviewed", at(10)).await;
    let shared = world.push_until(&repository, "shared", at(10)).await;
    let manifest = world.put(image(&repository, "one", &[&reviewed, &shared])).await;
    world.put(image(&repository, "two", &[&shared])).await;
    assert_eq!(world.review(at(10)).await, (2, 0));
    let leased = world.push_until(&repository, "leased", at(40)).await;
    let longer = world.push_until(&repository, "longer", at(60)).await;
    let unnamed = world.push_until(&repository, "unnamed", at(45)).await;
    let second = world.put(image(&repository, "three", &[&leased, &longer])).await;

    for manifest in [manifest, second] {
        assert!(world.store.delete_manifest(&repository, &manifest, at(50), at(20)).await.unwrap());
    }
    world.assert_leased_until(&repository, &unnamed, at(45)).await;
    for digest in [&reviewed, &shared, &leased, &longer] {
        assert!(world.holds_blob(&repository, digest).await);
    }
    // All at once, so each is looked at while the others are still there.
    assert_eq!(world.review(at(50)).await, (3, 2));
    assert!(!world.holds_blob(&repository, &reviewed).await);
    assert!(!world.holds_blob(&repository, &leased).await);
    assert!(world.holds_blob(&repository, &shared).await);
    world.assert_leased_until(&repository, &longer, at(60)).await;
    assert_eq!(world.review(at(1_000_000)).await, (0, 0));
}

/// As many as the parser lets through.
pub async fn a_manifest_with_many_descriptors_is_stored(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let there = world.push_until(&repository, "layer", at(10)).await;
    let mut named: Vec<Digest> = (0..5_000u32).map(|number| Digest::sha256(&number.to_be_bytes())).collect();
    let missing = refused(&world, strict(image(&repository, "x", &named.iter().collect::<Vec<_>>()))).await;
    assert_eq!(missing.len(), 5_000);
    named.push(there.clone());
    let new = image(&repository, "x", &named.iter().collect::<Vec<_>>());
    let digest = world.put(new).await;
    assert_eq!(world.review(at(10)).await, (1, 0));
    assert!(world.store.delete_manifest(&repository, &digest, at(20), at(15)).await.unwrap());
    world.assert_leased_until(&repository, &there, at(20)).await;
}

//! Which blobs are visible in which repository, and for how long.

use std::time::Duration;

use super::world::{image, index, texts};
use super::{CandidatesOf, Subject, World, at};
use crate::digest::Digest;
use crate::ports::metadata::blob_index::{DeleteBlob, MountBlob, StoredBlob};
use crate::registry::{Format, Repository};
use crate::time::Timestamp;

/// Not in other repositories, and not in those of the same name elsewhere.
pub async fn a_blob_is_found_only_where_it_is_visible(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let digest = world.push(&repository, "bytes").await;
    world.push(&world.repository("team/other"), "others").await;
    let mirror = world.registry("mirror", Format::Oci).await;
    let namesake = Repository { registry: mirror, name: repository.name.clone() };
    world.push(&namesake, "others").await;

    let blob = StoredBlob { digest: digest.clone(), size: 5, key: digest.plain_key() };
    assert_eq!(world.other.find_blob(&repository, &digest).await.unwrap(), Some(blob));
    for elsewhere in [&world.repository("team/other"), &world.repository("team/none"), &namesake] {
        assert_eq!(world.other.find_blob(elsewhere, &digest).await.unwrap(), None);
        assert_eq!(push_finds(&world, elsewhere, &digest, at(0)).await, None);
    }
    assert_eq!(world.other.find_blob(&repository, &Digest::sha256(b"none")).await.unwrap(), None);
}

/// With a grace of 100 seconds.
async fn push_finds(world: &World, repository: &Repository, digest: &Digest, now: Timestamp) -> Option<StoredBlob> {
    world.store.find_blob_for_push(repository, digest, Duration::from_secs(100), now).await.unwrap()
}

/// To the full grace; with half or more nothing is written.
pub async fn a_push_renews_a_lease_with_less_than_half_left(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let half = world.push_until(&repository, "half is left", at(100)).await;
    let less = world.push_until(&repository, "less is left", at(100)).await;
    let found = push_finds(&world, &repository, &half, at(50)).await.unwrap();
    assert_eq!((found.digest, found.size), (half.clone(), 12));
    world.assert_leased_until(&repository, &half, at(100)).await;

    let less_than_half = Timestamp::from_micros(at(50).as_micros() + 1);
    // It was dropped with the other.
    assert_eq!(push_finds(&world, &repository, &less, less_than_half).await, None);
    let less = world.push_until(&repository, "less is left", at(100)).await;
    let blob = StoredBlob { digest: less.clone(), size: 12, key: less.plain_key() };
    assert_eq!(push_finds(&world, &repository, &less, less_than_half).await, Some(blob.clone()));
    // Again, from another replica: now there is more than half left.
    assert_eq!(push_finds(&world, &repository, &less, at(51)).await, Some(blob));
    world.assert_leased_until(&repository, &less, less_than_half + Duration::from_secs(100)).await;

    // A reader renews nothing.
    let read = world.push_until(&repository, "only read", at(300)).await;
    assert!(world.holds_blob(&repository, &read).await);
    world.assert_leased_until(&repository, &read, at(300)).await;
}

/// Until a review has dropped it, it is there.
pub async fn a_push_finds_an_expired_lease_and_renews_it(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let digest = world.push_until(&repository, "bytes", at(10)).await;
    assert!(push_finds(&world, &repository, &digest, at(500)).await.is_some());
    world.assert_leased_until(&repository, &digest, at(600)).await;
    assert_eq!(push_finds(&world, &repository, &digest, at(600)).await, None);
}

/// A manifest names it: it is sure to stay.
pub async fn a_push_writes_nothing_for_a_reviewed_membership(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let digest = world.push_until(&repository, "bytes", at(10)).await;
    let manifest = world.put(image(&repository, "names it", &[&digest])).await;
    assert_eq!(world.review(at(10)).await, (1, 0));
    assert!(push_finds(&world, &repository, &digest, at(500)).await.is_some());
    assert_eq!(world.review(at(1_000_000)).await, (0, 0));
    // The loss of the reference brings the lease.
    world.store.delete_manifest(&repository, &manifest, at(700), at(600)).await.unwrap();
    world.assert_leased_until(&repository, &digest, at(700)).await;
}

/// As many as are asked for, of every registry.
pub async fn the_repositories_of_a_blob_are_found(subject: &impl Subject) {
    let world = World::new(subject).await;
    let mirror = world.registry("mirror", Format::Oci).await;
    let mut repositories = vec![Repository { registry: mirror, name: "a".parse().unwrap() }];
    repositories.extend(["a", "b/c"].map(|name| world.repository(name)));
    for repository in &repositories {
        world.push(repository, "bytes").await;
    }
    world.push(&world.repository("d"), "other").await;
    let digest = Digest::sha256(b"bytes");
    let mut found = world.other.repositories_with_blob(&digest, 10).await.unwrap();
    found.sort();
    repositories.sort();
    assert_eq!(found, repositories);
    let two = world.other.repositories_with_blob(&digest, 2).await.unwrap();
    assert!(two.len() == 2 && two.iter().all(|repository| repositories.contains(repository)), "{two:?}");
    assert_eq!(world.other.repositories_with_blob(&Digest::sha256(b"none"), 10).await.unwrap(), []);
}

/// From whichever registry; the target need not have been there.
pub async fn a_mount_makes_a_blob_visible_for_its_lease(subject: &impl Subject) {
    let world = World::new(subject).await;
    let mirror = world.registry("mirror", Format::Oci).await;
    let from = Repository { registry: mirror, name: "team/app".parse().unwrap() };
    let to = world.repository("new/app");
    let digest = world.push_until(&from, "bytes", at(10)).await;
    let blob = StoredBlob { digest: digest.clone(), size: 5, key: digest.plain_key() };
    let mounted = world.store.mount_blob(&from, &to, &digest, at(50), at(5)).await.unwrap();
    assert_eq!(mounted, MountBlob::Mounted(blob.clone()));
    assert_eq!(world.other.find_blob(&to, &digest).await.unwrap(), Some(blob));
    // The source's own lease is as it was.
    world.assert_leased_until(&from, &digest, at(10)).await;
    world.assert_leased_until(&to, &digest, at(50)).await;
}

/// The target is not made for it.
pub async fn a_mount_of_what_is_not_there_leaves_no_trace(subject: &impl Subject) {
    let world = World::new(subject).await;
    let from = world.repository("team/app");
    world.push(&from, "bytes").await;
    let stored_elsewhere = world.push(&world.repository("team/other"), "elsewhere").await;
    let to = world.repository("new/app");
    for (from, digest) in [
        (&from, Digest::sha256(b"none")),
        (&from, stored_elsewhere),
        (&world.repository("team/none"), Digest::sha256(b"bytes")),
    ] {
        let outcome = world.store.mount_blob(from, &to, &digest, at(50), at(5)).await.unwrap();
        assert_eq!(outcome, MountBlob::Unknown);
        assert!(!world.exists(&to).await);
    }
}

/// As an upload there is refused.
pub async fn a_mount_under_a_registrys_name_leaves_no_trace(subject: &impl Subject) {
    let world = World::new(subject).await;
    world.registry("mirror", Format::Oci).await;
    let from = world.repository("team/app");
    let digest = world.push(&from, "bytes").await;
    let to = world.repository("mirror/app");
    let outcome = world.store.mount_blob(&from, &to, &digest, at(50), at(5)).await.unwrap();
    assert_eq!(outcome, MountBlob::NameTaken);
    assert!(!world.exists(&to).await);
    assert_eq!(world.other.repositories_with_blob(&digest, 10).await.unwrap(), [from]);
}

/// What is reviewed stays so.
pub async fn a_mount_prolongs_and_never_shortens(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (from, to) = (world.repository("from/app"), world.repository("to/app"));
    let mount = async |digest: &Digest, until| {
        let outcome = world.store.mount_blob(&from, &to, digest, until, at(5)).await.unwrap();
        assert!(matches!(outcome, MountBlob::Mounted(_)), "{outcome:?}");
    };
    let longer = world.push_until(&from, "longer", at(9_999)).await;
    mount(&longer, at(20)).await;
    mount(&longer, at(30)).await;
    world.assert_leased_until(&to, &longer, at(30)).await;
    let shorter = world.push_until(&from, "shorter", at(9_999)).await;
    mount(&shorter, at(60)).await;
    mount(&shorter, at(50)).await;
    world.assert_leased_until(&to, &shorter, at(60)).await;
    let reviewed = world.push_until(&from, "reviewed", at(9_999)).await;
    mount(&reviewed, at(70)).await;
    world.put(image(&to, "names it", &[&reviewed])).await;
    assert_eq!(world.review(at(70)).await, (1, 0));
    mount(&reviewed, at(80)).await;
    assert_eq!(world.review(at(9_000)).await, (0, 0));
}

/// Others keep it.
pub async fn a_blob_is_deleted_from_one_repository(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (one, two) = (world.repository("one/app"), world.repository("two/app"));
    let digest = world.push(&one, "bytes").await;
    world.push(&two, "bytes").await;
    let delete = async |repository: &Repository| world.store.delete_blob(repository, &digest, at(5)).await.unwrap();
    assert_eq!(delete(&world.repository("none")).await, DeleteBlob::Unknown);
    assert_eq!(delete(&one).await, DeleteBlob::Deleted);
    assert!(!world.holds_blob(&one, &digest).await);
    assert!(world.holds_blob(&two, &digest).await);
    assert_eq!(delete(&one).await, DeleteBlob::Unknown);
    // It has become a candidate, and is still referred to.
    assert_eq!(texts(world.other.garbage_candidates(10).await.unwrap()), texts([&digest]));
    assert_eq!(world.store.collect_blob(&digest, at(6)).await.unwrap(), None);
    assert_eq!(delete(&two).await, DeleteBlob::Deleted);
    assert!(world.store.collect_blob(&digest, at(6)).await.unwrap().is_some());
}

/// Neither as a blob nor as a child; another repository's manifests do not matter.
pub async fn a_blob_that_a_manifest_names_is_not_deleted(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (one, two) = (world.repository("one/app"), world.repository("two/app"));
    let digest = world.push(&one, "bytes").await;
    world.push(&two, "bytes").await;
    let by_image = world.put(image(&one, "names it", &[&digest])).await;
    let by_index = world.put(index(&one, "names it too", &[&digest])).await;
    let delete = async |repository: &Repository| world.store.delete_blob(repository, &digest, at(5)).await.unwrap();
    assert_eq!(delete(&two).await, DeleteBlob::Deleted);
    for manifest in [by_image, by_index] {
        assert_eq!(delete(&one).await, DeleteBlob::Referenced);
        assert!(world.holds_blob(&one, &digest).await);
        world.store.delete_manifest(&one, &manifest, at(9), at(5)).await.unwrap();
    }
    assert_eq!(delete(&one).await, DeleteBlob::Deleted);
    // A manifest may name what was never there.
    world.put(image(&one, "names it again", &[&digest])).await;
    assert_eq!(delete(&one).await, DeleteBlob::Unknown);
}

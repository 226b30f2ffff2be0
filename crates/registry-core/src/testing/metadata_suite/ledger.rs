//! The ledger of the object store.

use super::world::{image, pages};
use super::{CandidatesOf, Subject, World, at};
use crate::ports::blob_store::ObjectKey;
use crate::ports::metadata::ledger::{ForgetBlob, LedgerEntry, ObjectState};
use crate::ports::metadata::uploads::CommitOutcome;

fn key(text: &str) -> ObjectKey {
    ObjectKey(text.to_owned())
}

/// Forgets the blob of a key as it is now.
async fn forget(world: &World, key: &ObjectKey) -> ForgetBlob {
    let seen = world.other.ledger_entry(key).await.unwrap().expect("it has a row");
    world.store.forget_blob(&seen, at(20)).await.unwrap()
}

async fn state(world: &World, key: &ObjectKey) -> Option<ObjectState> {
    world.other.ledger_entry(key).await.unwrap().map(|entry| entry.state)
}

/// By key, whatever their state; only live ones have a blob.
pub async fn the_ledger_is_read_in_pages(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let mut expected = Vec::new();
    for number in 0..6 {
        let content = format!("live {number}");
        let digest = world.push(&repository, &content).await;
        let blob = Some((digest.clone(), content.len() as u64));
        expected.push(LedgerEntry { key: digest.plain_key(), state: ObjectState::Live, since: at(0), blob });
        let session = world.open_blob(&repository).await;
        let key = world.seal_to_publish(&session, &format!("reserved {number}")).await;
        expected.push(LedgerEntry { key, state: ObjectState::Reserved, since: at(0), blob: None });
        let orphan = key_of(number);
        assert!(world.store.doom_orphan(&orphan, at(1)).await.unwrap());
        expected.push(LedgerEntry { key: orphan, state: ObjectState::Doomed, since: at(1), blob: None });
    }
    expected.sort_by(|one, other| one.key.cmp(&other.key));
    for limit in [1, 4, 18, 50] {
        let page = async |after: Option<&LedgerEntry>| {
            world.other.ledger_page(after.map(|entry| &entry.key), limit).await.unwrap()
        };
        let all = pages(limit, page).await;
        assert_eq!(all, expected, "in pages of {limit}");
    }
    let after = key(&expected[7].key.as_str()[..4]);
    let page = world.other.ledger_page(Some(&after), 1).await.unwrap();
    assert_eq!(page.first(), expected.iter().find(|entry| entry.key > after));
    assert_eq!(world.other.ledger_entry(&key("none")).await.unwrap(), None);
}

fn key_of(number: i32) -> ObjectKey {
    key(&format!("{number}0/orphan"))
}

/// After a key that need not exist; nothing else is among them.
pub async fn doomed_objects_are_read_in_pages(subject: &impl Subject) {
    let world = World::new(subject).await;
    world.push(&world.repository("team/app"), "live").await;
    let keys: Vec<ObjectKey> = (0..7).map(key_of).collect();
    for key in keys.iter().rev() {
        world.store.doom_orphan(key, at(1)).await.unwrap();
    }
    let all = pages(3, async |after| world.other.doomed_objects(after, 3).await.unwrap()).await;
    assert_eq!(all, keys);
    assert_eq!(world.other.doomed_objects(Some(&key("30")), 2).await.unwrap(), keys[3..5]);
}

/// A row in another state is left.
pub async fn only_a_doomed_row_is_cleared(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let live = world.push(&repository, "live").await.plain_key();
    let session = world.open_blob(&repository).await;
    let reserved = world.seal_to_publish(&session, "reserved").await;
    let doomed = key("doomed");
    world.store.doom_orphan(&doomed, at(1)).await.unwrap();
    for key in [&live, &reserved, &doomed, &key("none")] {
        assert_eq!(world.store.clear_doomed(key).await.unwrap(), *key == doomed, "{key}");
    }
    assert_eq!(state(&world, &live).await, Some(ObjectState::Live));
    assert_eq!(state(&world, &reserved).await, Some(ObjectState::Reserved));
    assert_eq!(state(&world, &doomed).await, None);
    assert!(!world.other.clear_doomed(&doomed).await.unwrap(), "it is gone");
}

/// What has a row stays as it is.
pub async fn an_orphan_gets_a_doomed_row(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let live = world.push(&repository, "live").await.plain_key();
    let session = world.open_blob(&repository).await;
    let reserved = world.seal_to_publish(&session, "reserved").await;
    let orphan = key("orphan");
    assert!(world.store.doom_orphan(&orphan, at(1)).await.unwrap());
    for key in [&orphan, &live, &reserved] {
        assert!(!world.store.doom_orphan(key, at(2)).await.unwrap());
    }
    assert_eq!(state(&world, &orphan).await, Some(ObjectState::Doomed));
    assert_eq!(state(&world, &live).await, Some(ObjectState::Live));
    assert_eq!(state(&world, &reserved).await, Some(ObjectState::Reserved));
}

/// And can be pushed again; the manifests that name it stay.
pub async fn a_forgotten_blob_is_in_no_repository(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (one, two) = (world.repository("one/app"), world.repository("two/app"));
    let digest = world.push_until(&one, "bytes", at(10)).await;
    world.push(&two, "bytes").await;
    let manifest = world.put(image(&one, "names it", &[&digest])).await;
    world.review(at(10)).await;
    assert_eq!(forget(&world, &digest.plain_key()).await, ForgetBlob::Forgotten);
    for repository in [&one, &two] {
        assert!(!world.holds_blob(repository, &digest).await);
    }
    assert!(world.holds_manifest(&one, &manifest).await);
    let doomed = LedgerEntry { key: digest.plain_key(), state: ObjectState::Doomed, since: at(20), blob: None };
    assert_eq!(world.other.ledger_entry(&digest.plain_key()).await.unwrap(), Some(doomed));
    assert_eq!(world.other.garbage_candidates(10).await.unwrap(), []);
    assert_eq!(forget(&world, &digest.plain_key()).await, ForgetBlob::Unknown);
    world.push(&one, "bytes").await;
    let blob = world.other.find_blob(&one, &digest).await.unwrap().unwrap();
    assert_eq!(blob.key, digest.candidates().nth(1));
}

/// Only as it was seen: the same key may have been given out again for the same bytes, which are sound.
pub async fn a_blob_that_was_stored_again_is_not_forgotten(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (one, two) = (world.repository("one/app"), world.repository("two/app"));
    let digest = world.push(&one, "bytes").await;
    let key = digest.plain_key();
    let seen = world.other.ledger_entry(&key).await.unwrap().unwrap();
    assert_eq!(world.store.forget_blob(&seen, at(1)).await.unwrap(), ForgetBlob::Forgotten);
    assert_eq!(world.store.forget_blob(&seen, at(2)).await.unwrap(), ForgetBlob::Unknown, "it is doomed");
    world.store.clear_doomed(&key).await.unwrap();
    assert_eq!(world.store.forget_blob(&seen, at(3)).await.unwrap(), ForgetBlob::Unknown, "it is gone");

    let again = world.open_blob(&two).await;
    assert_eq!(world.finish(&again, "bytes", at(1_000), at(4)).await, CommitOutcome::Committed);
    let now = world.other.ledger_entry(&key).await.unwrap().unwrap();
    assert_eq!((&now.key, now.state, &now.blob), (&seen.key, seen.state, &seen.blob));
    assert_eq!(world.store.forget_blob(&seen, at(5)).await.unwrap(), ForgetBlob::Unknown);
    assert!(world.holds_blob(&two, &digest).await);
    assert_eq!(world.other.ledger_entry(&key).await.unwrap(), Some(now.clone()));
    // Nor where the blob is stored under another key by now.
    let elsewhere = LedgerEntry { key: digest.candidates().nth(1), ..now.clone() };
    assert_eq!(world.store.forget_blob(&elsewhere, at(6)).await.unwrap(), ForgetBlob::Unknown);
    assert!(world.holds_blob(&two, &digest).await);
    assert_eq!(world.store.forget_blob(&now, at(7)).await.unwrap(), ForgetBlob::Forgotten);
    assert!(!world.holds_blob(&two, &digest).await);
}

/// Nor taken out of a repository.
pub async fn a_blob_of_a_package_is_not_forgotten(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let digest = world.push(&repository, "bytes").await;
    world.publish_at("p", "1", "bytes", at(0)).await;
    assert_eq!(forget(&world, &digest.plain_key()).await, ForgetBlob::InUse);
    assert!(world.holds_blob(&repository, &digest).await);
    assert_eq!(state(&world, &digest.plain_key()).await, Some(ObjectState::Live));
}

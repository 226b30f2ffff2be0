//! Finding what nobody refers to.

use super::world::{image, index};
use super::{CandidatesOf, Subject, World, at};
use crate::digest::Digest;
use crate::ports::metadata::garbage::{CollectedBlob, GarbagePreview, ReviewBatch};
use crate::ports::metadata::ledger::{LedgerEntry, ObjectState};
use crate::precondition::Precondition;
use crate::time::Timestamp;

async fn candidates(world: &World) -> Vec<Digest> {
    let mut candidates = world.other.garbage_candidates(1_000).await.unwrap();
    candidates.sort();
    candidates
}

/// And keeps what one does name, without a lease; a manifest of another repository does not count.
pub async fn a_review_drops_what_no_manifest_names(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (one, two) = (world.repository("one/app"), world.repository("two/app"));
    let named = world.push_until(&one, "named", at(10)).await;
    let dropped = world.push_until(&one, "dropped", at(10)).await;
    world.push_until(&two, "named", at(10)).await;
    world.put(image(&one, "names it", &[&named])).await;
    world.put(image(&two, "names nothing", &[])).await;
    let batch = world.store.review_memberships(at(10), 100).await.unwrap();
    assert_eq!(batch, ReviewBatch { reviewed: 3, dropped: 2 });
    assert!(world.holds_blob(&one, &named).await);
    assert!(!world.holds_blob(&one, &dropped).await);
    assert!(!world.holds_blob(&two, &named).await);
    let mut expected = vec![named, dropped];
    expected.sort();
    assert_eq!(candidates(&world).await, expected);
    assert_eq!(world.review(at(1_000_000)).await, (0, 0));
}

/// At most as many as were asked for, and none whose lease goes on.
pub async fn a_review_looks_at_what_is_due_and_no_more(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repositories = ["a", "b", "c"].map(|name| world.repository(name));
    for repository in &repositories {
        for number in 0..5 {
            let until = at(10 + number % 2);
            let digest = world.push_until(repository, &format!("blob {number}"), until).await;
            if number == 0 {
                world.put(image(repository, "names it", &[&digest])).await;
            }
        }
    }
    assert_eq!(world.review(at(9)).await, (0, 0));
    assert_eq!(candidates(&world).await, []);
    let mut batches = Vec::new();
    for _ in 0..4 {
        let batch = world.store.review_memberships(at(10), 4).await.unwrap();
        batches.push((batch.reviewed, batch.dropped));
    }
    // Blobs 0, 2 and 4 of each repository are due, and blob 0 is named.
    assert_eq!(batches.iter().map(|batch| batch.0).collect::<Vec<_>>(), [4, 4, 1, 0]);
    assert_eq!(batches.iter().map(|batch| batch.1).sum::<u64>(), 6);
    for repository in &repositories {
        for number in 0..5 {
            let digest = Digest::sha256(format!("blob {number}").as_bytes());
            assert_eq!(world.holds_blob(repository, &digest).await, [0, 1, 3].contains(&number), "{number}");
        }
    }
    assert_eq!(world.review(at(11)).await, (6, 6));
}

/// BuildKit's cache index names layers as children.
pub async fn a_child_protects_a_blob_too(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let layer = world.push_until(&repository, "layer", at(10)).await;
    world.put(index(&repository, "cache", &[&layer])).await;
    assert_eq!(world.review(at(10)).await, (1, 0));
    assert!(world.holds_blob(&repository, &layer).await);
}

/// By a membership, reviewed or leased, or by a file; its candidacy ends all the same.
pub async fn a_referenced_blob_is_not_collected(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (one, two) = (world.repository("one/app"), world.repository("two/app"));
    let leased = world.push_until(&one, "leased", at(10)).await;
    world.push_until(&two, "leased", at(1_000)).await;
    let reviewed = world.push_until(&one, "reviewed", at(10)).await;
    world.push_until(&two, "reviewed", at(10)).await;
    world.put(image(&two, "names it", &[&reviewed])).await;
    let file = world.push_until(&one, "file", at(10)).await;
    world.publish_at("p", "1", "file", at(0)).await;
    assert_eq!(world.review(at(10)).await, (4, 3));
    assert_eq!(candidates(&world).await.len(), 3);
    for digest in [leased, reviewed, file] {
        assert_eq!(world.store.collect_blob(&digest, at(20)).await.unwrap(), None);
        let entry = world.other.ledger_entry(&digest.plain_key()).await.unwrap().unwrap();
        assert_eq!(entry.state, ObjectState::Live);
    }
    assert_eq!(candidates(&world).await, []);
}

/// Its object is doomed then.
pub async fn an_unreferenced_blob_is_collected_once(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let digest = world.push_until(&repository, "bytes", at(10)).await;
    assert_eq!(world.review(at(10)).await, (1, 1));
    let key = digest.plain_key();
    let collected = CollectedBlob { key: key.clone(), size: 5 };
    assert_eq!(world.store.collect_blob(&digest, at(20)).await.unwrap(), Some(collected));
    let entry = LedgerEntry { key: key.clone(), state: ObjectState::Doomed, since: at(20), blob: None };
    assert_eq!(world.other.ledger_entry(&key).await.unwrap(), Some(entry));
    assert_eq!(world.other.doomed_objects(None, 10).await.unwrap(), [key]);
    assert_eq!(candidates(&world).await, []);
    assert_eq!(world.store.collect_blob(&digest, at(20)).await.unwrap(), None);
    assert_eq!(world.store.collect_blob(&Digest::sha256(b"none"), at(20)).await.unwrap(), None);
}

/// Before and after its old object is gone.
pub async fn a_collected_blob_can_be_pushed_again(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let digest = world.push_until(&repository, "bytes", at(10)).await;
    let key = async || world.other.find_blob(&repository, &digest).await.unwrap().unwrap().key;
    world.review(at(10)).await;
    world.store.collect_blob(&digest, at(20)).await.unwrap().unwrap();
    world.push_until(&repository, "bytes", at(30)).await;
    assert_eq!(key().await, digest.candidates().nth(1));
    world.review(at(30)).await;
    world.store.collect_blob(&digest, at(40)).await.unwrap().unwrap();
    for number in [0, 1] {
        world.store.clear_doomed(&digest.candidates().nth(number)).await.unwrap();
    }
    assert_eq!(world.other.ledger_page(None, 10).await.unwrap(), []);
    world.push_until(&repository, "bytes", at(50)).await;
    assert_eq!(key().await, digest.plain_key());
}

/// What a preview said is what then happens; and it changes nothing itself.
pub async fn a_preview_counts_what_a_collection_deletes(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (one, two) = (world.repository("one/app"), world.repository("two/app"));
    // Due in both repositories, due in one, due and named, due in one and named in the other, not due.
    for (content, until_one, until_two) in [
        ("both", 10, Some(10)),
        ("one", 10, Some(30)),
        ("named", 10, None),
        ("cross", 10, Some(10)),
        ("later", 20, None),
    ] {
        world.push_until(&one, content, at(until_one)).await;
        if let Some(until_two) = until_two {
            world.push_until(&two, content, at(until_two)).await;
        }
    }
    world.put(image(&one, "names", &[&Digest::sha256(b"named")])).await;
    world.put(image(&two, "names", &[&Digest::sha256(b"cross")])).await;
    // In a package too; of a package alone, deleted and not.
    world.push_until(&one, "packaged", at(10)).await;
    world.publish_at("p", "1", "packaged", at(0)).await;
    world.publish_at("p", "2", "deleted version", at(0)).await;
    world.publish_at("p", "3", "kept version", at(0)).await;
    world
        .store
        .delete_artifact(world.generic, &"p".parse().unwrap(), &"2".parse().unwrap(), &Precondition::NONE, at(1))
        .await
        .unwrap();
    // Deleted, and already a candidate.
    let deleted = world.push_until(&two, "deleted blob", at(500)).await;
    world.store.delete_blob(&two, &deleted, at(1)).await.unwrap();
    // Never committed.
    let abandoned = world.open_blob(&one).await;
    world.seal_to_publish(&abandoned, "abandoned").await;

    for (due, expected) in [
        (at(9), &["deleted version", "deleted blob"][..]),
        (at(10), &["both"]),
        (at(20), &["later"]),
        (at(30), &["one"]),
        (at(1_000), &[]),
    ] {
        let preview = world.other.preview_garbage(due).await.unwrap();
        assert_eq!(world.other.preview_garbage(due).await.unwrap(), preview);
        let expected = GarbagePreview {
            blobs: expected.len() as u64,
            bytes: expected.iter().map(|content| content.len() as u64).sum(),
        };
        assert_eq!(preview, expected, "{due}");
        assert_eq!(collect(&world, due).await, preview, "{due}");
        assert_eq!(world.other.preview_garbage(due).await.unwrap(), GarbagePreview::default());
    }
}

async fn collect(world: &World, due: Timestamp) -> GarbagePreview {
    world.review(due).await;
    let mut done = GarbagePreview::default();
    for digest in candidates(world).await {
        if let Some(collected) = world.store.collect_blob(&digest, due).await.unwrap() {
            done.blobs += 1;
            done.bytes += collected.size;
        }
    }
    done
}

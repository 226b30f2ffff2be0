//! Two or more that are in each other's way, at once, on two instances of the store: whoever comes first, the outcome is
//! one that one after the other could have had.

use futures_util::future::{join, join_all};

use super::world::{if_absent, if_match, image, new_registry, on_condition, seal_of, strict, target, with_tags};
use super::{Subject, World, at};
use crate::digest::Digest;
use crate::names::{Reference, Tag, Version};
use crate::ports::metadata::NameRange;
use crate::ports::metadata::blob_index::{DeleteBlob, MountBlob};
use crate::ports::metadata::ledger::ObjectState;
use crate::ports::metadata::manifests::PutManifest;
use crate::ports::metadata::registries::CreateRegistry;
use crate::ports::metadata::uploads::{CommitOutcome, CreateUpload, NewUpload, SealOutcome};
use crate::precondition::Precondition;
use crate::registry::Format;
use crate::upload::Checkpoint;

/// How often each race is run: who begins changes every round.
const ROUNDS: usize = 24;
/// How many are at it where there are more than two.
const MANY: usize = 12;

/// Both at once, and whichever `round` says is asked first.
async fn both<A, B>(round: usize, one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    if round.is_multiple_of(2) {
        join(one, other).await
    } else {
        let (other, one) = join(other, one).await;
        (one, other)
    }
}

/// Whatever names a digest first has its plain key, and each other one of its own.
pub async fn sessions_sealed_at_once_get_keys_of_their_own(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let mut sessions = Vec::new();
    for _ in 0..MANY {
        sessions.push(world.open_blob(&repository).await);
    }
    let seals = sessions.iter().enumerate().map(async |(number, session)| {
        match world.replica(number).seal_upload(seal_of(session, "bytes", at(9)), at(1)).await.unwrap() {
            SealOutcome::Publish(key) => key,
            other => panic!("{other:?}"),
        }
    });
    let mut keys = join_all(seals).await;
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), MANY);
    let reserved = world.other.ledger_page(None, 100).await.unwrap();
    assert_eq!(reserved.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), keys);
}

/// The same request twice, on two replicas.
pub async fn a_session_sealed_or_committed_twice_at_once_is_so_once(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    for round in 0..ROUNDS {
        let content = format!("bytes {round}");
        let digest = Digest::sha256(content.as_bytes());
        let session = world.open_blob(&repository).await;
        let seal = || seal_of(&session, &content, at(9));
        let (one, other) =
            both(round, world.store.seal_upload(seal(), at(1)), world.other.seal_upload(seal(), at(1))).await;
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one, other);
        let commit = |replica: usize| world.replica(replica).commit_upload(session.id, &digest, at(9), at(2));
        let (one, other) = both(round, commit(0), commit(1)).await;
        assert_eq!((one.unwrap(), other.unwrap()), (CommitOutcome::Committed, CommitOutcome::Committed));
    }
    let entries = world.other.ledger_page(None, 100).await.unwrap();
    assert_eq!(entries.len(), ROUNDS);
    assert!(entries.iter().all(|entry| entry.state == ObjectState::Live), "{entries:?}");
}

/// A manifest is stored with its blob, or told that it is missing.
pub async fn a_review_and_a_manifest_agree(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    for round in 0..ROUNDS {
        let digest = world.push_until(&repository, &format!("bytes {round}"), at(10)).await;
        let manifest = strict(image(&repository, &format!("manifest {round}"), &[&digest]));
        let (reviewed, put) = both(
            round,
            world.replica(round / 2).review_memberships(at(10), 100),
            world.replica(round / 2 + 1).put_manifest(manifest, at(11)),
        )
        .await;
        reviewed.unwrap();
        match put.unwrap() {
            PutManifest::Stored => {
                world.review(at(10)).await;
                assert!(world.holds_blob(&repository, &digest).await, "round {round}");
            }
            PutManifest::Missing(missing) => {
                assert_eq!(missing, std::slice::from_ref(&digest));
                assert!(!world.holds_blob(&repository, &digest).await, "round {round}");
            }
            refused => panic!("{refused:?}"),
        }
    }
}

/// The one or the other is refused.
pub async fn deleting_a_blob_and_a_manifest_that_names_it_agree(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    for round in 0..ROUNDS {
        let digest = world.push(&repository, &format!("bytes {round}")).await;
        let manifest = strict(image(&repository, &format!("manifest {round}"), &[&digest]));
        let (deleted, put) = both(
            round,
            world.replica(round / 2).delete_blob(&repository, &digest, at(1)),
            world.replica(round / 2 + 1).put_manifest(manifest, at(1)),
        )
        .await;
        match (deleted.unwrap(), put.unwrap()) {
            (DeleteBlob::Referenced, PutManifest::Stored) => assert!(world.holds_blob(&repository, &digest).await),
            (DeleteBlob::Deleted, PutManifest::Missing(_)) => assert!(!world.holds_blob(&repository, &digest).await),
            other => panic!("round {round}: {other:?}"),
        }
    }
}

/// Each due membership is taken by one of them.
pub async fn reviews_at_once_share_the_work(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repositories = ["one", "two"].map(|name| world.repository(name));
    for repository in &repositories {
        for number in 0..20 {
            world.push_until(repository, &format!("blob {number}"), at(10)).await;
        }
    }
    let reviews = (0..MANY).map(async |number| {
        let mut reviewed = 0;
        loop {
            let batch = world.replica(number).review_memberships(at(10), 3).await.unwrap();
            reviewed += batch.reviewed;
            if batch.reviewed == 0 {
                return reviewed;
            }
        }
    });
    // What another held was passed over, so whoever ended early may have left some to them.
    assert_eq!(join_all(reviews).await.into_iter().sum::<u64>() + world.review(at(10)).await.0, 40);
    assert_eq!(world.other.garbage_candidates(100).await.unwrap().len(), 20);
}

/// Whoever is told that the blob is there has it, and it is live.
pub async fn a_collection_and_who_wants_the_blob_agree(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (from, to) = (world.repository("from"), world.repository("to"));
    for round in 0..ROUNDS {
        let content = format!("bytes {round}");
        let digest = world.push(&from, &content).await;
        let session = world.open_blob(&to).await;
        // Garbage: but a membership may come.
        world.store.delete_blob(&from, &digest, at(1)).await.unwrap();
        let (collected, sealed) = both(
            round,
            world.replica(round / 2).collect_blob(&digest, at(2)),
            world.replica(round / 2 + 1).seal_upload(seal_of(&session, &content, at(9)), at(2)),
        )
        .await;
        match (collected.unwrap(), sealed.unwrap()) {
            (Some(_), SealOutcome::Publish(_)) => {
                assert_eq!(
                    world.store.commit_upload(session.id, &digest, at(9), at(3)).await.unwrap(),
                    CommitOutcome::Committed
                );
            }
            (None, SealOutcome::AlreadyStored(CommitOutcome::Committed)) => {}
            other => panic!("round {round}: {other:?}"),
        }
        let blob = world.other.find_blob(&to, &digest).await.unwrap().expect("it was committed");
        assert_eq!(world.other.ledger_entry(&blob.key).await.unwrap().unwrap().state, ObjectState::Live);
    }
}

/// The source goes, and with it the blob, or it stays because of the target.
pub async fn a_mount_and_the_end_of_its_source_agree(subject: &impl Subject) {
    let world = World::new(subject).await;
    let from = world.repository("from");
    for round in 0..ROUNDS {
        let digest = world.push(&from, &format!("bytes {round}")).await;
        let to = world.repository(&format!("to{round}"));
        let end = async {
            let replica = world.replica(round / 2);
            assert_eq!(replica.delete_blob(&from, &digest, at(1)).await.unwrap(), DeleteBlob::Deleted);
            replica.collect_blob(&digest, at(2)).await.unwrap()
        };
        let mount = world.replica(round / 2 + 1).mount_blob(&from, &to, &digest, at(9), at(1));
        let (collected, mounted) = both(round, end, mount).await;
        match mounted.unwrap() {
            MountBlob::Mounted(blob) => {
                assert_eq!(collected, None, "round {round}");
                assert_eq!(world.other.find_blob(&to, &digest).await.unwrap(), Some(blob));
            }
            MountBlob::Unknown => assert!(collected.is_some() && !world.holds_blob(&to, &digest).await),
            MountBlob::NameTaken => panic!("the name is free"),
        }
    }
}

/// While one manifest goes another comes, and while the last two go at once.
pub async fn a_repository_is_listed_while_it_holds_a_manifest_whoever_comes_and_goes(subject: &impl Subject) {
    let world = World::new(subject).await;
    for round in 0..ROUNDS {
        let repository = world.repository(&format!("app{round}"));
        let first = world.tagged(&repository, "first", &["first"]).await;
        let second = image(&repository, "second", &[]);
        let digest = second.digest.clone();
        let (deleted, put) = both(
            round,
            world.replica(round / 2).delete_manifest(&repository, &first, at(9), at(1)),
            world.replica(round / 2 + 1).put_manifest(second, at(1)),
        )
        .await;
        assert!(deleted.unwrap());
        assert_eq!(put.unwrap(), PutManifest::Stored);
        assert_eq!(world.listed(world.oci).await, [repository.name.as_str()], "round {round}");
        let third = world.tagged(&repository, "third", &[]).await;
        let (one, other) = both(
            round,
            world.replica(round / 2).delete_manifest(&repository, &digest, at(9), at(1)),
            world.replica(round / 2 + 1).delete_manifest(&repository, &third, at(9), at(1)),
        )
        .await;
        assert!(one.unwrap() && other.unwrap());
        assert_eq!(world.listed(world.oci).await, Vec::<String>::new(), "round {round}");
    }
}

/// It goes with its tags, or stays with those that came.
pub async fn a_manifest_that_is_deleted_and_stored_at_once_is_whole(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    for round in 0..ROUNDS {
        let (text, tag) = (format!("manifest {round}"), format!("tag{round}"));
        let digest = world.tagged(&repository, &text, &["old"]).await;
        let again = with_tags(image(&repository, &text, &[]), &[&tag]);
        let (deleted, put) = both(
            round,
            world.replica(round / 2).delete_manifest(&repository, &digest, at(9), at(1)),
            world.replica(round / 2 + 1).put_manifest(again, at(1)),
        )
        .await;
        assert!(deleted.unwrap());
        assert_eq!(put.unwrap(), PutManifest::Stored);
        let stored = world.holds_manifest(&repository, &digest).await;
        assert_eq!(world.resolve(&repository, &tag).await.is_some(), stored, "round {round}");
        assert_eq!(world.resolve(&repository, "old").await, None);
        world.store.delete_manifest(&repository, &digest, at(9), at(1)).await.unwrap();
    }
}

/// All are stored, and each tag points at one of them.
pub async fn manifests_with_the_same_tags_and_blobs_are_stored_at_once(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let mut blobs = Vec::new();
    for number in 0..4 {
        blobs.push(world.push(&repository, &format!("blob {number}")).await);
    }
    let puts = (0..MANY).map(|number| {
        let (mut named, mut tags) = (blobs.iter().collect::<Vec<_>>(), vec!["a", "b", "c", "d"]);
        named.rotate_left(number % 4);
        tags.rotate_left(number % 4);
        let new = with_tags(strict(image(&repository, &format!("manifest {number}"), &named)), &tags);
        world.replica(number).put_manifest(new, at(1))
    });
    for outcome in join_all(puts).await {
        assert_eq!(outcome.unwrap(), PutManifest::Stored);
    }
    for tag in ["a", "b", "c", "d"] {
        let digest = world.resolve(&repository, tag).await.expect("it points somewhere");
        assert!(world.holds_manifest(&repository, &digest).await);
    }
}

/// Each is counted, and the last in their order is the latest.
pub async fn versions_that_come_and_go_at_once_are_counted(subject: &impl Subject) {
    let world = World::new(subject).await;
    let mut sessions = Vec::new();
    for number in 0..MANY {
        let session = world.open_version("p", &format!("1.{number}")).await;
        let content = format!("bytes {number}");
        world.seal_to_publish(&session, &content).await;
        sessions.push((session, Digest::sha256(content.as_bytes())));
    }
    let commits = sessions
        .iter()
        .enumerate()
        .map(|(number, (session, digest))| world.replica(number).commit_upload(session.id, digest, at(9), at(5)));
    for outcome in join_all(commits).await {
        assert_eq!(outcome.unwrap(), CommitOutcome::Committed);
    }
    let summary = async || {
        let page = world.other.packages(world.generic, &NameRange::default(), None, 10).await.unwrap();
        page.first().map(|package| (package.version_count, package.latest_version.to_string()))
    };
    assert_eq!(summary().await, Some((MANY as u64, format!("1.{}", MANY - 1))));
    // Each twice, but for the first version.
    let package = "p".parse().unwrap();
    let versions: Vec<Version> = (2..2 * MANY).map(|number| format!("1.{}", number / 2).parse().unwrap()).collect();
    let deletions = versions.iter().enumerate().map(|(number, version)| {
        world.replica(number).delete_artifact(world.generic, &package, version, &Precondition::NONE, at(6))
    });
    let deleted: usize = join_all(deletions).await.into_iter().map(|outcome| usize::from(outcome.unwrap())).sum();
    assert_eq!(deleted, MANY - 1);
    assert_eq!(summary().await, Some((1, "1.0".to_owned())));
}

/// The package is there afterwards, and found, if the version that came is.
pub async fn the_last_version_goes_while_another_comes(subject: &impl Subject) {
    let world = World::new(subject).await;
    let package = "model".parse().unwrap();
    for round in 0..ROUNDS {
        world.publish("model", "1").await;
        let session = world.open_version("model", "2").await;
        let content = format!("bytes {round}");
        world.seal_to_publish(&session, &content).await;
        let digest = Digest::sha256(content.as_bytes());
        let version = "1".parse().unwrap();
        let (deleted, committed) = both(
            round,
            world.replica(round / 2).delete_artifact(world.generic, &package, &version, &Precondition::NONE, at(6)),
            world.replica(round / 2 + 1).commit_upload(session.id, &digest, at(9), at(6)),
        )
        .await;
        assert!(deleted.unwrap());
        assert_eq!(committed.unwrap(), CommitOutcome::Committed);
        for search in [None, Some("ode")] {
            let found = world.other.packages(world.generic, &NameRange::default(), search, 10).await.unwrap();
            let found: Vec<_> =
                found.iter().map(|found| (found.version_count, found.latest_version.as_str())).collect();
            assert_eq!(found, [(1, "2")], "round {round} {search:?}");
        }
        world
            .store
            .delete_artifact(world.generic, &package, &"2".parse().unwrap(), &Precondition::NONE, at(7))
            .await
            .unwrap();
    }
}

/// And whoever comes later finds it.
pub async fn a_registry_is_made_by_one_of_many(subject: &impl Subject) {
    let world = World::new(subject).await;
    let made = (0..MANY).map(|number| world.replica(number).create_registry(new_registry("team", Format::Oci), at(1)));
    let (mut created, mut ids) = (0, Vec::new());
    for outcome in join_all(made).await {
        match outcome.unwrap() {
            CreateRegistry::Created(registry) => {
                created += 1;
                ids.push(registry.id);
            }
            CreateRegistry::Exists(registry) => ids.push(registry.id),
            CreateRegistry::NameTaken => panic!("no repository begins so"),
        }
    }
    ids.dedup();
    assert_eq!((created, ids.len()), (1, 1));
}

/// A first segment belongs to whoever came first.
pub async fn a_registry_and_a_repository_made_at_once_exclude_each_other(subject: &impl Subject) {
    let world = World::new(subject).await;
    for round in 0..ROUNDS {
        let name = format!("team{round}");
        let repository = world.repository(&format!("{name}/app"));
        let new =
            NewUpload { id: world.id(), target: target(&repository), start: Checkpoint::start(false), writing: true };
        let (registry, upload) = both(
            round,
            world.replica(round / 2).create_registry(new_registry(&name, Format::Oci), at(1)),
            world.replica(round / 2 + 1).create_upload(new, at(1)),
        )
        .await;
        let made = matches!(registry.unwrap(), CreateRegistry::Created(_));
        let begun = matches!(upload.unwrap(), CreateUpload::Created(_));
        assert!(made != begun, "round {round}: {made} {begun}");
        assert_eq!(world.exists(&repository).await, begun);
    }
}

/// Whoever comes second finds another state than it expected.
pub async fn of_those_who_expect_the_same_tag_one_wins(subject: &impl Subject) {
    let world = World::new(subject).await;
    let tag: Tag = "latest".parse().unwrap();
    for round in 0..ROUNDS {
        let repository = world.repository(&format!("app{}", round % 2));
        let mut expected = if_absent();
        // A tag that is new, and then one that moves.
        for turn in 0..2 {
            let puts = (0..MANY).map(|number| {
                let new = with_tags(image(&repository, &format!("{round} {turn} {number}"), &[]), &["latest"]);
                let digest = new.digest.clone();
                let new = on_condition(new, Reference::Tag(tag.clone()), expected.clone());
                let store = world.replica(number);
                async move { (store.put_manifest(new, at(1)).await.unwrap(), digest) }
            });
            let mut stored = Vec::new();
            for (outcome, digest) in join_all(puts).await {
                match outcome {
                    PutManifest::Stored => stored.push(digest),
                    refused => assert_eq!(refused, PutManifest::PreconditionFailed),
                }
            }
            assert_eq!(stored.len(), 1, "round {round}, turn {turn}");
            assert_eq!(world.resolve(&repository, "latest").await, stored.first().cloned());
            expected = if_match(&[&stored[0]]);
        }
        let new = with_tags(image(&repository, &format!("{round} moved"), &[]), &["latest"]);
        let new = on_condition(new, Reference::Tag(tag.clone()), expected.clone());
        let (deleted, put) = both(
            round,
            world.replica(round / 2).delete_tag(&repository, &tag, &expected),
            world.replica(round / 2 + 1).put_manifest(new, at(2)),
        )
        .await;
        let (deleted, stored) = (deleted.unwrap(), put.unwrap() == PutManifest::Stored);
        assert!(deleted != stored, "round {round}: deleted {deleted}, stored {stored}");
        assert_eq!(world.resolve(&repository, "latest").await.is_some(), stored);
        world.store.delete_tag(&repository, &tag, &Precondition::NONE).await.unwrap();
    }
}

//! How the bytes of an upload become a blob: seal, commit, and what stands in the ledger meanwhile.

use super::world::{checkpoint, image, seal_of, step};
use super::{CandidatesOf, Subject, World, at};
use crate::digest::Digest;
use crate::names::PackageName;
use crate::package::Artifact;
use crate::ports::blob_store::ObjectKey;
use crate::ports::metadata::blob_index::StoredBlob;
use crate::ports::metadata::garbage::ReviewBatch;
use crate::ports::metadata::ledger::{LedgerEntry, ObjectState};
use crate::ports::metadata::uploads::{CheckpointStep, CommitOutcome, SealOutcome, SealUpload};
use crate::upload::{Checkpoint, Epoch, UploadSession, UploadState, UploadTarget};

async fn ledger(world: &World, key: &ObjectKey) -> Option<ObjectState> {
    world.other.ledger_entry(key).await.unwrap().map(|entry| entry.state)
}

async fn session(world: &World, session: &UploadSession) -> UploadSession {
    world.other.find_upload(session.id).await.unwrap().unwrap()
}

/// With the last checkpoint, and nothing is visible yet.
pub async fn sealing_reserves_the_plain_key(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    for (content, tell) in [("one", false), ("two!", true)] {
        let opened = world.open_blob(&repository).await;
        let mut wish = seal_of(&opened, content, at(9));
        wish.step.tell = tell;
        let digest = wish.digest.clone();
        let key = digest.plain_key();
        assert_eq!(world.store.seal_upload(wish, at(5)).await.unwrap(), SealOutcome::Publish(key.clone()));
        let size = content.len() as u64;
        let expected = UploadSession {
            state: UploadState::Finalising { digest: digest.clone(), size, key: key.clone() },
            durable: checkpoint(size),
            told: if tell { checkpoint(size) } else { Checkpoint::start(false) },
            touched_at: at(5),
            ..opened.clone()
        };
        assert_eq!(session(&world, &opened).await, expected);
        let entry = LedgerEntry { key: key.clone(), state: ObjectState::Reserved, since: at(5), blob: None };
        assert_eq!(world.other.ledger_entry(&key).await.unwrap(), Some(entry));
        assert!(!world.holds_blob(&repository, &digest).await);
    }
}

/// And reserves nothing.
pub async fn a_superseded_writer_seals_nothing(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let opened = world.open_blob(&repository).await;
    assert!(world.store.checkpoint_upload(step(&opened, 10), at(1)).await.unwrap());
    let now = session(&world, &opened).await;
    let good = seal_of(&now, "bytes", at(9));
    let wrong = |change: &dyn Fn(&mut CheckpointStep)| {
        let mut wish = good.clone();
        change(&mut wish.step);
        wish
    };
    let unknown = world.id();
    for wish in [
        wrong(&|step| step.epoch = Epoch(0)),
        wrong(&|step| step.epoch = Epoch(2)),
        wrong(&|step| step.from = 0),
        wrong(&|step| step.from = 11),
        wrong(&|step| step.id = unknown),
    ] {
        assert_eq!(world.store.seal_upload(wish, at(5)).await.unwrap(), SealOutcome::Superseded);
        assert_eq!(session(&world, &opened).await, now);
        assert_eq!(world.other.ledger_page(None, 10).await.unwrap(), []);
    }
    // The same where the bytes are stored already.
    world.push(&world.repository("elsewhere"), "bytes").await;
    let late = wrong(&|step| step.epoch = Epoch(0));
    assert_eq!(world.store.seal_upload(late, at(5)).await.unwrap(), SealOutcome::Superseded);
    assert_eq!(session(&world, &opened).await, now);
    assert!(!world.holds_blob(&repository, &good.digest).await);
}

/// Before and after the commit, and changes nothing; with another digest, or by another writer, it is refused.
pub async fn sealing_again_answers_the_same(subject: &impl Subject) {
    let world = World::new(subject).await;
    let opened = world.open_blob(&world.repository("team/app")).await;
    let wish = seal_of(&opened, "bytes", at(9));
    let key = wish.digest.plain_key();
    let sealed = SealOutcome::Publish(key.clone());
    assert_eq!(world.store.seal_upload(wish.clone(), at(5)).await.unwrap(), sealed);
    let before = session(&world, &opened).await;

    let other = Digest::sha256(b"other");
    let with_other_digest = SealUpload { candidates: other.candidates(), digest: other, ..wish.clone() };
    let by_other_writer = SealUpload { step: CheckpointStep { epoch: Epoch(7), ..wish.step.clone() }, ..wish.clone() };
    let again = |answer: SealOutcome| {
        [
            (wish.clone(), answer),
            (with_other_digest.clone(), SealOutcome::Superseded),
            (by_other_writer.clone(), SealOutcome::Superseded),
        ]
    };
    for (wish, answer) in again(sealed) {
        assert_eq!(world.other.seal_upload(wish, at(6)).await.unwrap(), answer);
        assert_eq!(session(&world, &opened).await, before);
        assert_eq!(world.other.ledger_page(None, 10).await.unwrap().len(), 1);
    }
    let commit = world.store.commit_upload(opened.id, &wish.digest, at(9), at(7)).await.unwrap();
    assert_eq!(commit, CommitOutcome::Committed);
    let before = session(&world, &opened).await;
    for (wish, answer) in again(SealOutcome::AlreadyStored(CommitOutcome::Committed)) {
        assert_eq!(world.other.seal_upload(wish, at(8)).await.unwrap(), answer);
        assert_eq!(session(&world, &opened).await, before);
        assert_eq!(world.other.ledger_page(None, 10).await.unwrap().len(), 1);
    }
}

/// Whatever its state is; the plain key is used again once it has none.
pub async fn a_key_with_a_row_is_passed_over(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let digest = Digest::sha256(b"bytes");
    let candidates = digest.candidates();
    // Reserved by the first, and by the second.
    let mut sessions = Vec::new();
    for number in 0..3 {
        let opened = world.open_blob(&repository).await;
        assert_eq!(world.seal_to_publish(&opened, "bytes").await, candidates.nth(number));
        sessions.push(opened);
    }
    // Doomed.
    world.store.end_upload(sessions[0].id, None, at(1)).await.unwrap();
    world.store.end_upload(sessions[1].id, None, at(1)).await.unwrap();
    let opened = world.open_blob(&repository).await;
    assert_eq!(world.seal_to_publish(&opened, "bytes").await, candidates.nth(3));
    // Cleared: the first that is free.
    world.store.clear_doomed(&candidates.nth(1)).await.unwrap();
    let opened = world.open_blob(&repository).await;
    assert_eq!(world.seal_to_publish(&opened, "bytes").await, candidates.nth(1));
    world.store.clear_doomed(&candidates.nth(0)).await.unwrap();
    let opened = world.open_blob(&repository).await;
    assert_eq!(world.seal_to_publish(&opened, "bytes").await, candidates.nth(0));
    // Live, under the key that another digest would like to have.
    assert_eq!(world.store.commit_upload(opened.id, &digest, at(9), at(2)).await.unwrap(), CommitOutcome::Committed);
    let opened = world.open_blob(&repository).await;
    let wish = SealUpload { candidates: candidates.clone(), ..seal_of(&opened, "other", at(9)) };
    let sealed = world.store.seal_upload(wish, at(2)).await.unwrap();
    assert_eq!(sealed, SealOutcome::Publish(candidates.nth(4)));
}

/// With its key and size, and the session is done.
pub async fn a_committed_blob_is_visible_and_live(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let opened = world.open_blob(&repository).await;
    let key = world.seal_to_publish(&opened, "bytes").await;
    let digest = Digest::sha256(b"bytes");
    assert_eq!(world.store.commit_upload(opened.id, &digest, at(9), at(7)).await.unwrap(), CommitOutcome::Committed);
    let blob = StoredBlob { digest: digest.clone(), size: 5, key: key.clone() };
    assert_eq!(world.other.find_blob(&repository, &digest).await.unwrap(), Some(blob));
    let blob = Some((digest.clone(), 5));
    let entry = LedgerEntry { key: key.clone(), state: ObjectState::Live, since: at(7), blob };
    assert_eq!(world.other.ledger_entry(&key).await.unwrap(), Some(entry));
    let done = session(&world, &opened).await;
    assert_eq!((done.state, done.touched_at), (UploadState::Done { digest }, at(7)));
}

/// In another repository, without an object of its own.
pub async fn stored_bytes_are_committed_at_once(subject: &impl Subject) {
    let world = World::new(subject).await;
    let digest = world.push(&world.repository("team/app"), "bytes").await;
    let repository = world.repository("other/app");
    let opened = world.open_blob(&repository).await;
    let outcome = world.store.seal_upload(seal_of(&opened, "bytes", at(40)), at(5)).await.unwrap();
    assert_eq!(outcome, SealOutcome::AlreadyStored(CommitOutcome::Committed));
    let done = session(&world, &opened).await;
    let expected = UploadSession {
        state: UploadState::Done { digest: digest.clone() },
        durable: checkpoint(5),
        touched_at: at(5),
        ..opened.clone()
    };
    assert_eq!(done, expected);
    assert_eq!(world.other.ledger_page(None, 10).await.unwrap().len(), 1);
    let commit = world.store.commit_upload(opened.id, &digest, at(9), at(5)).await.unwrap();
    assert_eq!(commit, CommitOutcome::Committed);
    let blob = world.other.find_blob(&repository, &digest).await.unwrap().unwrap();
    assert_eq!((blob.size, blob.key), (5, digest.plain_key()));
    world.assert_leased_until(&repository, &digest, at(40)).await;
}

/// It says so, and changes nothing.
pub async fn committing_again_is_the_same(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let opened = world.open_blob(&repository).await;
    assert_eq!(world.finish(&opened, "bytes", at(9), at(5)).await, CommitOutcome::Committed);
    let before = session(&world, &opened).await;
    let digest = Digest::sha256(b"bytes");
    let again = world.other.commit_upload(opened.id, &digest, at(500), at(6)).await.unwrap();
    assert_eq!(again, CommitOutcome::Committed);
    assert_eq!(session(&world, &opened).await, before);
    world.assert_leased_until(&repository, &digest, at(9)).await;
}

/// Neither what is not sealed, nor another digest, nor what is not there.
pub async fn nothing_else_is_committed(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let open = world.open_blob(&repository).await;
    let sealed = world.open_blob(&repository).await;
    let key = world.seal_to_publish(&sealed, "bytes").await;
    let done = world.open_blob(&repository).await;
    world.finish(&done, "done", at(9), at(5)).await;
    let (bytes, other) = (Digest::sha256(b"bytes"), Digest::sha256(b"other"));
    for (session_of, digest) in [(&open, &bytes), (&sealed, &other), (&done, &bytes)] {
        let before = session(&world, session_of).await;
        let outcome = world.store.commit_upload(session_of.id, digest, at(9), at(6)).await.unwrap();
        assert_eq!(outcome, CommitOutcome::Superseded);
        assert_eq!(session(&world, session_of).await, before);
    }
    let outcome = world.store.commit_upload(world.id(), &bytes, at(9), at(6)).await.unwrap();
    assert_eq!(outcome, CommitOutcome::Superseded);
    assert!(!world.holds_blob(&repository, &bytes).await);
    assert_eq!(ledger(&world, &key).await, Some(ObjectState::Reserved));
}

/// Two sessions with the same bytes: the second's object is doomed, and its repository has the first's.
pub async fn the_blob_that_came_first_is_kept(subject: &impl Subject) {
    let world = World::new(subject).await;
    let [first, second] = ["first/app", "second/app"].map(|name| world.repository(name));
    let (one, two) = (world.open_blob(&first).await, world.open_blob(&second).await);
    let digest = Digest::sha256(b"bytes");
    let key_of_one = world.seal_to_publish(&one, "bytes").await;
    let key_of_two = world.seal_to_publish(&two, "bytes").await;
    assert_ne!(key_of_one, key_of_two);
    for session in [&two, &one] {
        let outcome = world.store.commit_upload(session.id, &digest, at(9), at(5)).await.unwrap();
        assert_eq!(outcome, CommitOutcome::Committed);
    }
    assert_eq!(ledger(&world, &key_of_two).await, Some(ObjectState::Live));
    assert_eq!(ledger(&world, &key_of_one).await, Some(ObjectState::Doomed));
    for repository in [first, second] {
        let blob = world.other.find_blob(&repository, &digest).await.unwrap().unwrap();
        assert_eq!(blob.key, key_of_two);
    }
}

/// With all that its publisher said; no lease is needed.
pub async fn a_version_is_published(subject: &impl Subject) {
    let world = World::new(subject).await;
    let digest = world.publish_at("Package", "1.0.0", "bytes", at(5)).await;
    let (package, version): (PackageName, _) = ("Package".parse().unwrap(), "1.0.0".parse().unwrap());
    let found = world.other.find_artifact(world.generic, &package, &version).await.unwrap();
    let artifact = Artifact {
        package: package.clone(),
        version: version.clone(),
        digest: digest.clone(),
        size: 5,
        content_type: "application/x-test".into(),
        filename: "Package 1.0.0 ü.bin".parse().unwrap(),
        uploaded_at: at(5),
    };
    assert_eq!(found, Some((artifact, digest.plain_key())));
    // The names are exact, and the registry matters.
    for (registry, package, version) in
        [(world.oci, "Package", "1.0.0"), (world.generic, "package", "1.0.0"), (world.generic, "Package", "1.0")]
    {
        let found = world.other.find_artifact(registry, &package.parse().unwrap(), &version.parse().unwrap()).await;
        assert_eq!(found.unwrap(), None, "{package} {version}");
    }
    assert_eq!(world.review(at(1_000_000)).await, (0, 0));
    assert_eq!(ledger(&world, &digest.plain_key()).await, Some(ObjectState::Live));
}

/// Of two that publish the same version the second is refused: its session ends, its object is doomed.
pub async fn a_version_that_exists_stays_as_it_is(subject: &impl Subject) {
    let world = World::new(subject).await;
    let (one, two) = (world.open_version("p", "1").await, world.open_version("p", "1").await);
    let key_of_one = world.seal_to_publish(&one, "one").await;
    let key_of_two = world.seal_to_publish(&two, "two").await;
    let commit = async |session: &UploadSession, content: &[u8]| {
        world.store.commit_upload(session.id, &Digest::sha256(content), at(9), at(5)).await.unwrap()
    };
    assert_eq!(commit(&one, b"one").await, CommitOutcome::Committed);
    assert_eq!(commit(&two, b"two").await, CommitOutcome::VersionExists);
    assert_eq!(session(&world, &two).await.state, UploadState::Ended);
    assert_eq!(commit(&two, b"two").await, CommitOutcome::Superseded);

    let (package, version) = ("p".parse().unwrap(), "1".parse().unwrap());
    let found = world.other.find_artifact(world.generic, &package, &version).await.unwrap().unwrap();
    assert_eq!((found.0.digest, found.1), (Digest::sha256(b"one"), key_of_one));
    let entry = LedgerEntry { key: key_of_two.clone(), state: ObjectState::Doomed, since: at(5), blob: None };
    assert_eq!(world.other.ledger_entry(&key_of_two).await.unwrap(), Some(entry));
    let summary = &world.other.packages(world.generic, &Default::default(), None, 10).await.unwrap()[0];
    assert_eq!(summary.version_count, 1);
    // The bytes were not stored: another publisher of them sends them anew.
    let three = world.open_version("p", "2").await;
    assert_ne!(world.seal_to_publish(&three, "two").await, key_of_two);
}

/// Known when sealing; then nothing is reserved, either.
pub async fn a_version_that_exists_stays_when_its_bytes_are_stored(subject: &impl Subject) {
    let world = World::new(subject).await;
    let digest = world.publish_at("p", "1", "one", at(5)).await;
    world.publish_at("q", "1", "two", at(5)).await;
    for content in ["one", "two"] {
        let opened = world.open_version("p", "1").await;
        let outcome = world.store.seal_upload(seal_of(&opened, content, at(9)), at(6)).await.unwrap();
        assert_eq!(outcome, SealOutcome::AlreadyStored(CommitOutcome::VersionExists));
        assert_eq!(session(&world, &opened).await.state, UploadState::Ended);
    }
    let (package, version) = ("p".parse().unwrap(), "1".parse().unwrap());
    let found = world.other.find_artifact(world.generic, &package, &version).await.unwrap().unwrap();
    assert_eq!((found.0.digest, found.0.uploaded_at), (digest, at(5)));
    let entries = world.other.ledger_page(None, 10).await.unwrap();
    assert!(entries.len() == 2 && entries.iter().all(|entry| entry.state == ObjectState::Live), "{entries:?}");
}

/// Neither shorter nor longer.
pub async fn a_commit_leases_as_long_as_it_was_asked(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let opened = world.open_blob(&repository).await;
    // What counts is what the commit says, not what the seal said.
    assert!(matches!(world.seal(&opened, "bytes", at(5)).await, SealOutcome::Publish(_)));
    let digest = Digest::sha256(b"bytes");
    world.store.commit_upload(opened.id, &digest, at(50), at(1)).await.unwrap();
    world.assert_leased_until(&repository, &digest, at(50)).await;
}

/// A lease is prolonged and never shortened; a reviewed membership needs none.
pub async fn a_commit_leaves_longer_leases_and_reviewed_memberships(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let digest = world.push_until(&repository, "prolonged", at(10)).await;
    world.push_until(&repository, "prolonged", at(20)).await;
    world.assert_leased_until(&repository, &digest, at(20)).await;
    let digest = world.push_until(&repository, "kept", at(50)).await;
    world.push_until(&repository, "kept", at(40)).await;
    world.assert_leased_until(&repository, &digest, at(50)).await;

    let digest = world.push_until(&repository, "reviewed", at(60)).await;
    world.put(image(&repository, "names it", &[&digest])).await;
    assert_eq!(world.review(at(60)).await, (1, 0));
    world.push_until(&repository, "reviewed", at(70)).await;
    assert_eq!(world.review(at(1_000_000)).await, (0, 0));
    assert!(world.holds_blob(&repository, &digest).await);
}

/// It is in no repository, and no collection takes it, as it is no candidate.
pub async fn a_blob_can_be_stored_that_nothing_refers_to(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let digest = Digest::sha256(b"bytes");
    // By publishing it, and where it is stored already.
    for _ in 0..2 {
        let opened = world.open(UploadTarget::Unreferenced, at(0)).await;
        assert_eq!(session(&world, &opened).await, opened);
        assert_eq!(world.finish(&opened, "bytes", at(9), at(5)).await, CommitOutcome::Committed);
        let done = session(&world, &opened).await;
        assert_eq!(
            (done.target, done.state),
            (UploadTarget::Unreferenced, UploadState::Done { digest: digest.clone() })
        );
        assert_eq!(ledger(&world, &digest.plain_key()).await, Some(ObjectState::Live));
        assert!(!world.holds_blob(&repository, &digest).await);
        assert_eq!(world.store.review_memberships(at(1_000), 10).await.unwrap(), ReviewBatch::default());
        assert_eq!(world.store.garbage_candidates(10).await.unwrap(), []);
    }
    assert_eq!(world.push(&repository, "bytes").await, digest);
    assert!(world.holds_blob(&repository, &digest).await);
}

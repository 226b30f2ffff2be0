//! Several at once: each case asks for all answers at the same time, of two instances of the store.

use futures_util::FutureExt;
use futures_util::future::{join, join_all};

use super::world::{image, step, texts, with_tags};
use super::{Subject, World, at};
use crate::digest::Digest;
use crate::ports::metadata::Metadata;
use crate::ports::metadata::ledger::ObjectState;
use crate::ports::metadata::uploads::{BeginWrite, CommitOutcome, WriteStart};
use crate::upload::UploadState;

const MANY: usize = 16;

impl World {
    /// The one instance or the other.
    pub(super) fn replica(&self, number: usize) -> &dyn Metadata {
        if number.is_multiple_of(2) { &*self.store } else { &*self.other }
    }
}

/// The others' objects are doomed, and every repository has the one.
pub async fn one_object_becomes_the_blob_of_many_sessions(subject: &impl Subject) {
    let world = World::new(subject).await;
    let digest = Digest::sha256(b"bytes");
    let mut sessions = Vec::new();
    for number in 0..MANY {
        let repository = world.repository(&format!("team/app{}", number % 5));
        let session = world.open_blob(&repository).await;
        let key = world.seal_to_publish(&session, "bytes").await;
        sessions.push((repository, session, key));
    }
    let commits = sessions
        .iter()
        .enumerate()
        .map(|(number, (_, session, _))| world.replica(number).commit_upload(session.id, &digest, at(9), at(5)));
    for outcome in join_all(commits).await {
        assert_eq!(outcome.unwrap(), CommitOutcome::Committed);
    }
    let entries = world.other.ledger_page(None, 100).await.unwrap();
    assert_eq!(entries.len(), MANY);
    let (live, doomed): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.state == ObjectState::Live);
    assert_eq!(live.len(), 1);
    assert!(doomed.iter().all(|entry| entry.state == ObjectState::Doomed), "{doomed:?}");
    for (repository, session, _) in &sessions {
        let blob = world.other.find_blob(repository, &digest).await.unwrap().unwrap();
        assert_eq!(blob.key, live[0].key);
        let session = world.other.find_upload(session.id).await.unwrap().unwrap();
        assert_eq!(session.state, UploadState::Done { digest: digest.clone() });
    }
}

/// The others are told that it exists, and their objects are doomed.
pub async fn one_of_many_publishes_a_version(subject: &impl Subject) {
    let world = World::new(subject).await;
    let mut sessions = Vec::new();
    for number in 0..MANY {
        let session = world.open_version("p", "1").await;
        let content = format!("bytes {number}");
        world.seal_to_publish(&session, &content).await;
        sessions.push((session, Digest::sha256(content.as_bytes())));
    }
    let commits = sessions
        .iter()
        .enumerate()
        .map(|(number, (session, digest))| world.replica(number).commit_upload(session.id, digest, at(9), at(5)));
    let outcomes: Vec<CommitOutcome> = join_all(commits).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<usize> = (0..MANY).filter(|number| outcomes[*number] == CommitOutcome::Committed).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == CommitOutcome::VersionExists).count(), MANY - 1);
    let found = world.other.find_artifact(world.generic, &"p".parse().unwrap(), &"1".parse().unwrap()).await;
    let (artifact, key) = found.unwrap().unwrap();
    assert_eq!(artifact.digest, sessions[winners[0]].1);
    for entry in world.other.ledger_page(None, 100).await.unwrap() {
        let expected = if entry.key == key { ObjectState::Live } else { ObjectState::Doomed };
        assert_eq!(entry.state, expected);
    }
}

/// Of those, the last records and no other.
pub async fn writers_at_once_get_epochs_of_their_own(subject: &impl Subject) {
    let world = World::new(subject).await;
    let session = world.open_blob(&world.repository("team/app")).await;
    let begins =
        (0..MANY).map(|number| world.replica(number).begin_write(session.id, WriteStart::AtTold, at(number as i64)));
    let mut begun = Vec::new();
    for outcome in join_all(begins).await {
        match outcome.unwrap() {
            BeginWrite::Started(session) => begun.push(session),
            other => panic!("{other:?}"),
        }
    }
    let mut epochs: Vec<i64> = begun.iter().map(|session| session.epoch.0).collect();
    epochs.sort_unstable();
    assert_eq!(epochs, (2..2 + MANY as i64).collect::<Vec<_>>());
    let steps = begun
        .iter()
        .enumerate()
        .map(|(number, session)| world.replica(number).checkpoint_upload(step(session, 10 + number as u64), at(50)));
    let recorded: Vec<bool> = join_all(steps).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(recorded.iter().filter(|recorded| **recorded).count(), 1);
    let winner = recorded.iter().position(|recorded| *recorded).unwrap();
    assert_eq!(begun[winner].epoch.0, 1 + MANY as i64);
}

/// Either the blob is there, or the object is doomed.
pub async fn commit_and_end_at_once_agree(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    for round in 0..20 {
        let content = format!("bytes {round}");
        let digest = Digest::sha256(content.as_bytes());
        let session = world.open_blob(&repository).await;
        let key = world.seal_to_publish(&session, &content).await;
        let commit = world.replica(round).commit_upload(session.id, &digest, at(9), at(5));
        let end = world.replica(round + 1).end_upload(session.id, None, at(5));
        let (committed, ended) = if round % 4 < 2 {
            join(commit, end).await
        } else {
            let (ended, committed) = join(end, commit).await;
            (committed, ended)
        };
        let committed = committed.unwrap() == CommitOutcome::Committed;
        assert_ne!(committed, ended.unwrap().is_some(), "round {round}");
        assert_eq!(world.holds_blob(&repository, &digest).await, committed);
        let state = world.other.ledger_entry(&key).await.unwrap().unwrap().state;
        assert_eq!(state, if committed { ObjectState::Live } else { ObjectState::Doomed });
    }
}

/// Dropped after it has begun.
pub async fn a_dropped_intention_happens_whole_or_not_at_all(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    for round in 0..20 {
        let text = format!("manifest {round}");
        let tags = [format!("a{round}"), format!("b{round}")];
        let new = with_tags(image(&repository, &text, &[]), &[&tags[0], &tags[1]]);
        let digest = new.digest.clone();
        // Polled once, and dropped.
        let _ = world.store.put_manifest(new, at(0)).now_or_never();
        // What comes after it finds either all of it or nothing, and works.
        world.store.set_job_cursor("next", Some(&text)).await.unwrap();
        let found = [
            world.resolve(&repository, &tags[0]).await.is_some(),
            world.resolve(&repository, &tags[1]).await.is_some(),
            world.holds_manifest(&repository, &digest).await,
        ];
        // It may come between two of these questions, and then it came whole: nothing that is asked for later is missing.
        assert!(found.is_sorted(), "round {round}: {found:?}");
        assert_eq!(world.other.job_cursor("next").await.unwrap(), Some(text));
    }
}

/// On another replica, at once.
pub async fn reads_see_every_acknowledged_write(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let rounds = (0..MANY).map(async |task| {
        for round in 0..10 {
            let tag = format!("{task}-{round}");
            let digest = world.tagged(&repository, &tag, &[&tag]).await;
            assert_eq!(world.resolve(&repository, &tag).await, Some(digest));
        }
    });
    join_all(rounds).await;
    let tags = world.other.tags(&repository, None, 1_000).await.unwrap().unwrap();
    assert_eq!(texts(tags).len(), MANY * 10);
}

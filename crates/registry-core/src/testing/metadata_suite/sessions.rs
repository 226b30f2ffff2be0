//! Upload sessions from their beginning to their end, without the blob that they become.

use super::world::{checkpoint, seal_of, step, target};
use super::{CandidatesOf, Subject, World, at};
use crate::digest::Digest;
use crate::ports::metadata::ledger::ObjectState;
use crate::ports::metadata::uploads::{
    BeginWrite, CheckpointStep, CommitOutcome, CreateUpload, NewUpload, SealOutcome, WriteStart,
};
use crate::upload::{Checkpoint, Epoch, UploadSession, UploadState};

/// It reads back as it was made, for both kinds of target.
pub async fn a_new_session_is_open_and_empty(subject: &impl Subject) {
    let world = World::new(subject).await;
    let targets = [target(&world.repository("team/app")), world.version("Package", "1.0.0+build~1")];
    for (target, writing, sha512) in
        [(&targets[0], true, true), (&targets[0], false, false), (&targets[1], true, false)]
    {
        let new = NewUpload { id: world.id(), target: target.clone(), start: Checkpoint::start(sha512), writing };
        let id = new.id;
        assert_eq!(world.store.find_upload(id).await.unwrap(), None);
        let created = world.store.create_upload(new, at(7)).await.unwrap();
        let expected = UploadSession {
            id,
            target: target.clone(),
            state: UploadState::Open,
            epoch: Epoch(i64::from(writing)),
            durable: Checkpoint::start(sha512),
            told: Checkpoint::start(sha512),
            touched_at: at(7),
        };
        assert_eq!(created, CreateUpload::Created(expected.clone()));
        assert_eq!(world.other.find_upload(id).await.unwrap(), Some(expected));
    }
}

/// So that a client may ask for the tags that are not there yet.
pub async fn a_repository_exists_from_its_first_upload(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    assert_eq!(world.other.tags(&repository, None, 10).await.unwrap(), None);
    world.open_blob(&repository).await;
    assert_eq!(world.other.tags(&repository, None, 10).await.unwrap(), Some(Vec::new()));
    assert_eq!(world.other.tags(&world.repository("team/other"), None, 10).await.unwrap(), None);
}

/// Records `to` by the session's newest writer, and gives the session as it is then.
async fn advance(world: &World, session: &UploadSession, to: u64, tell: bool) -> UploadSession {
    let step = CheckpointStep { tell, ..step(session, to) };
    assert!(world.store.checkpoint_upload(step, at(1)).await.unwrap());
    world.other.find_upload(session.id).await.unwrap().unwrap()
}

fn started(outcome: BeginWrite) -> UploadSession {
    match outcome {
        BeginWrite::Started(session) => session,
        other => panic!("{other:?}"),
    }
}

/// The offset, the hashes and the staging go back together.
pub async fn a_writer_begins_where_the_client_was_told(subject: &impl Subject) {
    let world = World::new(subject).await;
    let session = world.open_blob(&world.repository("team/app")).await;
    let session = advance(&world, &session, 10, true).await;
    let session = advance(&world, &session, 25, false).await;
    assert_eq!((&session.durable, &session.told), (&checkpoint(25), &checkpoint(10)));

    let begun = started(world.store.begin_write(session.id, WriteStart::AtTold, at(5)).await.unwrap());
    let expected = UploadSession { epoch: Epoch(2), durable: checkpoint(10), touched_at: at(5), ..session.clone() };
    assert_eq!(begun, expected);
    assert_eq!(world.other.find_upload(session.id).await.unwrap(), Some(expected));
    // The writer before has lost, wherever it was.
    assert!(!world.store.checkpoint_upload(step(&session, 30), at(6)).await.unwrap());
}

/// Then nothing but the epoch changes.
pub async fn a_writer_begins_at_the_durable_offset(subject: &impl Subject) {
    let world = World::new(subject).await;
    let session = world.open_blob(&world.repository("team/app")).await;
    let session = advance(&world, &session, 25, false).await;
    let begun = started(world.store.begin_write(session.id, WriteStart::At(25), at(5)).await.unwrap());
    let expected = UploadSession { epoch: Epoch(2), touched_at: at(5), ..session.clone() };
    assert_eq!(begun, expected);
    assert_eq!(world.other.find_upload(session.id).await.unwrap(), Some(expected));
}

/// Before and behind it; the epoch does not change, and the client may go on from there.
pub async fn a_writer_elsewhere_is_told_the_durable_offset(subject: &impl Subject) {
    let world = World::new(subject).await;
    for wrong in [0, 24, 26, u64::from(u32::MAX) * 100] {
        let session = world.open_blob(&world.repository("team/app")).await;
        let session = advance(&world, &session, 25, false).await;
        let refused = world.store.begin_write(session.id, WriteStart::At(wrong), at(5)).await.unwrap();
        let expected = UploadSession { told: checkpoint(25), touched_at: at(5), ..session.clone() };
        assert_eq!(refused, BeginWrite::OutOfOrder(expected.clone()), "{wrong}");
        assert_eq!(world.other.find_upload(session.id).await.unwrap(), Some(expected));
        // The writer before still writes.
        assert!(world.store.checkpoint_upload(step(&session, 30), at(6)).await.unwrap());
        let begun = started(world.store.begin_write(session.id, WriteStart::AtTold, at(7)).await.unwrap());
        assert_eq!(begun.durable, checkpoint(25));
    }
}

/// Finalising, done, ended or not there; and the attempt changes nothing.
pub async fn no_writer_begins_when_the_session_is_not_open(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let finalising = world.open_blob(&repository).await;
    world.seal_to_publish(&finalising, "one").await;
    let done = world.open_blob(&repository).await;
    assert_eq!(world.finish(&done, "two", at(9), at(0)).await, CommitOutcome::Committed);
    let ended = world.open_blob(&repository).await;
    world.store.end_upload(ended.id, None, at(1)).await.unwrap();
    for id in [finalising.id, done.id, ended.id] {
        let before = world.other.find_upload(id).await.unwrap().unwrap();
        assert_ne!(before.state, UploadState::Open);
        for start in [WriteStart::AtTold, WriteStart::At(0), WriteStart::At(3)] {
            let refused = world.store.begin_write(id, start, at(5)).await.unwrap();
            assert_eq!(refused, BeginWrite::NotOpen(before.clone()));
        }
        assert!(!world.store.checkpoint_upload(step(&before, 30), at(5)).await.unwrap());
        assert_eq!(world.store.tell_upload(id, at(5)).await.unwrap(), Some(before.clone()));
        assert_eq!(world.other.find_upload(id).await.unwrap(), Some(before));
    }
    let unknown = world.id();
    assert_eq!(world.store.begin_write(unknown, WriteStart::AtTold, at(5)).await.unwrap(), BeginWrite::Unknown);
    assert_eq!(world.store.begin_write(unknown, WriteStart::At(0), at(5)).await.unwrap(), BeginWrite::Unknown);
    assert_eq!(world.store.tell_upload(unknown, at(5)).await.unwrap(), None);
}

/// The epoch and the offset are compared, and nothing is recorded when one differs.
pub async fn only_the_newest_writer_records(subject: &impl Subject) {
    let world = World::new(subject).await;
    let session = world.open_blob(&world.repository("team/app")).await;
    let session = advance(&world, &session, 10, false).await;
    assert_eq!((&session.durable, &session.told), (&checkpoint(10), &Checkpoint::start(false)));
    assert_eq!(session.touched_at, at(1));
    let good = step(&session, 20);
    for (epoch, from) in [(Epoch(0), 10), (Epoch(2), 10), (Epoch(1), 0), (Epoch(1), 9), (Epoch(1), 11), (Epoch(1), 20)]
    {
        let bad = CheckpointStep { epoch, from, tell: true, ..good.clone() };
        assert!(!world.store.checkpoint_upload(bad, at(5)).await.unwrap(), "{epoch:?} {from}");
        assert_eq!(world.other.find_upload(session.id).await.unwrap(), Some(session.clone()));
    }
    let unknown = CheckpointStep { id: world.id(), ..good.clone() };
    assert!(!world.store.checkpoint_upload(unknown, at(5)).await.unwrap());
    assert!(world.store.checkpoint_upload(good, at(6)).await.unwrap());
    let now = world.other.find_upload(session.id).await.unwrap().unwrap();
    assert_eq!(now, UploadSession { durable: checkpoint(20), touched_at: at(6), ..session });
}

/// By a checkpoint that tells, or by being asked.
pub async fn telling_moves_the_beginning(subject: &impl Subject) {
    let world = World::new(subject).await;
    let session = world.open_blob(&world.repository("team/app")).await;
    let session = advance(&world, &session, 10, true).await;
    assert_eq!((&session.durable, &session.told), (&checkpoint(10), &checkpoint(10)));
    let session = advance(&world, &session, 20, false).await;
    assert_eq!((&session.durable, &session.told), (&checkpoint(20), &checkpoint(10)));
    let told = world.store.tell_upload(session.id, at(9)).await.unwrap();
    let expected = UploadSession { told: checkpoint(20), touched_at: at(9), ..session.clone() };
    assert_eq!(told, Some(expected.clone()));
    assert_eq!(world.other.find_upload(session.id).await.unwrap(), Some(expected));
}

/// What was reserved for it is doomed, and whoever comes later is refused.
pub async fn an_open_or_finalising_session_can_be_ended(subject: &impl Subject) {
    let world = World::new(subject).await;
    let open = world.open_blob(&world.repository("team/app")).await;
    let sealed = world.open_blob(&world.repository("team/app")).await;
    let key = world.seal_to_publish(&sealed, "bytes").await;
    for session in [open, sealed] {
        let before = world.other.find_upload(session.id).await.unwrap().unwrap();
        // Touched at 0: not before that, so it is not idle.
        assert_eq!(world.store.end_upload(session.id, Some(at(0)), at(3)).await.unwrap(), None);
        assert_eq!(world.other.find_upload(session.id).await.unwrap(), Some(before.clone()));

        assert_eq!(world.store.end_upload(session.id, None, at(3)).await.unwrap(), Some(before.clone()));
        let ended = UploadSession { state: UploadState::Ended, ..before.clone() };
        assert_eq!(world.other.find_upload(session.id).await.unwrap(), Some(ended.clone()));
        for idle_before in [None, Some(at(0)), Some(at(100))] {
            assert_eq!(world.store.end_upload(session.id, idle_before, at(4)).await.unwrap(), Some(ended.clone()));
        }
        let digest = Digest::sha256(b"bytes");
        let commit = world.store.commit_upload(session.id, &digest, at(9), at(4)).await.unwrap();
        assert_eq!(commit, CommitOutcome::Superseded);
        let seal = world.store.seal_upload(seal_of(&session, "bytes", at(9)), at(4)).await.unwrap();
        assert_eq!(seal, SealOutcome::Superseded);
    }
    assert_eq!(world.other.ledger_entry(&key).await.unwrap().unwrap().state, ObjectState::Doomed);
    assert_eq!(world.store.end_upload(world.id(), None, at(3)).await.unwrap(), None);
    assert_eq!(world.other.ledger_page(None, 10).await.unwrap().len(), 1);
}

/// It answers the same request again until then, and its blob stays.
pub async fn a_done_session_ends_only_when_idle(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let session = world.open_blob(&repository).await;
    assert_eq!(world.finish(&session, "bytes", at(9), at(5)).await, CommitOutcome::Committed);
    let done = world.other.find_upload(session.id).await.unwrap().unwrap();
    assert_eq!(done.touched_at, at(5));
    let digest = Digest::sha256(b"bytes");
    assert_eq!(done.state, UploadState::Done { digest: digest.clone() });
    assert_eq!(world.store.end_upload(session.id, None, at(6)).await.unwrap(), None);
    assert_eq!(world.store.end_upload(session.id, Some(at(5)), at(6)).await.unwrap(), None);
    assert_eq!(world.other.find_upload(session.id).await.unwrap(), Some(done.clone()));
    assert_eq!(world.store.end_upload(session.id, Some(at(6)), at(6)).await.unwrap(), Some(done));
    assert_eq!(world.other.find_upload(session.id).await.unwrap().unwrap().state, UploadState::Ended);
    assert!(world.holds_blob(&repository, &digest).await);
    assert_eq!(world.other.ledger_entry(&digest.plain_key()).await.unwrap().unwrap().state, ObjectState::Live);
}

/// Any other is left.
pub async fn only_an_ended_session_is_removed(subject: &impl Subject) {
    let world = World::new(subject).await;
    let repository = world.repository("team/app");
    let open = world.open_blob(&repository).await;
    let finalising = world.open_blob(&repository).await;
    world.seal_to_publish(&finalising, "one").await;
    let done = world.open_blob(&repository).await;
    world.finish(&done, "two", at(9), at(0)).await;
    for id in [open.id, finalising.id, done.id] {
        world.store.remove_upload(id).await.unwrap();
        assert!(world.other.find_upload(id).await.unwrap().is_some());
    }
    world.store.end_upload(open.id, None, at(1)).await.unwrap();
    world.store.remove_upload(open.id).await.unwrap();
    assert_eq!(world.other.find_upload(open.id).await.unwrap(), None);
    world.store.remove_upload(open.id).await.unwrap();
}

/// A session touched at the limit itself is not idle.
pub async fn idle_and_ended_sessions_are_listed_oldest_first(subject: &impl Subject) {
    let world = World::new(subject).await;
    let target = target(&world.repository("team/app"));
    let mut ids = Vec::new();
    for seconds in [40, 10, 30, 20, 50] {
        ids.push(world.open(target.clone(), at(seconds)).await.id);
    }
    let [forty, ten, thirty, twenty, fifty] = ids[..] else { unreachable!() };
    let idle = async |before, limit| world.other.idle_uploads(before, limit).await.unwrap();
    assert_eq!(idle(at(10), 10).await, []);
    assert_eq!(idle(at(30), 10).await, [ten, twenty]);
    assert_eq!(idle(at(100), 10).await, [ten, twenty, thirty, forty, fifty]);
    assert_eq!(idle(at(100), 2).await, [ten, twenty]);

    world.store.end_upload(forty, None, at(60)).await.unwrap();
    world.store.end_upload(ten, None, at(60)).await.unwrap();
    assert_eq!(idle(at(0), 10).await, [ten, forty]);
    assert_eq!(idle(at(25), 10).await, [ten, twenty, forty]);
    assert_eq!(idle(at(25), 1).await, [ten]);
    assert_eq!(idle(at(100), 10).await, [ten, twenty, thirty, forty, fifty]);

    world.store.remove_upload(ten).await.unwrap();
    world.store.begin_write(twenty, WriteStart::AtTold, at(45)).await.unwrap();
    assert_eq!(idle(at(46), 10).await, [thirty, forty, twenty]);
    world.store.tell_upload(thirty, at(46)).await.unwrap();
    assert_eq!(idle(at(46), 10).await, [forty, twenty]);
}

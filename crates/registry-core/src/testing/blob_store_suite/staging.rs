//! Appending.

use bytes::Bytes;
use futures_util::future::join;

use super::{Staged, Subject, assert_same, assert_staged, bytes};
use crate::ports::blob_store::{AppendError, BlobStore};

/// Pieces of any length, many of one byte, are the upload in their order.
pub async fn pieces_come_together_in_order(subject: &impl Subject) {
    let store = subject.store();
    let expected = bytes(1, 3_000_000);
    let mut staged = Staged::new(1);
    let mut writer = store.append(staged.id, 0, &staged.staging).await.unwrap();
    let (mut rest, mut lengths) = (Bytes::from(expected.clone()), [1, 0, 700_000, 1, 2, 4096, 65_536].iter().cycle());
    while !rest.is_empty() {
        let length = rest.len().min(*lengths.next().unwrap());
        writer.write(rest.split_to(length)).await.unwrap();
    }
    staged.staging = writer.checkpoint().await.unwrap();
    drop(writer);
    staged.offset = expected.len() as u64;
    assert_same(&staged.bytes(store.as_ref()).await, &expected, "the staged bytes");
    assert_same(&staged.first(store.as_ref(), 700_003).await.unwrap(), &expected[..700_003], "the first of them");

    let mut staged = Staged::new(2);
    let mut writer = store.append(staged.id, 0, &staged.staging).await.unwrap();
    for byte in &expected[..20_000] {
        writer.write(Bytes::copy_from_slice(std::slice::from_ref(byte))).await.unwrap();
    }
    staged.staging = writer.checkpoint().await.unwrap();
    drop(writer);
    staged.offset = 20_000;
    assert_same(&staged.bytes(store.as_ref()).await, &expected[..20_000], "bytes one by one");
}

/// An upload without bytes can be checkpointed, and appended to afterwards.
pub async fn nothing_at_all_can_be_staged(subject: &impl Subject) {
    let store = subject.store();
    let mut staged = Staged::of(store.as_ref(), 1, b"").await;
    assert_eq!(staged.bytes(store.as_ref()).await, b"");
    staged.append(store.as_ref(), b"then some").await;
    staged.append(store.as_ref(), b"").await;
    assert_eq!(staged.bytes(store.as_ref()).await, b"then some");
}

/// Going back to an earlier checkpoint removes what came after it.
pub async fn what_lies_beyond_the_offset_is_cut_off(subject: &impl Subject) {
    let store = subject.store();
    let mut staged = Staged::of(store.as_ref(), 1, &bytes(1, 40)).await;
    let earlier = staged.staging.clone();
    staged.append(store.as_ref(), &bytes(2, 60)).await;
    (staged.offset, staged.staging) = (40, earlier);
    staged.append(store.as_ref(), &bytes(3, 10)).await;
    assert_eq!(staged.bytes(store.as_ref()).await, [bytes(1, 40), bytes(3, 10)].concat());
    assert!(matches!(staged.first(store.as_ref(), 51).await, Err(AppendError::Lost)));

    // Back to the very beginning.
    (staged.offset, staged.staging) = (0, Default::default());
    staged.append(store.as_ref(), b"new").await;
    assert_eq!(staged.bytes(store.as_ref()).await, b"new");
    assert!(matches!(staged.first(store.as_ref(), 4).await, Err(AppendError::Lost)));
}

/// The cut belongs to the checkpoint, not to the first byte.
pub async fn a_writer_that_writes_nothing_cuts_off_too(subject: &impl Subject) {
    let store = subject.store();
    let mut staged = Staged::of(store.as_ref(), 1, &bytes(1, 40)).await;
    let earlier = staged.staging.clone();
    staged.append(store.as_ref(), &bytes(2, 60)).await;
    (staged.offset, staged.staging) = (40, earlier);
    staged.append(store.as_ref(), b"").await;
    assert_eq!(staged.bytes(store.as_ref()).await, bytes(1, 40));
    assert!(matches!(staged.first(store.as_ref(), 41).await, Err(AppendError::Lost)));
}

/// A store that has less than the row says has lost the upload; asking changes nothing.
pub async fn fewer_bytes_than_the_offset_are_lost_and_stay_as_they_are(subject: &impl Subject) {
    let store = subject.store();
    let nothing = Staged::new(1);
    assert!(matches!(store.append(nothing.id, 1, &nothing.staging).await, Err(AppendError::Lost)));
    assert!(matches!(nothing.first(store.as_ref(), 1).await, Err(AppendError::Lost)));

    let staged = Staged::of(store.as_ref(), 2, &bytes(1, 10)).await;
    assert!(matches!(store.append(staged.id, 11, &staged.staging).await, Err(AppendError::Lost)));
    assert!(matches!(staged.first(store.as_ref(), 11).await, Err(AppendError::Lost)));
    assert_eq!(staged.bytes(store.as_ref()).await, bytes(1, 10));
    assert_staged(subject, &[staged.id]).await;
}

/// What a checkpoint made durable needs neither the writer nor the store that wrote it.
pub async fn a_checkpoint_is_seen_by_another_replica(subject: &impl Subject) {
    let (one, other) = (subject.store(), subject.store());
    let mut staged = Staged::new(1);
    let mut writer = one.append(staged.id, 0, &staged.staging).await.unwrap();
    writer.write(bytes(1, 700_000).into()).await.unwrap();
    staged.staging = writer.checkpoint().await.unwrap();
    staged.offset = 700_000;
    // The writer is still there, and has not been told that this is the end.
    assert_same(&staged.bytes(other.as_ref()).await, &bytes(1, 700_000), "what another replica reads");
    drop(writer);
    drop(one);
    staged.append(other.as_ref(), &bytes(2, 5)).await;
    assert_same(&staged.bytes(other.as_ref()).await, &[bytes(1, 700_000), bytes(2, 5)].concat(), "after going on");
}

/// Whether they were stored or not, they are not in the way of whoever goes on from the checkpoint.
pub async fn bytes_after_the_last_checkpoint_do_no_harm(subject: &impl Subject) {
    let store = subject.store();
    let mut staged = Staged::of(store.as_ref(), 1, &bytes(1, 1000)).await;
    let mut writer = store.append(staged.id, staged.offset, &staged.staging).await.unwrap();
    writer.write(bytes(2, 2_000_000).into()).await.unwrap();
    drop(writer);
    staged.append(subject.store().as_ref(), &bytes(3, 500)).await;
    assert_eq!(staged.bytes(store.as_ref()).await, [bytes(1, 1000), bytes(3, 500)].concat());
    assert!(matches!(staged.first(store.as_ref(), 1501).await, Err(AppendError::Lost)));
}

/// While a writer lives, another one is refused after a while, whichever replica it is on, and disturbs nothing.
pub async fn a_second_writer_is_kept_away(subject: &impl Subject) {
    let store = subject.store();
    let mut staged = Staged::new(1);
    if !subject.excludes_writers() {
        return both_writers_have_their_own(store.as_ref(), subject.store().as_ref(), staged).await;
    }
    let mut writer = store.append(staged.id, 0, &staged.staging).await.unwrap();
    writer.write(bytes(1, 100).into()).await.unwrap();
    for second in [store.clone(), subject.store()] {
        assert!(matches!(second.append(staged.id, 0, &staged.staging).await, Err(AppendError::Busy)));
    }
    writer.write(bytes(2, 100).into()).await.unwrap();
    staged.staging = writer.checkpoint().await.unwrap();
    staged.offset = 200;
    assert!(matches!(subject.store().append(staged.id, 100, &staged.staging).await, Err(AppendError::Busy)));
    drop(writer);
    assert_eq!(staged.bytes(store.as_ref()).await, [bytes(1, 100), bytes(2, 100)].concat());
    staged.append(subject.store().as_ref(), b"free again").await;
}

/// Both go on from the same checkpoint; what each is told of is what it wrote itself.
async fn both_writers_have_their_own(store: &dyn BlobStore, other: &dyn BlobStore, mut staged: Staged) {
    staged.append(store, &bytes(1, 100)).await;
    let mut one = store.append(staged.id, 100, &staged.staging).await.unwrap();
    let mut two = other.append(staged.id, 100, &staged.staging).await.unwrap();
    one.write(bytes(2, 50).into()).await.unwrap();
    two.write(bytes(3, 60).into()).await.unwrap();
    let (first, second) = (one.checkpoint().await.unwrap(), two.checkpoint().await.unwrap());
    one.write(bytes(4, 10).into()).await.unwrap();
    let third = one.checkpoint().await.unwrap();
    for (offset, staging, expected) in [
        (100, staged.staging, bytes(1, 100)),
        (150, first, [bytes(1, 100), bytes(2, 50)].concat()),
        (160, second, [bytes(1, 100), bytes(3, 60)].concat()),
        (160, third, [bytes(1, 100), bytes(2, 50), bytes(4, 10)].concat()),
    ] {
        let staged = Staged { id: staged.id, offset, staging };
        assert_same(&staged.bytes(other).await, &expected, "a checkpoint");
    }
}

/// A second writer goes on as soon as the first lets go.
pub async fn a_waiting_writer_gets_its_turn(subject: &impl Subject) {
    let (one, other) = (subject.store(), subject.store());
    let mut staged = Staged::of(one.as_ref(), 1, b"first ").await;
    let writer = one.append(staged.id, staged.offset, &staged.staging).await.unwrap();
    let lets_go = async {
        // The other one has tried at least once by then, because `join` asks it first.
        tokio::task::yield_now().await;
        drop(writer);
    };
    let (second, ()) = join(other.append(staged.id, staged.offset, &staged.staging), lets_go).await;
    let mut second = second.expect("the first writer let go");
    second.write(Bytes::from_static(b"second")).await.unwrap();
    staged.staging = second.checkpoint().await.unwrap();
    staged.offset += 6;
    assert_eq!(staged.bytes(one.as_ref()).await, b"first second");
}

/// A write that is under way when its writer is dropped does not reach the bytes of the next one.
pub async fn a_writer_dropped_in_the_middle_writes_nothing_more(subject: &impl Subject) {
    let (one, other) = (subject.store(), subject.store());
    for round in 0..8 {
        let mut staged = Staged::new(round);
        let mut writer = one.append(staged.id, 0, &staged.staging).await.unwrap();
        writer.write(Bytes::from(vec![b'a'; 1_500_000])).await.unwrap();
        drop(writer);
        staged.append(other.as_ref(), &vec![b'b'; 1_400_000]).await;
        assert_same(&staged.bytes(one.as_ref()).await, &vec![b'b'; 1_400_000], "the second writer's bytes");
        assert!(matches!(staged.first(one.as_ref(), 1_400_001).await, Err(AppendError::Lost)));
    }
}

/// Writers of different uploads neither wait for each other nor mix.
pub async fn uploads_do_not_touch_each_other(subject: &impl Subject) {
    let store = subject.store();
    let mut uploads = Vec::new();
    for number in 0..5u8 {
        let staged = Staged::new(number);
        let writer = store.append(staged.id, 0, &staged.staging).await.unwrap();
        uploads.push((number, staged, writer));
    }
    for _ in 0..30 {
        for (number, _, writer) in &mut uploads {
            writer.write(Bytes::from(vec![*number; 50_000])).await.unwrap();
        }
    }
    for (number, mut staged, mut writer) in uploads {
        staged.staging = writer.checkpoint().await.unwrap();
        drop(writer);
        staged.offset = 1_500_000;
        assert_same(&staged.bytes(store.as_ref()).await, &vec![number; 1_500_000], "an upload");
    }
}

//! Reading objects.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt};

use super::{Staged, Subject, assert_same, bytes, contents, object};
use crate::digest::Digest;

/// What is not there is no error.
pub async fn an_absent_object_is_none(subject: &impl Subject) {
    let store = subject.store();
    let staged = Staged::new(1);
    let staged =
        if subject.stages_in_objects() { staged } else { Staged::of(store.as_ref(), 1, b"staged is not there").await };
    for number in [0, 1, 7] {
        let candidates = staged.candidates(store.as_ref(), &Digest::sha256(b"staged is not there"));
        let key = subject.nth(&candidates, number);
        assert!(store.open(&key).await.unwrap().is_none());
        assert_eq!(store.size_of(&key).await.unwrap(), None);
        assert_eq!(contents(store.as_ref(), &key).await.unwrap(), None);
    }
}

/// First, middle, last, single and no bytes, and across the borders of pieces.
pub async fn every_range_is_read(subject: &impl Subject) {
    let store = subject.store();
    let original = bytes(1, 1_300_001);
    let key = object(store.as_ref(), 1, &original).await;
    let reader = store.open(&key).await.unwrap().unwrap();
    assert_eq!(reader.size(), 1_300_001);
    for range in [
        0..1_300_001,
        0..0,
        0..1,
        0..262_144,
        1..262_145,
        262_143..262_145,
        700_000..700_000,
        700_000..700_001,
        123_456..987_654,
        1_300_000..1_300_001,
        1_299_000..1_300_001,
        1_300_001..1_300_001,
    ] {
        let pieces: Vec<Bytes> = Arc::clone(&reader).stream(range.clone()).try_collect().await.unwrap();
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        assert_same(&pieces.concat(), &original[start..end], &format!("{range:?}"));
    }
}

/// A reader's memory does not grow with the object, and no piece says nothing.
pub async fn pieces_are_bounded_and_never_empty(subject: &impl Subject) {
    const MAX_PIECE_BYTES: usize = 4 * 1024 * 1024;
    let store = subject.store();
    let key = object(store.as_ref(), 1, &bytes(1, 9_000_000)).await;
    let mut stream = store.open(&key).await.unwrap().unwrap().stream(0..9_000_000);
    let mut total = 0;
    while let Some(piece) = stream.next().await {
        let length = piece.unwrap().len();
        assert!((1..=MAX_PIECE_BYTES).contains(&length), "a piece of {length} bytes");
        total += length;
    }
    assert_eq!(total, 9_000_000);
    assert!(stream.next().await.is_none(), "the end is the end");
}

/// Where an object is a file, the file is the object.
pub async fn a_local_file_has_the_same_bytes(subject: &impl Subject) {
    use std::io::{Read, Seek};
    let store = subject.store();
    let original = bytes(1, 10_000);
    let key = object(store.as_ref(), 1, &original).await;
    let reader = store.open(&key).await.unwrap().unwrap();
    if let Some(file) = reader.file() {
        let (mut file, mut read) = (file.as_ref(), Vec::new());
        file.rewind().unwrap();
        file.read_to_end(&mut read).unwrap();
        assert_eq!(read, original);
    }
}

/// Streams of one reader are independent of each other.
pub async fn many_readers_at_once(subject: &impl Subject) {
    let store = subject.store();
    let original = bytes(1, 2_000_000);
    let key = object(store.as_ref(), 1, &original).await;
    let reader = store.open(&key).await.unwrap().unwrap();
    let streams = (0..16u64).map(|number| {
        let reader = Arc::clone(&reader);
        let original = &original;
        async move {
            let (start, end) = (number * 1000, 2_000_000 - number * 70_000);
            let pieces: Vec<Bytes> = reader.stream(start..end).try_collect().await.unwrap();
            let expected = &original[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
            assert_same(&pieces.concat(), expected, "one of many");
        }
    });
    join_all(streams).await;
}

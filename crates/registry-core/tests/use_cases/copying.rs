//! Taking over blobs of another installation.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use registry_core::digest::{Algorithm, Digest};
use registry_core::error::StoreError;
use registry_core::ports::blob_store::BlobReader;
use registry_core::ports::clock::Clock;
use registry_core::ports::metadata::UploadStore;
use registry_core::ports::metadata::ledger::ObjectState;
use registry_core::ports::steps;
use registry_core::services::{CollectGarbage, CopyBlobError, Settings};

use crate::world::{MICROSECOND, World, at_once, sha256};

/// A blob of another installation; with `end`, it cannot be read beyond that.
struct There {
    bytes: &'static str,
    end: Option<usize>,
}

impl BlobReader for There {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn stream(self: Arc<Self>, _: Range<u64>) -> BoxStream<'static, Result<Bytes, StoreError>> {
        let read = &self.bytes[..self.end.unwrap_or(self.bytes.len())];
        let pieces = read.as_bytes().chunks(3).map(|piece| Ok(Bytes::copy_from_slice(piece)));
        let error = self.end.map(|_| Err(StoreError::corrupt("it ends early")));
        stream::iter(pieces.chain(error).collect::<Vec<_>>()).boxed()
    }
}

fn there(bytes: &'static str) -> Arc<There> {
    Arc::new(There { bytes, end: None })
}

#[tokio::test]
async fn a_copied_blob_is_stored_and_its_session_gone() {
    // Limits are for clients.
    let world = World::with(Settings { max_blob_bytes: Some(1), ..Settings::default() }).await;
    for digest in [sha256("some bytes"), Digest::of(Algorithm::Sha512, b"some bytes")] {
        world.services.copy_blob(&digest, 10, there("some bytes")).await.unwrap();
        let entry = world.ledger().await.into_iter().find(|entry| entry.blob == Some((digest.clone(), 10)));
        assert_eq!(entry.unwrap().state, ObjectState::Live);
        assert_eq!(world.sessions().await, []);
    }
    let before = (world.ledger().await, world.objects().await);
    assert_eq!(before.1.len(), 2);
    // Again, and nothing comes of it; and no collection takes what nothing refers to yet.
    world.services.copy_blob(&sha256("some bytes"), 10, there("some bytes")).await.unwrap();
    world.services.collect_garbage(CollectGarbage::default()).await.unwrap();
    assert_eq!((world.ledger().await, world.objects().await), before);
    assert_eq!(world.sessions().await, []);
}

#[tokio::test]
async fn sha512_runs_from_the_first_byte_of_a_copy_that_needs_it_and_of_no_other() {
    let world = World::new().await;
    for (bytes, algorithm) in [("short", Algorithm::Sha256), ("long", Algorithm::Sha512)] {
        let (runs, metadata) = (Arc::new(Mutex::new(None)), world.metadata.clone());
        let (seen, now) = (runs.clone(), world.clock.now() + MICROSECOND);
        world.moments.at(steps::UPLOAD_CREATED, move || {
            let [session] = at_once(metadata.idle_uploads(now, 9)).unwrap()[..] else { panic!("one session") };
            let session = at_once(metadata.find_upload(session)).unwrap().unwrap();
            *seen.lock().unwrap() = Some(session.durable.digest(Algorithm::Sha512).unwrap().is_some());
        });
        let digest = Digest::of(algorithm, bytes.as_bytes());
        world.services.copy_blob(&digest, bytes.len() as u64, there(bytes)).await.unwrap();
        assert_eq!(*runs.lock().unwrap(), Some(algorithm == Algorithm::Sha512));
    }
}

#[tokio::test]
async fn nothing_is_stored_of_what_is_not_right() {
    let world = World::new().await;
    let digest = sha256("some bytes");
    let wrong = world.services.copy_blob(&digest, 10, there("SOME bytes")).await;
    assert!(matches!(wrong, Err(CopyBlobError::WrongContent)), "{wrong:?}");
    let short = world.services.copy_blob(&digest, 10, there("some byte")).await;
    assert!(matches!(short, Err(CopyBlobError::WrongContent)), "{short:?}");
    let cut = Arc::new(There { bytes: "some bytes", end: Some(7) });
    let unreadable = world.services.copy_blob(&digest, 10, cut).await;
    assert!(matches!(&unreadable, Err(CopyBlobError::Unreadable(error)) if error.context == "it ends early"));
    world.assert_empty().await;
}

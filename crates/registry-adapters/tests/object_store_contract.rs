//! The bucket store keeps the contract of the port, over `object_store`'s store in memory, and what only buckets promise.
//! `tests/tests/s3` runs the same over a real S3 server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, ObjectStoreExt, PutPayload, PutResult};
use registry_adapters::blob::object_store::{Backend, ObjectBlobStore, ObjectStoreOptions, UnfinishedUploads};
use registry_core::digest::{Algorithm, Digest};
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::ports::blob_store::{AppendError, BlobStore, ObjectKey, Published};
use registry_core::testing::blob_store_suite::{self as suite, Staged, Subject, assert_same, bytes, contents, object};
use registry_core::upload::StagingState;

/// A bucket in memory.
struct Bucket {
    objects: Arc<InMemory>,
    parts: Arc<Parts>,
    options: ObjectStoreOptions,
}

impl Bucket {
    /// With the parts that the store in memory has.
    fn new() -> Self {
        Self::with_parts(8 * 1024 * 1024)
    }

    fn with_parts(part_bytes: u64) -> Self {
        let objects = Arc::new(InMemory::new());
        let parts = Arc::new(Parts { objects: Arc::clone(&objects), uploads: Mutex::default() });
        Self { objects, parts, options: ObjectStoreOptions { part_bytes, ..ObjectStoreOptions::default() } }
    }

    fn unfinished(&self) -> usize {
        self.parts.uploads.lock().unwrap().len()
    }

    async fn put(&self, path: &str) {
        self.objects.put(&Path::from(path), "mine".into()).await.unwrap();
    }
}

impl Subject for Bucket {
    fn store(&self) -> Arc<dyn BlobStore> {
        let backend = Backend {
            objects: Arc::clone(&self.objects) as _,
            multipart: Arc::clone(&self.parts) as _,
            pages: None,
            signer: None,
            unfinished: Some(Arc::clone(&self.parts) as _),
        };
        Arc::new(ObjectBlobStore::new(backend, &self.options))
    }

    fn is_a_bucket(&self) -> bool {
        true
    }
}

/// Where an upload will be, and its parts.
type Pending = (Path, BTreeMap<usize, Bytes>);

/// Multipart uploads by the rules of S3, which `InMemory` does not keep: a part is named by its contents, completing
/// takes the parts that are listed, and an upload that is not there is not found.
struct Parts {
    objects: Arc<InMemory>,
    uploads: Mutex<BTreeMap<MultipartId, Pending>>,
}

fn absent(path: &Path) -> object_store::Error {
    object_store::Error::NotFound { path: path.to_string(), source: "NoSuchUpload".into() }
}

fn name_of(part: &[u8]) -> String {
    Digest::sha256(part).to_string()
}

#[async_trait]
impl MultipartStore for Parts {
    async fn create_multipart(&self, path: &Path) -> object_store::Result<MultipartId> {
        let mut uploads = self.uploads.lock().unwrap();
        let id = format!("upload-{}", uploads.keys().last().map_or(0, |id| id[7..].parse::<u32>().unwrap() + 1));
        uploads.insert(id.clone(), (path.clone(), BTreeMap::new()));
        Ok(id)
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        index: usize,
        data: PutPayload,
    ) -> object_store::Result<PartId> {
        // Let others come in between.
        tokio::task::yield_now().await;
        let bytes = Bytes::from(data);
        let part = PartId { content_id: name_of(&bytes) };
        let mut uploads = self.uploads.lock().unwrap();
        uploads.get_mut(id).ok_or_else(|| absent(path))?.1.insert(index, bytes);
        Ok(part)
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> object_store::Result<PutResult> {
        let mut object = Vec::new();
        {
            let mut uploads = self.uploads.lock().unwrap();
            let (_, stored) = uploads.get(id).ok_or_else(|| absent(path))?;
            for (index, part) in parts.iter().enumerate() {
                match stored.get(&index) {
                    Some(bytes) if name_of(bytes) == part.content_id => object.extend_from_slice(bytes),
                    _ => return Err(object_store::Error::Generic { store: "S3", source: "InvalidPart".into() }),
                }
            }
            uploads.remove(id);
        }
        self.objects.put(path, object.into()).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> object_store::Result<()> {
        self.uploads.lock().unwrap().remove(id).map(|_| ()).ok_or_else(|| absent(path))
    }
}

#[async_trait]
impl UnfinishedUploads for Parts {
    async fn list(&self, prefix: &str) -> Result<Vec<(Path, String)>, StoreError> {
        let uploads = self.uploads.lock().unwrap();
        let all = uploads.iter().map(|(id, (path, _))| (path.clone(), id.clone()));
        Ok(all.filter(|(path, _)| path.as_ref().starts_with(prefix)).collect())
    }
}

registry_core::blob_store_suite!(Bucket::new());

/// A few cases of the suite, where every upload has several parts.
mod small_parts {
    use super::*;

    #[tokio::test]
    async fn random_cuts_and_resumptions_give_the_original() {
        for part_bytes in [1_000, 70_000] {
            suite::resuming::random_cuts_and_resumptions_give_the_original(&Bucket::with_parts(part_bytes)).await;
        }
    }

    #[tokio::test]
    async fn publishing() {
        let bucket = || Bucket::with_parts(1_000);
        suite::publishing::staged_bytes_become_an_object(&bucket()).await;
        suite::publishing::two_publish_at_once(&bucket()).await;
        suite::publishing::publishing_again_is_the_same(&bucket()).await;
        suite::publishing::nothing_to_publish_is_lost(&Bucket::with_parts(99)).await;
        suite::publishing::a_large_upload_is_published_whole(&Bucket::with_parts(100_000)).await;
    }

    #[tokio::test]
    async fn a_part_that_is_exactly_full_leaves_no_tail() {
        let bucket = Bucket::with_parts(1_000);
        let store = bucket.store();
        for (number, length) in [(1, 999), (2, 1_000), (3, 1_001), (4, 2_000)] {
            let original = bytes(1, length);
            let staged = Staged::of(store.as_ref(), number, &original).await;
            let tails = store.upload_objects(staged.id).await.unwrap().len();
            assert_eq!(tails, usize::from(length % 1_000 != 0), "{length}");
            let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
            assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
            assert_same(&contents(store.as_ref(), &key).await.unwrap().unwrap(), &original, "the object");
        }
        assert_eq!(bucket.unfinished(), 0);
    }
}

/// Another writer of the same multipart upload put its own bytes in the place of a part: the upload is lost, and what is
/// published is never a mixture.
#[tokio::test]
async fn a_part_of_a_writer_that_was_overtaken_never_becomes_part_of_a_blob() {
    let bucket = Bucket::with_parts(1_000);
    let (store, other) = (bucket.store(), bucket.store());
    let mut staged = Staged::of(store.as_ref(), 1, &bytes(1, 1_500)).await;
    let mut overtaken = other.append(staged.id, staged.offset, &staged.staging).await.unwrap();
    staged.append(store.as_ref(), &bytes(2, 2_000)).await;
    overtaken.write(bytes(3, 2_000).into()).await.unwrap();
    overtaken.checkpoint().await.unwrap();
    let key = staged.candidates(store.as_ref(), &Digest::sha256(b"any")).nth(0);
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Lost);
    assert_eq!(store.size_of(&key).await.unwrap(), None);
    staged.discard(store.as_ref(), &[]).await;
    assert_eq!((bucket.unfinished(), store.upload_objects(staged.id).await.unwrap()), (0, vec![]));
}

#[tokio::test]
async fn earlier_tails_stay_until_they_are_superseded_and_then_go() {
    let bucket = Bucket::with_parts(1_000);
    let store = bucket.store();
    let mut staged = Staged::of(store.as_ref(), 1, &bytes(1, 300)).await;
    let told = Staged { id: staged.id, offset: staged.offset, staging: staged.staging.clone() };
    assert_eq!(store.superseded_objects(staged.id, &staged.staging, None), []);
    // Two checkpoints of one writer, neither of which was told.
    let mut writer = store.append(staged.id, staged.offset, &staged.staging).await.unwrap();
    for _ in 0..2 {
        writer.write(bytes(2, 900).into()).await.unwrap();
        staged.staging = writer.checkpoint().await.unwrap();
        staged.offset += 900;
    }
    drop(writer);
    assert_eq!(told.bytes(store.as_ref()).await, bytes(1, 300), "what was told is there");
    assert_eq!(store.upload_objects(staged.id).await.unwrap().len(), 3);

    // Now it is told: only the last tail is needed.
    let superseded = store.superseded_objects(staged.id, &staged.staging, None);
    assert_eq!(superseded.len(), 2);
    for key in &superseded {
        store.remove_staged_object(key).await.unwrap();
    }
    assert!(matches!(told.first(store.as_ref(), 300).await, Err(AppendError::Lost)));
    let key = staged.candidates(store.as_ref(), &Digest::sha256(b"any")).nth(0);
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
    assert_eq!(
        contents(store.as_ref(), &key).await.unwrap().unwrap(),
        [bytes(1, 300), bytes(2, 900), bytes(2, 900)].concat()
    );

    // Published: the tail is in it.
    for superseded in store.superseded_objects(staged.id, &staged.staging, Some(&key)) {
        store.remove_staged_object(&superseded).await.unwrap();
    }
    assert_eq!(store.upload_objects(staged.id).await.unwrap(), [key]);
}

#[tokio::test]
async fn a_small_blob_lies_where_it_was_staged() {
    let bucket = Bucket::new();
    let store = bucket.store();
    let key = object(store.as_ref(), 1, b"small").await;
    assert_eq!(store.upload_objects(Staged::new(1).id).await.unwrap(), std::slice::from_ref(&key));
    assert_eq!(store.upload_of(&key), Some(Staged::new(1).id));
    let staged = Staged::of(store.as_ref(), 2, b"small").await;
    let object = staged.candidates(store.as_ref(), &Digest::sha256(b"small")).nth(0);
    assert_eq!(store.superseded_objects(staged.id, &staged.staging, Some(&object)), []);
    let elsewhere = ObjectKey(format!("{}/elsewhere", staged.id));
    let refused = store.publish(staged.id, 5, &staged.staging, &elsewhere).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Corrupt);
}

/// Until it is complete nobody can read a multipart upload; reading it completes it, and it is published all the same.
#[tokio::test]
async fn parts_are_read_by_completing_them() {
    let bucket = Bucket::with_parts(1_000);
    let store = bucket.store();
    let original = bytes(1, 3_700);
    let staged = Staged::of(store.as_ref(), 1, &original).await;
    assert_eq!(staged.bytes(store.as_ref()).await, original);
    assert_eq!(staged.first(bucket.store().as_ref(), 1_700).await.unwrap(), original[..1_700]);
    let key = staged.candidates(store.as_ref(), &Digest::of(Algorithm::Sha512, &original)).nth(0);
    assert_eq!(staged.publish(bucket.store().as_ref(), &key).await, Published::Yes);
    assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), original);

    // A writer that goes on finds the parts gone: the upload is lost, which is not a failure of the store.
    let mut writer = store.append(staged.id, staged.offset, &staged.staging).await.unwrap();
    let written = async {
        writer.write(bytes(2, 3_000).into()).await?;
        writer.checkpoint().await
    };
    assert_eq!(written.await.unwrap_err().kind, StoreErrorKind::Corrupt);
}

/// Two checkpoints have the same full parts, and tails of the same length. Reading one of them completes the upload: what
/// is there then is never taken for the other.
#[tokio::test]
async fn what_was_read_is_not_published_for_other_bytes() {
    let bucket = Bucket::with_parts(1_000);
    let store = bucket.store();
    let begun = Staged::of(store.as_ref(), 1, &bytes(1, 2_300)).await;
    let again = || Staged { id: begun.id, offset: begun.offset, staging: begun.staging.clone() };
    let (mut wrong, mut right) = (again(), again());
    wrong.append(store.as_ref(), &bytes(2, 400)).await;
    right.append(store.as_ref(), &bytes(3, 400)).await;
    assert_eq!(wrong.bytes(store.as_ref()).await, [bytes(1, 2_300), bytes(2, 400)].concat());
    let key = right.candidates(store.as_ref(), &Digest::sha256(b"any")).nth(0);
    assert_eq!(right.publish(bucket.store().as_ref(), &key).await, Published::Lost);
    assert_eq!(wrong.publish(bucket.store().as_ref(), &key).await, Published::Yes);
}

/// Two writers of one upload begin at its beginning, each with parts of its own.
#[tokio::test]
async fn completing_what_was_overtaken_changes_nothing_of_what_was_published() {
    let bucket = Bucket::with_parts(1_000);
    let store = bucket.store();
    let overtaken = Staged::of(store.as_ref(), 1, &bytes(1, 2_500)).await;
    let newer = Staged::of(store.as_ref(), 1, &bytes(2, 2_500)).await;
    let key = newer.candidates(store.as_ref(), &Digest::sha256(b"any")).nth(0);
    assert_eq!(newer.publish(store.as_ref(), &key).await, Published::Yes);
    assert_eq!(overtaken.bytes(bucket.store().as_ref()).await, bytes(1, 2_500));
    assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), bytes(2, 2_500));
    assert_eq!(newer.publish(bucket.store().as_ref(), &key).await, Published::Yes);

    // And the other way round: what was read does not stand in the way of what is published after it.
    let read = Staged::of(store.as_ref(), 2, &bytes(3, 2_500)).await;
    let newer = Staged::of(store.as_ref(), 2, &bytes(4, 2_500)).await;
    assert_eq!(read.bytes(store.as_ref()).await, bytes(3, 2_500));
    let key = newer.candidates(store.as_ref(), &Digest::sha256(b"any")).nth(0);
    assert_eq!(newer.publish(bucket.store().as_ref(), &key).await, Published::Yes);
    assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), bytes(4, 2_500));
}

/// What dies before its first checkpoint has told nobody the name of its multipart upload.
#[tokio::test]
async fn multipart_uploads_that_nobody_remembers_are_found_by_their_upload() {
    let bucket = Bucket::with_parts(1_000);
    let store = bucket.store();
    let staged = Staged::new(1);
    for _ in 0..3 {
        let mut writer = store.append(staged.id, 0, &staged.staging).await.unwrap();
        writer.write(bytes(1, 2_500).into()).await.unwrap();
    }
    let other = Staged::of(store.as_ref(), 2, &bytes(2, 2_500)).await;
    assert_eq!(bucket.unfinished(), 4);
    assert_eq!(store.list_staged().await.unwrap(), [staged.id, other.id]);
    staged.discard(bucket.store().as_ref(), &[]).await;
    assert_eq!(bucket.unfinished(), 1);
    assert_eq!(store.list_staged().await.unwrap(), [other.id]);
    let key = other.candidates(store.as_ref(), &Digest::sha256(b"any")).nth(0);
    assert_eq!(other.publish(store.as_ref(), &key).await, Published::Yes);
}

/// A session that goes on keeps its parts' length, whatever the configuration says now.
#[tokio::test]
async fn the_length_of_parts_may_be_configured_anew() {
    let mut bucket = Bucket::with_parts(1_000);
    let mut staged = Staged::of(bucket.store().as_ref(), 1, &bytes(1, 2_500)).await;
    bucket.options.part_bytes = 700;
    let store = bucket.store();
    staged.append(store.as_ref(), &bytes(2, 2_500)).await;
    let key = staged.candidates(store.as_ref(), &Digest::sha256(b"any")).nth(0);
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
    assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), [bytes(1, 2_500), bytes(2, 2_500)].concat());
    assert_eq!(store.max_upload_bytes(), Some(7_000_000));
}

/// With memory for one part, many uploads take turns, and all come to their end.
#[tokio::test]
async fn uploads_wait_for_memory_and_none_for_ever() {
    let mut bucket = Bucket::with_parts(200_000);
    bucket.options.upload_memory_bytes = 1;
    let store = bucket.store();
    let uploads = (1..9u8).map(|number| {
        let store = Arc::clone(&store);
        async move {
            let original = bytes(u64::from(number), 1_100_000);
            let mut staged = Staged::new(number);
            for piece in original.chunks(270_000) {
                staged.append(store.as_ref(), piece).await;
            }
            let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
            assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
            assert_same(&contents(store.as_ref(), &key).await.unwrap().unwrap(), &original, "one of many");
        }
    });
    join_all(uploads).await;
}

/// Clients that stand still, or send a few bytes now and then, hold nobody up who needs the memory, and lose nothing.
#[tokio::test(start_paused = true)]
async fn slow_uploads_give_their_memory_up_while_others_wait() {
    let mut bucket = Bucket::with_parts(200_000);
    bucket.options.upload_memory_bytes = 1;
    let store = bucket.store();
    let first = bytes(1, 100_000);
    for trickles in [false, true] {
        let (mut original, mut more) = (first.clone(), bytes(2, 350_000));
        let mut slow = Staged::new(1 + u8::from(trickles));
        let mut writer = store.append(slow.id, 0, &StagingState::default()).await.unwrap();
        writer.write(first.clone().into()).await.unwrap();
        let is_done = std::cell::Cell::new(false);
        let slowly = async {
            while trickles && !is_done.get() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let few = more.split_off(more.len() - 10);
                writer.write(few.clone().into()).await.unwrap();
                original.extend(few);
            }
            if !trickles {
                writer.rest().await;
            }
        };
        let other = bytes(3, 1_100_000);
        let upload = async {
            let mut staged = Staged::new(11 + u8::from(trickles));
            staged.append(store.as_ref(), &other).await;
            let key = staged.candidates(store.as_ref(), &Digest::sha256(&other)).nth(0);
            assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
            is_done.set(true);
            contents(store.as_ref(), &key).await.unwrap().unwrap()
        };
        // A write must not be dropped in the middle; resting may.
        let read = if trickles {
            futures_util::join!(upload, slowly).0
        } else {
            tokio::select! { read = upload => read, () = slowly => unreachable!("it never ends") }
        };
        assert_same(&read, &other, "the other's");

        writer.write(more.clone().into()).await.unwrap();
        original.extend(more);
        slow.staging = writer.checkpoint().await.unwrap();
        slow.offset = original.len() as u64;
        drop(writer);
        let key = slow.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
        assert_eq!(slow.publish(store.as_ref(), &key).await, Published::Yes);
        assert_same(&contents(store.as_ref(), &key).await.unwrap().unwrap(), &original, "the slow one's");
        for superseded in store.superseded_objects(slow.id, &slow.staging, Some(&key)) {
            store.remove_staged_object(&superseded).await.unwrap();
        }
        // What was put away and fetched back is gone.
        assert_eq!(store.upload_objects(slow.id).await.unwrap(), [key]);
    }
}

#[tokio::test]
async fn strangers_objects_are_neither_listed_nor_touched_and_no_key_leads_to_them() {
    let mut bucket = Bucket::new();
    bucket.options.prefix = "/team/registry/".into();
    let store = bucket.store();
    let key = object(store.as_ref(), 1, b"content").await;
    for stranger in ["other", "team/registry/blobs/0", "team/registry/blobs/zz/zz", "team/registry/blobs2/x", "blobs/x"]
    {
        bucket.put(stranger).await;
    }
    for limit in [1, 2, 10] {
        assert_eq!(store.list_objects(None, limit).await.unwrap(), [(key.clone(), 7)]);
        assert_eq!(store.list_objects(Some(&key), limit).await.unwrap(), []);
    }
    for text in ["../other", "other", "", "/", "zz/zz"] {
        let key = ObjectKey(text.into());
        let refused = store.open(&key).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Corrupt, "{text}");
        assert!(store.claim_deletion(&key).await.is_err() && store.remove_staged_object(&key).await.is_err());
    }
    let claim = store.claim_deletion(&key).await.unwrap().unwrap();
    let other = object(store.as_ref(), 2, b"other").await;
    assert!(store.delete(claim.as_ref(), &other).await.is_err());
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_no_upload_that_begins_anew() {
    let store = Bucket::new().store();
    let id = Staged::new(1).id;
    // Another version's, which is whole otherwise; and none at all.
    for text in [r#"{"v":3,"part_bytes":8388608}"#, r#"{"v":2}"#] {
        let staging = StagingState(text.into());
        assert!(matches!(store.append(id, 0, &staging).await, Err(AppendError::Store(_))), "{text}");
        assert!(matches!(store.read_staged(id, 0, &staging).await, Err(AppendError::Store(_))), "{text}");
        let key = store.key_candidates(id, &Digest::sha256(b""), &staging).nth(0);
        assert!(store.publish(id, 0, &staging, &key).await.is_err(), "{text}");
        store.discard(id, &staging).await.unwrap();
    }
}

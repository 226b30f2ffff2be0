//! What every [`BlobStore`] must do: the one list of cases.
//!
//! An adapter's test target says how a store is made and gets a named test for each case:
//!
//! ```text
//! registry_core::blob_store_suite!(start_a_store());
//! ```

pub mod deleting;
pub mod listing;
pub mod publishing;
pub mod reading;
pub mod resuming;
pub mod staging;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::entropy::SeededEntropy;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::ports::blob_store::{AppendError, BlobStore, KeyCandidates, ObjectKey, Published};
use crate::upload::{StagingState, UploadId};

/// A store to be tested.
pub trait Subject: Send + Sync {
    /// A store over the subject's bytes. Each call gives another instance, as another replica would have.
    fn store(&self) -> Arc<dyn BlobStore>;

    /// Whether it is a bucket of an object store, which keeps the contract in ways of its own.
    fn is_a_bucket(&self) -> bool {
        false
    }

    /// Whether a key may be used again after its object was deleted, so that claims exclude each other.
    fn reuses_keys(&self) -> bool {
        !self.is_a_bucket()
    }

    /// Whether the store keeps a second writer of an upload away, rather than keeping apart what they write.
    fn excludes_writers(&self) -> bool {
        !self.is_a_bucket()
    }

    /// Whether small staged uploads are objects, at the key that they will have as blobs.
    fn stages_in_objects(&self) -> bool {
        self.is_a_bucket()
    }

    /// The candidate number `n`, where the subject has several for one upload; else the only one.
    fn nth(&self, candidates: &KeyCandidates, n: u32) -> ObjectKey {
        candidates.nth(if self.reuses_keys() { n } else { 0 })
    }
}

/// Yields a named test for each case. The argument is an expression for a fresh [`Subject`], which may `await`.
#[macro_export]
macro_rules! blob_store_suite {
    ($subject:expr) => {
        $crate::blob_store_suite! { @cases $subject;
            staging {
                pieces_come_together_in_order
                nothing_at_all_can_be_staged
                what_lies_beyond_the_offset_is_cut_off
                a_writer_that_writes_nothing_cuts_off_too
                fewer_bytes_than_the_offset_are_lost_and_stay_as_they_are
                a_checkpoint_is_seen_by_another_replica
                bytes_after_the_last_checkpoint_do_no_harm
                a_second_writer_is_kept_away
                a_waiting_writer_gets_its_turn
                a_writer_dropped_in_the_middle_writes_nothing_more
                uploads_do_not_touch_each_other
            }
            resuming {
                random_cuts_and_resumptions_give_the_original
            }
            publishing {
                staged_bytes_become_an_object
                the_empty_blob_is_an_object
                publishing_again_is_the_same
                two_publish_at_once
                nothing_to_publish_is_lost
                bytes_after_the_size_are_not_published
                a_writer_that_still_holds_the_bytes_is_not_published_with_them
                a_late_writer_never_changes_the_object
                every_candidate_is_an_object_of_its_own
                a_large_upload_is_published_whole
            }
            reading {
                an_absent_object_is_none
                every_range_is_read
                pieces_are_bounded_and_never_empty
                a_local_file_has_the_same_bytes
                many_readers_at_once
            }
            deleting {
                discarded_bytes_are_gone
                discarding_leaves_objects_alone
                a_deleted_object_is_gone_and_no_other
                deleting_again_is_no_error
                a_claim_excludes_others
                a_key_can_be_used_again_after_deletion
            }
            listing {
                objects_come_in_the_order_of_keys_page_by_page
                staged_uploads_are_listed_and_nothing_else
                a_probe_says_that_bytes_can_be_written
            }
        }
    };
    (@cases $subject:expr; $($group:ident { $($case:ident)+ })+) => {
        $(mod $group {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                let subject = $subject;
                $crate::testing::blob_store_suite::$group::$case(&subject).await;
            })+
        })+
    };
}

/// An upload of a test: its identity and what the last checkpoint said.
pub struct Staged {
    /// Its identity.
    pub id: UploadId,
    /// How many bytes are durable.
    pub offset: u64,
    /// What the store remembers.
    pub staging: StagingState,
}

impl Staged {
    /// Nothing yet.
    pub fn new(number: u8) -> Self {
        Self { id: UploadId::from_random([number; 16]), offset: 0, staging: StagingState::default() }
    }

    /// `bytes`, staged and checkpointed.
    pub async fn of(store: &dyn BlobStore, number: u8, bytes: &[u8]) -> Self {
        let mut staged = Self::new(number);
        staged.append(store, bytes).await;
        staged
    }

    /// Appends `bytes` at the durable offset, and checkpoints.
    pub async fn append(&mut self, store: &dyn BlobStore, bytes: &[u8]) {
        let mut writer = store.append(self.id, self.offset, &self.staging).await.expect("append");
        writer.write(Bytes::copy_from_slice(bytes)).await.expect("write");
        self.staging = writer.checkpoint().await.expect("checkpoint");
        self.offset += bytes.len() as u64;
    }

    /// The durable bytes.
    pub async fn bytes(&self, store: &dyn BlobStore) -> Vec<u8> {
        self.first(store, self.offset).await.expect("read what is staged")
    }

    /// The first `size` staged bytes.
    pub async fn first(&self, store: &dyn BlobStore, size: u64) -> Result<Vec<u8>, AppendError> {
        let pieces: Vec<Bytes> = store.read_staged(self.id, size, &self.staging).await?.try_collect().await?;
        Ok(pieces.concat())
    }

    /// The keys that an object with this digest may get.
    pub fn candidates(&self, store: &dyn BlobStore, digest: &Digest) -> KeyCandidates {
        store.key_candidates(self.id, digest, &self.staging)
    }

    /// Discards all that is staged, but the objects in `ledger`.
    pub async fn discard(&self, store: &dyn BlobStore, ledger: &[&ObjectKey]) {
        store.discard(self.id, &self.staging).await.expect("discard");
        for key in store.upload_objects(self.id).await.expect("list an upload's objects") {
            if !ledger.contains(&&key) {
                store.remove_staged_object(&key).await.expect("remove a staged object");
            }
        }
    }

    /// Makes all durable bytes an object.
    pub async fn publish(&self, store: &dyn BlobStore, key: &ObjectKey) -> Published {
        store.publish(self.id, self.offset, &self.staging, key).await.expect("publish")
    }
}

/// Stages and publishes `bytes` under the plain key of their SHA-256.
pub async fn object(store: &dyn BlobStore, number: u8, bytes: &[u8]) -> ObjectKey {
    let staged = Staged::of(store, number, bytes).await;
    let key = staged.candidates(store, &Digest::sha256(bytes)).nth(0);
    assert_eq!(staged.publish(store, &key).await, Published::Yes);
    key
}

/// The bytes of an object, all of them; `None` when it is not there.
pub async fn contents(store: &dyn BlobStore, key: &ObjectKey) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(reader) = store.open(key).await? else { return Ok(None) };
    let size = reader.size();
    let pieces: Vec<Bytes> = reader.stream(0..size).try_collect().await?;
    Ok(Some(pieces.concat()))
}

/// Asserts that exactly these uploads have something staged; where small ones are objects, those need not be listed.
pub async fn assert_staged(subject: &impl Subject, expected: &[UploadId]) {
    let (mut listed, mut expected) = (subject.store().list_staged().await.expect("list"), expected.to_vec());
    listed.sort();
    expected.sort();
    if subject.stages_in_objects() {
        assert!(listed.iter().all(|id| expected.contains(id)), "{listed:?} are staged, not only {expected:?}");
    } else {
        assert_eq!(listed, expected);
    }
}

/// `length` bytes that differ for each `seed`.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    SeededEntropy::new(seed).bytes(length)
}

/// Asserts that both are equal without printing megabytes when they are not.
#[track_caller]
pub fn assert_same(actual: &[u8], expected: &[u8], what: &str) {
    let differs = actual.iter().zip(expected).position(|(one, other)| one != other);
    assert!(
        actual == expected,
        "{what}: {} bytes instead of {}, the first difference at {differs:?}",
        actual.len(),
        expected.len()
    );
}

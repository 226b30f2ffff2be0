//! Torn transfers.

use bytes::Bytes;

use super::{Staged, Subject, assert_same, bytes, contents};
use crate::digest::Digest;
use crate::ports::blob_store::Published;
use crate::testing::entropy::SeededEntropy;
use crate::upload::StagingState;

/// However an upload is cut, and from whichever recorded checkpoint it goes on, the object is the original.
pub async fn random_cuts_and_resumptions_give_the_original(subject: &impl Subject) {
    for seed in 0..40 {
        let random = SeededEntropy::new(seed);
        let original = bytes(1000 + seed, random.below(if seed % 4 == 0 { 3_000_000 } else { 20_000 }));
        let mut staged = Staged::new(u8::try_from(seed).unwrap());
        // What the rows of sessions remember: the last checkpoint and the one that the client was told.
        let mut told = (0u64, StagingState::default());
        let mut attempts = 0;
        while staged.offset < original.len() as u64 || attempts == 0 {
            attempts += 1;
            let store = subject.store();
            if random.below(4) == 0 {
                (staged.offset, staged.staging) = told.clone();
            }
            if random.below(3) == 0 {
                told = (staged.offset, staged.staging.clone());
            }
            let mut writer = store.append(staged.id, staged.offset, &staged.staging).await.unwrap();
            let mut position = usize::try_from(staged.offset).unwrap();
            // After some attempts it has to come to an end.
            let may_be_cut = attempts < 12;
            loop {
                let left = original.len() - position;
                let length = left.min(random.below(if may_be_cut { 1 + original.len() / 3 } else { 700_000 }) + 1);
                writer.write(Bytes::copy_from_slice(&original[position..position + length])).await.unwrap();
                position += length;
                if random.below(2) == 0 || position == original.len() {
                    staged.staging = writer.checkpoint().await.unwrap();
                    staged.offset = position as u64;
                }
                if position == original.len() || (may_be_cut && random.below(3) == 0) {
                    break;
                }
            }
            // A cut connection: what a careless client sends into it is not recorded.
            if may_be_cut && random.below(2) == 0 {
                writer.write(Bytes::from(random.bytes(random.below(600_000)))).await.unwrap();
            }
        }
        let store = subject.store();
        let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
        assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes, "seed {seed}");
        let stored = contents(store.as_ref(), &key).await.unwrap().unwrap();
        assert_same(&stored, &original, &format!("seed {seed}, {attempts} attempts"));
    }
}

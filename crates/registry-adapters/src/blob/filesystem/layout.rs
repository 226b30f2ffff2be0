//! Where things are below the data folder, and what a key of this store is.
//!
//! ```text
//! <data>/blobs/<first 2>/<sha256 hex>[-<n>]           an object; its key is the path below blobs/
//! <data>/blobs/<algorithm>/<first 2>/<hex>[-<n>]      an object of another algorithm
//! <data>/blobs/.deletions.lock                        whose bytes are the locks of deletion claims; always empty
//! <data>/uploads/<uuid>                               what is staged
//! ```

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use registry_core::digest::{Algorithm, Digest};
use registry_core::error::StoreError;
use registry_core::ports::blob_store::{KeyCandidates, ObjectKey};
use registry_core::upload::UploadId;

/// Nobody but the server reads or writes below the data folder.
const FOLDER_MODE: u32 = 0o700;
/// How many characters of a digest name its shard.
const SHARD_LENGTH: usize = 2;

/// The folders of one store.
#[derive(Debug)]
pub(super) struct Layout {
    blobs: PathBuf,
    uploads: PathBuf,
}

impl Layout {
    /// Makes the folders that are not there, durably.
    pub(super) fn create(data: &Path) -> io::Result<Self> {
        let (blobs, uploads) = (data.join("blobs"), data.join("uploads"));
        create_folders(data)?;
        create_folder(&blobs)?;
        create_folder(&uploads)?;
        // Always, not only when they were made: whoever made them may have died before this.
        sync_folder(data)?;
        Ok(Self { blobs, uploads })
    }

    /// The folder of objects.
    pub(super) fn blobs(&self) -> &Path {
        &self.blobs
    }

    /// The folder of staged bytes.
    pub(super) fn uploads(&self) -> &Path {
        &self.uploads
    }

    /// Where the bytes of an upload are staged.
    pub(super) fn staged(&self, id: UploadId) -> PathBuf {
        self.uploads.join(id.to_string())
    }

    /// The file whose bytes are the locks of deletion claims.
    pub(super) fn deletion_locks(&self) -> PathBuf {
        self.blobs.join(".deletions.lock")
    }

    /// Where the object of a key is.
    pub(super) fn object(&self, key: &RelativeKey) -> PathBuf {
        self.blobs.join(key.as_path())
    }
}

/// The keys that an object with this digest may get.
pub(super) fn key_candidates(digest: &Digest) -> KeyCandidates {
    let hex = digest.encoded();
    let shard = &hex[..SHARD_LENGTH];
    KeyCandidates::new(match digest.algorithm() {
        Algorithm::Sha256 => format!("{shard}/{hex}"),
        other => format!("{}/{shard}/{hex}", other.name()),
    })
}

/// A key that [`key_candidates`] can make: a path of two or three plain names, which never leaves the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RelativeKey {
    path: String,
    digest: Digest,
}

impl RelativeKey {
    /// Checks a key, which may come from a database that somebody edited.
    ///
    /// # Errors
    /// Corrupt, when this store never gives such a key.
    pub(super) fn new(key: &ObjectKey) -> Result<Self, StoreError> {
        Self::parse(key.as_str()).ok_or_else(|| StoreError::corrupt(format!("{key:?} is no key of a file store")))
    }

    /// The key, if it is one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (folder, name) = text.rsplit_once('/')?;
        let (algorithm, shard) = match folder.split_once('/') {
            None => (Algorithm::Sha256, folder),
            Some((algorithm, shard)) => (algorithm.parse().ok().filter(|a| *a != Algorithm::Sha256)?, shard),
        };
        let (hex, number) = name.split_once('-').map_or((name, None), |(hex, number)| (hex, Some(number)));
        let canonical = number
            .is_none_or(|number| number.parse::<u32>().is_ok_and(|parsed| parsed > 0 && parsed.to_string() == number));
        let digest: Digest = format!("{}:{hex}", algorithm.name()).parse().ok()?;
        (canonical && shard == &digest.encoded()[..SHARD_LENGTH]).then(|| Self { path: text.to_owned(), digest })
    }

    /// The path below the folder of objects.
    pub(super) fn as_path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// The folder that holds it, below the folder of objects: `ab` or `sha512/ab`.
    pub(super) fn shard(&self) -> &str {
        self.path.rsplit_once('/').expect("a key has a shard").0
    }

    /// The digest that it was made of.
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The key as the port has it.
    pub(super) fn into_key(self) -> ObjectKey {
        ObjectKey(self.path)
    }
}

/// Makes a folder for the server alone; one that is there is left as it is.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if !path.is_dir() => {
            Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is not a folder", path.display())))
        }
        _ => Ok(()),
    }
}

/// Makes the data folder and its missing parents, durably.
fn create_folders(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_folders(parent)?;
    create_folder(path)?;
    sync_folder(parent)
}

/// Makes the entries of a folder durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_paths_below_the_folder_of_blobs() {
        let digest = Digest::sha256(b"");
        let candidates = key_candidates(&digest);
        let plain = "e3/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(candidates.nth(0).as_str(), plain);
        assert_eq!(candidates.nth(12).as_str(), format!("{plain}-12"));
        let sha512 = Digest::of(Algorithm::Sha512, b"");
        let other = key_candidates(&sha512).nth(0);
        assert_eq!(other.as_str(), format!("sha512/cf/{}", sha512.encoded()));
        for key in [candidates.nth(0), candidates.nth(1), candidates.nth(u32::MAX), other] {
            let relative = RelativeKey::new(&key).unwrap();
            assert_eq!(relative.digest(), if key.as_str().starts_with("sha512") { &sha512 } else { &digest });
            assert_eq!(relative.into_key(), key);
        }
    }

    #[test]
    fn no_other_text_is_a_key() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in [
            "",
            "/",
            hex,
            &format!("/{hex}"),
            &format!("e4/{hex}"),
            &format!("e3/{hex}-0"),
            &format!("e3/{hex}-01"),
            &format!("e3/{hex}-"),
            &format!("e3/{hex}-+1"),
            &format!("e3/{hex}-4294967296"),
            &format!("e3/{hex}/"),
            &format!("e3/{}", hex.to_uppercase()),
            &format!("sha256/e3/{hex}"),
            &format!("sha512/e3/{hex}"),
            &format!("md5/e3/{hex}"),
            &format!("../e3/{hex}"),
            "../../etc/passwd",
        ] {
            assert!(RelativeKey::parse(text).is_none(), "{text}");
            assert!(RelativeKey::new(&ObjectKey(text.into())).is_err(), "{text}");
        }
    }

    fn digest() -> impl Strategy<Value = Digest> {
        let algorithm = prop_oneof![Just(Algorithm::Sha256), Just(Algorithm::Sha512)];
        (algorithm, any::<u64>()).prop_map(|(algorithm, seed)| Digest::of(algorithm, &seed.to_le_bytes()))
    }

    proptest! {
        #[test]
        fn any_key_leads_back_to_its_digest(digest in digest(), number: u32) {
            let key = key_candidates(&digest).nth(number);
            let relative = RelativeKey::new(&key).unwrap();
            prop_assert_eq!(relative.digest(), &digest);
            prop_assert!(relative.as_path().components().all(|part| matches!(part, std::path::Component::Normal(_))));
            prop_assert!(relative.as_path().starts_with(relative.shard()));
            prop_assert_eq!(relative.into_key(), key);
        }

        /// Whatever somebody made of a key: either it is one that would be given out, for the digest that it says, or none.
        #[test]
        fn a_changed_key_is_another_or_none(
            digest in digest(),
            number in prop_oneof![Just(0), any::<u32>()],
            at: prop::sample::Index,
            removed in 0usize..3,
            inserted in "[0-9a-f/.A-F+-]{0,2}|\\PC?|/?sha512/|/?sha256/|-0|-1|\\.\\./",
        ) {
            let mut text = key_candidates(&digest).nth(number).as_str().to_owned();
            let at = at.index(text.len());
            text.replace_range(at..(at + removed).min(text.len()), &inserted);
            if let Some(key) = RelativeKey::parse(&text) {
                let number = text.split_once('-').map_or(0, |(_, number)| number.parse().unwrap());
                let given_out = key_candidates(key.digest()).nth(number);
                prop_assert_eq!(given_out.as_str(), text);
            }
        }
    }
}

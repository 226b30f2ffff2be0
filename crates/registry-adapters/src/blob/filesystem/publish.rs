//! Making staged bytes an object.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use registry_core::digest::{Algorithm, Digest, DigestOf};
use registry_core::ports::blob_store::Published;

use super::buffers::PIECE_BYTES;
use super::layout::{Layout, RelativeKey, create_folder, sync_folder};
use super::lock::{Locked, try_lock};

/// Objects never change; nobody but the server's user and its backups read them here.
const OBJECT_MODE: u32 = 0o440;

/// The shards whose entries in their parents are known to be durable.
#[derive(Debug, Default)]
pub(super) struct DurableShards(Mutex<HashSet<String>>);

impl DurableShards {
    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the folder `shard`, and that it is there durable. Once in a process also for a folder that exists:
    /// whoever made it may have died before it was durable.
    fn ensure(&self, layout: &Layout, shard: &str) -> io::Result<()> {
        if self.known().contains(shard) {
            return Ok(());
        }
        let mut folder = layout.blobs().to_owned();
        for name in Path::new(shard) {
            let parent = folder.clone();
            folder.push(name);
            create_folder(&folder)?;
            sync_folder(&parent)?;
        }
        self.known().insert(shard.to_owned());
        Ok(())
    }

    fn forget(&self, shard: &str) {
        self.known().remove(shard);
    }
}

/// Makes the staged bytes `[0, size)` the object `key`, or says [`Published::Busy`] at once when a writer holds them.
/// Blocks.
///
/// An object that is there with that size came from an earlier call for the same upload, because the key is reserved
/// for it, and its bytes were checked before. What is staged beside it is younger then, from a writer that was overtaken
/// long ago and that nobody checked. Or the object is a stranger's, such as what a restore left that did not end. Where
/// both may be the blob, the object's bytes are looked at, and it is replaced unless they are the right ones.
pub(super) fn publish(
    layout: &Layout,
    shards: &DurableShards,
    staged: &Path,
    size: u64,
    key: &RelativeKey,
) -> io::Result<Published> {
    let object = layout.object(key);
    let staging = loop {
        let file = match OpenOptions::new().read(true).write(true).open(staged) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break None,
            Err(error) => return Err(error),
        };
        match try_lock(&file, staged)? {
            Locked::Yes => break Some(file),
            Locked::Busy => return Ok(Published::Busy),
            // Another call has just published it: see what there is now.
            Locked::Moved => {}
        }
    };
    let staged_length = staging.as_ref().map(File::metadata).transpose()?.map(|metadata| metadata.len());
    let may_be_staged = staged_length.is_some_and(|length| length >= size);
    if object_length(&object)? == Some(size)
        && (!may_be_staged || digest_of(&object, key.digest().algorithm())? == *key.digest())
    {
        shards.ensure(layout, key.shard())?;
        sync_folder(object.parent().expect("an object lies in a shard"))?;
        if staging.is_some() {
            remove_if_there(staged)?;
        }
        return Ok(Published::Yes);
    }
    let (Some(staging), Some(length), true) = (staging, staged_length, may_be_staged) else {
        return Ok(Published::Lost);
    };
    if length > size {
        // Bytes after the last checkpoint; nobody checked them.
        staging.set_len(size)?;
        staging.sync_data()?;
    }
    shards.ensure(layout, key.shard())?;
    if let Err(error) = std::fs::rename(staged, &object) {
        if error.kind() != io::ErrorKind::NotFound {
            return Err(error);
        }
        // Somebody has tidied up an empty shard, or discarded the upload: then this fails again.
        shards.forget(key.shard());
        shards.ensure(layout, key.shard())?;
        match std::fs::rename(staged, &object) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Published::Lost),
            other => other?,
        }
    }
    // Not before: after a crash in between, the staged bytes could not be opened for writing again.
    staging.set_permissions(Permissions::from_mode(OBJECT_MODE))?;
    sync_folder(object.parent().expect("an object lies in a shard"))?;
    Ok(Published::Yes)
}

/// The digest of the bytes at `path`.
fn digest_of(path: &Path, algorithm: Algorithm) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut digest = DigestOf::new(algorithm);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(digest.finish()),
            Ok(length) => digest.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The length of the object at `path`; `None` when there is none.
pub(super) fn object_length(path: &Path) -> io::Result<Option<u64>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file; absent is no error.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Deletes the object at `path` durably; absent is no error. Blocks.
pub(super) fn delete(path: &Path) -> io::Result<()> {
    remove_if_there(path)?;
    // Also when it was gone already: whoever removed it may have died before that was durable.
    match File::open(path.parent().expect("an object lies in a shard")) {
        Ok(shard) => shard.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

//! What there is in the store.

use std::io;
use std::path::Path;

use registry_core::ports::blob_store::ObjectKey;
use registry_core::upload::UploadId;

use super::layout::{Layout, RelativeKey};
use super::publish::object_length;

/// The next at most `limit` objects after `after` in the order of keys, with their sizes in bytes. Blocks; reads one
/// folder after another and no more of them than needed.
pub(super) fn objects(layout: &Layout, after: Option<&ObjectKey>, limit: usize) -> io::Result<Vec<(ObjectKey, u64)>> {
    let mut page = Vec::new();
    walk(layout.blobs(), "", after.map_or("", ObjectKey::as_str), &mut |key| {
        if page.len() < limit
            && let Some(key) = RelativeKey::parse(key)
            && let Some(size) = object_length(&layout.object(&key))?
        {
            page.push((key.into_key(), size));
        }
        Ok(page.len() < limit)
    })?;
    Ok(page)
}

/// Hands the paths below `folder` that are greater than `after` to `found`, in byte order, until that says false.
fn walk(folder: &Path, prefix: &str, after: &str, found: &mut dyn FnMut(&str) -> io::Result<bool>) -> io::Result<bool> {
    let mut names = names(folder)?;
    // With the `/` at the end of a folder's name this is the order of the paths, too.
    names.sort_unstable();
    for name in names {
        let path = format!("{prefix}{name}");
        let goes_on = if name.ends_with('/') {
            // What begins with a path that is less than `after` and no part of it is less than `after`.
            let is_done = path.as_str() < after && !after.starts_with(&path);
            is_done || walk(&folder.join(&name), &path, after, found)?
        } else {
            path.as_str() <= after || found(&path)?
        };
        if !goes_on {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The names in a folder, those of folders with a `/` at the end. Names that are no text are none of ours.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        // A shard that was tidied up meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(mut name) = entry.file_name().into_string() {
            if entry.file_type()?.is_dir() {
                name.push('/');
            }
            names.push(name);
        }
    }
    Ok(names)
}

/// The uploads that have something staged, in no order. Blocks.
pub(super) fn staged(layout: &Layout) -> io::Result<Vec<UploadId>> {
    let mut ids = Vec::new();
    for name in names(layout.uploads())? {
        // Only the spelling that this store uses: other names are not ours to remove.
        if let Ok(id) = name.parse::<UploadId>()
            && id.to_string() == name
        {
            ids.push(id);
        }
    }
    Ok(ids)
}

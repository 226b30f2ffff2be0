//! The file next to the output that holds what was received so far.
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Digest, Error, Hasher, Phase, Progress, Result};

const SUFFIX: &str = ".partial";
/// The longest file name that common file systems take, in bytes.
const NAME_LIMIT: usize = 255;
/// How many bytes are read at once.
const CHUNK: usize = 1 << 20;

/// A partial file, locked: no other pull writes to it meanwhile. Its name contains the digest, so that the bytes of one
/// artifact never continue those of another.
pub(crate) struct Partial {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

pub(crate) fn file_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { action, path: path.to_owned(), source }
}

/// The folder that `output` lies in.
pub(crate) fn folder_of(output: &Path) -> &Path {
    output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `<output>.sha256-<hex>.partial`, or without the output's name if that would be too long.
fn path_for(output: &Path, digest: &Digest) -> PathBuf {
    let mut name = OsString::new();
    let own = format!("sha256-{}{SUFFIX}", digest.hex());
    let output_name = output.file_name().unwrap_or_default();
    if output_name.len() + 1 + own.len() <= NAME_LIMIT {
        name.push(output_name);
        name.push(".");
    }
    name.push(own);
    folder_of(output).join(name)
}

impl Partial {
    /// Opens, or creates, the partial file of `output` for the artifact with `digest`.
    ///
    /// # Errors
    /// [`Error::Busy`] if another pull has it open; [`Error::File`] if it cannot be opened, or is not a regular file.
    pub(crate) fn open(output: &Path, digest: &Digest) -> Result<Self> {
        let path = path_for(output, digest);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(|source| file_error("create", &path, source))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Error::Busy { path }),
                // Some file systems know no locks. Two pulls at once would spoil each other's bytes there, which the digest
                // shows.
                Err(TryLockError::Error(source)) if is_unsupported(&source) => {}
                Err(TryLockError::Error(source)) => return Err(file_error("lock", &path, source)),
            }
            // Between opening and locking, the pull that held it may have finished and renamed or removed it.
            match fs::symlink_metadata(&path) {
                Ok(there) if !there.is_file() => {
                    let source = io::Error::other("it is a link or a folder; remove it");
                    return Err(file_error("use", &path, source));
                }
                Ok(there) if same_file(&there, &file).map_err(|source| file_error("read", &path, source))? => {
                    return Ok(Self { path, file });
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(file_error("read", &path, error)),
            }
        }
    }

    /// Hashes what is there, and leaves the file positioned at its end. More than `size` bytes can be no beginning of
    /// the artifact: they are cut off, all.
    pub(crate) fn hash(&mut self, size: u64, progress: &Arc<dyn Progress>) -> Result<Hasher> {
        let failed = |source| file_error("read", &self.path, source);
        let length = self.file.metadata().map_err(failed)?.len();
        let mut hasher = Hasher::new();
        if length > size {
            self.clear()?;
            return Ok(hasher);
        }
        if length > 0 {
            progress.begin(Phase::Checking, Some(length), 0);
        }
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut buffer = vec![0; CHUNK];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(hasher),
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                    progress.advance(read as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Cuts off everything.
    pub(crate) fn clear(&mut self) -> Result<()> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map(drop).map_err(|source| file_error("write", &self.path, source))
    }

    /// Makes the bytes durable, gives them the name `output`, and makes that durable.
    pub(crate) fn finish(self, output: &Path) -> Result<()> {
        self.file.sync_all().map_err(|source| file_error("write", &self.path, source))?;
        fs::rename(&self.path, output).map_err(|source| file_error("write", output, source))?;
        let folder = folder_of(output);
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            // There it is as durable as it can be.
            Err(source) if is_unsupported(&source) => Ok(()),
            synced => synced.map_err(|source| file_error("write", folder, source)),
        }
    }

    /// Removes the file. That it cannot be removed harms nothing.
    pub(crate) fn discard(self) {
        drop(fs::remove_file(&self.path));
    }

    /// Removes the file if it holds nothing.
    pub(crate) fn discard_if_empty(self) {
        if self.file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            self.discard();
        }
    }
}

/// Whether a file system says that it does not have what was asked of it: `ENOSYS` and `EOPNOTSUPP`, or `EINVAL` (of a folder
/// that is to be synced).
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}

/// Removes what pulls of other artifacts to the same output left behind, unless one is being written.
pub(crate) fn discard_others(output: &Path) {
    let Some(name) = output.file_name() else { return };
    let Ok(entries) = fs::read_dir(folder_of(output)) else { return };
    for entry in entries.flatten() {
        if is_partial_of(name, &entry.file_name())
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            drop(fs::remove_file(entry.path()));
        }
    }
}

fn is_partial_of(output_name: &OsStr, name: &OsStr) -> bool {
    let rest = name.as_encoded_bytes().strip_prefix(output_name.as_encoded_bytes());
    let hex =
        rest.and_then(|rest| rest.strip_prefix(b".sha256-")).and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
    hex.and_then(|hex| std::str::from_utf8(hex).ok()).is_some_and(|hex| Digest::from_hex(hex).is_ok())
}

#[cfg(unix)]
fn same_file(there: &fs::Metadata, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = file.metadata()?;
    Ok((there.dev(), there.ino()) == (open.dev(), open.ino()))
}

#[cfg(not(unix))]
fn same_file(_: &fs::Metadata, _: &File) -> io::Result<bool> {
    // An open file cannot be renamed or removed here.
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::silent;

    #[test]
    fn the_name_holds_the_digest_and_fits_the_file_system() {
        let digest = Digest::of(b"x");
        let path = path_for(Path::new("out/f.bin"), &digest);
        assert_eq!(path, Path::new("out").join(format!("f.bin.sha256-{}.partial", digest.hex())));
        assert!(is_partial_of(OsStr::new("f.bin"), path.file_name().expect("it has one")));
        assert!(!is_partial_of(OsStr::new("f"), path.file_name().expect("it has one")));
        assert!(!is_partial_of(OsStr::new("f.bin"), OsStr::new("f.bin.sha256-00.partial")));
        let long = "n".repeat(250);
        assert!(path_for(Path::new(&long), &digest).as_os_str().len() <= NAME_LIMIT);
    }

    #[test]
    fn one_pull_at_a_time_writes_a_partial_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (output, digest) = (folder.path().join("f"), Digest::of(b"x"));
        let first = Partial::open(&output, &digest).expect("free");
        assert!(matches!(Partial::open(&output, &digest), Err(Error::Busy { .. })));
        drop(first);
        Partial::open(&output, &digest).expect("free again");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_its_place_is_refused_and_its_target_untouched() {
        let folder = tempfile::tempdir().expect("a folder");
        let (output, digest, target) = (folder.path().join("f"), Digest::of(b"x"), folder.path().join("target"));
        fs::write(&target, "precious").expect("written");
        std::os::unix::fs::symlink(&target, path_for(&output, &digest)).expect("linked");
        assert!(matches!(Partial::open(&output, &digest), Err(Error::File { .. })));
        assert_eq!(fs::read(&target).expect("there"), b"precious");
    }

    #[test]
    fn more_bytes_than_the_artifact_has_are_no_beginning_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (output, digest) = (folder.path().join("f"), Digest::of(b"abc"));
        fs::write(path_for(&output, &digest), "abcd").expect("written");
        let mut partial = Partial::open(&output, &digest).expect("free");
        assert_eq!(partial.hash(3, &silent()).expect("read").length(), 0);
        assert_eq!(partial.file.metadata().expect("there").len(), 0);
    }

    #[test]
    fn only_abandoned_partials_of_the_same_output_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("f");
        let (abandoned, busy) = (path_for(&output, &Digest::of(b"1")), path_for(&output, &Digest::of(b"2")));
        let other = path_for(&folder.path().join("g"), &Digest::of(b"1"));
        for path in [&abandoned, &other] {
            fs::write(path, "x").expect("written");
        }
        let held = Partial::open(&output, &Digest::of(b"2")).expect("free");
        discard_others(&output);
        assert!(!abandoned.exists() && busy.exists() && other.exists());
        drop(held);
    }
}

//! The folder that everything is kept in.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The data folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct DataFolderError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl DataFolderError {
    /// `action` on `path` failed.
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.to_owned(), source }
    }
}

/// Makes the data folder, with its missing parents, for this user alone; one that is there is left as it is.
///
/// # Errors
/// [`DataFolderError`].
pub fn prepare(folder: &Path) -> Result<(), DataFolderError> {
    let made = || -> io::Result<()> {
        match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(io::Error::other("it is there and is not a folder"))
            }
            other => other,
        }
    };
    made().map_err(|source| DataFolderError::new("make the data folder", folder, source))
}

/// Writes a file that holds a secret, durably and for this user alone, unless one of that name is there.
///
/// A reader never sees a part of it, and of several that write at once, in one process, several or several containers,
/// exactly one wins, and the file holds what that one wrote. Returns whether this call did.
///
/// # Errors
/// [`DataFolderError`].
pub fn write_secret_once(path: &Path, text: &str) -> Result<bool, DataFolderError> {
    let wrong = |source| DataFolderError::new("write", path, source);
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let written = || -> io::Result<bool> {
        // A name at random: processes in containers that share the folder have the same number.
        let mut file = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Ok(_) => sync_folder(folder).map(|()| true),
            Err(lost) if lost.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(lost) => Err(lost.error),
        }
    };
    written().map_err(wrong)
}

/// Makes the entries of a folder durable.
///
/// # Errors
/// What the system says.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_folder_is_made_for_this_user_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        prepare(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        prepare(&folder).unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = prepare(&file).unwrap_err().to_string();
        assert!(error.starts_with("cannot make the data folder") && error.contains("not a folder"), "{error}");
    }

    #[test]
    fn a_secret_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(write_secret_once(&path, "one\n").unwrap());
        assert!(!write_secret_once(&path, "two\n").unwrap());
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("one\n", 0o600));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn of_those_who_write_a_secret_at_once_one_wins_and_the_file_is_its() {
        const WRITERS: usize = 4;
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("token");
            let start = Barrier::new(WRITERS);
            let write = |text: String| {
                start.wait();
                write_secret_once(&path, &text).unwrap().then_some(text)
            };
            let winners: Vec<String> = std::thread::scope(|scope| {
                let writers: Vec<_> = (0..WRITERS).map(|n| scope.spawn(move || write(format!("{n}\n")))).collect();
                writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect()
            });
            assert_eq!(winners, [std::fs::read_to_string(&path).unwrap()]);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        }
    }
}

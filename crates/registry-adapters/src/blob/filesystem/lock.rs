//! The lock on a staging file.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tokio::time::Instant;

/// How long to wait before trying a lock again, at first and at most.
const LOCK_RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Whether a staging file's lock was got.
pub(super) enum Locked {
    /// This opening has it, and the path still leads to this file.
    Yes,
    /// Another opening has it.
    Busy,
    /// The file was published or discarded meanwhile.
    Moved,
}

/// Tries to take the lock, without waiting. Does not touch the disk: both the lock and the inode are in memory.
pub(super) fn try_lock(file: &File, path: &Path) -> io::Result<Locked> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(Locked::Busy),
        Err(error) => return Err(error.into()),
    }
    let held = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => Ok(Locked::Yes),
        Ok(_) => Ok(Locked::Moved),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Locked::Moved),
        Err(error) => Err(error),
    }
}

/// Moments at which to try a lock again, until too much time has passed.
pub(super) struct Retry {
    until: Instant,
    pause: Duration,
}

impl Retry {
    /// For at most `wait`.
    pub(super) fn new(wait: Duration) -> Self {
        Self { until: Instant::now() + wait, pause: LOCK_RETRY.0 }
    }

    /// Waits a little; false when it is time to give up.
    pub(super) async fn again(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.until {
            return false;
        }
        tokio::time::sleep_until((now + self.pause).min(self.until)).await;
        self.pause = (self.pause * 2).min(LOCK_RETRY.1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    fn lock(file: &File, path: &Path) -> &'static str {
        match try_lock(file, path).unwrap() {
            Locked::Yes => "yes",
            Locked::Busy => "busy",
            Locked::Moved => "moved",
        }
    }

    #[test]
    fn a_lock_is_for_the_file_that_the_path_leads_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("staged");
        let open = || OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let [first, second, third] = [open(), open(), open()];
        assert_eq!([lock(&first, &path), lock(&second, &path)], ["yes", "busy"]);
        std::fs::rename(&path, folder.path().join("object")).unwrap();
        assert_eq!(lock(&second, &path), "busy");
        drop(first);
        assert_eq!(lock(&second, &path), "moved");
        drop(second);
        // Another file of that name is not the one that was opened.
        let new = open();
        assert_eq!([lock(&new, &path), lock(&third, &path)], ["yes", "moved"]);
    }

    #[tokio::test(start_paused = true)]
    async fn retrying_ends_after_the_time_given() {
        let start = Instant::now();
        let mut retry = Retry::new(Duration::from_millis(150));
        let mut tries = 0;
        while retry.again().await {
            tries += 1;
        }
        assert_eq!(start.elapsed(), Duration::from_millis(150));
        assert!((8..20).contains(&tries), "{tries}");
        assert!(!Retry::new(Duration::ZERO).again().await);
    }
}

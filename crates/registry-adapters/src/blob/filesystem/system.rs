//! System calls that no safe library offers, or not every system has.
#![expect(unsafe_code, reason = "open-file-description locks and sync_file_range have no safe wrapper; see each call")]

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Takes a write lock on the one byte at `offset` of `file`, if nobody has it; false when somebody does.
///
/// The lock belongs to this opening of the file (an *open file description*): another opening is excluded even in the
/// same process, and the lock ends when this one is closed, however the process ends. The byte need not exist.
pub(super) fn try_lock_byte(file: &File, offset: u64) -> io::Result<bool> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: libc::off_t::try_from(offset).map_err(io::Error::other)?,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, because `file` is borrowed; F_OFD_SETLK reads one `flock` through the pointer,
    // which is valid for the whole call, and writes nothing.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Asks the kernel to begin writing `[offset, offset + length)` to disk, and does not wait for it. This makes nothing
/// durable: it only shortens a later fdatasync. Advice, so a failure is nobody's concern.
#[cfg(target_os = "linux")]
pub(super) fn start_writeback(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (libc::off64_t::try_from(offset), libc::off64_t::try_from(length)) else { return };
    // SAFETY: the descriptor is open, because `file` is borrowed; the call takes no pointers.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Elsewhere the kernel decides alone.
#[cfg(not(target_os = "linux"))]
pub(super) fn start_writeback(_file: &File, _offset: u64, _length: u64) {}

/// Asks the kernel to read `[offset, offset + length)` into memory, and does not wait for it. Advice, too.
#[cfg(target_os = "linux")]
pub(super) fn read_ahead(file: &File, offset: u64, length: u64) {
    let _ = rustix::fs::fadvise(file, offset, std::num::NonZeroU64::new(length), rustix::fs::Advice::WillNeed);
}

/// Elsewhere the kernel decides alone.
#[cfg(not(target_os = "linux"))]
pub(super) fn read_ahead(_file: &File, _offset: u64, _length: u64) {}

/// What came of asking for bytes that are in memory.
#[derive(Debug)]
pub(super) enum Cached<T> {
    /// Here it is, without having waited for a disk.
    Ready(T),
    /// It may take a disk: ask on a thread that may block.
    Blocks,
    /// This system or file system cannot be asked so.
    Unsupported,
}

/// Reads at `offset` what is in memory, at most `buffer`; never waits for a disk. 0 bytes are the end of the file.
#[cfg(target_os = "linux")]
pub(super) fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<Cached<usize>> {
    use rustix::io::{Errno, ReadWriteFlags};
    loop {
        return match rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
            Ok(length) => Ok(Cached::Ready(length)),
            Err(Errno::AGAIN) => Ok(Cached::Blocks),
            Err(Errno::INTR) => continue,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(Cached::Unsupported),
            Err(error) => Err(error.into()),
        };
    }
}

/// Elsewhere every read may block.
#[cfg(not(target_os = "linux"))]
pub(super) fn read_cached(_file: &File, _buffer: &mut [u8], _offset: u64) -> io::Result<Cached<usize>> {
    let _ = IoSliceMut::new;
    Ok(Cached::Unsupported)
}

/// Opens `path` below `folder` for reading, if its names and inode are in memory; never waits for a disk.
#[cfg(target_os = "linux")]
pub(super) fn open_cached(folder: &File, path: &Path) -> io::Result<Cached<Option<File>>> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    use rustix::io::Errno;
    let resolve = ResolveFlags::CACHED | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(folder, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(file) => Ok(Cached::Ready(Some(file.into()))),
        Err(Errno::NOENT) => Ok(Cached::Ready(None)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Cached::Blocks),
        // Before Linux 5.12, or forbidden by a container's filter of system calls.
        Err(Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::OPNOTSUPP) => Ok(Cached::Unsupported),
        Err(error) => Err(error.into()),
    }
}

/// Elsewhere every open may block.
#[cfg(not(target_os = "linux"))]
pub(super) fn open_cached(_folder: &File, _path: &Path) -> io::Result<Cached<Option<File>>> {
    Ok(Cached::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;

    #[test]
    fn a_byte_is_locked_by_one_opening_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let open = || OpenOptions::new().create(true).append(true).open(folder.path().join("lock")).unwrap();
        let (first, second) = (open(), open());
        assert!(try_lock_byte(&first, 7).unwrap());
        assert!(try_lock_byte(&first, 7).unwrap(), "the holder may ask again");
        assert!(!try_lock_byte(&second, 7).unwrap());
        assert!(try_lock_byte(&second, 8).unwrap());
        drop(first);
        assert!(try_lock_byte(&second, 7).unwrap());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn cached_reads_and_opens_say_what_the_plain_ones_do() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), b"bytes").unwrap();
        let directory = File::open(folder.path()).unwrap();
        // What has just been written is in memory, but the kernel may say of anything, now and then, that it may block.
        let open = || open_cached(&directory, Path::new("f")).unwrap();
        let opened = (0..1_000).map(|_| open()).find(|opened| !matches!(opened, Cached::Blocks));
        let Some(Cached::Ready(Some(file))) = opened else {
            let why = format!("this system has no openat2 with RESOLVE_CACHED: {opened:?}");
            registry_test_postgres::skip("opening what is in memory", &why);
            return;
        };
        let mut buffer = [0; 16];
        let mut read = || read_cached(&file, &mut buffer, 1).unwrap();
        let length = (0..1_000).map(|_| read()).find(|read| !matches!(read, Cached::Blocks));
        match length {
            Some(Cached::Ready(length)) => assert_eq!(&buffer[..length], b"ytes"),
            other => {
                let why = format!("this file system has no RWF_NOWAIT: {other:?}");
                registry_test_postgres::skip("reading what is in memory", &why);
            }
        }
        assert!(!matches!(open_cached(&directory, Path::new("absent")), Ok(Cached::Ready(Some(_)))));
        assert!(!matches!(open_cached(&directory, Path::new("../..")), Ok(Cached::Ready(Some(_)))));
    }
}

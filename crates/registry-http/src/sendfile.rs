//! Sends ranges of files without copying them through this process, while hyper believes that it writes bytes.
//!
//! hyper hands the [`Bytes`] of a body to the socket as they are, as slices of a vectored write. So the body of a file
//! is one `Bytes` that *stands for* the file's range: an untouched read-only mapping of it, registered with its
//! connection ([`Files::stand_in`]). When the connection's socket meets a slice that begins inside a registered
//! mapping, the address tells file and offset, and `sendfile(2)` sends from there. Nothing ever reads through the
//! mapping in that course, so no page of it is ever faulted in; if any path should copy from it after all, the bytes
//! are the right ones.
//!
//! # Safety
//! The three unsafe acts are `mmap`, making a slice of the mapping, and `mincore`:
//! - The mapping is private to a [`StandIn`], made with an address that the kernel chose, and unmapped only when that
//!   is dropped, which `Bytes` does after its last clone; no slice of it outlives it.
//! - A slice over a mapped file is sound while the file does not change. Files come from
//!   [`BlobReader::file`](registry_core::ports::blob_store::BlobReader::file), whose contract says *immutable*: an
//!   object is renamed into place complete and never written or truncated again; deleting unlinks the name, and the
//!   open file and this mapping keep the bytes.
//! - `mincore` writes one byte a page into a buffer of that size and touches nothing else.

#![expect(unsafe_code, reason = "mmap, a slice over it and mincore; the safety is argued above")]

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::mm::{MapFlags, ProtFlags};

/// The files that one connection is sending.
#[derive(Default)]
pub(crate) struct Files(Mutex<Vec<Registered>>);

/// Is told how much of a file was sent, and lives until all of it is sent or given up.
pub(crate) trait Tally: Send + Sync {
    /// `bytes` more were taken by the socket.
    fn count_out(&self, bytes: u64);
}

/// A registered mapping: the addresses `[start, end)` stand for the file from `offset` on.
struct Registered {
    start: usize,
    end: usize,
    file: Arc<File>,
    offset: u64,
    tally: Arc<dyn Tally>,
}

/// A part of a file that a slice stands for.
#[derive(Clone)]
pub(crate) struct Piece {
    /// The file.
    pub(crate) file: Arc<File>,
    /// Where in the file the part begins, in bytes.
    pub(crate) offset: u64,
    /// How long it is, in bytes.
    pub(crate) length: usize,
    /// The address that stands for its first byte.
    address: usize,
    /// Is told what was sent.
    pub(crate) tally: Arc<dyn Tally>,
}

impl Files {
    /// Bytes that stand for `range` of `file`, which this connection will send from the file itself. `None`
    /// when the kernel refuses a mapping.
    pub(crate) fn stand_in(
        self: &Arc<Self>,
        file: &Arc<File>,
        range: Range<u64>,
        tally: Arc<dyn Tally>,
    ) -> Option<Bytes> {
        let mapping = Mapping::new(file, range.clone()).ok()?;
        let start = mapping.slice().as_ptr().addr();
        let end = start + mapping.slice().len();
        let entry = Registered { start, end, file: Arc::clone(file), offset: range.start, tally };
        self.entries().push(entry);
        Some(Bytes::from_owner(StandIn { mapping, files: Arc::clone(self) }))
    }

    /// The part of a file that `slice` stands for, if it does.
    pub(crate) fn piece(&self, slice: &[u8]) -> Option<Piece> {
        let address = slice.as_ptr().addr();
        // An address inside a registered mapping can belong to nothing else: the entry goes before the mapping does.
        let entries = self.entries();
        let entry = entries.iter().find(|entry| (entry.start..entry.end).contains(&address))?;
        let length = slice.len().min(entry.end - address);
        let offset = entry.offset + (address - entry.start) as u64;
        Some(Piece { file: Arc::clone(&entry.file), offset, length, address, tally: Arc::clone(&entry.tally) })
    }

    /// Whether nothing is registered.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Vec<Registered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owner of the `Bytes` that stand for a file's range.
struct StandIn {
    mapping: Mapping,
    files: Arc<Files>,
}

impl AsRef<[u8]> for StandIn {
    fn as_ref(&self) -> &[u8] {
        self.mapping.slice()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let start = self.mapping.slice().as_ptr().addr();
        let mut entries = self.files.entries();
        let gone = entries.iter().position(|entry| entry.start == start).map(|index| entries.swap_remove(index));
        drop(entries);
        // Outside the lock: the last to let go of the tally may do as it likes.
        drop(gone);
    }
}

/// A read-only mapping of a range of an immutable file.
struct Mapping {
    base: NonNull<u8>,
    /// From `base`, which is at a page's beginning, to the range's beginning.
    lead: usize,
    length: usize,
}

// SAFETY: the mapping is read-only memory that nothing writes to; which thread reads or unmaps it does not matter.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `range`, which is not empty and lies inside `file`.
    fn new(file: &File, range: Range<u64>) -> io::Result<Self> {
        let page = rustix::param::page_size() as u64;
        let lead = range.start % page;
        let too_long = |_| io::Error::from(io::ErrorKind::OutOfMemory);
        let length = usize::try_from(range.end - range.start).map_err(too_long)?;
        let lead_length = usize::try_from(lead).map_err(too_long)?;
        // SAFETY: a null hint lets the kernel choose an unused address, so no memory of this process is replaced.
        let base = unsafe {
            rustix::mm::mmap(
                ptr::null_mut(),
                lead_length.checked_add(length).ok_or(io::ErrorKind::OutOfMemory)?,
                ProtFlags::READ,
                MapFlags::SHARED,
                file,
                range.start - lead,
            )
        }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, lead: lead_length, length })
    }

    fn slice(&self) -> &[u8] {
        // SAFETY: `base` begins a mapping of `lead + length` bytes that lives as long as `self`; the file under it
        // does not change and is not shortened (see above).
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(self.lead), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped; `self` is going, and no slice of it is left.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.lead + self.length) };
        debug_assert!(unmapped.is_ok(), "a mapping is unmapped once");
    }
}

impl Piece {
    /// The part's first `length` bytes at most.
    pub(crate) fn head(&self, length: usize) -> Piece {
        Piece { length: self.length.min(length), ..self.clone() }
    }

    /// The addresses that stand for the part.
    pub(crate) fn addresses(&self) -> Range<usize> {
        self.address..self.address + self.length
    }

    /// How many bytes at the part's beginning are in memory, so that sending them waits for no disk.
    pub(crate) fn resident(&self) -> usize {
        let page = rustix::param::page_size();
        let lead = self.address % page;
        let mut pages = vec![0_u8; (lead + self.length).div_ceil(page)];
        let base = ptr::without_provenance_mut::<libc::c_void>(self.address - lead);
        // SAFETY: `pages` has a byte for every page of the range; mincore writes only there, and reads no memory of
        // the range itself, mapped or not.
        let asked = unsafe { libc::mincore(base, lead + self.length, pages.as_mut_ptr()) };
        if asked != 0 {
            // Unknown: better a stall than no answer.
            return self.length;
        }
        let resident = pages.iter().take_while(|flags| *flags & 1 == 1).count();
        (resident * page).saturating_sub(lead).min(self.length)
    }

    /// Reads the part, so that it is in memory, and has the kernel begin with the `further` bytes after it. Blocks.
    pub(crate) fn read_ahead(&self, further: usize) -> io::Result<()> {
        let asked = NonZeroU64::new((self.length + further) as u64);
        // Advice: without it, or when the file ends before, reading merely takes its own time.
        let _ = rustix::fs::fadvise(&*self.file, self.offset, asked, rustix::fs::Advice::WillNeed);
        let mut buffer = vec![0_u8; self.length.min(256 * 1024)];
        let mut done = 0;
        while done < self.length {
            let wanted = buffer.len().min(self.length - done);
            match self.file.read_at(&mut buffer[..wanted], self.offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

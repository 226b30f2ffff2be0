//! Buffers for reading, used again and again.
//!
//! A fresh buffer of this size costs a system call, zeroing, and a page fault for every 4 KiB, which together is more
//! than copying the bytes into it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// How many bytes one piece of a stream has at most.
pub(super) const PIECE_BYTES: usize = 256 * 1024;
/// Pieces up to this length get memory of their own: for those the general allocator is as good.
const SMALL_BYTES: usize = 32 * 1024;
/// How many unused buffers are kept.
const MAX_IDLE: usize = 32;

/// Keeps buffers that are not in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Box<[u8]>>>>);

impl Buffers {
    /// A buffer of at least `length` bytes, but at most [`PIECE_BYTES`].
    pub(super) fn get(&self, length: usize) -> Buffer {
        let home = (length > SMALL_BYTES).then(|| self.clone());
        let kept = home.as_ref().and_then(|home| home.idle().pop());
        let size = if home.is_some() { PIECE_BYTES } else { length };
        Buffer { bytes: kept.unwrap_or_else(|| vec![0; size].into()), length: length.min(PIECE_BYTES), home }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Box<[u8]>>> {
        // Nothing panics while it holds the lock, so what is inside is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer, which goes back to where it came from when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    length: usize,
    home: Option<Buffers>,
}

impl Buffer {
    /// Where to read into.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// The first `length` bytes of it.
    pub(super) fn into_bytes(mut self, length: usize) -> Bytes {
        assert!(length <= self.length, "no more than there is space for was read");
        self.length = length;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            let mut idle = home.idle();
            if idle.len() < MAX_IDLE {
                idle.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_comes_back_when_its_last_piece_is_dropped() {
        let buffers = Buffers::default();
        let mut buffer = buffers.get(PIECE_BYTES);
        buffer.space().fill(7);
        let piece = buffer.into_bytes(PIECE_BYTES - 1);
        let slice = piece.slice(5..10);
        drop(piece);
        assert_eq!((slice.as_ref(), buffers.idle().len()), (&[7; 5][..], 0));
        drop(slice);
        assert_eq!(buffers.idle().len(), 1);
        let again = buffers.get(SMALL_BYTES + 1);
        assert_eq!((again.as_ref().len(), buffers.idle().len()), (SMALL_BYTES + 1, 0));
    }

    #[test]
    fn small_ones_are_not_kept_and_large_ones_only_up_to_a_bound() {
        let buffers = Buffers::default();
        drop(buffers.get(SMALL_BYTES).into_bytes(1));
        assert_eq!(buffers.idle().len(), 0);
        let many: Vec<_> = (0..MAX_IDLE + 3).map(|_| buffers.get(usize::MAX)).collect();
        assert!(many.iter().all(|buffer| buffer.as_ref().len() == PIECE_BYTES));
        drop(many);
        assert_eq!(buffers.idle().len(), MAX_IDLE);
    }
}

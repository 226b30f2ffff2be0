//! Pieces of a body, collected for one system call.

use std::fs::File;
use std::io::{self, IoSlice};

use bytes::{Bytes, BytesMut};

/// How many bytes make a full batch.
pub(super) const BATCH_BYTES: usize = 512 * 1024;
/// Pieces shorter than this are copied together. A longer one is kept as it came; a shorter one would cost more to
/// keep than it holds, and a body of 1-byte chunks would be a batch of half a million pieces.
const COPY_BELOW_BYTES: usize = 4 * 1024;
/// The most pieces of one system call (`IOV_MAX`). A batch has fewer: at most one run of copied pieces between two of
/// [`COPY_BELOW_BYTES`] or more.
const MAX_SLICES: usize = 1024;
const _: () = assert!(2 * (BATCH_BYTES / COPY_BELOW_BYTES) + 1 < MAX_SLICES);

/// At most [`BATCH_BYTES`] bytes, mostly uncopied.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pieces: Vec<Bytes>,
    copied: BytesMut,
    length: usize,
}

impl Batch {
    /// Takes as much of `bytes` as fits.
    pub(super) fn take(&mut self, bytes: &mut Bytes) {
        let piece = bytes.split_to(bytes.len().min(BATCH_BYTES - self.length));
        self.length += piece.len();
        if piece.len() < COPY_BELOW_BYTES {
            self.copied.extend_from_slice(&piece);
        } else {
            self.end_copied();
            self.pieces.push(piece);
        }
    }

    fn end_copied(&mut self) {
        if !self.copied.is_empty() {
            self.pieces.push(self.copied.split().freeze());
        }
    }

    /// Whether nothing more fits.
    pub(super) fn is_full(&self) -> bool {
        self.length == BATCH_BYTES
    }

    /// How many bytes it holds.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Writes all of it at `offset`. Blocks.
    pub(super) fn write_at(mut self, file: &File, offset: u64) -> io::Result<()> {
        self.end_copied();
        let mut slices: Vec<IoSlice<'_>> = self.pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = &mut slices[..];
        let mut offset = offset;
        while !rest.is_empty() {
            match rustix::io::pwritev(file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_keeps_the_order_of_long_and_short_pieces_and_takes_no_more_than_it_holds() {
        let mut batch = Batch::default();
        let mut expected = Vec::new();
        let mut value = 0u8;
        for length in (0..).map(|step| [1, 3, COPY_BELOW_BYTES, 4095, 70_000, 2][step % 6]) {
            value = value.wrapping_add(1);
            let mut piece = Bytes::from(vec![value; length]);
            expected.extend_from_slice(&piece);
            batch.take(&mut piece);
            if batch.is_full() {
                expected.truncate(expected.len() - piece.len());
                break;
            }
            assert!(piece.is_empty());
        }
        assert_eq!((batch.len(), expected.len()), (BATCH_BYTES, BATCH_BYTES));
        let mut more = Bytes::from_static(b"more");
        batch.take(&mut more);
        assert_eq!(more, "more");

        let file = tempfile::tempfile().unwrap();
        batch.write_at(&file, 10).unwrap();
        let mut written = vec![0; BATCH_BYTES + 10];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut written, 0).unwrap();
        assert_eq!(written[..10], [0; 10]);
        assert!(written[10..] == expected[..], "the bytes differ");
        assert_eq!(file.metadata().unwrap().len(), written.len() as u64);
    }

    #[test]
    fn one_byte_pieces_are_copied_together() {
        let mut batch = Batch::default();
        for _ in 0..10_000 {
            batch.take(&mut Bytes::from_static(b"x"));
        }
        assert!(batch.pieces.is_empty());
        assert_eq!(batch.copied.len(), 10_000);
    }

    /// The last bytes of a disk take the beginning of a batch; that is no success.
    #[test]
    fn a_batch_of_which_only_a_part_could_be_written_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"]).arg(folder.path()).output();
        if !mount.as_ref().is_ok_and(|output| output.status.success()) {
            registry_test_postgres::skip("a batch on a full disk", &format!("nobody may mount a tmpfs: {mount:?}"));
            return;
        }
        let file = File::create(folder.path().join("f")).unwrap();
        let mut batch = Batch::default();
        batch.take(&mut Bytes::from(vec![7; BATCH_BYTES]));
        let outcome = batch.write_at(&file, 0);
        let written = file.metadata().unwrap().len();
        drop(file);
        std::process::Command::new("umount").arg(folder.path()).status().unwrap();
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!((1..BATCH_BYTES as u64).contains(&written), "{written} bytes fitted: nothing was short");
    }
}

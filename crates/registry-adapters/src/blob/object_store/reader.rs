//! Reading objects.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use registry_core::error::StoreError;
use registry_core::ports::blob_store::BlobReader;

use super::errors::{failure, is_absent};

/// How long a piece is at most, in bytes: a store in memory gives all at once.
const PIECE_BYTES: usize = 1024 * 1024;

type Pieces = BoxStream<'static, object_store::Result<Bytes>>;

/// An object whose bytes are on their way.
///
/// Opening asks for the whole of it, so that reading it all is one request; what is not read stays at the store, because
/// nobody takes it out of the connection. A part of it is a request of its own.
pub(super) struct Reader {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    etag: Option<String>,
    whole: Mutex<Option<Pieces>>,
}

impl Reader {
    /// Opens the object; `None` when it is not there.
    pub(super) async fn open(objects: &Arc<dyn ObjectStore>, path: Path) -> Result<Option<Self>, StoreError> {
        let opened = match objects.get_opts(&path, GetOptions::default()).await {
            Err(error) if is_absent(&error) => return Ok(None),
            other => other.map_err(failure(format!("open {path}")))?,
        };
        let (size, etag) = (opened.meta.size, opened.meta.e_tag.clone());
        let whole = Mutex::new(Some(opened.into_stream()));
        Ok(Some(Self { objects: Arc::clone(objects), path, size, etag, whole }))
    }

    /// The bytes as the store sends them. A connection that breaks is resumed where it broke, if the object is still the
    /// same.
    fn pieces(&self, range: &Range<u64>) -> Pieces {
        let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(whole) = whole
            && *range == (0..self.size)
        {
            return whole;
        }
        let (objects, path) = (Arc::clone(&self.objects), self.path.clone());
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: self.etag.clone(),
            ..GetOptions::default()
        };
        stream::once(async move { objects.get_opts(&path, options).await.map(|part| part.into_stream()) })
            .try_flatten()
            .boxed()
    }
}

impl BlobReader for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    fn stream(self: Arc<Self>, range: Range<u64>) -> BoxStream<'static, Result<Bytes, StoreError>> {
        if range.is_empty() {
            return stream::empty().boxed();
        }
        exactly(self.pieces(&range), range.end - range.start, self.path.to_string())
    }
}

/// Exactly `length` bytes of `pieces`, cut to a bounded length; with fewer or more it ends in an error.
pub(super) fn exactly(pieces: Pieces, length: u64, what: String) -> BoxStream<'static, Result<Bytes, StoreError>> {
    struct State {
        pieces: Pieces,
        current: Bytes,
        left: u64,
        what: String,
        has_ended: bool,
    }
    let state = State { pieces, current: Bytes::new(), left: length, what, has_ended: false };
    stream::unfold(state, |mut state| async move {
        if state.has_ended {
            return None;
        }
        while state.current.is_empty() {
            let error = match state.pieces.next().await {
                Some(Ok(piece)) if piece.len() as u64 <= state.left => {
                    state.left -= piece.len() as u64;
                    state.current = piece;
                    continue;
                }
                None if state.left == 0 => return None,
                Some(Ok(_)) => StoreError::corrupt(format!("{} is longer than it was", state.what)),
                None => StoreError::corrupt(format!("{} ends {} bytes early", state.what, state.left)),
                Some(Err(error)) => failure(format!("read {}", state.what))(error),
            };
            state.has_ended = true;
            return Some((Err(error), state));
        }
        let piece = state.current.split_to(state.current.len().min(PIECE_BYTES));
        Some((Ok(piece), state))
    })
    .fuse()
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry_core::error::StoreErrorKind;

    async fn outcome(pieces: &[usize], length: u64) -> (u64, Option<StoreErrorKind>) {
        let pieces: Vec<_> = pieces.iter().map(|length| Ok(Bytes::from(vec![0; *length]))).collect();
        let mut stream = exactly(stream::iter(pieces).boxed(), length, "it".into());
        let (mut read, mut kind) = (0, None);
        while let Some(piece) = stream.next().await {
            assert_eq!(kind, None, "nothing comes after an error");
            match piece {
                Ok(piece) => {
                    assert!((1..=PIECE_BYTES).contains(&piece.len()));
                    read += piece.len() as u64;
                }
                Err(error) => kind = Some(error.kind),
            }
        }
        (read, kind)
    }

    #[tokio::test]
    async fn neither_fewer_nor_more_bytes_pass_for_the_object() {
        let mib = 1024 * 1024;
        assert_eq!(outcome(&[], 0).await, (0, None));
        assert_eq!(outcome(&[3, 0, 5 * mib], 3 + 5 * 1_048_576).await, (3 + 5 * 1_048_576, None));
        assert_eq!(outcome(&[10, 10], 21).await, (20, Some(StoreErrorKind::Corrupt)));
        assert_eq!(outcome(&[10, 10], 19).await, (10, Some(StoreErrorKind::Corrupt)));
        assert_eq!(outcome(&[], 1).await, (0, Some(StoreErrorKind::Corrupt)));
    }
}

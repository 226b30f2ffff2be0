//! The bodies of answers.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::stream::BoxStream;
use http_body::{Body, Frame, SizeHint};
use registry_core::error::StoreError;
use registry_core::ports::blob_store::BlobReader;

/// The body of an answer: always of a known length, so that Content-Length is always sent.
///
/// # Guarantees
/// An answer is complete or visibly broken: a stream that fails, ends early or overruns its length aborts the
/// connection (HTTP/1) or resets the stream (HTTP/2); a client never takes a short body for a whole one.
pub struct ResponseBody(Kind);

enum Kind {
    Empty,
    Full(Bytes),
    Stream {
        stream: BoxStream<'static, Result<Bytes, StoreError>>,
        remaining: u64,
    },
    Blob {
        reader: Arc<dyn BlobReader>,
        range: Range<u64>,
    },
    /// None of them is empty.
    Sequence(VecDeque<ResponseBody>),
}

impl ResponseBody {
    /// No bytes.
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }

    /// The bytes of `stream`, which must be `length` in all; it is not polled beyond that.
    pub fn stream(stream: BoxStream<'static, Result<Bytes, StoreError>>, length: u64) -> Self {
        Self(if length == 0 { Kind::Empty } else { Kind::Stream { stream, remaining: length } })
    }

    /// The bytes `[range.start, range.end)` of a blob, sent the fastest way that the connection and the store allow.
    /// Nothing is read before the answer is being sent.
    ///
    /// # Panics
    /// When the range is not inside the blob: a range is checked against the size before there is a body.
    pub fn blob(reader: Arc<dyn BlobReader>, range: Range<u64>) -> Self {
        assert!(range.start <= range.end && range.end <= reader.size(), "a range is inside its blob");
        Self(if range.is_empty() { Kind::Empty } else { Kind::Blob { reader, range } })
    }

    /// These one after the other; none is begun before those before it have ended.
    pub fn sequence(pieces: impl IntoIterator<Item = ResponseBody>) -> Self {
        let pieces: VecDeque<_> = pieces.into_iter().filter(|piece| !piece.is_end_stream()).collect();
        Self(if pieces.is_empty() { Kind::Empty } else { Kind::Sequence(pieces) })
    }

    /// The blob and the range that are to be sent, if it is that, and untouched.
    pub(crate) fn as_blob(&self) -> Option<(&Arc<dyn BlobReader>, Range<u64>)> {
        match &self.0 {
            Kind::Blob { reader, range } => Some((reader, range.clone())),
            _ => None,
        }
    }

    /// How many bytes are still to come.
    pub fn remaining(&self) -> u64 {
        match &self.0 {
            Kind::Empty => 0,
            Kind::Full(bytes) => bytes.len() as u64,
            Kind::Stream { remaining, .. } => *remaining,
            Kind::Blob { range, .. } => range.end - range.start,
            Kind::Sequence(pieces) => pieces.iter().map(ResponseBody::remaining).sum(),
        }
    }
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResponseBody({} bytes to come)", self.remaining())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = StoreError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StoreError>>> {
        loop {
            match &mut self.0 {
                Kind::Empty => return Poll::Ready(None),
                Kind::Full(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.0 = Kind::Empty;
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Kind::Blob { reader, range } => {
                    let remaining = range.end - range.start;
                    let stream = Arc::clone(reader).stream(range.clone());
                    self.0 = Kind::Stream { stream, remaining };
                }
                Kind::Sequence(pieces) => {
                    let Some(piece) = pieces.front_mut() else {
                        self.0 = Kind::Empty;
                        continue;
                    };
                    let next = ready!(Pin::new(&mut *piece).poll_frame(cx));
                    if matches!(next, Some(Err(_))) {
                        self.0 = Kind::Empty;
                    } else if piece.is_end_stream() {
                        pieces.pop_front();
                        if pieces.is_empty() {
                            self.0 = Kind::Empty;
                        }
                    }
                    if next.is_some() {
                        return Poll::Ready(next);
                    }
                }
                Kind::Stream { stream, remaining } => {
                    let next = ready!(stream.as_mut().poll_next(cx));
                    let left = *remaining;
                    let failure = match next {
                        Some(Ok(bytes)) if bytes.is_empty() => continue,
                        Some(Ok(bytes)) if bytes.len() as u64 <= left => {
                            *remaining -= bytes.len() as u64;
                            if *remaining == 0 {
                                self.0 = Kind::Empty;
                            }
                            return Poll::Ready(Some(Ok(Frame::data(bytes))));
                        }
                        Some(Ok(_)) => StoreError::corrupt("send a body: there is more of it than announced"),
                        Some(Err(error)) => error,
                        None => StoreError::corrupt(format!("send a body: it ended {left} bytes early")),
                    };
                    self.0 = Kind::Empty;
                    return Poll::Ready(Some(Err(failure)));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining())
    }
}

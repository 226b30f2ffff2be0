//! What is pushed, and the request body that carries it.
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncRead;
use tokio::time::Instant;

use crate::{Digest, Error, Hasher, Progress, Result};

/// How many bytes are read from the source at once.
const CHUNK: usize = 256 << 10;

pub(crate) type Reader = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// Bytes to be pushed, with the names that go with them.
pub struct Upload {
    pub(crate) source: Source,
    pub(crate) filename: Option<String>,
    pub(crate) content_type: Option<String>,
}

pub(crate) enum Source {
    /// A regular file: its digest is computed before it is sent, and it can be sent again.
    File(PathBuf),
    /// Likewise, in memory.
    Bytes(Bytes),
    /// Something that can be read once, of unknown length.
    Reader(Reader),
}

impl Upload {
    /// The file at `path`, under its own name. A pipe or a device is read once, to its end, as by
    /// [`from_reader`](Self::from_reader).
    ///
    /// # Errors
    /// [`Error::File`] if there is no such file, or it is a folder.
    pub async fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |source| Error::File { action: "read", path: path.to_owned(), source };
        let metadata = tokio::fs::metadata(path).await.map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let source = if metadata.is_file() {
            Source::File(path.to_owned())
        } else {
            Source::Reader(Box::new(tokio::fs::File::open(path).await.map_err(failed)?))
        };
        let filename =
            path.file_name().and_then(|name| name.to_str()).filter(|_| metadata.is_file()).map(str::to_owned);
        Ok(Self { source, filename, content_type: None })
    }

    /// Bytes in memory.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Bytes(bytes.into()), filename: None, content_type: None }
    }

    /// Everything that `reader` yields. It is sent while it is read, so it cannot be sent again, and its digest is
    /// compared only afterwards.
    #[must_use]
    pub fn from_reader(reader: impl AsyncRead + Send + Sync + Unpin + 'static) -> Self {
        Self { source: Source::Reader(Box::new(reader)), filename: None, content_type: None }
    }

    /// The file name that a download gets.
    #[must_use]
    pub fn filename(mut self, filename: impl Into<String>) -> Self {
        self.filename = Some(filename.into());
        self
    }

    /// The media type that a download gets; `application/octet-stream` by default.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }
}

/// What the one who sends an [`Outgoing`] body can see of it.
pub(crate) struct Watch {
    state: Mutex<Watched>,
}

struct Watched {
    waits_for: WaitsFor,
    failure: Option<io::Error>,
    digest: Option<Digest>,
}

/// On whom a transfer waits: only waiting for the server is limited.
#[derive(Clone, Copy)]
enum WaitsFor {
    Source,
    Network(Instant),
    Answer(Instant),
}

impl Watch {
    pub(crate) fn new() -> Arc<Self> {
        let state = Watched { waits_for: WaitsFor::Network(Instant::now()), failure: None, digest: None };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, Watched> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// The source's failure, if that is why sending ended.
    pub(crate) fn take_failure(&self) -> Option<io::Error> {
        self.state().failure.take()
    }

    /// The digest of everything sent, once that is known.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.state().digest
    }

    /// Returns when the server has taken nothing for `idle`, or has not answered for `completion` after the last byte,
    /// with that time.
    pub(crate) async fn stalled(&self, idle: Duration, completion: Duration) -> Duration {
        loop {
            let limit = match self.state().waits_for {
                WaitsFor::Source => None,
                WaitsFor::Network(since) => Some((since, idle)),
                WaitsFor::Answer(since) => Some((since, completion)),
            };
            if let Some((since, limit)) = limit
                && since.elapsed() >= limit
            {
                return limit;
            }
            // Whom it waits for may change meanwhile, so this looks again after the shorter time at the latest.
            let left = limit.map_or(Duration::MAX, |(since, limit)| limit.saturating_sub(since.elapsed()));
            tokio::time::sleep(left.min(idle).min(completion)).await;
        }
    }
}

/// A request body that reads from a source, tells a watcher, and hashes where the digest is not known yet.
pub(crate) struct Outgoing {
    reader: Reader,
    /// What is still to be sent, where the length is known.
    remaining: Option<u64>,
    hasher: Option<Hasher>,
    ended: bool,
    buffer: BytesMut,
    watch: Arc<Watch>,
    progress: Arc<dyn Progress>,
}

impl Outgoing {
    /// The first `length` bytes of `reader`, or all of it, hashed, if the length is `None`.
    pub(crate) fn new(reader: Reader, length: Option<u64>, watch: Arc<Watch>, progress: Arc<dyn Progress>) -> Self {
        let hasher = length.is_none().then(Hasher::new);
        Self { reader, remaining: length, hasher, ended: false, buffer: BytesMut::new(), watch, progress }
    }

    fn end(&mut self) {
        self.ended = true;
        let mut state = self.watch.state();
        state.waits_for = WaitsFor::Answer(Instant::now());
        state.digest = self.hasher.take().map(Hasher::finish);
    }

    fn fail(&mut self, error: io::Error) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.ended = true;
        let told = io::Error::from(error.kind());
        self.watch.state().failure = Some(error);
        Poll::Ready(Some(Err(told)))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if this.remaining == Some(0) {
            this.end();
            return Poll::Ready(None);
        }
        // Being asked for more means that the network took what came before.
        this.watch.state().waits_for = WaitsFor::Source;
        this.buffer.reserve(CHUNK);
        let read = match ready!(tokio_util::io::poll_read_buf(Pin::new(&mut this.reader), cx, &mut this.buffer)) {
            Ok(read) => read,
            Err(error) => return this.fail(error),
        };
        let mut chunk = this.buffer.split().freeze();
        match &mut this.remaining {
            None if read == 0 => {
                this.end();
                return Poll::Ready(None);
            }
            None => {}
            Some(_) if read == 0 => {
                return this
                    .fail(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent"));
            }
            Some(remaining) => {
                chunk.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *remaining -= chunk.len() as u64;
            }
        }
        this.watch.state().waits_for = WaitsFor::Network(Instant::now());
        this.progress.advance(chunk.len() as u64);
        if let Some(hasher) = &mut this.hasher {
            hasher.update(&chunk);
        }
        if this.remaining == Some(0) {
            // A body of known length is not asked again after its last byte.
            this.end();
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_waiting_for_the_server_is_limited() {
        let (idle, completion) = (Duration::from_secs(60), Duration::from_secs(600));
        let watch = Watch::new();
        watch.state().waits_for = WaitsFor::Source;
        let hour = Duration::from_secs(3600);
        tokio::time::timeout(hour, watch.stalled(idle, completion)).await.expect_err("a source may take its time");

        for (is_answer, limit) in [(false, idle), (true, completion)] {
            let start = Instant::now();
            watch.state().waits_for = if is_answer { WaitsFor::Answer(start) } else { WaitsFor::Network(start) };
            assert_eq!(watch.stalled(idle, completion).await, limit);
            assert_eq!(start.elapsed(), limit);
        }
    }
}

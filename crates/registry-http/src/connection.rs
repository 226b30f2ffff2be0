//! A connection's socket: TCP or TLS over it, as hyper reads and writes it.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

use crate::activity::Activity;
use crate::sendfile::{Files, Piece};

/// How much one sendfile sends at most, and how far ahead a file is looked at, in bytes.
const SENDFILE_BYTES: usize = 2 * 1024 * 1024;

/// How much of files is sent before other tasks of the worker get their turn, in bytes.
const BURST_BYTES: usize = 8 * 1024 * 1024;

/// The bytes of a connection, encrypted or not.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    /// The socket below, past TLS.
    pub(crate) fn socket_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut().0,
        }
    }
}

/// Calls the method of whichever stream it is.
macro_rules! delegate {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Transport::Plain(socket) => Pin::new(socket).$method($($argument),*),
            Transport::Tls(stream) => Pin::new(&mut **stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        // rustls gathers slices into records itself.
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self.poll_shutdown(cx))
    }
}

/// What hyper reads from and writes to.
///
/// It gives up on a client that takes nothing for too long, tells [`Activity`] what comes in, and sends what stands
/// for a file from the file. Shutting it down does nothing: the driver closes the transport itself, listening for a
/// while where that is needed.
pub(crate) struct ConnectionIo {
    transport: Transport,
    /// What was read before it was known which HTTP this is.
    prefix: Bytes,
    activity: Arc<Activity>,
    files: Arc<Files>,
    ahead: ReadAhead,
    stall: Stall,
    burst: usize,
}

impl ConnectionIo {
    pub(crate) fn new(
        transport: Transport,
        prefix: Bytes,
        activity: &Arc<Activity>,
        files: &Arc<Files>,
        write_idle_timeout: Duration,
    ) -> Self {
        let stall = Stall { timeout: write_idle_timeout, waiting: false, timer: None };
        let (activity, files) = (Arc::clone(activity), Arc::clone(files));
        Self { transport, prefix, activity, files, ahead: ReadAhead::default(), stall, burst: 0 }
    }

    pub(crate) fn into_transport(self) -> Transport {
        self.transport
    }

    /// What became of a write; one that waits must not wait forever.
    fn written(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(_) => {
                if std::mem::take(&mut self.stall.waiting) {
                    self.activity.output_waits(false);
                }
                outcome
            }
            Poll::Pending => {
                self.burst = 0;
                self.activity.output_waits(true);
                ready!(self.stall.poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    fn poll_slices(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Transport::Plain(socket) = &mut self.transport else {
            return Pin::new(&mut self.transport).poll_write_vectored(cx, slices);
        };
        let mut slices = slices.iter().skip_while(|slice| slice.is_empty());
        let Some(first) = slices.next() else { return Poll::Ready(Ok(0)) };
        if let Some(piece) = self.files.piece(first) {
            if self.burst >= BURST_BYTES {
                // A fast reader could keep this worker for the whole of a file.
                self.burst = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let sent = ready!(self.ahead.poll_send(cx, socket, &piece))?;
            self.burst += sent;
            return Poll::Ready(Ok(sent));
        }
        // The head of an answer and the first bytes of its file leave in one packet.
        let more = slices.next().is_some_and(|second| self.files.piece(second).is_some());
        let flags = if more { SendFlags::MORE } else { SendFlags::empty() };
        poll_socket(cx, socket, || Ok(rustix::net::send(&*socket, first, flags | SendFlags::NOSIGNAL)?))
    }
}

/// Does `act`, which writes to `socket` without blocking, once the socket takes bytes.
fn poll_socket(
    cx: &mut Context<'_>,
    socket: &TcpStream,
    mut act: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        match socket.try_io(Interest::WRITABLE, &mut act) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return Poll::Ready(outcome),
        }
    }
}

impl AsyncRead for ConnectionIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.has_remaining() {
            let length = self.prefix.len().min(buffer.remaining());
            buffer.put_slice(&self.prefix.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.activity.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.transport).poll_write(cx, bytes);
        self.written(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = if self.files.is_empty() {
            Pin::new(&mut self.transport).poll_write_vectored(cx, slices)
        } else {
            self.poll_slices(cx, slices)
        };
        self.written(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.transport).poll_flush(cx).map_ok(|()| 0);
        self.written(cx, outcome).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The patience with a client that takes nothing.
struct Stall {
    timeout: Duration,
    waiting: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Ready when nothing could be written for the whole timeout.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = Instant::now() + self.timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

/// Makes sure that sending from a file waits for no disk: what is not in memory is read on a blocking thread first.
#[derive(Default)]
struct ReadAhead {
    reading: Option<JoinHandle<io::Result<()>>>,
    /// The addresses that stand for what was last seen in memory.
    warm: Range<usize>,
}

impl ReadAhead {
    /// Sends the beginning of `piece`; how many bytes were sent.
    fn poll_send(&mut self, cx: &mut Context<'_>, socket: &TcpStream, piece: &Piece) -> Poll<io::Result<usize>> {
        ready!(self.poll_warm(cx, piece))?;
        let warm = piece.head((self.warm.end - piece.addresses().start).min(SENDFILE_BYTES));
        let sent = ready!(poll_socket(cx, socket, || {
            let mut offset = warm.offset;
            Ok(rustix::fs::sendfile(socket, &*warm.file, Some(&mut offset), warm.length)?)
        }))?;
        if sent == 0 {
            // The file is shorter than it was: never a short answer, so no answer.
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        piece.tally.count_out(sent as u64);
        Poll::Ready(Ok(sent))
    }

    /// Ready once the beginning of `piece` is in memory.
    fn poll_warm(&mut self, cx: &mut Context<'_>, piece: &Piece) -> Poll<io::Result<()>> {
        let start = piece.addresses().start;
        loop {
            if let Some(reading) = &mut self.reading {
                let outcome = ready!(Pin::new(reading).poll(cx));
                self.reading = None;
                outcome.map_err(io::Error::other)??;
            }
            if self.warm.contains(&start) {
                return Poll::Ready(Ok(()));
            }
            let window = piece.head(SENDFILE_BYTES);
            let resident = window.resident();
            self.warm = window.addresses();
            if resident < window.length {
                let further = (piece.length - window.length).min(SENDFILE_BYTES);
                self.reading = Some(tokio::task::spawn_blocking(move || window.read_ahead(further)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sendfile::Tally;

    struct Nobody;

    impl Tally for Nobody {
        fn count_out(&self, _bytes: u64) {}
    }

    #[test]
    fn what_is_not_in_memory_is_read_before_it_is_sent_and_once() {
        // What was never written of a file is on no disk, and nothing of it is in memory before somebody reads it.
        let file = tempfile::tempfile().unwrap();
        let length = 2 * SENDFILE_BYTES as u64;
        file.set_len(length).unwrap();
        let files = Arc::new(Files::default());
        let bytes = files.stand_in(&Arc::new(file), 0..length, Arc::new(Nobody)).unwrap();
        let piece = files.piece(&bytes).unwrap();
        let mut ahead = ReadAhead::default();
        // The only thread that may block is busy, so no read ends before it is looked for.
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (release, held) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || held.recv());
            let first = std::future::poll_fn(|cx| Poll::Ready(ahead.poll_warm(cx, &piece).is_pending())).await;
            assert!(first, "it was not in memory, and nobody reads it");
            assert!(ahead.reading.is_some());
            release.send(()).unwrap();
            busy.await.unwrap().unwrap();
            std::future::poll_fn(|cx| ahead.poll_warm(cx, &piece)).await.unwrap();
            assert_eq!(ahead.warm, piece.head(SENDFILE_BYTES).addresses());
            let again = std::future::poll_fn(|cx| Poll::Ready(ahead.poll_warm(cx, &piece).is_ready())).await;
            assert!(again && ahead.reading.is_none(), "it was read a moment ago");
        });
    }
}

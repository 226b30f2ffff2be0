//! The body of an answer on its way into a connection: counted, and sent from a file where that is possible.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use registry_core::error::StoreError;

use crate::backlog::{Backlog, Outgoing};
use crate::body::ResponseBody;
use crate::exchange::Exchange;
use crate::sendfile::{Files, Tally};

/// Below this many bytes a mapping and its system calls cost more than copying.
const LEAST_SENDFILE_BYTES: u64 = 64 * 1024;

/// What hyper sends.
pub(crate) struct WireBody {
    source: Source,
    exchange: Arc<Exchange>,
    /// Of the stream, on HTTP/2.
    backlog: Option<Backlog>,
}

enum Source {
    /// Stands for all of a file's range.
    File(Bytes),
    Body(ResponseBody),
}

impl WireBody {
    /// `body` on the connection whose files are `files`; `None` where bytes have to be written (TLS, HTTP/2).
    pub(crate) fn new(body: ResponseBody, exchange: Arc<Exchange>, files: Option<&Arc<Files>>) -> Self {
        let source = match files.and_then(|files| stand_in(&body, &exchange, files)) {
            Some(bytes) => Source::File(bytes),
            None => Source::Body(body),
        };
        Self { source, exchange, backlog: Backlog::current() }
    }
}

fn stand_in(body: &ResponseBody, exchange: &Arc<Exchange>, files: &Arc<Files>) -> Option<Bytes> {
    let (reader, range) = body.as_blob()?;
    if range.end - range.start < LEAST_SENDFILE_BYTES {
        return None;
    }
    // hyper has taken these bytes long before they are sent: the exchange ends when the last of them is dropped.
    files.stand_in(&reader.file()?, range, Arc::clone(exchange) as Arc<dyn Tally>)
}

impl Body for WireBody {
    type Data = Outgoing;
    type Error = StoreError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Outgoing>, StoreError>>> {
        let this = &mut *self;
        let body = match &mut this.source {
            Source::File(bytes) => {
                let bytes = std::mem::take(bytes);
                this.source = Source::Body(ResponseBody::empty());
                return Poll::Ready(Some(Ok(Frame::data(Outgoing::uncounted(bytes)))));
            }
            Source::Body(body) => body,
        };
        if body.is_end_stream()
            && let Some(backlog) = &this.backlog
        {
            return backlog.poll_short(cx).map(|()| None);
        }
        let frame = {
            let _entered = this.exchange.span().enter();
            ready!(Pin::new(&mut *body).poll_frame(cx))
        };
        match &frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                Tally::count_out(&*this.exchange, length as u64);
            }
            Some(Err(error)) => this.exchange.answer_broke_off(error),
            None => {}
        }
        let outgoing = |bytes| match &this.backlog {
            Some(backlog) => backlog.hand_over(bytes),
            None => Outgoing::uncounted(bytes),
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(outgoing))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::File(_) => false,
            Source::Body(body) => body.is_end_stream() && self.backlog.as_ref().is_none_or(Backlog::is_short),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::File(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Body(body) => body.size_hint(),
        }
    }
}

impl Drop for WireBody {
    fn drop(&mut self) {
        if self.backlog.as_ref().is_some_and(Backlog::is_given_up) {
            self.exchange.answer_not_taken();
        }
    }
}

//! The body of an answer with several parts: `multipart/byteranges` (RFC 9110, section 14.6).

use std::ops::Range;
use std::sync::Arc;

use http::HeaderValue;
use registry_core::digest::Digest;
use registry_core::ports::blob_store::BlobReader;

use crate::body::ResponseBody;
use crate::response::header_text;

/// A boundary has at most 70 characters (RFC 2046, section 5.1.1).
const BOUNDARY_CHARACTERS: usize = 64;

/// What separates the parts of something with that digest. Nothing can be made to hold the hash of itself, so this
/// never occurs inside a part.
fn boundary(digest: &Digest) -> &str {
    let hash = digest.encoded();
    &hash[..hash.len().min(BOUNDARY_CHARACTERS)]
}

/// The `Content-Type` of the whole answer.
pub(crate) fn content_type(digest: &Digest) -> HeaderValue {
    header_text(&format!("multipart/byteranges; boundary={}", boundary(digest)))
}

/// The parts of the blob with that digest, each with its own head. A part is opened when those before it are sent.
pub(crate) fn body(
    reader: &Arc<dyn BlobReader>,
    digest: &Digest,
    content_type: &str,
    parts: &[Range<u64>],
) -> ResponseBody {
    let (boundary, content_type) = (boundary(digest), header_text(content_type));
    let mut pieces = Vec::with_capacity(2 * parts.len() + 1);
    for (index, part) in parts.iter().enumerate() {
        let mut head = Vec::with_capacity(256);
        if index > 0 {
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(format!("--{boundary}\r\nContent-Type: ").as_bytes());
        head.extend_from_slice(content_type.as_bytes());
        let (first, last, size) = (part.start, part.end - 1, reader.size());
        head.extend_from_slice(format!("\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n").as_bytes());
        pieces.push(ResponseBody::full(head));
        pieces.push(ResponseBody::blob(Arc::clone(reader), part.clone()));
    }
    pieces.push(ResponseBody::full(format!("\r\n--{boundary}--\r\n")));
    ResponseBody::sequence(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_core::stream::BoxStream;
    use futures_util::{FutureExt, StreamExt, stream};
    use http_body_util::BodyExt;
    use proptest::prelude::*;
    use registry_core::digest::Algorithm;
    use registry_core::error::StoreError;
    use std::sync::Mutex;

    /// Gives its bytes one by one, and knows what was opened.
    struct Slow {
        content: Vec<u8>,
        opened: Mutex<Vec<Range<u64>>>,
        breaks_at: Option<u64>,
    }

    impl BlobReader for Slow {
        fn size(&self) -> u64 {
            self.content.len() as u64
        }

        fn stream(self: Arc<Self>, range: Range<u64>) -> BoxStream<'static, Result<Bytes, StoreError>> {
            self.opened.lock().unwrap().push(range.clone());
            let byte = move |at: u64| match self.breaks_at {
                Some(end) if at >= end => Err(StoreError::corrupt("no more")),
                _ => Ok(Bytes::copy_from_slice(&self.content[usize::try_from(at).unwrap()..][..1])),
            };
            stream::iter(range.map(byte)).boxed()
        }
    }

    fn slow(content: &[u8]) -> Slow {
        Slow { content: content.to_vec(), opened: Mutex::default(), breaks_at: None }
    }

    fn parts_of(reader: Slow, parts: &[Range<u64>]) -> (Arc<Slow>, ResponseBody) {
        let digest = Digest::sha256(&reader.content);
        let reader = Arc::new(reader);
        let body = body(&(Arc::clone(&reader) as Arc<dyn BlobReader>), &digest, "text/plain", parts);
        (reader, body)
    }

    fn sent(body: ResponseBody) -> Bytes {
        body.collect().now_or_never().expect("nothing is waited for").unwrap().to_bytes()
    }

    #[test]
    fn parts_as_they_are_sent() {
        let (_, body) = parts_of(slow(b"0123456789"), &[1..3, 9..10, 4..8]);
        let boundary = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882";
        let part = |range: &str, bytes: &str| {
            format!("--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/10\r\n\r\n{bytes}\r\n")
        };
        let expected = format!("{}{}{}--{boundary}--\r\n", part("1-2", "12"), part("9-9", "9"), part("4-7", "4567"));
        assert_eq!(body.remaining(), expected.len() as u64);
        assert_eq!(sent(body), expected);
        assert_eq!(content_type(&Digest::sha256(b"0123456789")), format!("multipart/byteranges; boundary={boundary}"));
        // A boundary is not as long as the longest hash.
        assert!(boundary.len() == 64 && super::boundary(&Digest::of(Algorithm::Sha512, b"")).len() == 64);
    }

    #[test]
    fn a_part_is_opened_when_those_before_it_are_sent() {
        let (reader, mut body) = parts_of(slow(b"0123456789"), &[7..9, 0..1]);
        let mut next = || body.frame().now_or_never().expect("nothing is waited for");
        let mut seen = Vec::new();
        while let Some(frame) = next() {
            let bytes = frame.unwrap().into_data().unwrap();
            let what = if bytes.len() == 1 { String::from_utf8(bytes.to_vec()).unwrap() } else { "-".to_owned() };
            seen.push((what, reader.opened.lock().unwrap().len()));
        }
        let expected = [("-", 0), ("7", 1), ("8", 1), ("-", 1), ("0", 2), ("-", 2)];
        assert_eq!(seen, expected.map(|(what, opened)| (what.to_owned(), opened)));
    }

    #[test]
    fn parts_that_break_off_are_never_taken_for_whole() {
        let reader = Slow { breaks_at: Some(8), ..slow(b"0123456789") };
        let (_, mut body) = parts_of(reader, &[7..9, 0..1]);
        let mut next = || body.frame().now_or_never().expect("nothing is waited for");
        assert!(next().unwrap().is_ok() && next().unwrap().is_ok());
        assert!(next().unwrap().is_err());
        assert!(next().is_none());
    }

    proptest! {
        #[test]
        fn any_parts_are_as_long_as_announced(
            content in prop::collection::vec(any::<u8>(), 1..200),
            cuts in prop::collection::vec((0usize..200, 1usize..50), 1..10),
        ) {
            let size = content.len();
            let parts: Vec<Range<u64>> = cuts
                .iter()
                .map(|(start, length)| (start % size, *length))
                .map(|(start, length)| start as u64..(start + length).min(size) as u64)
                .collect();
            let (reader, body) = parts_of(slow(&content), &parts);
            let announced = body.remaining();
            let sent = sent(body);
            prop_assert_eq!(announced, sent.len() as u64);
            prop_assert_eq!(&*reader.opened.lock().unwrap(), &parts);
            let held: usize = parts.iter().map(|part| usize::try_from(part.end - part.start).unwrap()).sum();
            // What is around a part is short: no header can make an answer long.
            prop_assert!(sent.len() - held < 250 * parts.len() + 100);
        }
    }
}

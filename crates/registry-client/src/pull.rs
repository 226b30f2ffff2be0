//! Pulling a version as a stream of verified bytes.
use futures_util::Stream;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, IF_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};

use bytes::Bytes;

use crate::transport::text_header;
use crate::{Client, Error, FileInfo, Hasher, Result};

/// A download that survives broken connections and ends in success only if all its bytes, those of before a resumption
/// included, have the announced digest.
///
/// It asks for the rest after a broken connection, with `Range` and `If-Range` (RFC 9110, section 13.1.5), so that a
/// changed artifact never mixes with the old one.
pub struct Pull {
    client: Client,
    package: String,
    version: String,
    info: FileInfo,
    hasher: Hasher,
    answer: Option<Answer>,
    /// Failures in a row; a received byte ends the row.
    failures: u32,
    connected: bool,
    verified: bool,
}

struct Answer {
    response: Response,
    /// Bytes at its start that are behind already: a server that knows no ranges sends everything again.
    skip: u64,
}

impl Client {
    /// Starts a download: asks for the digest and the size, and for no bytes yet.
    ///
    /// # Errors
    /// A refusal of kind [`NotFound`](crate::RefusalKind::NotFound) if there is no such version; else as every read.
    pub async fn pull(&self, package: &str, version: &str) -> Result<Pull> {
        let info = self.head(package, version).await?;
        Ok(self.resume_pull(package, version, info, Hasher::new()))
    }

    /// Goes on with a download whose first bytes, those that `received` has hashed, are there already.
    ///
    /// It fails with [`Error::Changed`] if the version no longer has the digest in `info`.
    #[must_use]
    pub fn resume_pull(&self, package: &str, version: &str, info: FileInfo, received: Hasher) -> Pull {
        Pull {
            client: self.clone(),
            package: package.to_owned(),
            version: version.to_owned(),
            info,
            hasher: received,
            answer: None,
            failures: 0,
            connected: false,
            verified: false,
        }
    }
}

impl Pull {
    /// What is being pulled.
    #[must_use]
    pub fn info(&self) -> &FileInfo {
        &self.info
    }

    /// How many bytes are behind, those of before a resumption included.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.hasher.length()
    }

    /// The next bytes; `None` once all were returned and their digest is the announced one.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] after the last byte; [`Error::Changed`]; else as every read, after the retries are
    /// used up. After an error of the connection another call tries again.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.position() == self.info.size {
                return self.verify();
            }
            match self.read().await {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => {
                    self.failures = 0;
                    self.hasher.update(&chunk);
                    return Ok(Some(chunk));
                }
                Err(error) => {
                    self.answer = None;
                    let restarting = self.connected && matches!(error, Error::Unreachable { .. });
                    if self.failures == self.client.inner.retries || !(error.is_transient() || restarting) {
                        self.failures = 0;
                        return Err(error);
                    }
                    self.client.pause(self.failures).await;
                    self.failures += 1;
                }
            }
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> {
        stream::try_unfold(self, |mut pull| async move { Ok(pull.next_chunk().await?.map(|chunk| (chunk, pull))) })
    }

    fn verify(&mut self) -> Result<Option<Bytes>> {
        if !self.verified {
            let actual = self.hasher.clone().finish();
            if actual != self.info.digest {
                return Err(Error::DigestMismatch { expected: self.info.digest, actual });
            }
            self.verified = true;
            self.answer = None;
        }
        Ok(None)
    }

    async fn read(&mut self) -> Result<Bytes> {
        let left = self.info.size - self.position();
        let answer = match &mut self.answer {
            Some(answer) => answer,
            None => {
                let answer = self.ask().await?;
                self.connected = true;
                self.answer.insert(answer)
            }
        };
        let idle = self.client.inner.timeouts.idle;
        let mut chunk = match tokio::time::timeout(idle, answer.response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => {
                let cause = format!("the download ended {left} bytes early");
                return Err(Error::Interrupted { server: self.client.server().clone(), cause });
            }
            Ok(Err(error)) => return Err(self.client.failure(&error)),
            Err(_) => return Err(self.client.timed_out(idle)),
        };
        let skipped = answer.skip.min(chunk.len() as u64);
        answer.skip -= skipped;
        drop(chunk.split_to(usize::try_from(skipped).expect("at most the chunk's length")));
        if chunk.len() as u64 > left {
            return Err(self.client.unexpected("a download longer than it said"));
        }
        Ok(chunk)
    }

    /// Asks for the bytes from the current position on.
    async fn ask(&self) -> Result<Answer> {
        let (client, from, size) = (&self.client, self.position(), self.info.size);
        let mut request = client.request(Method::GET, client.artifact_url(&self.package, &self.version)?);
        if from > 0 {
            request =
                request.header(RANGE, format!("bytes={from}-")).header(IF_RANGE, format!("\"{}\"", self.info.digest));
        }
        let response = client.send(request, client.inner.timeouts.idle).await?;
        let now = client.digest_header(response.headers())?;
        if now != self.info.digest {
            return Err(Error::Changed { before: self.info.digest, now });
        }
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = text_header(response.headers(), CONTENT_RANGE.as_str()).unwrap_or_default();
            if from == 0 || range != format!("bytes {from}-{}/{size}", size - 1) {
                return Err(client.unexpected(format!(
                    "the range {range:?} where the bytes from {from} on of {size} were asked for"
                )));
            }
            return Ok(Answer { response, skip: 0 });
        }
        match text_header(response.headers(), CONTENT_LENGTH.as_str()).map(|text| text.parse::<u64>()) {
            Some(Ok(length)) if length != size => {
                Err(client.unexpected(format!("a download of {length} bytes where it had said {size}")))
            }
            _ => Ok(Answer { response, skip: from }),
        }
    }
}

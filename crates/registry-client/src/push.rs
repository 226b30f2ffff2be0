//! Pushing a version.
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt, pin_mut};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, Url};

use crate::upload::{Outgoing, Reader, Source, Watch};
use crate::{Artifact, Client, Digest, Error, FileInfo, Hasher, Phase, Progress, RefusalKind, Result, Upload};

/// From this size on, in bytes, the client asks whether the version exists, and whether the token is good, before it
/// sends anything.
const ASK_FIRST: u64 = 1 << 20;
/// How many bytes are hashed at once.
const CHUNK: usize = 1 << 20;

/// What can be sent again, and what is known of it.
struct Replayable {
    content: Content,
    size: u64,
    digest: Digest,
}

#[derive(Clone)]
enum Content {
    File(PathBuf),
    Bytes(bytes::Bytes),
}

impl Content {
    async fn open(&self) -> Result<Reader> {
        match self {
            Self::File(path) => match tokio::fs::File::open(path).await {
                Ok(file) => Ok(Box::new(file)),
                Err(source) => Err(file_error(path, source)),
            },
            Self::Bytes(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
        }
    }

    async fn size(&self) -> Result<u64> {
        match self {
            Self::File(path) => Ok(tokio::fs::metadata(path).await.map_err(|source| file_error(path, source))?.len()),
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
        }
    }

    async fn hash(&self, progress: &Arc<dyn Progress>) -> Result<Replayable> {
        let content = self.clone();
        let hasher = match self {
            Self::File(path) => hash_file(path.clone(), progress.clone()).await?,
            Self::Bytes(bytes) => {
                let mut hasher = Hasher::new();
                hasher.update(bytes);
                hasher
            }
        };
        Ok(Replayable { content, size: hasher.length(), digest: hasher.finish() })
    }
}

fn file_error(path: &Path, source: io::Error) -> Error {
    Error::File { action: "read", path: path.to_owned(), source }
}

async fn hash_file(path: PathBuf, progress: Arc<dyn Progress>) -> Result<Hasher> {
    let work = move || {
        let failed = |source| file_error(&path, source);
        let mut file = File::open(&path).map_err(failed)?;
        progress.begin(Phase::Hashing, Some(file.metadata().map_err(failed)?.len()), 0);
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hasher),
                Ok(read) => {
                    hasher.update(&buffer[..read]);
                    progress.advance(read as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    };
    tokio::task::spawn_blocking(work).await.expect("hashing a file does not panic")
}

impl Client {
    /// Pushes `upload` as `package` `version` and returns what the server stored, whose digest is that of the bytes
    /// read here.
    ///
    /// A version is never overwritten. A file or bytes in memory are sent again after a broken connection: should the
    /// first try have arrived after all, the server refuses the second, and the stored digest tells that it is this
    /// very push.
    ///
    /// # Errors
    /// [`Error::VersionExists`]; [`Error::DigestMismatch`] if the server stored other bytes than were read from a pipe;
    /// [`Error::Source`] and [`Error::File`] if the bytes cannot be read; else see [`Error`].
    pub async fn push(
        &self,
        package: &str,
        version: &str,
        upload: Upload,
        progress: Arc<dyn Progress>,
    ) -> Result<Artifact> {
        let Upload { source, filename, content_type } = upload;
        let mut url = self.artifact_url(package, version)?;
        if let Some(filename) = &filename {
            url.query_pairs_mut().append_pair("filename", filename);
        }
        let target = Target { package, version, url, content_type };
        match source {
            Source::Reader(reader) => self.push_once(&target, reader, &progress).await,
            Source::File(path) => self.push_replayable(&target, Content::File(path), &progress).await,
            Source::Bytes(bytes) => self.push_replayable(&target, Content::Bytes(bytes), &progress).await,
        }
    }

    async fn push_once(&self, target: &Target<'_>, reader: Reader, progress: &Arc<dyn Progress>) -> Result<Artifact> {
        if let Some(stored) = self.find(target).await? {
            return Err(target.exists(Some(stored.digest), None));
        }
        let watch = Watch::new();
        match self.post(target, reader, None, &watch, progress).await {
            Ok(artifact) => {
                let sent = watch.digest().ok_or_else(|| self.unexpected("success before the last byte was sent"))?;
                matching(artifact, sent)
            }
            Err(Error::Refused(refusal)) if refusal.kind() == RefusalKind::Conflict => match self.find(target).await? {
                Some(stored) => Err(target.exists(Some(stored.digest), None)),
                None => Err(refusal.into()),
            },
            Err(error) => Err(error),
        }
    }

    async fn push_replayable(
        &self,
        target: &Target<'_>,
        content: Content,
        progress: &Arc<dyn Progress>,
    ) -> Result<Artifact> {
        let size = content.size().await?;
        if size >= ASK_FIRST
            && let Some(stored) = self.find(target).await?
        {
            // Bytes of one size may be the same: that is worth reading them, for the one who runs a push again.
            let sent = if stored.size == size { Some(content.hash(progress).await?.digest) } else { None };
            return Err(target.exists(Some(stored.digest), sent));
        }
        let replayable = content.hash(progress).await?;
        let mut failures = 0;
        loop {
            let reader = replayable.content.open().await?;
            let error = match self.post(target, reader, Some(&replayable), &Watch::new(), progress).await {
                Ok(artifact) => return matching(artifact, replayable.digest),
                Err(error) => error,
            };
            if matches!(&error, Error::Refused(refusal) if refusal.kind() == RefusalKind::Conflict) {
                return self.settle_conflict(target, replayable.digest, error, failures > 0).await;
            }
            let restarting = failures > 0 && matches!(error, Error::Unreachable { .. });
            if failures == self.inner.retries || !(error.is_transient() || restarting) {
                return Err(error);
            }
            self.pause(failures).await;
            failures += 1;
        }
    }

    /// After a 409: another push's version, or this one's, whose answer was lost?
    async fn settle_conflict(
        &self,
        target: &Target<'_>,
        sent: Digest,
        conflict: Error,
        sent_before: bool,
    ) -> Result<Artifact> {
        let Some(stored) = self.find(target).await? else { return Err(conflict) };
        if !(sent_before && stored.digest == sent) {
            return Err(target.exists(Some(stored.digest), Some(sent)));
        }
        let versions = self.versions(target.package, None);
        pin_mut!(versions);
        while let Some(artifact) = versions.next().await {
            let artifact = artifact?;
            if artifact.version == target.version {
                return matching(artifact, sent);
            }
        }
        Err(self.unexpected(format!("{} {} exists and is not listed", target.package, target.version)))
    }

    /// What is stored under this name, unless nothing is or this token may not look; then the push itself will tell.
    async fn find(&self, target: &Target<'_>) -> Result<Option<FileInfo>> {
        match self.head(target.package, target.version).await {
            Ok(stored) => Ok(Some(stored)),
            Err(Error::Refused(refusal)) if refusal.kind() != RefusalKind::Unauthenticated => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends the bytes once. With `known` they are announced with length and digest, which the server checks.
    async fn post(
        &self,
        target: &Target<'_>,
        reader: Reader,
        known: Option<&Replayable>,
        watch: &Arc<Watch>,
        progress: &Arc<dyn Progress>,
    ) -> Result<Artifact> {
        let size = known.map(|known| known.size);
        progress.begin(Phase::Sending, size, 0);
        let body = Outgoing::new(reader, size, watch.clone(), progress.clone());
        let content_type = target.content_type.as_deref().unwrap_or("application/octet-stream");
        let mut request =
            self.request(Method::POST, target.url.clone()).header(CONTENT_TYPE, content_type).body(Body::wrap(body));
        if let Some(known) = known {
            // hyper leaves the length of an empty body away.
            request = request.header(CONTENT_LENGTH, known.size).header("x-checksum-sha256", known.digest.hex());
        }
        let timeouts = self.inner.timeouts;
        let sent = tokio::select! {
            biased;
            sent = request.send() => sent,
            silence = watch.stalled(timeouts.idle, timeouts.completion) => return Err(self.timed_out(silence)),
        };
        match (self.accept(sent).await, watch.take_failure()) {
            (Ok(response), _) => self.read_json(response).await,
            (Err(Error::Interrupted { .. }), Some(failure)) => Err(Error::Source(failure)),
            (Err(error), _) => Err(error),
        }
    }
}

/// Where a push goes.
struct Target<'a> {
    package: &'a str,
    version: &'a str,
    url: Url,
    content_type: Option<String>,
}

impl Target<'_> {
    fn exists(&self, stored: Option<Digest>, sent: Option<Digest>) -> Error {
        Error::VersionExists { package: self.package.to_owned(), version: self.version.to_owned(), stored, sent }
    }
}

/// `artifact`, if it has the digest of what was sent.
fn matching(artifact: Artifact, sent: Digest) -> Result<Artifact> {
    if artifact.digest == sent {
        Ok(artifact)
    } else {
        Err(Error::DigestMismatch { expected: sent, actual: artifact.digest })
    }
}

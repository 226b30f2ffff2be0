//! A server without a network: the use cases over the in-memory ports.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_util::{FutureExt, StreamExt, stream};
use registry_core::digest::Digest;
use registry_core::manifest::OCI_MANIFEST;
use registry_core::names::{Reference, RepositoryName};
use registry_core::package::{Artifact, ArtifactDescription};
use registry_core::permission::Principal;
use registry_core::ports::blob_store::{BlobStore, ObjectKey};
use registry_core::ports::clock::Clock;
use registry_core::ports::metadata::ledger::LedgerEntry;
use registry_core::ports::metadata::{ObjectLedger, UploadStore};
use registry_core::ports::steps::Steps;
use registry_core::precondition::{Expected, Precondition};
use registry_core::registry::{Format, Mode, References, Registry, RegistrySettings, Repository};
use registry_core::services::{
    BlobSource, Body, BodyError, ContentRange, FinishUpload, Ports, PreparedRegistry, PublishArtifact,
    PutManifestRequest, Services, Settings, UploadError, WriteUpload,
};
use registry_core::testing::clock::ManualClock;
use registry_core::testing::entropy::SeededEntropy;
use registry_core::testing::memory::{MemoryBlobStore, MemoryMetadata};
use registry_core::upload::{UploadId, UploadSession, UploadTarget};

/// The smallest step of the clock.
pub const MICROSECOND: Duration = Duration::from_micros(1);
pub const HOUR: Duration = Duration::from_hours(1);

/// The default registries over the in-memory ports.
pub struct World {
    pub services: Services,
    pub metadata: MemoryMetadata,
    pub blobs: MemoryBlobStore,
    pub clock: Arc<ManualClock>,
    pub moments: Arc<Moments>,
}

type Action = Box<dyn FnOnce() + Send>;

/// What happens at the named moments, and which were passed.
#[derive(Default)]
pub struct Moments {
    passed: Mutex<Vec<&'static str>>,
    actions: Mutex<Vec<(&'static str, Action)>>,
}

impl Moments {
    /// Does `action` when `step` is next passed.
    pub fn at(&self, step: &'static str, action: impl FnOnce() + Send + 'static) {
        self.actions.lock().unwrap().push((step, Box::new(action)));
    }

    /// How often `step` was passed.
    pub fn count(&self, step: &'static str) -> usize {
        self.passed.lock().unwrap().iter().filter(|passed| **passed == step).count()
    }
}

impl Steps for Moments {
    fn reached(&self, step: &'static str) {
        self.passed.lock().unwrap().push(step);
        let mut actions = self.actions.lock().unwrap();
        let action = actions.iter().position(|(wanted, _)| *wanted == step).map(|index| actions.remove(index).1);
        drop(actions);
        if let Some(action) = action {
            action();
        }
    }
}

/// The outcome of an intention on an in-memory store, which never waits.
pub fn at_once<T>(intention: impl Future<Output = T>) -> T {
    intention.now_or_never().expect("the in-memory stores do not wait here")
}

/// Ends a test whose use case waits for ever.
pub async fn soon<T>(use_case: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), use_case).await.expect("it does not wait for ever")
}

/// A body of these pieces.
pub fn body(pieces: &[&str]) -> Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send + Unpin> {
    let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from(piece.to_string()))).collect();
    Box::new(stream::iter(pieces))
}

/// A body that is cut after these pieces.
pub fn cut(pieces: &[&str]) -> Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send + Unpin> {
    Box::new(body(pieces).chain(stream::iter([Err(BodyError::Disconnected)])))
}

/// A body after whose pieces nothing comes, for ever.
pub fn stalled(pieces: &[&str]) -> Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send + Unpin> {
    Box::new(body(pieces).chain(stream::pending()))
}

/// A body that nobody may read.
pub fn untouched() -> Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send + Unpin> {
    Box::new(stream::poll_fn(|_| panic!("the body was read")))
}

/// A body of these pieces, before whose end something happens.
pub fn body_then(
    pieces: &[&str],
    action: impl FnOnce() + Send + Unpin + 'static,
) -> Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send + Unpin> {
    let mut action = Some(action);
    Box::new(body(pieces).chain(stream::poll_fn(move |_| {
        if let Some(action) = action.take() {
            action();
        }
        Poll::Ready(None)
    })))
}

/// A body that counts how many pieces were taken from it.
pub struct Counted(pub usize, pub Arc<AtomicUsize>);

impl Stream for Counted {
    type Item = Result<Bytes, BodyError>;
    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        self.0 -= 1;
        self.1.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Bytes::from_static(b"x"))))
    }
}

/// `Content-Range: first-last`.
pub fn range(first: u64, last: u64) -> Option<ContentRange> {
    Some(ContentRange { first, last })
}

pub fn sha256(text: &str) -> Digest {
    Digest::sha256(text.as_bytes())
}

pub fn repository_of(session: &UploadSession) -> Repository {
    match &session.target {
        UploadTarget::Repository { registry, repository } => {
            Repository { registry: *registry, name: repository.clone() }
        }
        UploadTarget::Version { .. } | UploadTarget::Unreferenced => panic!("a session of a repository"),
    }
}

pub fn principal(scopes: &[&str]) -> Principal {
    let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
    Principal { name: "somebody".into(), anonymous: false, scopes }
}

impl World {
    pub async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    /// With these settings, and writers that wait only a moment for each other.
    pub async fn with(settings: Settings) -> Self {
        let (metadata, blobs) = (MemoryMetadata::default(), MemoryBlobStore::new(Duration::from_millis(20)));
        let (clock, moments) = (Arc::new(ManualClock::default()), Arc::new(Moments::default()));
        let ports = Ports {
            metadata: Arc::new(metadata.clone()),
            blobs: Arc::new(blobs.clone()),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(1)),
            steps: moments.clone(),
        };
        let world = Self { services: Services::new(ports, settings), metadata, blobs, clock, moments };
        world.prepare("oci", Format::Oci, None).await;
        world.prepare("generic", Format::Generic, None).await;
        world
    }

    /// Another process over the same stores.
    pub fn replica(&self) -> Services {
        let ports = Ports { entropy: Arc::new(SeededEntropy::new(2)), ..self.services.ports().clone() };
        Services::new(ports, self.services.settings().clone())
    }

    pub async fn prepare(&self, name: &str, format: Format, settings: Option<RegistrySettings>) {
        let registry = PreparedRegistry { name: name.parse().unwrap(), format, mode: Mode::Local, settings };
        self.services.prepare_registries(&[registry]).await.unwrap();
    }

    pub async fn registry(&self, name: &str) -> Arc<Registry> {
        let name = name.parse().unwrap();
        for format in [Format::Oci, Format::Generic] {
            if let Some(registry) = self.services.find_registry(&name, format).await.unwrap() {
                return registry;
            }
        }
        panic!("no registry {name}");
    }

    /// The repository that `/v2/<name>` means.
    pub async fn repository(&self, name: &str) -> Repository {
        let name: RepositoryName = name.parse().unwrap();
        self.services.resolve_repository(&name).await.unwrap().expect("it can be resolved").repository
    }

    pub async fn target(&self, name: &str) -> UploadTarget {
        let Repository { registry, name } = self.repository(name).await;
        UploadTarget::Repository { registry, repository: name }
    }

    /// Uploads a blob with one request.
    pub async fn push(&self, repository: &str, content: &str) -> Digest {
        let digest = sha256(content);
        self.services
            .upload_blob(self.target(repository).await, digest.clone(), None, &mut *body(&[content]))
            .await
            .unwrap();
        digest
    }

    /// The bytes of a blob, if the repository has it.
    pub async fn blob(&self, repository: &str, digest: &Digest) -> Option<String> {
        let source = self.services.read_blob(&self.repository(repository).await, digest, false).await.unwrap()?;
        let BlobSource::Here(reader) = source else { panic!("nobody asked for a place elsewhere") };
        let mut bytes = Vec::new();
        let mut pieces = reader.clone().stream(0..reader.size());
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        Some(String::from_utf8(bytes).unwrap())
    }

    pub async fn start(&self, repository: &str) -> UploadSession {
        self.services.start_upload(self.target(repository).await, false).await.unwrap()
    }

    /// Appends a piece.
    pub async fn write(
        &self,
        id: UploadId,
        range: Option<ContentRange>,
        body: Body<'_>,
    ) -> Result<UploadSession, UploadError> {
        soon(self.services.write_upload(WriteUpload { id, range, length: None }, |_| true, body)).await
    }

    /// Appends the last piece and commits.
    pub async fn finish(&self, id: UploadId, digest: &Digest, body: Body<'_>) -> Result<(), UploadError> {
        let request = FinishUpload { id, range: None, length: None, digest: digest.clone() };
        soon(self.services.finish_upload(request, |_| true, body)).await
    }

    /// The session's row.
    pub async fn session(&self, id: UploadId) -> Option<UploadSession> {
        self.metadata.find_upload(id).await.unwrap()
    }

    /// Every session that there is.
    pub async fn sessions(&self) -> Vec<UploadId> {
        self.metadata.idle_uploads(self.clock.now() + MICROSECOND, 1000).await.unwrap()
    }

    pub async fn ledger(&self) -> Vec<LedgerEntry> {
        self.metadata.ledger_page(None, 1000).await.unwrap()
    }

    /// The keys of all objects in the store.
    pub async fn objects(&self) -> Vec<ObjectKey> {
        self.blobs.list_objects(None, 1000).await.unwrap().into_iter().map(|(key, _)| key).collect()
    }

    /// Nothing is staged, no session is left, and ledger and store hold nothing.
    pub async fn assert_empty(&self) {
        assert_eq!(self.blobs.list_staged().await.unwrap(), [], "staged bytes");
        assert_eq!(self.sessions().await, [], "sessions");
        assert_eq!(self.ledger().await, [], "the ledger");
        assert_eq!(self.objects().await, [], "objects");
    }

    pub async fn publish(&self, package: &str, version: &str, content: &str) -> Result<Artifact, UploadError> {
        let request = self.artifact(package, version).await;
        self.services.publish_artifact(request, &mut *body(&[content])).await
    }

    pub async fn artifact(&self, package: &str, version: &str) -> PublishArtifact {
        PublishArtifact {
            registry: self.registry("generic").await.id,
            package: package.parse().unwrap(),
            description: ArtifactDescription {
                version: version.parse().unwrap(),
                content_type: "text/plain".into(),
                filename: "file.txt".parse().unwrap(),
            },
            digest: None,
            length: None,
        }
    }

    /// Stores an image of one config blob, which must be there, under a tag; the manifest's digest.
    pub async fn tag(&self, repository: &str, tag: &str, config: &Digest) -> Digest {
        let request = PutManifestRequest {
            repository: self.repository(repository).await,
            reference: Reference::Tag(tag.parse().unwrap()),
            tags: Vec::new(),
            content_type: Some(OCI_MANIFEST.into()),
            content: image(config),
            references: References::Strict,
            precondition: Precondition::NONE,
        };
        self.services.put_manifest(request).await.unwrap().0
    }
}

/// `If-Match` with the entity tag of `digest`.
pub fn if_match(digest: &Digest) -> Precondition {
    Precondition { if_match: Some(Expected::OneOf(vec![digest.clone()])), ..Precondition::NONE }
}

/// `If-None-Match: *`.
pub fn if_absent() -> Precondition {
    Precondition { if_none_match: Some(Expected::Anything), ..Precondition::NONE }
}

/// A manifest of an image with one blob.
pub fn image(config: &Digest) -> Bytes {
    Bytes::from(format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"a/b","digest":"{config}","size":1}}}}"#))
}

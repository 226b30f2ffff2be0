//! Blobs in a bucket of a real S3 server: the contract of the port, the number of requests, faults, and a server on it.

mod credentials;
mod limits;
mod memory;
mod virtual_host;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::TryStreamExt;
use registry_adapters::blob::object_store::{Backend, ObjectBlobStore, ObjectStoreOptions, S3Keys, S3Options};
use registry_core::digest::Digest;
use registry_core::error::StoreErrorKind;
use registry_core::ports::blob_store::{BlobStore, Published};
use registry_core::testing::blob_store_suite::{Staged, Subject, assert_same, bytes, contents, object};
use registry_tests::oci::{sha256, sha512, with_digest};
use registry_tests::store_proxy::{Action, Kind, Seen};
use registry_tests::{Answer, Connection, Image, Random, S3, Server, StoreProxy, eventually};

const MIB: usize = 1024 * 1024;

/// A folder of the shared server's bucket.
struct Bucket {
    s3: &'static S3,
    endpoint: String,
    prefix: String,
    part_bytes: u64,
}

impl Bucket {
    fn new(test: &str) -> Option<Self> {
        let s3 = S3::shared(test)?;
        Some(Self { s3, endpoint: s3.endpoint.clone(), prefix: S3::prefix(), part_bytes: 8 * MIB as u64 })
    }

    /// With the smallest parts that S3 takes, reached through a proxy.
    fn behind_proxy(test: &str) -> Option<(Self, StoreProxy)> {
        let bucket = Self::new(test)?;
        let proxy = StoreProxy::start(&bucket.endpoint);
        Some((Self { endpoint: proxy.endpoint(), part_bytes: 5 * MIB as u64, ..bucket }, proxy))
    }
}

impl Subject for Bucket {
    fn store(&self) -> Arc<dyn BlobStore> {
        let options = S3Options {
            bucket: self.s3.bucket.clone(),
            endpoint: Some(self.endpoint.clone()),
            allow_http: true,
            path_style: true,
            keys: Some(S3Keys {
                access_key_id: self.s3.access_key.clone(),
                secret_access_key: self.s3.secret_key.clone(),
                session_token: None,
            }),
            store: ObjectStoreOptions {
                prefix: self.prefix.clone(),
                part_bytes: self.part_bytes,
                ..ObjectStoreOptions::default()
            },
            ..S3Options::default()
        };
        Arc::new(ObjectBlobStore::new(Backend::s3(&options).expect("open the bucket"), &options.store))
    }

    fn is_a_bucket(&self) -> bool {
        true
    }
}

mod contract {
    use super::*;

    registry_core::blob_store_suite!(match Bucket::new("the contract of blob stores on S3") {
        Some(bucket) => bucket,
        None => return,
    });
}

#[tokio::test]
async fn a_small_blob_is_one_request_and_so_is_reading_it() {
    let Some((bucket, proxy)) = Bucket::behind_proxy("requests of a small blob") else { return };
    let store = bucket.store();
    let key = object(store.as_ref(), 1, b"small").await;
    assert_eq!(proxy.take_kinds(), [Kind::Put]);
    assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), b"small");
    assert_eq!(proxy.take_kinds(), [Kind::Get]);
    assert_eq!(store.size_of(&key).await.unwrap(), Some(5));
    assert_eq!(proxy.take_kinds(), [Kind::Head]);
}

#[tokio::test]
async fn finalising_moves_no_bytes_but_the_tail() {
    let Some((bucket, proxy)) = Bucket::behind_proxy("requests of finalising") else { return };
    let store = bucket.store();
    let original = bytes(1, 100 * MIB + 12_345);
    let staged = Staged::of(store.as_ref(), 1, &original).await;
    let mut expected = vec![Kind::Put, Kind::Create];
    expected.extend([Kind::Part; 20]);
    assert_eq!(proxy.take_kinds(), expected);
    let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
    let seen = proxy.take();
    assert_eq!(
        seen.iter().map(|seen| seen.kind).collect::<Vec<_>>(),
        [Kind::Get, Kind::Part, Kind::Complete, Kind::List]
    );
    assert_eq!(seen[1].length, 12_345);
    assert_same(&contents(store.as_ref(), &key).await.unwrap().unwrap(), &original, "the object");

    // A part of it, and the same again after the end of the upload.
    proxy.take();
    let reader = store.open(&key).await.unwrap().unwrap();
    let part: Vec<Bytes> = reader.stream(5..60 * MIB as u64).try_collect().await.unwrap();
    assert_same(&part.concat(), &original[5..60 * MIB], "a part");
    assert_eq!(proxy.take_kinds(), [Kind::Get, Kind::Get]);
}

#[tokio::test]
async fn a_store_that_asks_to_slow_down_is_asked_again() {
    let Some((bucket, proxy)) = Bucket::behind_proxy("SlowDown") else { return };
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refused);
    let mut last = None;
    // Each kind of request once.
    proxy.rule(move |seen: &Seen| {
        if last == Some(seen.kind) {
            return Action::Pass;
        }
        last = Some(seen.kind);
        counter.fetch_add(1, Ordering::Relaxed);
        Action::Answer(503, "SlowDown")
    });
    let store = bucket.store();
    let original = bytes(1, 11 * MIB);
    let staged = Staged::of(store.as_ref(), 1, &original).await;
    let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
    assert_same(&contents(store.as_ref(), &key).await.unwrap().unwrap(), &original, "the object");
    staged.discard(store.as_ref(), &[&key]).await;
    assert!(refused.load(Ordering::Relaxed) >= 6, "{refused:?} requests were refused");
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_of_reading_is_resumed() {
    let Some((bucket, proxy)) = Bucket::behind_proxy("a cut GET") else { return };
    let store = bucket.store();
    let original = bytes(1, 4 * MIB);
    let key = object(store.as_ref(), 1, &original).await;
    proxy.take();
    let mut cuts = 0;
    proxy.rule(move |seen| {
        cuts += usize::from(seen.kind == Kind::Get);
        if seen.kind == Kind::Get && cuts < 4 { Action::Cut(1_000_000) } else { Action::Pass }
    });
    assert_same(&contents(store.as_ref(), &key).await.unwrap().unwrap(), &original, "the object");
    let seen = proxy.take();
    assert_eq!(seen.iter().map(|seen| seen.range).collect::<Vec<_>>(), [false, true, true, true]);
}

#[tokio::test]
async fn a_full_bucket_is_said_to_be_full_at_once() {
    let Some((bucket, proxy)) = Bucket::behind_proxy("a full bucket") else { return };
    for (status, code) in [(507, "XMinioStorageFull"), (507, "InsufficientStorage"), (403, "QuotaExceeded")] {
        proxy.rule(move |seen| match seen.kind {
            Kind::Put | Kind::Part => Action::Answer(status, code),
            _ => Action::Pass,
        });
        for length in [10, 6 * MIB] {
            let store = bucket.store();
            proxy.take();
            let mut writer = store.append(Staged::new(1).id, 0, &Default::default()).await.unwrap();
            let written = async {
                writer.write(bytes(1, length).into()).await?;
                writer.checkpoint().await
            };
            assert_eq!(written.await.unwrap_err().kind, StoreErrorKind::Full, "{code}");
            assert!(writer.checkpoint().await.is_err(), "a writer that failed stays failed");
            let tries = proxy.take().iter().filter(|seen| matches!(seen.kind, Kind::Put | Kind::Part)).count();
            assert_eq!(tries, 1, "{code}");
        }
    }
    proxy.rule(|_| Action::Answer(507, "XMinioStorageFull"));
    assert_eq!(bucket.store().probe().await.unwrap_err().kind, StoreErrorKind::Full);
    proxy.rule(|_| Action::Pass);
    bucket.store().probe().await.unwrap();
}

#[tokio::test]
async fn an_answer_to_completing_that_is_lost_is_found_in_the_bucket() {
    let Some((bucket, proxy)) = Bucket::behind_proxy("a lost answer") else { return };
    let store = bucket.store();
    let original = bytes(1, 6 * MIB);
    let staged = Staged::of(store.as_ref(), 1, &original).await;
    let key = staged.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    let mut lost = false;
    proxy.rule(move |seen| {
        if seen.kind == Kind::Complete && !std::mem::replace(&mut lost, true) { Action::Lose } else { Action::Pass }
    });
    proxy.take();
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
    let kinds = proxy.take_kinds();
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Complete).count(), 2, "{kinds:?}");
    assert_same(&contents(store.as_ref(), &key).await.unwrap().unwrap(), &original, "the object");

    // And when the store says that there is no such upload.
    proxy.rule(|seen| if seen.kind == Kind::Complete { Action::Answer(404, "NoSuchUpload") } else { Action::Pass });
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
    let other = Staged::of(store.as_ref(), 2, &original).await;
    let key = other.candidates(store.as_ref(), &Digest::sha256(&original)).nth(0);
    assert_eq!(other.publish(store.as_ref(), &key).await, Published::Lost);
}

#[tokio::test]
async fn a_part_of_a_writer_that_was_overtaken_never_becomes_part_of_a_blob() {
    let Some((bucket, proxy)) = Bucket::behind_proxy("a zombie's part") else { return };
    let (store, other) = (bucket.store(), bucket.store());
    let mut staged = Staged::of(store.as_ref(), 1, &bytes(1, 5 * MIB + 100)).await;
    let mut overtaken = other.append(staged.id, staged.offset, &staged.staging).await.unwrap();
    staged.append(store.as_ref(), &bytes(2, 6 * MIB)).await;
    overtaken.write(bytes(3, 6 * MIB).into()).await.unwrap();
    overtaken.checkpoint().await.unwrap();
    let key = staged.candidates(store.as_ref(), &Digest::sha256(b"any")).nth(0);
    // A store either has the newest parts only, or all of them by their names.
    match staged.publish(store.as_ref(), &key).await {
        Published::Yes => {
            let object = contents(store.as_ref(), &key).await.unwrap().unwrap();
            assert_same(&object, &[bytes(1, 5 * MIB + 100), bytes(2, 6 * MIB)].concat(), "the object");
        }
        lost => {
            assert_eq!(lost, Published::Lost);
            assert_eq!(store.size_of(&key).await.unwrap(), None);
        }
    }
    proxy.rule(|seen| if seen.kind == Kind::Complete { Action::Answer(400, "InvalidPart") } else { Action::Pass });
    let whole = Staged::of(store.as_ref(), 2, &bytes(1, 5 * MIB + 100)).await;
    let key = whole.candidates(store.as_ref(), &Digest::sha256(b"any")).nth(0);
    assert_eq!(whole.publish(store.as_ref(), &key).await, Published::Lost);
}

#[tokio::test]
async fn multipart_uploads_that_nobody_remembers_are_found_and_aborted() {
    let Some((bucket, proxy)) = Bucket::behind_proxy("unfinished multipart uploads") else { return };
    let store = bucket.store();
    let staged = Staged::new(1);
    for _ in 0..2 {
        let mut writer = store.append(staged.id, 0, &staged.staging).await.unwrap();
        writer.write(bytes(1, 6 * MIB).into()).await.unwrap();
    }
    let other = Staged::of(store.as_ref(), 2, &bytes(2, 6 * MIB)).await;
    assert_eq!(store.list_staged().await.unwrap(), [staged.id, other.id]);
    proxy.take();
    staged.discard(store.as_ref(), &[]).await;
    assert_eq!(proxy.take_kinds(), [Kind::Abort, Kind::Abort, Kind::List, Kind::List]);
    assert_eq!(store.list_staged().await.unwrap(), [other.id]);
    other.discard(store.as_ref(), &[]).await;
    assert_eq!(store.list_staged().await.unwrap(), []);
    assert_eq!(store.upload_objects(other.id).await.unwrap(), []);
}

/// A server on the bucket, with a proxy between them.
fn server(test: &str, config: &str) -> Option<(Server, StoreProxy)> {
    server_on(&Bucket::new(test)?, config)
}

fn server_on(bucket: &Bucket, config: &str) -> Option<(Server, StoreProxy)> {
    let proxy = StoreProxy::start(&bucket.endpoint);
    let server = Server::builder().config(config).s3_below(bucket.s3, &proxy.endpoint(), &bucket.prefix).start();
    proxy.take();
    Some((server, proxy))
}

/// What a client is sent by the server at `address`, which it asks by the name that the URL is signed for.
#[track_caller]
fn fetch(address: &str, host: &str, target: &str) -> Answer {
    let mut connection = Connection::open(address.parse().unwrap());
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.send(head.as_bytes()).unwrap();
    connection.answer().unwrap()
}

/// How many objects are in the bucket, known or not.
fn objects(bucket: &Bucket) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { bucket.store().list_objects(None, 1000).await.unwrap().len() })
}

fn push(server: &Server, bytes: &[u8]) -> String {
    let digest = sha256(bytes);
    let target = format!("/v2/team/app/blobs/uploads/?digest={digest}");
    server.request("POST", &target, &["Content-Type: application/octet-stream"], bytes).expect(201);
    digest
}

#[test]
fn requests_to_the_store_are_as_few_as_can_be() {
    let Some((server, proxy)) = server("requests of a server", "") else { return };
    let repository = server.repository("team/app");
    let mut random = Random::new(1);

    // One request pushes a small blob, in one request of the client or in three.
    let small = random.bytes(10_000);
    let digest = push(&server, &small);
    assert_eq!(proxy.take_kinds(), [Kind::Put]);
    let other = random.bytes(10_000);
    let location = repository.start_upload();
    repository.patch(&location, &other).expect(202);
    let put = proxy.take_kinds();
    repository.finish(&location, &sha256(&other), b"").expect(201);
    assert_eq!((put, proxy.take_kinds()), (vec![Kind::Put], vec![]));

    // Whether it is there is known here; its bytes are one request.
    assert_eq!(repository.head_blob(&digest).expect(200).header("content-length"), Some("10000"));
    assert_eq!(proxy.take_kinds(), []);
    assert_eq!(repository.get_blob(&digest).expect(200).body, small);
    assert_eq!(proxy.take_kinds(), [Kind::Get]);

    // Bytes that are there already stay there once.
    push(&server, &small);
    let kinds = proxy.take_kinds();
    assert!(kinds.iter().all(|kind| matches!(kind, Kind::Put | Kind::Delete | Kind::List)), "{kinds:?}");

    // Manifests never touch the store.
    let image = Image::new(vec![small]);
    repository.push("v1", &image);
    proxy.take();
    repository.assert_holds("v1", &image);
    let kinds = proxy.take_kinds();
    assert!(kinds.iter().all(|kind| *kind == Kind::Get) && kinds.len() <= image.blobs.len(), "{kinds:?}");
    repository.get_manifest("v1").expect(200);
    assert_eq!(proxy.take_kinds(), []);
}

#[test]
fn an_upload_in_pieces_leaves_one_object_and_its_deletion_none() {
    let Some(bucket) = Bucket::new("pieces") else { return };
    let Some((server, proxy)) = server_on(&bucket, "") else { return };
    let repository = server.repository("team/app");
    let original = Random::new(2).bytes(30 * MIB + 77);
    let location = repository.start_upload();
    let mut first = 0;
    for length in [1, 5 * MIB - 1, 8 * MIB + 1, 0, 8 * MIB, 9 * MIB + 76] {
        repository.patch_at(&location, first, &original[first..first + length]).expect(202);
        first += length;
    }
    assert_eq!(first, original.len());
    // The tail is an object without a row of its own, and no orphan.
    assert_eq!(objects(&bucket), 1);
    let (sound, findings) = server.check(&[]);
    assert!(sound, "{findings}");
    repository.finish(&location, &sha256(&original), b"").expect(201);
    let finish = proxy.take();
    assert!(finish.iter().all(|seen| seen.kind != Kind::Part || seen.length <= 8 * MIB as u64));
    assert!(repository.get_blob(&sha256(&original)).expect(200).body == original);
    let part = server.request(
        "GET",
        &repository.path(&format!("blobs/{}", sha256(&original))),
        &["Range: bytes=8388000-8389000"],
        b"",
    );
    assert!(part.expect(206).body == original[8_388_000..8_389_001]);
    let (sound, findings) = server.check(&["--restart"]);
    assert!(sound && findings.contains("\"objects\":1"), "{findings}");
    assert_eq!(objects(&bucket), 1);

    server.request("DELETE", &repository.path(&format!("blobs/{}", sha256(&original))), &[], b"").expect(202);
    let report = server.gc("0s");
    assert_eq!((report["blobs_deleted"].as_u64(), report["objects_deleted"].as_u64()), (Some(1), Some(1)), "{report}");
    let (sound, findings) = server.check(&["--restart"]);
    assert!(sound && findings.contains("\"objects\":0"), "{findings}");
    assert_eq!(objects(&bucket), 0);
}

#[test]
fn a_sha512_that_was_not_announced_is_compared_all_the_same() {
    let Some((server, _proxy)) = server("sha512", "") else { return };
    let repository = server.repository("team/app");
    let original = Random::new(3).bytes(20 * MIB);
    for length in [1000, 20 * MIB] {
        let original = &original[..length];
        let location = repository.start_upload();
        repository.patch(&location, original).expect(202);
        repository.finish(&location, &sha512(original), b"").expect(201);
        assert!(repository.get_blob(&sha512(original)).expect(200).body == original);
        let location = repository.start_upload();
        repository.patch(&location, original).expect(202);
        repository.finish(&location, &sha512(b"something else"), b"").expect(400);
    }
}

#[test]
fn what_a_cancelled_or_idle_upload_stored_goes_with_it() {
    let Some((server, proxy)) = server("cancelled uploads", "gc:\n  upload_idle: 1ms\n  interval: 0s") else { return };
    let repository = server.repository("team/app");
    let original = Random::new(4).bytes(9 * MIB);
    let location = repository.start_upload();
    repository.patch(&location, &original).expect(202);
    proxy.take();
    server.request("DELETE", &location, &[], b"").expect(204);
    assert_eq!(proxy.take_kinds(), [Kind::Delete, Kind::Abort, Kind::List, Kind::List]);

    let idle = repository.start_upload();
    repository.patch(&idle, &original).expect(202);
    push(&server, b"done and forgotten, but its blob is not");
    proxy.take();
    assert_eq!(server.gc("24h")["uploads_ended"].as_u64(), Some(2));
    let kinds = proxy.take_kinds();
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Abort).count(), 1, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Delete).count(), 1, "{kinds:?}");
    repository.get_blob(&sha256(b"done and forgotten, but its blob is not")).expect(200);
    let (sound, findings) = server.check(&[]);
    assert!(sound && findings.contains("\"objects\":1"), "{findings}");
}

#[test]
fn a_full_bucket_is_507_and_a_store_that_is_away_503_and_both_pass() {
    let Some((server, proxy)) = server("store failures of a server", "") else { return };
    let repository = server.repository("team/app");
    let kept = push(&server, b"kept");
    proxy.rule(|seen| if seen.kind == Kind::Put { Action::Answer(507, "XMinioStorageFull") } else { Action::Pass });
    let digest = sha256(b"no room");
    let target = format!("/v2/team/app/blobs/uploads/?digest={digest}");
    server.request("POST", &target, &["Content-Type: application/octet-stream"], b"no room").expect(507);
    server.get("/readyz").expect(503);
    repository.get_blob(&kept).expect(200);
    repository.get_blob(&digest).expect(404);
    proxy.rule(|_| Action::Pass);
    push(&server, b"no room");
    assert_eq!(repository.get_blob(&digest).expect(200).body, b"no room");
    server.get("/readyz").expect(200);
}

#[test]
fn a_bucket_that_refuses_the_key_is_500_and_not_ready() {
    let Some(bucket) = Bucket::new("a wrong key") else { return };
    let wrong = S3 { secret_key: "another".to_owned(), ..bucket.s3.clone() };
    let server = Server::builder().s3_below(&wrong, &bucket.endpoint, &bucket.prefix).start();
    let location = server.repository("team/app").start_upload();
    // To try it again is of no use: it is no 503.
    server.repository("team/app").finish(&location, &sha256(b"bytes"), b"bytes").expect(500);
    let ready = server.get("/readyz").expect(503).json();
    let failed: Vec<_> = ready["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).collect();
    assert!(failed.len() == 1 && failed[0]["name"] == "blobs", "{ready}");
    eventually("the log says why", || {
        server.log().iter().any(|line| line.contains("SignatureDoesNotMatch")).then_some(())
    });
}

#[test]
fn a_registry_may_send_pullers_to_the_bucket() {
    let Some((server, proxy)) = server("redirects", "registries:\n  oci:\n    redirect: true") else { return };
    let repository = server.repository("team/app");
    let original = Random::new(5).bytes(100_000);
    let digest = push(&server, &original);
    proxy.take();
    repository.head_blob(&digest).expect(200);
    let sent = repository.get_blob(&digest).expect(307);
    assert_eq!(proxy.take_kinds(), []);
    assert_eq!(sent.header("docker-content-digest"), Some(digest.as_str()));
    let url = sent.header("location").unwrap().strip_prefix("http://").unwrap();
    let (address, target) = url.split_at(url.find('/').unwrap());
    // For ten minutes.
    assert!(target.split(['?', '&']).any(|parameter| parameter == "X-Amz-Expires=600"), "{target}");
    assert!(fetch(address, address, target).expect(200).body == original);
    fetch(address, address, target.split('?').next().unwrap()).expect(403);
    repository.get_blob(&sha256(b"absent")).expect(404);
    assert!(server.log().iter().all(|line| !line.contains("X-Amz-Signature")));
}

#[test]
fn a_server_that_dies_anywhere_leaves_nothing_that_is_not_found() {
    let Some(s3) = S3::shared("dying servers") else { return };
    let original = Random::new(6).bytes(9 * MIB);
    for step in registry_core::ports::steps::ALL.iter().filter(|step| step.starts_with("upload.")) {
        let builder = Server::builder().s3(s3, &s3.endpoint).config("gc:\n  upload_idle: 1ms\n  interval: 0s");
        let mut server = builder.fail_point(step, 1).start();
        let upload = |server: &Server, bytes: &[u8]| -> std::io::Result<bool> {
            let started = server.try_request("POST", "/v2/team/app/blobs/uploads/", &[], b"")?.expect(202);
            let location = started.header("location").unwrap().to_owned();
            server.try_request("PATCH", &location, &[], &bytes[..bytes.len() / 3])?.expect(202);
            let target = with_digest(&location, &sha256(bytes));
            Ok(server.try_request("PUT", &target, &[], &bytes[bytes.len() / 3..])?.status == 201)
        };
        let finished = upload(&server, &original).unwrap_or(false) && {
            // Steps of giving up an upload.
            let started = server.try_request("POST", "/v2/team/app/blobs/uploads/", &[], b"");
            started.is_ok_and(|started| {
                let location = started.header("location").unwrap().to_owned();
                let _ = server.try_request("PATCH", &location, &[], &original[..6 * MIB]);
                server.try_request("DELETE", &location, &[], b"").is_ok()
            })
        };
        assert!(!finished && server.wait_for_end(std::time::Duration::from_secs(10)), "{step} was not passed");
        let server = server.restart();
        assert!(upload(&server, &original).unwrap(), "{step}");
        server.gc("24h");
        let (sound, findings) = server.check(&["--restart"]);
        assert!(sound && findings.contains("\"objects\":1"), "{step}: {findings}");
        assert!(server.repository("team/app").get_blob(&sha256(&original)).expect(200).body == original, "{step}");
    }
}

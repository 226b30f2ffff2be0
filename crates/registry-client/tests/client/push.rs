//! Pushes: what arrived, and what is made of every way a push can end.
use std::fs;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::support::{Loopback, Reply, artifact, download};
use registry_client::{Client, Digest, Error, RefusalKind, Timeouts, Token, Upload, silent};
use tokio::io::{AsyncRead, ReadBuf};

fn client(url: &str) -> Client {
    let builder = Client::builder(url.parse().expect("a URL")).token(Token::new("s3cret").expect("a token"));
    builder.retries(3).retry_delay(Duration::ZERO).build().expect("a client")
}

/// How long a test waits for what should take a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(30);
const LARGE: usize = 9 << 20;

#[tokio::test]
async fn a_file_arrives_with_its_length_digest_name_and_type() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("my f&1.bin");
    for bytes in [Vec::new(), b"hello".to_vec(), vec![7; LARGE]] {
        fs::write(&path, &bytes).expect("written");
        let served = bytes.clone();
        let server = Loopback::start(move |_, request| match request.method.as_str() {
            "HEAD" => Reply::new(404, ""),
            _ => Reply::json(201, &artifact("p", "1.0.0", &served)),
        })
        .await;

        let upload = Upload::from_path(&path).await.expect("a file").content_type("text/x");
        let stored = client(&server.url()).push("p", "1.0.0", upload, silent()).await.expect("pushed");

        assert_eq!((stored.size, stored.digest), (bytes.len() as u64, Digest::of(&bytes)));
        let seen = server.seen();
        let post = seen.last().expect("sent");
        assert_eq!(post.target, "/api/v1/artifacts/p/1.0.0?filename=my+f%261.bin");
        assert_eq!(post.header("content-length"), Some(bytes.len().to_string().as_str()));
        assert_eq!(post.header("x-checksum-sha256"), Some(Digest::of(&bytes).hex().as_str()));
        assert_eq!(post.header("content-type"), Some("text/x"));
        assert_eq!(post.header("authorization"), Some("Bearer s3cret"));
        assert!(post.body == bytes);
    }
}

#[tokio::test]
async fn a_pipe_arrives_without_length_and_its_digest_is_compared_afterwards() {
    let server = Loopback::start(|n, request| match (request.method.as_str(), n) {
        ("HEAD", _) => Reply::new(404, ""),
        (_, 1) => Reply::json(201, &artifact("p", "1", b"from a pipe")),
        _ => Reply::json(201, &artifact("p", "1", b"something else")),
    })
    .await;
    let client = client(&server.url());
    client.push("p", "1", Upload::from_reader(&b"from a pipe"[..]), silent()).await.expect("pushed");
    let seen = server.seen();
    assert_eq!(seen[1].body, b"from a pipe");
    assert_eq!((seen[1].header("content-length"), seen[1].header("x-checksum-sha256")), (None, None));

    let error =
        client.push("p", "1", Upload::from_reader(&b"from a pipe"[..]), silent()).await.expect_err("other bytes");
    assert!(
        matches!(error, Error::DigestMismatch { expected, .. } if expected == Digest::of(b"from a pipe")),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_existing_version_is_told_before_a_large_file_is_sent() {
    let stored = vec![1; LARGE];
    let served = stored.clone();
    let server = Loopback::start(move |_, request| download(&served, request)).await;
    let client = client(&server.url());
    for (sent, words) in
        [(stored, "with the same bytes"), (vec![2; LARGE], "with other bytes"), (vec![1; LARGE + 1], "already")]
    {
        let error = client.push("p", "1", Upload::from_bytes(sent), silent()).await.expect_err("exists");
        assert!(matches!(error, Error::VersionExists { stored: Some(_), .. }), "{error:?}");
        assert!(error.to_string().ends_with(words), "{error}");
    }
    assert!(server.seen().iter().all(|request| request.method == "HEAD"));
}

#[tokio::test]
async fn a_conflict_says_whether_the_bytes_are_the_same() {
    for (stored, words) in [(&b"mine"[..], "with the same bytes"), (b"theirs", "with other bytes")] {
        let server = Loopback::start(move |_, request| match request.method.as_str() {
            "HEAD" => download(stored, request),
            _ => Reply::error(409, "version_exists", "exists"),
        })
        .await;
        let error =
            client(&server.url()).push("p", "1", Upload::from_bytes("mine"), silent()).await.expect_err("exists");
        assert!(error.to_string().ends_with(words), "{error}");
    }
}

#[tokio::test]
async fn a_push_whose_answer_was_lost_is_recognised_as_its_own() {
    let server = Loopback::start(|n, request| match (request.method.as_str(), n) {
        ("POST", 0) => Reply::nothing(),
        ("POST", _) => Reply::error(409, "version_exists", "exists"),
        ("HEAD", _) => download(b"mine", request),
        _ => Reply::json(
            200,
            &format!(r#"{{"package":"p","versions":[{},{}]}}"#, artifact("p", "0", b"x"), artifact("p", "1", b"mine")),
        ),
    })
    .await;
    let stored =
        client(&server.url()).push("p", "1", Upload::from_bytes("mine"), silent()).await.expect("it had arrived");
    assert_eq!((stored.version.as_str(), stored.digest), ("1", Digest::of(b"mine")));
}

#[tokio::test]
async fn a_push_is_sent_again_while_that_is_safe_and_only_then() {
    // A restart is waited for.
    let server = Loopback::start(|n, _| match n {
        0 => Reply::nothing(),
        1 => Reply::new(503, ""),
        _ => Reply::json(201, &artifact("p", "1", b"mine")),
    })
    .await;
    client(&server.url()).push("p", "1", Upload::from_bytes("mine"), silent()).await.expect("the third try");
    assert_eq!(server.seen().len(), 3);

    // A pipe cannot be read twice, and an error of the server is not a restart.
    let server =
        Loopback::start(|_, request| if request.method == "HEAD" { Reply::new(404, "") } else { Reply::nothing() })
            .await;
    let error =
        client(&server.url()).push("p", "1", Upload::from_reader(&b"x"[..]), silent()).await.expect_err("broken");
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    assert_eq!(server.seen().iter().filter(|request| request.method == "POST").count(), 1);

    let server = Loopback::start(|_, _| Reply::error(500, "internal", "sorry")).await;
    let error = client(&server.url()).push("p", "1", Upload::from_bytes("x"), silent()).await.expect_err("failed");
    assert!(matches!(&error, Error::Refused(refusal) if refusal.request_id.as_deref() == Some("req-1")), "{error:?}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_was_read_is_heard() {
    for status in [401, 403, 413] {
        let server = Loopback::start_impatient(move |_, request| match request.method.as_str() {
            "HEAD" => Reply::new(404, ""),
            _ => Reply::error(status, "too_early", "enough"),
        })
        .await;
        let error = client(&server.url())
            .push("p", "1", Upload::from_bytes(vec![0; 64 << 20]), silent())
            .await
            .expect_err("refused");
        assert!(matches!(&error, Error::Refused(refusal) if refusal.status == status), "{status}: {error:?}");
    }
}

#[tokio::test]
async fn a_bad_token_is_told_before_a_large_file_is_sent() {
    let server = Loopback::start(|_, _| Reply::error(401, "unauthenticated", "bad token")).await;
    let error =
        client(&server.url()).push("p", "1", Upload::from_bytes(vec![0; LARGE]), silent()).await.expect_err("refused");
    assert!(matches!(&error, Error::Refused(refusal) if refusal.kind() == RefusalKind::Unauthenticated), "{error:?}");
    assert_eq!(server.seen().len(), 1);
}

/// A source that yields a few bytes and then fails.
struct Failing(bool);

impl AsyncRead for Failing {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(Err(io::Error::other("the disk is gone")));
        }
        buffer.put_slice(b"some bytes");
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_source_that_fails_is_not_blamed_on_the_connection() {
    let server = Loopback::start(|_, _| Reply::new(404, "")).await;
    let error =
        client(&server.url()).push("p", "1", Upload::from_reader(Failing(false)), silent()).await.expect_err("failed");
    assert!(matches!(&error, Error::Source(cause) if cause.to_string() == "the disk is gone"), "{error:?}");
}

#[tokio::test]
async fn what_is_no_file_is_told_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    for path in [folder.path().to_owned(), folder.path().join("missing")] {
        assert!(matches!(Upload::from_path(&path).await, Err(Error::File { .. })));
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let server =
        Loopback::start(|_, request| if request.method == "HEAD" { Reply::new(404, "") } else { Reply::silence() })
            .await;
    let timeouts = Timeouts { completion: Duration::from_millis(200), ..Timeouts::default() };
    let client =
        Client::builder(server.url().parse().expect("a URL")).timeouts(timeouts).retries(0).build().expect("a client");
    let push = client.push("p", "1", Upload::from_bytes("x"), silent());
    let error = tokio::time::timeout(PATIENCE, push).await.expect("given up").expect_err("silent");
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_takes_no_more_bytes_is_given_up() {
    let server = Loopback::start_impatient(|_, request| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        _ => Reply::silence(),
    })
    .await;
    let timeouts = Timeouts { idle: Duration::from_millis(200), ..Timeouts::default() };
    let client =
        Client::builder(server.url().parse().expect("a URL")).timeouts(timeouts).retries(0).build().expect("a client");
    let push = client.push("p", "1", Upload::from_bytes(vec![0; 64 << 20]), silent());
    let error = tokio::time::timeout(PATIENCE, push).await.expect("given up").expect_err("stalled");
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
}

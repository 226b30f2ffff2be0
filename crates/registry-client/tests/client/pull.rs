//! Pulls: what is on disk afterwards, and what was asked for.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::{Loopback, Reply, download};
use registry_client::{Client, Digest, Error, Hasher, RefusalKind, Timeouts, silent};

fn client(url: &str, retries: u32) -> Client {
    let timeouts = Timeouts { idle: Duration::from_secs(20), ..Timeouts::default() };
    let builder = Client::builder(url.parse().expect("a URL")).timeouts(timeouts);
    builder.retries(retries).retry_delay(Duration::ZERO).build().expect("a client")
}

/// Bytes that differ everywhere, so that a misplaced piece is noticed.
fn content(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn partial(output: &Path, content: &[u8]) -> PathBuf {
    let name = output.file_name().expect("a name").to_str().expect("UTF-8");
    output.with_file_name(format!("{name}.sha256-{}.partial", Digest::of(content).hex()))
}

fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").file_name());
    names.map(|name| name.into_string().expect("UTF-8")).collect()
}

#[tokio::test]
async fn the_bytes_arrive_and_nothing_else_is_left() {
    for length in [0, 1, 3 << 20] {
        let bytes = content(length);
        let served = bytes.clone();
        let server = Loopback::start(move |_, request| download(&served, request)).await;
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("f");
        fs::write(&output, "before").expect("written");

        let info = client(&server.url(), 0).pull_to_file("my pkg", "1.0.0", &output, silent()).await.expect("pulled");

        assert_eq!(fs::read(&output).expect("there"), bytes);
        assert_eq!(entries(folder.path()), ["f"]);
        assert_eq!((info.size, info.digest), (length as u64, Digest::of(&bytes)));
        assert_eq!(info.filename.as_deref(), Some("f.bin"));
        assert_eq!(info.content_type.as_deref(), Some("application/x-test"));
        assert_eq!(server.seen()[0].target, "/api/v1/artifacts/my%20pkg/1.0.0");
    }
}

#[tokio::test]
async fn a_cut_download_goes_on_by_itself_where_it_stopped() {
    let bytes = content(1 << 20);
    let served = bytes.clone();
    // HEAD, then a cut in the middle, a cut after no byte at all, a gateway's error, a cut one byte before the end.
    let server = Loopback::start(move |n, request| match n {
        1 => download(&served, request).cut_after(400_000),
        2 => Reply::nothing(),
        3 => Reply::new(503, "restarting"),
        4 => download(&served, request).cut_after((1 << 20) - 400_000 - 1),
        _ => download(&served, request),
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("f");

    client(&server.url(), 3).pull_to_file("p", "1", &output, silent()).await.expect("pulled");

    assert_eq!(fs::read(&output).expect("there"), bytes);
    let seen = server.seen();
    let ranges: Vec<_> = seen.iter().skip(1).map(|request| request.header("range")).collect();
    assert_eq!(
        ranges,
        [None, Some("bytes=400000-"), Some("bytes=400000-"), Some("bytes=400000-"), Some("bytes=1048575-")]
    );
    let tag = format!("\"{}\"", Digest::of(&bytes));
    assert_eq!(seen[2].header("if-range"), Some(tag.as_str()));
}

#[tokio::test]
async fn a_pull_that_failed_is_resumed_by_the_next_one() {
    let bytes = content(500_000);
    let served = bytes.clone();
    let server = Loopback::start(move |n, request| match n {
        1 => download(&served, request).cut_after(123_456),
        _ => download(&served, request),
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("f");

    let error = client(&server.url(), 0).pull_to_file("p", "1", &output, silent()).await.expect_err("cut");
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    assert!(!output.exists());
    assert_eq!(fs::read(partial(&output, &bytes)).expect("kept"), bytes[..123_456]);

    client(&server.url(), 0).pull_to_file("p", "1", &output, silent()).await.expect("pulled");
    assert_eq!(server.seen()[3].header("range"), Some("bytes=123456-"));
    assert_eq!(fs::read(&output).expect("there"), bytes);
    assert_eq!(entries(folder.path()), ["f"]);
}

#[tokio::test]
async fn a_complete_partial_file_needs_no_download() {
    let bytes = content(1000);
    let served = bytes.clone();
    let server = Loopback::start(move |_, request| download(&served, request)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("f");
    fs::write(partial(&output, &bytes), &bytes).expect("written");

    client(&server.url(), 0).pull_to_file("p", "1", &output, silent()).await.expect("pulled");
    assert_eq!(server.seen().len(), 1, "only HEAD");
    assert_eq!(fs::read(&output).expect("there"), bytes);
}

#[tokio::test]
async fn a_damaged_partial_file_is_thrown_away_and_pulled_again() {
    let bytes = content(100_000);
    // Wrong bytes, wrong bytes of the full length, and more bytes than there are.
    for left in [vec![0; 50_000], vec![0; 100_000], vec![0; 100_001]] {
        let served = bytes.clone();
        let server = Loopback::start(move |_, request| download(&served, request)).await;
        let folder = tempfile::tempdir().expect("a folder");
        let output = folder.path().join("f");
        fs::write(partial(&output, &bytes), &left).expect("written");

        client(&server.url(), 0).pull_to_file("p", "1", &output, silent()).await.expect("pulled");
        assert_eq!(fs::read(&output).expect("there"), bytes);
        assert_eq!(server.seen().last().expect("asked").header("range"), None);
    }
}

#[tokio::test]
async fn an_artifact_that_was_replaced_never_mixes_with_the_old_one() {
    let (old, new) = (content(300_000), content(400_000).into_iter().rev().collect::<Vec<_>>());
    // The partial file of the old one lies there; and a second old one is replaced between two pieces of a download.
    let (first, second) = (old.clone(), new.clone());
    let server = Loopback::start(move |n, request| match n {
        0 => download(&first, request),
        1 => download(&first, request).cut_after(200_000),
        _ => download(&second, request),
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("f");
    let older = content(10);
    fs::write(partial(&output, &older), &older[..5]).expect("written");

    client(&server.url(), 3).pull_to_file("p", "1", &output, silent()).await.expect("pulled");
    assert_eq!(fs::read(&output).expect("there"), new);
    assert_eq!(entries(folder.path()), ["f"], "what the older ones left is gone");
    assert_eq!(server.seen()[2].header("range"), Some("bytes=200000-"));
    assert_eq!(server.seen().last().expect("asked").header("range"), None, "the new one was pulled from its start");
}

#[tokio::test]
async fn bytes_that_are_not_the_announced_ones_never_become_the_output() {
    let bytes = content(10_000);
    let served = bytes.clone();
    let server = Loopback::start(move |_, request| {
        let mut wrong = served.clone();
        wrong[9_999] ^= 1;
        let tag = format!("\"{}\"", Digest::of(&served));
        Reply::new(if request.header("range").is_some() { 416 } else { 200 }, wrong).header("etag", &tag)
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("f");
    fs::write(&output, "before").expect("written");

    let error = client(&server.url(), 3).pull_to_file("p", "1", &output, silent()).await.expect_err("wrong bytes");
    assert!(matches!(error, Error::DigestMismatch { expected, .. } if expected == Digest::of(&bytes)), "{error:?}");
    assert_eq!(fs::read(&output).expect("there"), b"before");
    assert_eq!(entries(folder.path()), ["f"]);
}

#[tokio::test]
async fn a_server_without_ranges_or_with_wrong_ones_harms_nothing() {
    let bytes = content(50_000);
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("f");

    // It ignores Range: what is behind already is skipped.
    let served = bytes.clone();
    let server = Loopback::start(move |n, _| {
        let reply = Reply::new(200, served.clone()).header("etag", &format!("\"{}\"", Digest::of(&served)));
        if n == 1 { reply.cut_after(20_000) } else { reply }
    })
    .await;
    client(&server.url(), 1).pull_to_file("p", "1", &output, silent()).await.expect("pulled");
    assert_eq!(fs::read(&output).expect("there"), bytes);

    // It answers another range than the one asked for.
    fs::write(partial(&output, &bytes), &bytes[..100]).expect("written");
    let served = bytes.clone();
    let server = Loopback::start(move |_, request| match request.method.as_str() {
        "HEAD" => download(&served, request),
        _ => Reply::new(206, &served[99..])
            .header("etag", &format!("\"{}\"", Digest::of(&served)))
            .header("content-range", "bytes 99-49999/50000"),
    })
    .await;
    let error = client(&server.url(), 1).pull_to_file("p", "1", &output, silent()).await.expect_err("wrong range");
    assert!(error.to_string().contains("the range \"bytes 99-49999/50000\""), "{error:?}");
}

#[tokio::test]
async fn a_silent_server_is_given_up_and_what_came_is_kept() {
    let bytes = content(100_000);
    let served = bytes.clone();
    let server = Loopback::start(move |n, request| match n {
        0 => download(&served, request),
        _ => download(&served, request).hang_after(60_000),
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("f");
    let timeouts = Timeouts { idle: Duration::from_millis(300), ..Timeouts::default() };
    let client =
        Client::builder(server.url().parse().expect("a URL")).timeouts(timeouts).retries(0).build().expect("a client");

    let pull = client.pull_to_file("p", "1", &output, silent());
    let error = tokio::time::timeout(Duration::from_secs(30), pull).await.expect("given up").expect_err("silent");
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
    assert_eq!(fs::read(partial(&output, &bytes)).expect("kept"), bytes[..60_000]);
}

#[tokio::test]
async fn what_does_not_exist_is_not_found_and_leaves_nothing() {
    let server = Loopback::start(|_, _| Reply::error(404, "not_found", "no such version")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let error =
        client(&server.url(), 3).pull_to_file("p", "9", &folder.path().join("f"), silent()).await.expect_err("absent");
    assert!(matches!(&error, Error::Refused(refusal) if refusal.kind() == RefusalKind::NotFound), "{error:?}");
    assert_eq!(error.to_string(), "p 9 does not exist");
    assert_eq!(server.seen().len(), 1, "a 404 is not retried");
    assert!(entries(folder.path()).is_empty());
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_noticed_before_anything_is_sent() {
    let server = Loopback::start(|_, request| download(b"x", request)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("missing/f");
    let error = client(&server.url(), 0).pull_to_file("p", "1", &output, silent()).await.expect_err("no folder");
    assert!(matches!(error, Error::File { .. }), "{error:?}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_stream_verifies_at_its_end_and_can_be_resumed_from_a_hash() {
    use futures_util::TryStreamExt;
    let bytes = content(200_000);
    let served = bytes.clone();
    let server = Loopback::start(move |_, request| download(&served, request)).await;
    let client = client(&server.url(), 0);

    let chunks: Vec<_> =
        client.pull("p", "1").await.expect("there").into_stream().try_collect().await.expect("verified");
    assert_eq!(chunks.concat(), bytes);

    let info = client.head("p", "1").await.expect("there");
    let mut received = Hasher::new();
    received.update(&bytes[..150_000]);
    let mut rest = client.resume_pull("p", "1", info, received);
    let mut got = Vec::new();
    while let Some(chunk) = rest.next_chunk().await.expect("verified") {
        got.extend_from_slice(&chunk);
    }
    assert_eq!(got, bytes[150_000..]);
    assert_eq!(rest.position(), 200_000);
    assert!(rest.next_chunk().await.expect("still at the end").is_none());
}

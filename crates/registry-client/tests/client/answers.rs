//! Documents, pages, and what every kind of refusal and failure becomes.
use std::time::Duration;

use crate::support::{Loopback, Reply, artifact, closed_url, download, tls};
use futures_util::TryStreamExt;
use registry_client::{Client, Error, GcOptions, NewToken, PackageQuery, RefusalKind, Token, UnreachableReason};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn client(url: &str) -> Client {
    let builder = Client::builder(url.parse().expect("a URL")).token(Token::new("s3cret").expect("a token"));
    builder.retries(2).retry_delay(Duration::ZERO).build().expect("a client")
}

#[tokio::test]
async fn a_list_is_read_page_by_page_to_its_end() {
    let server = Loopback::start(|n, _| match n {
        0 => Reply::json(
            200,
            concat!(
                r#"{"packages":[{"package":"a","version_count":2,"latest_version":"1.1","updated_at":"t","new":1}],"#,
                r#""next":"a b"}"#
            ),
        ),
        1 => Reply::json(200, r#"{"packages":[],"next":"c"}"#),
        _ => Reply::json(200, r#"{"packages":[{"package":"d","version_count":0}]}"#),
    })
    .await;
    let query = PackageQuery { search: Some("x&y".into()), page_size: Some(1) };
    let all: Vec<_> = client(&server.url()).packages(query).try_collect().await.expect("read");
    assert_eq!(all.iter().map(|package| package.package.as_str()).collect::<Vec<_>>(), ["a", "d"]);
    let targets: Vec<_> = server.seen().into_iter().map(|request| request.target).collect();
    assert_eq!(
        targets,
        [
            "/api/v1/packages?search=x%26y&limit=1",
            "/api/v1/packages?search=x%26y&limit=1&after=a+b",
            "/api/v1/packages?search=x%26y&limit=1&after=c"
        ]
    );
}

#[tokio::test]
async fn pages_that_lead_back_to_themselves_end_in_an_error() {
    let server = Loopback::start(|n, _| match n {
        0..9 => Reply::json(200, r#"{"tokens":[],"next":"same"}"#),
        _ => Reply::json(200, r#"{"tokens":[]}"#),
    })
    .await;
    let error = client(&server.url()).tokens().try_collect::<Vec<_>>().await.expect_err("a loop");
    assert!(matches!(error, Error::UnexpectedAnswer { .. }), "{error:?}");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn versions_are_read_in_the_servers_order() {
    let server = Loopback::start(|n, _| match n {
        0 => {
            Reply::json(200, &format!(r#"{{"package":"p","versions":[{}],"next":"1.9"}}"#, artifact("p", "1.9", b"a")))
        }
        _ => Reply::json(200, &format!(r#"{{"package":"p","versions":[{}]}}"#, artifact("p", "1.10", b"b"))),
    })
    .await;
    let all: Vec<_> = client(&server.url()).versions("p", None).try_collect().await.expect("read");
    assert_eq!(all.iter().map(|artifact| artifact.version.as_str()).collect::<Vec<_>>(), ["1.9", "1.10"]);
    assert_eq!(server.seen()[1].target, "/api/v1/packages/p?after=1.9");
}

#[tokio::test]
async fn garbage_collection_sends_its_options_and_keeps_unknown_facts() {
    let server = Loopback::start(|_, _| {
        Reply::json(
            200,
            concat!(
                r#"{"dry_run":true,"blobs_deleted":3,"bytes_freed":9,"references_reviewed":1,"#,
                r#""uploads_ended":2,"objects_deleted":4,"took_ms":5}"#
            ),
        )
    })
    .await;
    let options = GcOptions { dry_run: true, grace: Some(Duration::from_secs(90)) };
    let report = client(&server.url()).collect_garbage(&options).await.expect("collected");
    assert_eq!((report.dry_run, report.blobs_deleted, report.bytes_freed), (true, 3, 9));
    assert_eq!(report.more["took_ms"], 5);
    assert_eq!(
        (server.seen()[0].method.as_str(), server.seen()[0].target.as_str()),
        ("POST", "/api/v1/gc?dry_run=true&grace=90s")
    );
}

#[tokio::test]
async fn tokens_are_made_and_revoked() {
    let server = Loopback::start(|_, request| match request.method.as_str() {
        "POST" => Reply::json(
            201,
            concat!(
                r#"{"id":"t1","name":"ci","scopes":["generic:p:pull"],"#,
                r#""created_at":"now","expires_at":null,"token":"fresh"}"#
            ),
        ),
        _ => Reply::new(204, ""),
    })
    .await;
    let client = client(&server.url());
    let new = NewToken {
        name: "ci".into(),
        scopes: vec!["generic:p:pull".into()],
        expires_in: Some(Duration::from_secs(60)),
    };
    let created = client.create_token(&new).await.expect("made");
    assert_eq!((created.info.id.as_str(), created.token.reveal()), ("t1", "fresh"));
    assert!(!format!("{created:?}").contains("fresh"));
    client.revoke_token("t 1").await.expect("revoked");
    let seen = server.seen();
    assert_eq!(
        String::from_utf8_lossy(&seen[0].body),
        r#"{"name":"ci","scopes":["generic:p:pull"],"expires_in_seconds":60}"#
    );
    assert_eq!((seen[1].method.as_str(), seen[1].target.as_str()), ("DELETE", "/api/v1/tokens/t%201"));
}

#[tokio::test]
async fn every_refusal_keeps_its_kind_words_and_request_id() {
    for (status, kind) in [
        (400, RefusalKind::Invalid),
        (401, RefusalKind::Unauthenticated),
        (403, RefusalKind::Forbidden),
        (404, RefusalKind::NotFound),
        (409, RefusalKind::Conflict),
        (413, RefusalKind::TooLarge),
        (418, RefusalKind::Other),
        (429, RefusalKind::Throttled),
        (500, RefusalKind::Server),
        (507, RefusalKind::Server),
    ] {
        let server =
            Loopback::start(move |_, _| Reply::error(status, "a_code", "words").header("retry-after", "7")).await;
        let error = client(&server.url()).packages_page(&PackageQuery::default(), None).await.expect_err("refused");
        let Error::Refused(refusal) = error else { panic!("{error:?}") };
        assert_eq!((refusal.status, refusal.kind(), refusal.message.as_str()), (status, kind, "words"));
        assert_eq!((refusal.code.as_deref(), refusal.request_id.as_deref()), (Some("a_code"), Some("req-1")));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(server.seen().len(), 1, "not retried");
    }
}

#[tokio::test]
async fn an_error_without_a_document_is_told_by_its_status() {
    let server = Loopback::start(|_, _| Reply::new(404, "<html>nginx</html>")).await;
    let error = client(&server.url()).packages_page(&PackageQuery::default(), None).await.expect_err("refused");
    assert!(error.to_string().contains("answered 404 Not Found"), "{error}");
}

#[tokio::test]
async fn a_token_that_the_server_echoes_is_not_repeated() {
    let server = Loopback::start(|_, _| Reply::error(401, "unauthenticated", "unknown token s3cret")).await;
    let error = client(&server.url()).packages_page(&PackageQuery::default(), None).await.expect_err("refused");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn reads_are_retried_and_changes_are_not() {
    let server = Loopback::start(|n, _| match n {
        0 => Reply::nothing(),
        1 => Reply::new(502, ""),
        _ => Reply::json(200, r#"{"packages":[]}"#),
    })
    .await;
    client(&server.url()).packages_page(&PackageQuery::default(), None).await.expect("the third try");

    let server = Loopback::start(|_, _| Reply::nothing()).await;
    let client = client(&server.url());
    let new = NewToken { name: "n".into(), scopes: vec![], expires_in: None };
    assert!(matches!(client.delete("p", "1").await, Err(Error::Interrupted { .. })));
    assert!(matches!(client.collect_garbage(&GcOptions::default()).await, Err(Error::Interrupted { .. })));
    assert!(matches!(client.create_token(&new).await, Err(Error::Interrupted { .. })));
    assert!(matches!(client.revoke_token("t").await, Err(Error::Interrupted { .. })));
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn what_is_not_the_api_is_told_as_such() {
    for reply in [Reply::new(200, "<html>"), Reply::json(200, r#"{"something":"else"}"#)] {
        let server = Loopback::start(move |_, _| reply.clone()).await;
        let error =
            client(&server.url()).packages_page(&PackageQuery::default(), None).await.expect_err("no such document");
        assert!(matches!(error, Error::UnexpectedAnswer { .. }), "{error:?}");
    }
    // A download without a digest cannot be verified.
    let server = Loopback::start(|_, _| Reply::new(200, "bytes")).await;
    assert!(matches!(client(&server.url()).head("p", "1").await, Err(Error::UnexpectedAnswer { .. })));
}

#[tokio::test]
async fn the_token_does_not_follow_a_redirect() {
    let other = Loopback::start(|_, request| download(b"x", request)).await;
    let location = format!("{}/elsewhere", other.url());
    let server = Loopback::start(move |_, _| Reply::new(307, "").header("location", &location)).await;
    let error = client(&server.url()).head("p", "1").await.expect_err("redirected");
    assert!(matches!(error, Error::Redirected { .. }), "{error:?}");
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_not_waited_for() {
    let client = client(&closed_url().await);
    for error in [
        client.head("p", "1").await.map(drop).expect_err("refused"),
        client.delete("p", "1").await.expect_err("refused"),
    ] {
        let expected = UnreachableReason::ConnectionRefused;
        assert!(matches!(error, Error::Unreachable { reason, .. } if reason == expected), "{error:?}");
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_it_is_named_and_only_then() {
    let (pem, acceptor) = tls();
    let server = Loopback::start_tls(acceptor, |_, request| download(b"secret bytes", request)).await;
    let builder = || Client::builder(server.url().parse().expect("a URL")).retries(0);

    let trusting = builder().extra_roots(pem.as_bytes()).expect("a certificate").build().expect("a client");
    let mut pull = trusting.pull("p", "1").await.expect("there");
    assert_eq!(pull.next_chunk().await.expect("verified").expect("bytes"), &b"secret bytes"[..]);

    let (other, _) = tls();
    let strict = builder().extra_roots(other.as_bytes()).expect("a certificate").build().expect("a client");
    let error = strict.head("p", "1").await.expect_err("not trusted");
    assert!(matches!(error, Error::Unreachable { reason: UnreachableReason::Certificate, .. }), "{error:?}");
    assert_eq!(server.seen().len(), 2, "the stranger saw no request");

    for text in ["", "no certificate", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"] {
        assert!(matches!(builder().extra_roots(text.as_bytes()), Err(Error::Tls(_))), "{text:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_with_a_wrong_certificate() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("it is bound"));
    // What a server of plain HTTP makes of the beginning of TLS.
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await.expect("answered");
        // Until the client leaves: closing before could take the answer from it.
        stream.read_to_end(&mut Vec::new()).await
    });
    let (pem, _) = tls();
    let client = Client::builder(url.parse().expect("a URL")).extra_roots(pem.as_bytes()).expect("a certificate");
    let error = client.retries(0).build().expect("a client").head("p", "1").await.expect_err("no TLS");
    let expected = UnreachableReason::Tls;
    assert!(matches!(error, Error::Unreachable { reason, .. } if reason == expected), "{error:?}");
    server.abort();
}

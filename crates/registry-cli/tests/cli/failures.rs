//! Failures: each has its documented exit code and says what to do next.
use std::fs;

use crate::support::server::{Loopback, Reply, closed_url, download, tls};
use crate::support::{Ended, Home};

/// What a command makes of a server that refuses everything.
async fn refused(status: u16, code: &'static str, arguments: &[&str]) -> Ended {
    let server = Loopback::start(move |_, _| Reply::error(status, code, "the server's words")).await;
    let home = Home::with_server(&server.url());
    fs::write(home.path().join("f"), "hello").expect("written");
    home.run(arguments).await
}

#[tokio::test]
async fn every_refusal_ends_in_its_exit_code_with_the_servers_words_and_a_hint() {
    let push = &["push", "p", "1", "f"][..];
    for (status, code, arguments, exit_code, hint) in [
        (400, "invalid_name", push, 2, ""),
        (400, "digest_mismatch", push, 6, ""),
        (401, "unauthenticated", push, 4, "registry-cli token create"),
        (403, "forbidden", push, 4, "--scope generic:p:pull,push,delete"),
        (404, "not_found", &["versions", "p"], 3, "registry-cli versions p"),
        (404, "not_found", &["delete", "p", "1"], 3, "registry-cli versions p"),
        (404, "not_found", &["token", "revoke", "t"], 3, ""),
        (409, "conflict", push, 5, ""),
        (413, "too_large", push, 1, "limits how large"),
        (429, "throttled", &["list"], 1, "try again"),
        (403, "forbidden", &["gc"], 4, "--scope '*:*:admin'"),
        (500, "internal", &["gc"], 1, "request id"),
        (507, "no_space", push, 1, "registry-cli gc"),
    ] {
        let ended = refused(status, code, arguments).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (exit_code, ""), "{status} {code}: {ended:?}");
        assert!(ended.stderr.starts_with("error: the server's words\n"), "{ended:?}");
        assert!(ended.stderr.contains(hint), "{hint} is not in {ended:?}");
        assert_eq!(ended.stderr.contains("request id: req-1"), status >= 500, "{ended:?}");
    }
}

#[tokio::test]
async fn an_error_with_json_is_one_document_on_stderr() {
    let ended = refused(500, "internal", &["gc", "--json"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (1, ""));
    let document: serde_json::Value = serde_json::from_str(&ended.stderr).expect("JSON");
    let expected = serde_json::json!({
        "error": "the server's words",
        "code": "internal",
        "exit_code": 1,
        "status": 500,
        "request_id": "req-1",
        "hint": "the server's log tells more under that request id",
    });
    assert_eq!(document, expected);
}

#[tokio::test]
async fn a_pull_of_what_does_not_exist_is_3_and_leaves_nothing() {
    let server = Loopback::start(|_, _| Reply::new(404, "")).await;
    let home = Home::with_server(&server.url());
    let ended = home.run(&["pull", "p", "9", "--output", "f"]).await;
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.starts_with("error: p 9 does not exist\nhint: see what there is"), "{ended:?}");
    assert_eq!(fs::read_dir(home.path()).expect("there").count(), 0);
}

#[tokio::test]
async fn an_existing_version_says_whether_anything_is_left_to_do() {
    let server = Loopback::start(|_, request| match request.method.as_str() {
        "POST" => Reply::error(409, "version_exists", "exists"),
        _ => download(b"stored", request),
    })
    .await;
    let home = Home::with_server(&server.url());
    for (bytes, hint) in [("stored", "nothing is left to do"), ("other", "registry-cli delete p 1")] {
        fs::write(home.path().join("f"), bytes).expect("written");
        let ended = home.run(&["push", "p", "1", "f"]).await;
        assert_eq!(ended.code, 5, "{ended:?}");
        assert!(ended.stderr.contains(hint), "{ended:?}");
    }
}

#[tokio::test]
async fn without_a_token_the_way_to_one_is_told() {
    let server = Loopback::start(|_, _| Reply::error(401, "unauthenticated", "a token is needed")).await;
    let ended = Home::new().run(&["list", "--server", &server.url()]).await;
    assert_eq!(ended.code, 4);
    assert!(ended.stderr.contains(&format!("registry-cli login --server {}", server.url())), "{ended:?}");
    assert!(ended.stderr.contains("REGISTRY_TOKEN"), "{ended:?}");
    assert_eq!(server.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_limit_is_told_even_if_the_server_reads_no_further() {
    let server = Loopback::start_impatient(|_, request| match request.method.as_str() {
        "HEAD" => Reply::new(404, ""),
        _ => Reply::error(413, "too_large", "at most 1 MiB"),
    })
    .await;
    let home = Home::with_server(&server.url());
    fs::write(home.path().join("f"), vec![0; 32 << 20]).expect("written");
    let ended = home.run(&["push", "p", "1", "f"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    // The status is heard; the words behind it may be lost in the reset of the connection.
    assert!(ended.stderr.contains("\nhint: the server limits how large"), "{ended:?}");
}

#[tokio::test]
async fn an_untrusted_certificate_leads_to_the_option_that_trusts_it() {
    let (pem, acceptor) = tls();
    let server = Loopback::start_tls(acceptor, |_, _| Reply::json(200, r#"{"packages":[]}"#)).await;
    let home = Home::with_server(&server.url());
    fs::write(home.path().join("ca.pem"), pem).expect("written");
    fs::write(home.path().join("other.pem"), tls().0).expect("written");
    let ended = home.run(&["list", "--ca-cert", "other.pem"]).await;
    assert_eq!(ended.code, 7, "{ended:?}");
    assert!(ended.stderr.contains("name its PEM file with --ca-cert or REGISTRY_CA_CERT"), "{ended:?}");
    assert!(server.seen().is_empty());
    home.run(&["list", "--json", "--ca-cert", "ca.pem"]).await.silently();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_7_and_named() {
    let url = closed_url().await;
    let home = Home::new();
    fs::write(home.path().join("f"), "hello").expect("written");
    for arguments in [
        &["list"][..],
        &["push", "p", "1", "f"],
        &["pull", "p", "1", "--output", "f2"],
        &["delete", "p", "1"],
        &["token", "list"],
    ] {
        let mut command = home.command(arguments);
        command.env("REGISTRY_SERVER", &url);
        let ended = Ended::of(crate::support::blocking(move || command.output().expect("it starts")).await);
        assert_eq!(ended.code, 7, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(&format!("is the server running at {url}?")), "{ended:?}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_7() {
    let server = Loopback::start(|_, _| Reply::nothing()).await;
    let ended = Home::with_server(&server.url()).run(&["delete", "p", "1"]).await;
    assert_eq!(ended.code, 7, "{ended:?}");
    assert_eq!(server.seen().len(), 1, "deleting is not repeated");
}

#[tokio::test]
async fn what_is_typed_wrong_is_2_and_asks_no_server() {
    let server = Loopback::start(|_, _| Reply::new(500, "")).await;
    let home = Home::with_server(&server.url());
    for (arguments, words) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["push", "p", "1"], "<FILE>"),
        (&["list", "--server", "localhost:8080"], "try --server http://localhost:8080"),
        (&["list", "--server", "http://u:pa55@localhost"], "user name or a password"),
        (&["list", "--server", "u:pa55@localhost"], "give the token by itself"),
        (&["list", "--server", "https://u:pa55@localhost:99999"], "invalid port number"),
        (&["list", "--token", "two words"], "the token is empty or holds white space"),
        (&["delete", "..", "1"], "cannot name anything"),
        (&["gc", "--grace", "soon"], "invalid value 'soon'"),
        (&["list", "--limit", "0"], "0 is not in"),
        (&["token", "create", "n"], "--scope"),
    ] {
        let ended = home.run(arguments).await;
        assert_eq!(ended.code, 2, "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(words), "{words} is not in {ended:?}");
        assert!(!ended.stderr.contains("pa55"), "{ended:?}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn what_is_typed_wrong_is_a_document_too_where_json_is_asked_for() {
    let home = Home::new();
    for (arguments, words) in [
        (&["frobnicate", "--json"][..], "unrecognized subcommand 'frobnicate'"),
        (&["--json", "delete", "x"], "required arguments were not provided"),
        (&["gc", "--grace", "banana", "--json"], "invalid value 'banana'"),
        (&["--json"], "requires a subcommand"),
    ] {
        let ended = home.run(arguments).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{arguments:?}: {ended:?}");
        let document: serde_json::Value = serde_json::from_str(&ended.stderr).expect("JSON");
        assert_eq!((&document["code"], &document["exit_code"]), (&"usage".into(), &2.into()), "{document}");
        assert!(document["error"].as_str().unwrap().contains(words), "{document}");
        assert!(document["hint"].as_str().unwrap().contains("--help"), "{document}");
    }
    // What is asked for is no error, and what stands behind `--` is no option.
    let help = home.run(&["gc", "--help", "--json"]).await.silently();
    assert!(help.stdout.contains("Usage: registry-cli gc"), "{help:?}");
    let ended = home.run(&["delete", "--", "--json"]).await;
    assert!(ended.code == 2 && ended.stderr.starts_with("error: "), "{ended:?}");
}

#[tokio::test]
async fn a_local_file_that_is_missing_is_1_and_named() {
    let home = Home::with_server(&closed_url().await);
    let ended = home.run(&["push", "p", "1", "missing"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("cannot read missing: No such file"), "{ended:?}");
    let ended = home.run(&["list", "--ca-cert", "missing.pem"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("cannot read missing.pem"), "{ended:?}");
}

#[tokio::test]
async fn what_is_no_foundry_server_is_told_as_such() {
    for reply in [Reply::new(404, "<html>"), Reply::new(200, "<html>")] {
        let server = Loopback::start(move |_, _| reply.clone()).await;
        let ended = Home::with_server(&server.url()).run(&["list"]).await;
        assert_ne!(ended.code, 0);
        assert!(ended.stderr.contains("a Foundry server?"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_servers_words_cannot_command_the_terminal() {
    let server = Loopback::start(|_, _| Reply::error(400, "invalid", r"\u001b[2Jgone")).await;
    let ended = Home::with_server(&server.url()).run(&["list"]).await;
    assert!(ended.stderr.contains(r"\u{1b}[2Jgone") && !ended.stderr.contains('\u{1b}'), "{ended:?}");
}

#[tokio::test]
async fn the_help_documents_exit_codes_and_environment_and_hides_the_token() {
    let home = Home::with_server("http://localhost:8080");
    for arguments in [&["--help"][..], &["-h"], &["push", "--help"], &["token", "create", "--help"]] {
        let ended = home.run(arguments).await.silently();
        assert!(ended.stdout.contains("REGISTRY_TOKEN"), "{ended:?}");
    }
    let help = home.run(&["--help"]).await.stdout;
    for line in ["Exit codes:", "  6    the bytes do not have the digest", "REGISTRY_SERVER", "XDG_CONFIG_HOME"] {
        assert!(help.contains(line), "{line}");
    }
}

//! Lists, deleting, garbage collection, tokens and completions: for people and for programs.
use std::process::Stdio;

use crate::support::Home;
use crate::support::server::{Loopback, Reply, artifact};

#[tokio::test]
async fn lists_are_tables_for_people_and_one_document_for_programs() {
    let server = Loopback::start(|_, request| {
        let (name, count, more) = match request.target.contains("after=") {
            false => (r"a\u001b", 1, r#","next":"a""#),
            true => ("zed", 12, ""),
        };
        let package = format!(
            r#"{{"package":"{name}","version_count":{count},"latest_version":"{count}.0","updated_at":"t{count}"}}"#
        );
        Reply::json(200, &format!(r#"{{"packages":[{package}]{more}}}"#))
    })
    .await;
    let home = Home::with_server(&server.url());
    let listed = home.run(&["list"]).await.silently();
    assert_eq!(
        listed.stdout,
        "PACKAGE  VERSIONS  LATEST  UPDATED\n\
         a\\u{1b}  1         1.0     t1\n\
         zed      12        12.0    t12\n"
    );
    let document = home.run(&["list", "--json"]).await.silently().document();
    assert_eq!(document["packages"][1]["version_count"], 12);
    assert_eq!(document["packages"].as_array().expect("a list").len(), 2);

    let asked = server.seen().len();
    let one = home.run(&["search", "z d", "--limit", "1", "--json"]).await.silently().document();
    assert_eq!(one["packages"].as_array().expect("a list").len(), 1);
    assert_eq!(server.seen().len(), asked + 1, "a page that is not needed is not asked for");
    assert_eq!(server.seen().last().expect("asked").target, "/api/v1/packages?search=z+d&limit=1");
}

#[tokio::test]
async fn an_empty_list_is_an_empty_document_and_a_word_for_people() {
    let server = Loopback::start(|_, _| Reply::json(200, r#"{"packages":[],"tokens":[]}"#)).await;
    let home = Home::with_server(&server.url());
    assert_eq!(home.run(&["list", "--json"]).await.silently().stdout, "{\"packages\":[]}\n");
    assert_eq!(home.run(&["token", "list", "--json"]).await.silently().stdout, "{\"tokens\":[]}\n");
    let ended = home.run(&["search", "nothing"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""));
    assert_eq!(ended.stderr, "no package matches \"nothing\"\n");
}

#[tokio::test]
async fn a_list_that_breaks_off_is_no_complete_document() {
    let server = Loopback::start(|n, _| match n {
        0 => Reply::json(200, r#"{"packages":[{"package":"a","version_count":1}],"next":"a"}"#),
        _ => Reply::error(500, "internal", "broken"),
    })
    .await;
    let ended = Home::with_server(&server.url()).run(&["list", "--json"]).await;
    assert_eq!(ended.code, 1);
    assert!(serde_json::from_str::<serde_json::Value>(&ended.stdout).is_err(), "{ended:?}");
}

#[tokio::test]
async fn versions_come_in_the_servers_order() {
    let server = Loopback::start(|_, _| {
        let versions = format!("{},{}", artifact("p", "1.9", b"a"), artifact("p", "1.10", b"bb"));
        Reply::json(200, &format!(r#"{{"package":"p","versions":[{versions}]}}"#))
    })
    .await;
    let home = Home::with_server(&server.url());
    let listed = home.run(&["versions", "p"]).await.silently().stdout;
    let firsts: Vec<_> = listed.lines().map(|line| line.split_whitespace().next().expect("a word")).collect();
    assert_eq!(firsts, ["VERSION", "1.9", "1.10"]);
    let document = home.run(&["versions", "p", "--json"]).await.silently().document();
    assert_eq!((&document["package"], &document["versions"][1]["size"]), (&"p".into(), &2.into()));
}

#[tokio::test]
async fn a_reader_that_has_enough_is_no_failure() {
    let server = Loopback::start(|_, _| {
        let line = r#"{"package":"p","version_count":1}"#;
        Reply::json(200, &format!(r#"{{"packages":[{}]}}"#, vec![line; 20_000].join(",")))
    })
    .await;
    let home = Home::with_server(&server.url());
    let mut command = home.command(&["list", "--json"]);
    let (status, stderr) = crate::support::blocking(move || {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        (output.status, output.stderr)
    })
    .await;
    assert_eq!((status.code(), stderr.as_slice()), (Some(0), &b""[..]));
}

#[tokio::test]
async fn delete_and_gc_say_what_they_did() {
    let server = Loopback::start(|_, request| match request.method.as_str() {
        "DELETE" => Reply::new(204, ""),
        _ if request.target.contains("dry_run=true") => {
            Reply::json(200, r#"{"dry_run":true,"blobs_deleted":2,"bytes_freed":2048}"#)
        }
        _ => Reply::json(200, r#"{"dry_run":false,"blobs_deleted":1,"bytes_freed":5,"extra":true}"#),
    })
    .await;
    let home = Home::with_server(&server.url());
    assert_eq!(home.run(&["delete", "p", "1.0.0"]).await.silently().stdout, "Deleted p 1.0.0\n");
    assert_eq!(server.seen()[0].target, "/api/v1/artifacts/p/1.0.0");
    assert_eq!(home.run(&["delete", "p", "1", "--json"]).await.document()["deleted"], true);

    let dry = home.run(&["gc", "--dry-run", "--grace", "0s"]).await.silently();
    assert_eq!(dry.stdout, "Would delete 2 blobs (2.00 KiB)\n");
    assert_eq!(server.seen().last().expect("asked").target, "/api/v1/gc?dry_run=true&grace=0s");
    let document = home.run(&["gc", "--json"]).await.silently().document();
    assert_eq!((&document["blobs_deleted"], &document["extra"]), (&1.into(), &true.into()));
    assert_eq!(server.seen().last().expect("asked").target, "/api/v1/gc");
}

#[tokio::test]
async fn only_token_create_prints_a_token() {
    let info =
        r#""id":"t1","name":"ci","scopes":["generic:p:pull","generic:q:pull,push"],"created_at":"c","expires_at":"e""#;
    let server = Loopback::start(move |_, request| match request.method.as_str() {
        "POST" => Reply::json(201, &format!(r#"{{{info},"token":"fresh"}}"#)),
        "DELETE" => Reply::new(204, ""),
        _ => Reply::json(200, &format!(r#"{{"tokens":[{{{info}}}]}}"#)),
    })
    .await;
    let home = Home::with_server(&server.url());
    let create =
        ["token", "create", "ci", "--scope", "generic:p:pull", "--scope", "generic:q:pull,push", "--expires-in", "30d"];
    let created = home.run(&create).await;
    assert_eq!((created.code, created.stdout.as_str()), (0, "fresh\n"), "stdout is the token alone");
    assert!(
        created.stderr.contains("registry-cli token revoke t1") && !created.stderr.contains("fresh"),
        "{created:?}"
    );
    let sent: serde_json::Value = serde_json::from_slice(&server.seen()[0].body).expect("JSON");
    let scopes = ["generic:p:pull", "generic:q:pull,push"];
    let expected = serde_json::json!({ "name": "ci", "scopes": scopes, "expires_in_seconds": 2_592_000 });
    assert_eq!(sent, expected);
    let document = home.run(&[&create[..], &["--json"]].concat()).await.silently().document();
    assert_eq!((&document["token"], &document["id"]), (&"fresh".into(), &"t1".into()));

    let listed = home.run(&["token", "list"]).await.silently().stdout;
    assert!(listed.contains("t1  ci    generic:p:pull generic:q:pull,push  c        e"), "{listed}");
    assert_eq!(home.run(&["token", "revoke", "t1"]).await.silently().stdout, "Revoked the token t1\n");
    assert_eq!(server.seen().last().expect("asked").target, "/api/v1/tokens/t1");
    // Who finds a token where it does not belong has all of it.
    assert_eq!(home.run(&["token", "revoke", "fdy_t2_secret"]).await.silently().stdout, "Revoked the token t2\n");
    assert_eq!(server.seen().last().expect("asked").target, "/api/v1/tokens/t2");
}

#[tokio::test]
async fn completions_know_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.run(&["completions", shell]).await.silently().stdout;
        for word in ["push", "versions", "revoke", "dry-run"] {
            assert!(script.contains(word), "{word} in {shell}");
        }
    }
    assert_eq!(home.run(&["completions", "fish", "--json"]).await.silently().document()["shell"], "fish");
}

//! Push and pull: the command lines that people type, what is on disk afterwards, and who sees progress.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use crate::support::server::{Loopback, Reply, artifact, download};
use crate::support::{Ended, Home, Terminal, blocking};
use registry_client::Digest;

fn content() -> Vec<u8> {
    (0..700_001_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn partial_name(content: &[u8]) -> String {
    format!("f.sha256-{}.partial", Digest::of(content).hex())
}

#[tokio::test]
async fn push_and_pull_as_they_are_typed() {
    let server = Loopback::start(|_, request| match request.method.as_str() {
        "POST" => Reply::json(201, &artifact("mypkg", "1.0.0", b"hello")),
        _ => download(b"hello", request),
    })
    .await;
    let home = Home::new();
    fs::write(home.path().join("f"), "hello").expect("written");

    let pushed =
        home.run(&["push", "mypkg", "1.0.0", "./f", "--server", &server.url(), "--token", "s3cret"]).await.silently();
    assert_eq!(pushed.stdout, format!("Pushed mypkg 1.0.0: 5 B, {}\n", Digest::of(b"hello")));
    let sent = &server.seen()[0];
    assert_eq!(
        (sent.target.as_str(), sent.body.as_slice()),
        ("/api/v1/artifacts/mypkg/1.0.0?filename=f", &b"hello"[..])
    );
    assert_eq!(sent.header("authorization"), Some("Bearer s3cret"));

    let pull = ["pull", "mypkg", "1.0.0", "--output", "./copy", "--server", &server.url(), "--token", "s3cret"];
    let pulled = home.run(&pull).await.silently();
    assert_eq!(pulled.stdout, format!("Pulled mypkg 1.0.0 into ./copy: 5 B, {}\n", Digest::of(b"hello")));
    assert_eq!(fs::read(home.path().join("copy")).expect("there"), b"hello");
}

#[tokio::test]
async fn transfers_are_told_in_json() {
    let server = Loopback::start(|_, request| match request.method.as_str() {
        "POST" => Reply::json(201, &artifact("p", "1", b"hello")),
        _ => download(b"hello", request),
    })
    .await;
    let home = Home::with_server(&server.url());
    let pushed = home.run_with_input(&["push", "p", "1", "-", "--filename", "n", "--json"], "hello").await;
    // The scripted server has this version, which a push from a pipe asks for first.
    assert_eq!(pushed.code, 5, "{pushed:?}");
    fs::write(home.path().join("f"), "hello").expect("written");
    let pushed =
        home.run(&["push", "p", "1", "f", "--json", "--content-type", "text/plain"]).await.silently().document();
    assert_eq!(pushed, serde_json::from_str::<serde_json::Value>(&artifact("p", "1", b"hello")).expect("JSON"));
    assert_eq!(server.seen().last().expect("sent").header("content-type"), Some("text/plain"));

    let pulled = home.run(&["--json", "pull", "p", "1", "--output", "copy"]).await.silently().document();
    assert_eq!(pulled["digest"], Digest::of(b"hello").to_string());
    assert_eq!((&pulled["output"], &pulled["size"]), (&"copy".into(), &5.into()));
}

#[tokio::test]
async fn stdin_is_pushed_to_its_end() {
    let server = Loopback::start(|_, request| match request.method.as_str() {
        "POST" => Reply::json(201, &artifact("p", "1", b"piped in")),
        _ => Reply::new(404, ""),
    })
    .await;
    let home = Home::with_server(&server.url());
    assert_eq!(home.run_with_input(&["push", "p", "1", "-"], "piped in").await.code, 0);
    assert_eq!(server.seen().last().expect("sent").body, b"piped in");
}

#[tokio::test]
async fn an_interrupted_pull_is_resumed_by_the_next_run() {
    let content = content();
    let served = content.clone();
    let server = Loopback::start(move |n, request| match n {
        1 => download(&served, request).cut_after(300_000),
        _ => download(&served, request),
    })
    .await;
    let home = Home::with_server(&server.url());

    let cut = home.run(&["pull", "p", "1", "--output", "f", "--retries", "0"]).await;
    assert_eq!(cut.code, 7, "{cut:?}");
    assert!(cut.stderr.contains("goes on where it stopped"), "{cut:?}");
    assert!(!home.path().join("f").exists());
    assert_eq!(fs::read(home.path().join(partial_name(&content))).expect("kept"), content[..300_000]);

    home.run(&["pull", "p", "1", "--output", "f"]).await.silently();
    let seen = server.seen();
    let resumed = seen.last().expect("asked");
    assert_eq!(resumed.header("range"), Some("bytes=300000-"));
    assert_eq!(resumed.header("if-range"), Some(format!("\"{}\"", Digest::of(&content)).as_str()));
    assert_eq!(fs::read(home.path().join("f")).expect("there"), content);
    assert!(!home.path().join(partial_name(&content)).exists());
}

#[tokio::test]
async fn a_killed_pull_leaves_no_output_and_is_resumed() {
    let content = content();
    let served = content.clone();
    let server = Loopback::start(move |n, request| match n {
        1 => download(&served, request).hang_after(400_000),
        3 => download(&served, request).hang_after(100_000),
        _ => download(&served, request),
    })
    .await;
    let home = Home::with_server(&server.url());
    fs::write(home.path().join("f"), "before").expect("written");

    for (signal, received, code) in
        [(rustix::process::Signal::INT, 400_000, Some(130)), (rustix::process::Signal::KILL, 500_000, None)]
    {
        let mut child =
            home.command(&["pull", "p", "1", "--output", "f"]).stderr(Stdio::null()).spawn().expect("it starts");
        let partial = home.path().join(partial_name(&content));
        let written = async {
            while !fs::metadata(&partial).is_ok_and(|metadata| metadata.len() == received) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), written).await.expect("the bytes that were sent are written");
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, signal).expect("it runs");
        let status = blocking(move || child.wait().expect("it ends")).await;
        assert_eq!(status.code(), code, "{signal:?}");
        assert_eq!(fs::read(home.path().join("f")).expect("there"), b"before");
    }

    home.run(&["pull", "p", "1", "--output", "f"]).await.silently();
    assert_eq!(fs::read(home.path().join("f")).expect("there"), content);
    assert_eq!(server.seen().last().expect("asked").header("range"), Some("bytes=500000-"));
}

#[tokio::test]
async fn an_interrupted_push_ends_at_once_and_says_so() {
    let server = Loopback::start(|_, _| Reply::silence()).await;
    let home = Home::with_server(&server.url());
    fs::write(home.path().join("f"), "hello").expect("written");
    let child = home.command(&["push", "p", "1", "f"]).stderr(Stdio::piped()).spawn().expect("it starts");
    let sent = async {
        while server.seen().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), sent).await.expect("it is sent");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .expect("it runs");
    let ended = Ended::of(blocking(move || child.wait_with_output().expect("it ends")).await);
    assert_eq!(ended.code, 130, "{ended:?}");
    assert!(ended.stderr.starts_with("error: interrupted\n"), "{ended:?}");
}

#[tokio::test]
async fn wrong_bytes_are_never_delivered_as_right_ones() {
    let server = Loopback::start(|_, request| match request.method.as_str() {
        "HEAD" => download(b"right", request),
        _ => Reply::new(200, "wrong").header("etag", &format!("\"{}\"", Digest::of(b"right"))),
    })
    .await;
    let home = Home::with_server(&server.url());
    let ended = home.run(&["pull", "p", "1", "--output", "f"]).await;
    assert_eq!(ended.code, 6, "{ended:?}");
    assert!(ended.stderr.contains("must not be used"), "{ended:?}");
    assert_eq!(fs::read_dir(home.path()).expect("there").count(), 0, "nothing is kept");

    // What went to stdout cannot be taken back: the exit code says it.
    let ended = home.run(&["pull", "p", "1", "--output", "-"]).await;
    assert_eq!(ended.code, 6, "{ended:?}");
}

#[tokio::test]
async fn stdout_and_devices_get_the_bytes_as_they_come() {
    let server = Loopback::start(|n, request| match n {
        1 => download(b"hello", request).cut_after(2),
        _ => download(b"hello", request),
    })
    .await;
    let home = Home::with_server(&server.url());
    let ended = home.run(&["pull", "p", "1", "--output", "-"]).await.silently();
    assert_eq!(ended.stdout, "hello", "also across a broken connection");
    home.run(&["pull", "p", "1", "--output", "/dev/null"]).await.silently();
    assert!(!fs::metadata("/dev/null").expect("there").is_file(), "a device is written, not replaced");
    assert_eq!(fs::read_dir(home.path()).expect("there").count(), 0);
    assert_eq!(home.run(&["pull", "p", "1", "--output", "-", "--json"]).await.code, 2);
}

#[tokio::test]
async fn without_a_name_the_pushed_one_is_used_and_nothing_is_overwritten() {
    let server = Loopback::start(|_, request| download(b"hello", request)).await;
    let home = Home::with_server(&server.url());
    home.run(&["pull", "p", "1"]).await.silently();
    assert_eq!(fs::read(home.path().join("f.bin")).expect("there"), b"hello");
    fs::write(home.path().join("f.bin"), "mine").expect("written");
    let ended = home.run(&["pull", "p", "1", "--output", "."]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("--output"), "{ended:?}");
    assert_eq!(fs::read(home.path().join("f.bin")).expect("there"), b"mine");
}

#[tokio::test]
async fn the_file_behind_a_link_is_replaced_and_the_link_stays() {
    let server = Loopback::start(|_, request| download(b"hello", request)).await;
    let home = Home::with_server(&server.url());
    fs::write(home.path().join("real"), "before").expect("written");
    std::os::unix::fs::symlink("real", home.path().join("link")).expect("linked");
    home.run(&["pull", "p", "1", "--output", "link"]).await.silently();
    assert!(fs::symlink_metadata(home.path().join("link")).expect("there").is_symlink());
    assert_eq!(fs::read(home.path().join("real")).expect("there"), b"hello");
}

#[tokio::test]
async fn a_pulled_file_has_ordinary_permissions() {
    let server = Loopback::start(|_, request| download(b"hello", request)).await;
    let home = Home::with_server(&server.url());
    home.run(&["pull", "p", "1", "--output", "f"]).await.silently();
    fs::write(home.path().join("ordinary"), "").expect("written");
    let mode = |name| fs::metadata(home.path().join(name)).expect("there").permissions().mode();
    assert_eq!(mode("f"), mode("ordinary"));
}

/// Runs a command with stderr on a terminal, and returns what that terminal received.
async fn on_a_terminal(home: &Home, arguments: &[&str]) -> (Ended, String) {
    let terminal = Terminal::new();
    let mut command = home.command(arguments);
    command.env("TERM", "xterm").stderr(terminal.side()).stdout(Stdio::piped());
    blocking(move || {
        let child = command.spawn().expect("it starts");
        // The command's own copy of the terminal is closed, so that the reader sees the end.
        drop(command);
        let reader = std::thread::spawn(move || terminal.read_to_end());
        let output = child.wait_with_output().expect("it ends");
        (Ended::of(output), reader.join().expect("it does not panic"))
    })
    .await
}

#[tokio::test]
async fn a_person_sees_progress_with_rate_and_time_left_and_a_pipe_does_not() {
    let content = content();
    let served = content.clone();
    let server = Loopback::start(move |_, request| match request.method.as_str() {
        "POST" => Reply::json(201, &artifact("p", "1", &served)),
        "HEAD" if request.target.ends_with("/new") => Reply::new(404, ""),
        _ => download(&served, request),
    })
    .await;
    let home = Home::with_server(&server.url());
    fs::write(home.path().join("f"), &content).expect("written");

    for arguments in [&["push", "p", "new", "f"][..], &["pull", "p", "1", "--output", "copy"]] {
        home.run(arguments).await.silently();
        let (ended, terminal) = on_a_terminal(&home, arguments).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(terminal.contains(if arguments[0] == "push" { "Pushing" } else { "Pulling" }), "{terminal:?}");
        for part in ["683.59 KiB", "/s", " left", "%"] {
            assert!(terminal.contains(part), "{part} is not in {terminal:?}");
        }
    }
}

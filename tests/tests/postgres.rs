//! Servers whose metadata is in Postgres: the same answers, on whichever replica, through restarts and cuts.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use registry_tests::postgres::{self, Postgres};
use registry_tests::process::server_command;
use registry_tests::server::{ADMIN, server_binary};
use registry_tests::tools::run;
use registry_tests::{Image, Process, Server, ServerBuilder, eventually};

fn postgres() -> Option<&'static Postgres> {
    postgres::server("servers on Postgres")
}

/// Two replicas over one database and one folder.
fn replicas(server: &'static Postgres) -> (Server, Server) {
    let one = Server::builder().database(server.database()).start();
    let url = server.url(&database_of(&one));
    let other = Server::builder().postgres(&url).data(one.data()).start();
    (one, other)
}

/// The name of a server's database, as its configuration has it.
fn database_of(server: &Server) -> String {
    let text = std::fs::read_to_string(server.config_file()).unwrap();
    let url = text.lines().find_map(|line| line.trim().strip_prefix("url: ")).expect("it has a database");
    let name = url.split('?').next().and_then(|url| url.rsplit('/').next());
    name.expect("the URL names it").to_owned()
}

#[test]
fn what_one_replica_was_given_the_other_has() {
    let Some(server) = postgres() else { return };
    let (one, other) = replicas(server);
    one.request("POST", "/api/v1/artifacts/model/1.0", &[], b"bytes").expect(201);
    assert_eq!(other.get("/api/v1/artifacts/model/1.0").expect(200).body, b"bytes");
    other.request("POST", "/api/v1/artifacts/model/1.0", &[], b"others").expect(409);

    // An upload, each request on another replica than the one before.
    let started = one.request("POST", "/v2/team/app/blobs/uploads/", &[], b"").expect(202);
    let location = started.header("location").unwrap().to_owned();
    let sent = other.request("PATCH", &location, &["Content-Range: 0-4"], b"hello").expect(202);
    assert_eq!(sent.header("range"), Some("0-4"));
    let location = sent.header("location").unwrap().to_owned();
    let sent = one.request("PATCH", &location, &["Content-Range: 5-9"], b"world").expect(202);
    assert_eq!(other.get(sent.header("location").unwrap()).expect(204).header("range"), Some("0-9"));
    let digest = registry_core::digest::Digest::sha256(b"helloworld");
    let location = sent.header("location").unwrap();
    let separator = if location.contains('?') { '&' } else { '?' };
    other.request("PUT", &format!("{location}{separator}digest={digest}"), &[], b"").expect(201);
    for replica in [&one, &other] {
        assert_eq!(replica.get(&format!("/v2/team/app/blobs/{digest}")).expect(200).body, b"helloworld");
    }
    // What both of them hold has its garbage collected by either.
    other.request("DELETE", "/api/v1/artifacts/model/1.0", &[], b"").expect(204);
    assert_eq!(one.gc("0s")["blobs_deleted"], 2);
    let (whole, report) = other.check(&["--deep"]);
    assert!(whole, "{report}");
}

#[test]
fn it_is_all_there_after_kill_9() {
    let Some(server) = postgres() else { return };
    let mut registry = Server::builder().database(server.database()).start();
    for round in 0..3 {
        let target = format!("/api/v1/artifacts/model/{round}");
        registry.request("POST", &target, &[], b"bytes").expect(201);
        registry = registry.restart();
        assert_eq!(registry.get(&target).expect(200).body, b"bytes");
    }
    let (whole, report) = registry.check(&[]);
    assert!(whole, "{report}");
}

/// While its connections are cut again and again, no request fails.
#[test]
fn connections_that_are_cut_are_not_noticed() {
    let Some(server) = postgres() else { return };
    let registry = Server::builder().database(server.database()).start();
    let database = database_of(&registry);
    let cut = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = '{database}' AND application_name = 'foundry'"
    );
    let (stop, done) = (AtomicBool::new(false), [const { AtomicU32::new(0) }; 2]);
    std::thread::scope(|scope| {
        let pushes: Vec<_> = (0..done.len())
            .map(|worker| {
                let (registry, stop, done) = (&registry, &stop, &done);
                scope.spawn(move || {
                    let mut version = 0;
                    while !stop.load(Ordering::Relaxed) {
                        version += 1;
                        let target = format!("/api/v1/artifacts/model-{worker}/{version}");
                        registry.request("POST", &target, &[], target.as_bytes()).expect(201);
                        assert_eq!(registry.get(&target).expect(200).body, target.as_bytes());
                        done[worker].fetch_add(1, Ordering::Relaxed);
                    }
                    version
                })
            })
            .collect();
        let mut ended = 0;
        for _ in 0..20 {
            ended += server.run("postgres", &cut).parse::<u32>().unwrap();
            // Until each has gone on; what is cut time and again must fail in the end.
            let before = done.each_ref().map(|done| done.load(Ordering::Relaxed));
            let went_on = || done.iter().zip(before).all(|(done, before)| done.load(Ordering::Relaxed) >= before + 2);
            eventually("pushes go on", || went_on().then_some(()));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(ended > 10, "only {ended} connections were cut");
        for push in pushes {
            assert!(push.join().unwrap() > 5);
        }
    });
}

/// The names that people bring along; and what is in the way is said, without the password.
#[test]
fn the_parts_of_a_database_make_a_server() {
    let Some(server) = postgres() else { return };
    let Some((port, password)) = server.tcp_parts() else { return };
    let database = server.database();
    let folder = tempfile::TempDir::new().unwrap();
    let command = |folder: &Path, password: &str| {
        let mut command = server_command(folder);
        command.args(["-port", "0"]).env("FOUNDRY_AUTH__TOKENS", ADMIN).env("DB_HOST", "127.0.0.1");
        command.env("DB_PORT", port.to_string()).env("DB_PASSWORD", password).env("DB_NAME", &database.name);
        command
    };
    {
        let mut process = Process::start(&mut command(folder.path(), password));
        process.address();
        let sessions = format!("SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = '{}'", database.name);
        assert_eq!(server.run("postgres", &sessions), "t");
    }
    assert!(!folder.path().join("data/metadata.sqlite").exists());
    let refused = run(&mut command(folder.path(), "hunter2"));
    let log = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(log.contains("password authentication failed") && !log.contains("hunter2"), "{log}");

    let refused = run(command(folder.path(), password).args(["backup", "copy"]));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("pg_dump") && said.contains("docs/operations.md"), "{said}");
    assert!(!folder.path().join("copy").exists());
}

/// Replicas that have no database yet, at once.
#[test]
fn replicas_start_at_once() {
    let Some(server) = postgres() else { return };
    let database = server.database();
    let url = database.url();
    server_binary();
    let data = tempfile::TempDir::new().unwrap();
    std::thread::scope(|scope| {
        let start = || ServerBuilder::new().postgres(&url).data(data.path()).start();
        let starting: Vec<_> = (0..3).map(|_| scope.spawn(start)).collect();
        let registries: Vec<Server> = starting.into_iter().map(|started| started.join().unwrap()).collect();
        let image = Image::new(vec![b"layer".to_vec()]);
        registries[0].repository("team/app").push("latest", &image);
        for registry in &registries {
            let found = registry.get("/v2/team/app/manifests/latest").expect(200);
            assert_eq!(found.body, image.manifest);
        }
    });
}

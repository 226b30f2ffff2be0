//! An installation of many blobs and tags. It prints how long each run takes, and how much memory.

use std::io::Write;
use std::time::{Duration, Instant};

use registry_tests::oci::sha256;
use registry_tests::process::{Ended, peak_memory};
use registry_tests::server::ADMIN;
use registry_tests::wait::pause;
use registry_tests::{Connection, Image, Process, Random, Server};

use crate::{Target, assert_clean, old_node, report, stop};

/// Says how many blobs; a fifth as many tags.
const BLOBS: &str = "FOUNDRY_MIGRATE_BLOBS";
/// How many of an image's blobs are layers; one is its configuration.
const LAYERS: usize = 4;
const CLIENTS: usize = 8;

/// Sends one request on a connection that stays open.
#[track_caller]
fn ask(connection: &mut Connection, method: &str, target: &str, kind: &str, body: &[u8]) {
    let headers = [
        format!("Authorization: Bearer {ADMIN}"),
        format!("Content-Type: {kind}"),
        format!("Content-Length: {}", body.len()),
    ];
    connection.send_head(method, target, &headers).unwrap();
    connection.send(body).unwrap();
    connection.answer().unwrap().expect(201);
}

fn push(server: &Server, image: &Image, repository: &str, tag: &str, connection: &mut Option<Connection>) {
    let connection = connection.get_or_insert_with(|| Connection::open(server.address()));
    for blob in &image.blobs {
        let target = format!("/v2/{repository}/blobs/uploads/?digest={}", sha256(blob));
        ask(connection, "POST", &target, "application/octet-stream", blob);
    }
    ask(connection, "PUT", &format!("/v2/{repository}/manifests/{tag}"), image.media_type, &image.manifest);
}

fn image(number: usize) -> Image {
    let mut random = Random::new(number as u64);
    Image::new((0..LAYERS).map(|_| random.bytes(1_000)).collect())
}

/// Waits for its end: that, how long it took, and the most memory that it had, in bytes.
fn watch(mut run: Process) -> (Ended, Duration, u64) {
    let (began, mut peak) = (Instant::now(), 0);
    while !run.has_ended() {
        peak = peak_memory(run.pid()).unwrap_or(peak);
        pause();
    }
    let took = began.elapsed();
    (run.wait(), took, peak)
}

#[test]
fn of_many_blobs_each_is_copied_once() {
    let Some(target) = Target::new("migrate-storage of many blobs") else { return };
    let blobs: usize = std::env::var(BLOBS).map_or(105, |number| number.parse().expect("a number of blobs"));
    let images = blobs / (LAYERS + 1);
    let old = old_node();
    std::thread::scope(|threads| {
        for client in 0..CLIENTS {
            let old = &old;
            threads.spawn(move || {
                let mut connection = None;
                for number in (client..images).step_by(CLIENTS) {
                    // A hundred to a repository.
                    push(
                        old,
                        &image(number),
                        &format!("many/app{}", number / 100),
                        &format!("t{number}"),
                        &mut connection,
                    );
                }
            });
        }
    });

    let mut told = String::new();
    let mut config = old.config_file();
    let (mut old, mut stopped) = (Some(old), None);
    for (what, arguments) in [("first", &[][..]), ("second", &[]), ("last", &["-finish"])] {
        if what == "last" {
            let (file, again) = stop(old.take().expect("it runs until then"));
            // With its folder.
            (config, stopped) = (file, Some(again));
        }
        let (ended, took, peak) = watch(target.start(&config, arguments, &[]));
        let report = report(&ended);
        assert_eq!(report["blobs"], images * (LAYERS + 1), "{report}");
        assert_eq!(report["tables"]["tags"]["rows"], images, "{report}");
        assert_eq!(report["blobs_copied"], if what == "first" { images * (LAYERS + 1) } else { 0 }, "{report}");
        told += &format!("{what} run: {took:.1?}, {} MiB; ", peak >> 20);
    }
    let rows = target.database.run("SELECT count(*) FROM tags");
    assert_eq!(rows, images.to_string());
    let _ = writeln!(std::io::stderr(), "{} blobs, {images} tags: {told}", images * (LAYERS + 1));

    drop(stopped);
    let new = target.builder().config("gc: {interval: 0s}").start();
    for number in [0, images / 2, images - 1] {
        let name = format!("many/app{}", number / 100);
        new.repository(&name).assert_holds(&format!("t{number}"), &image(number));
    }
    assert_clean(&new);
}

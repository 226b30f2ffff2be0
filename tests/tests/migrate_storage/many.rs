//! An installation of many blobs and tags. It prints how long each run takes, and how much memory.

use std::io::Write;
use std::time::{Duration, Instant};

use registry_tests::process::{Ended, peak_memory};
use registry_tests::wait::pause;
use registry_tests::{Image, Process, Random};

use crate::{Target, assert_clean, old_node, report, stop};

/// Says how many blobs; a fifth as many tags.
const BLOBS: &str = "FOUNDRY_MIGRATE_BLOBS";
/// How many of an image's blobs are layers; one is its configuration.
const LAYERS: usize = 4;
const CLIENTS: usize = 8;

/// Where an image is: a hundred to a repository.
fn repository(number: usize) -> String {
    format!("many/app{}", number / 100)
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
                for number in (client..images).step_by(CLIENTS) {
                    old.repository(&repository(number)).push(&format!("t{number}"), &image(number));
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
        new.repository(&repository(number)).assert_holds(&format!("t{number}"), &image(number));
    }
    assert_clean(&new);
}

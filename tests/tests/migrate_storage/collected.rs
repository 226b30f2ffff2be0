//! The old server serves and collects while its blobs are copied.

use std::fs;
use std::path::PathBuf;

use registry_tests::oci::sha256;
use registry_tests::{Image, Random, Server, eventually};
use rustix::process::Signal;

use crate::{MIB, Target, assert_clean, assert_same_view, fill, old_node, report, stop, view};

/// Where a blob's bytes are.
fn object(server: &Server, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    server.data().join("blobs").join(&hex[..2]).join(hex)
}

#[test]
fn a_blob_that_is_collected_before_it_is_copied_is_no_damage() {
    let Some(target) = Target::new("collecting while it is copied") else { return };
    let old = old_node();
    fill(&old, 1);
    let mut random = Random::new(60);
    let doomed = Image::new(vec![random.bytes(5_000), random.bytes(6 * MIB)]);
    old.repository("doomed").push("1", &doomed);
    old.gc("0s");

    // The snapshot is taken, and names blobs that go before any is copied.
    let stopped = [("FOUNDRY_FAIL_POINT", "migrate.begun:1:stop")];
    let run = target.start(&old.config_file(), &[], &stopped);
    eventually("it has its snapshot", || run.is_stopped().then_some(()));
    old.repository("doomed").delete_manifest(&doomed.digest()).expect(202);
    assert_eq!(old.gc("0s")["blobs_deleted"], doomed.blobs.len());
    assert!(doomed.blobs.iter().all(|blob| !object(&old, &sha256(blob)).exists()));
    let late = Image::new(vec![random.bytes(7_000)]);
    old.repository("late").push("1", &late);
    run.signal(Signal::CONT);
    let first = report(&run.wait());
    // It has gone on with a snapshot that knows what became of them, and what came meanwhile.
    let blobs = |report: &serde_json::Value| report["blobs"].as_u64().unwrap();
    assert_eq!(first["blobs_copied"], first["blobs"], "{first}");
    assert_eq!(first["blobs_surplus"], 0, "{first}");

    let before = view(&old);
    let (config, _again) = stop(old);
    let last = report(&target.migrate(&config, &["-finish", "-verify"]));
    assert_eq!((blobs(&last), &last["blobs_copied"], &last["rows_written"]), (blobs(&first), &0.into(), &0.into()));
    let new = target.builder().config("gc: {interval: 0s}").start();
    assert_same_view(&before, &new);
    for blob in &doomed.blobs {
        new.repository("doomed").head_blob(&sha256(blob)).expect(404);
    }
    new.repository("late").assert_holds("1", &late);
    assert_clean(&new);
}

#[test]
fn a_blob_that_is_pushed_again_while_others_are_copied_is_no_damage() {
    const BLOBS: usize = 60;
    let Some(target) = Target::new("pushing again while it is copied") else { return };
    let old = old_node();
    let blobs: Vec<Vec<u8>> = (0..BLOBS as u64).map(|seed| Random::new(seed).bytes(3_000)).collect();
    let image = Image::new(blobs.clone());
    old.repository("app").push("1", &image);
    // The one that is looked at first, as a collection and another push leave it: away, and there again.
    let first = blobs.iter().map(|blob| sha256(blob)).min().unwrap();
    let bytes = fs::read(object(&old, &first)).unwrap();
    fs::remove_file(object(&old, &first)).unwrap();
    // So many are copied at once that it has long been missed when so many have been begun.
    let stopped = format!("upload.created:{}:stop", BLOBS - 10);
    let run = target.start(&old.config_file(), &[], &[("FOUNDRY_FAIL_POINT", &stopped)]);
    eventually("most of them are copied", || run.is_stopped().then_some(()));
    fs::write(object(&old, &first), bytes).unwrap();
    run.signal(Signal::CONT);
    report(&run.wait());

    let (config, _again) = stop(old);
    report(&target.migrate(&config, &["-finish", "-verify"]));
    let new = target.builder().start();
    new.repository("app").assert_holds("1", &image);
    assert_clean(&new);
}

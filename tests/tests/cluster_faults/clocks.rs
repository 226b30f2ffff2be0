//! Replicas whose clocks are an hour off: libfaketime tells them so.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use registry_tests::oci::{offset, sha256, with_digest};
use registry_tests::server::{ADMIN, ServerBuilder};
use registry_tests::tools::skip;
use registry_tests::{Cluster, Random, S3, Server, Stores, postgres};

use crate::{MIB, assert_everywhere, assert_unavailable, eventually_not_ready, reap_and_check};

/// The library that changes what a process sees of the time.
fn libfaketime(test: &str) -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().filter_map(Result::ok);
    let found = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path| path.is_file());
    if found.is_none() {
        skip(test, "libfaketime is not installed; tests/run installs it");
    }
    found
}

/// One whose clock is off by that much, such as `+1h`. How fast time passes is as everywhere.
fn off(builder: ServerBuilder, library: &std::path::Path, by: &str) -> ServerBuilder {
    builder
        .environment("LD_PRELOAD", &library.display().to_string())
        .environment("FAKETIME", by)
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .environment("DONT_FAKE_MONOTONIC", "1")
}

#[test]
fn replicas_whose_clocks_are_an_hour_apart_agree() {
    let test = "clocks an hour apart";
    let Some(library) = libfaketime(test) else { return };
    // A bucket that looks at no time: those that do are in the next test.
    let (Some(s3), Some(server)) = (S3::own_open_to_all(test), postgres::server(test)) else { return };
    // An hour off, everything that lasts for half an hour is over, or has not begun.
    let environment =
        [("FOUNDRY_GC__GRACE", "30m"), ("FOUNDRY_GC__UPLOAD_IDLE", "30m"), ("FOUNDRY_GC__INTERVAL", "0s")];
    let cluster = Cluster::start_on(Stores::new(&s3.s3, server.database()), 1, &environment);
    let right = &cluster.replicas[0];
    let fast = off(cluster.builder(), &library, "+1h").start();
    let slow = off(cluster.builder(), &library, "-1h").start();
    let date = |replica: &Server| {
        let answer = replica.get("/healthz").expect(200);
        httpdate::parse_http_date(answer.header("date").expect("an answer has a date")).unwrap()
    };
    let (behind, now, ahead) = (date(&slow), date(right), date(&fast));
    for apart in [now.duration_since(behind), ahead.duration_since(now)] {
        assert!(apart.unwrap().as_secs().abs_diff(3600) < 300, "{behind:?}, {now:?}, {ahead:?}");
    }

    // One upload over all of them; it is not idle, whoever looks.
    let bytes = Random::seeded("clocks", 11).bytes(20 * MIB);
    let location = slow.repository("team/app").start_upload();
    slow.repository("team/app").patch(&location, &bytes[..9 * MIB]).expect(202);
    assert_eq!(fast.gc("30m")["uploads_ended"], 0);
    fast.repository("team/app").patch(&location, &bytes[9 * MIB..18 * MIB]).expect(202);
    assert_eq!(slow.gc("30m")["uploads_ended"], 0);
    assert_eq!(offset(&right.repository("team/app").status(&location).expect(204)), 18 * MIB);
    slow.repository("team/app").finish(&location, &sha256(&bytes), &bytes[18 * MIB..]).expect(201);

    // What was pushed through the slow one is fresh, also for the fast one: it has half an hour.
    let report = fast.gc("30m");
    assert_eq!((&report["blobs_deleted"], &report["references_dropped"]), (&0.into(), &0.into()), "{report}");
    for replica in [right, &fast, &slow] {
        assert!(replica.repository("team/app").get_blob(&sha256(&bytes)).expect(200).body == bytes);
    }

    // A registry token of any is good at any: it was issued now, and lasts for five minutes.
    let basic = format!("Authorization: Basic {}", STANDARD.encode(format!("any:{ADMIN}")));
    for issuer in [right, &fast, &slow] {
        let target = "/auth/token?service=x&scope=repository:team/app:pull";
        let issued = issuer.anonymous("GET", target, &[&basic], b"").expect(200).json();
        let token = issued["token"].as_str().unwrap();
        for replica in [right, &fast, &slow] {
            let head = format!("/v2/team/app/blobs/{}", sha256(&bytes));
            replica.with_token(token, "HEAD", &head, &[], b"").expect(200);
        }
    }

    // What nobody refers to is garbage by now, also for the slow one.
    let dropped = fast.repository("team/app").push_blob(b"dropped");
    fast.request("DELETE", &format!("/v2/team/app/blobs/{dropped}"), &[], b"").expect(202);
    assert_eq!(slow.gc("0s")["blobs_deleted"], 2, "the other has no manifest");
    let digest = right.repository("team/app").push_blob(&bytes);
    assert_everywhere(&cluster.replicas, "team/app", &digest, &bytes);
    reap_and_check(&cluster);
}

#[test]
fn a_replica_whose_clock_the_bucket_refuses_says_so() {
    let test = "a clock that the bucket refuses";
    let Some(library) = libfaketime(test) else { return };
    let Some(cluster) = Cluster::start(test, 2) else { return };
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    let kept = one.repository("team/app").push_blob(b"kept");
    // S3 takes a signature for a quarter of an hour at most.
    let fast = off(cluster.builder(), &library, "+1h").start();
    eventually_not_ready(&fast, "blobs");
    fast.repository("team/app").head_blob(&kept).expect(200);
    assert_unavailable(&fast.repository("team/app").get_blob(&kept));
    let location = fast.repository("team/app").start_upload();
    let digest = sha256(b"bytes");
    assert_unavailable(&fast.request("PUT", &with_digest(&location, &digest), &[], b"bytes"));
    // Any other replica goes on with it.
    other.request("PUT", &with_digest(&location, &digest), &[], b"bytes").expect(201);
    assert_everywhere(&cluster.replicas, "team/app", &digest, b"bytes");
    assert_everywhere(&cluster.replicas, "team/app", &kept, b"kept");
    reap_and_check(&cluster);
}

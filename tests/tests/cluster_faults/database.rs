//! A database that crashes, loses its connections, or has none left.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use registry_core::ports::steps;
use registry_tests::oci::{offset, sha256, with_digest};
use registry_tests::{Cluster, Image, Random, S3, Stores, eventually, postgres};

use crate::{
    HalfSent, IMPATIENT, MIB, STEPS, assert_everywhere, assert_goes_on, assert_unavailable, eventually_not_ready,
    eventually_ready, readiness, reap_and_check,
};

#[test]
fn what_a_database_that_crashes_cuts_short_goes_on_once_it_is_back() {
    let test = "a database that crashes";
    let (Some(s3), Some(server)) = (S3::shared(test), postgres::own(test)) else { return };
    let environment = [&IMPATIENT[..], &[STEPS]].concat();
    let cluster = Cluster::start_on(Stores::new(s3, server.database()), 2, &environment);
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    // As it is without configuration: it waits for ten seconds.
    let patient = cluster.builder().environment("FOUNDRY_DATABASE__ACQUIRE_TIMEOUT", "60s").start();
    let mut random = Random::seeded("crashing database", 7);
    let image = Image::new(vec![random.bytes(MIB)]);
    one.repository("team/app").push("v1", &image);
    patient.repository("team/app").assert_holds("v1", &image);
    let bytes = random.bytes(27 * MIB);
    let location = one.repository("team/app").start_upload();
    one.repository("team/app").patch(&location, &bytes[..9 * MIB]).expect(202);
    let half = HalfSent::begin(other, &location, 9 * MIB, &bytes[9 * MIB..]);

    server.crash();
    assert_unavailable(&half.end().expect("an answer"));
    assert_unavailable(&one.repository("team/app").get_manifest("v1"));
    assert_unavailable(&one.request("POST", "/v2/team/app/blobs/uploads/", &[], b""));
    for replica in &cluster.replicas {
        eventually_not_ready(replica, "metadata");
    }
    // One that is back before patience ends is not noticed.
    let late = random.bytes(1000);
    thread::scope(|scope| {
        let push = scope.spawn(|| patient.repository("team/app").push_blob(&late));
        let pull = scope.spawn(|| patient.repository("team/app").get_manifest("v1").expect(200).body);
        server.start_again();
        assert_eq!(push.join().unwrap(), sha256(&late));
        assert_eq!(pull.join().unwrap(), image.manifest);
    });

    assert_goes_on(&cluster, &location, 9 * MIB, &bytes);
    assert_everywhere(&cluster.replicas, "team/app", &sha256(&late), &late);
    other.repository("team/app").assert_holds("v1", &image);
    reap_and_check(&cluster);
}

#[test]
fn connections_cut_in_the_middle_of_an_upload_are_not_noticed() {
    let Some(cluster) = Cluster::start_with("cut connections", 2, &[STEPS]) else { return };
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    let database = cluster.database();
    let cut = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = '{}' AND application_name = 'foundry'",
        database.name
    );
    let cut = || assert_ne!(database.run(&cut), "0");
    let bytes = Random::seeded("cut connections", 8).bytes(36 * MIB);
    let location = one.repository("team/app").start_upload();
    let half = HalfSent::begin(one, &location, 0, &bytes[..18 * MIB]);
    cut();
    assert_eq!(offset(&half.end().unwrap().expect(202)), 18 * MIB);
    cut();
    let half = HalfSent::begin(other, &location, 18 * MIB, &bytes[18 * MIB..]);
    cut();
    half.end().unwrap().expect(202);
    cut();
    one.repository("team/app").finish(&location, &sha256(&bytes), b"").expect(201);
    cut();
    assert_everywhere(&cluster.replicas, "team/app", &sha256(&bytes), &bytes);
    reap_and_check(&cluster);
}

#[test]
fn an_orderly_restart_of_the_database_under_load_is_not_noticed() {
    let test = "an orderly restart of the database";
    let (Some(s3), Some(server)) = (S3::shared(test), postgres::own(test)) else { return };
    // As long as this machine may take for it, at its slowest.
    let environment = [("FOUNDRY_DATABASE__ACQUIRE_TIMEOUT", "50s")];
    let cluster = Cluster::start_on(Stores::new(s3, server.database()), 2, &environment);
    let (done, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    let images = thread::scope(|scope| {
        let clients = [0, 1, 2, 3].map(|client: usize| {
            let (done, enough, cluster) = (&done, &enough, &cluster);
            scope.spawn(move || {
                let mut images = Vec::new();
                while !enough.load(Ordering::SeqCst) {
                    let tag = format!("v{client}.{}", images.len());
                    let image = Image::new(vec![tag.clone().into_bytes()]);
                    // Every answer is as if nothing had happened, and every request is sent once.
                    let [one, other] = [0, 1].map(|turn| &cluster.replicas[(client + images.len() + turn) % 2]);
                    one.repository("team/app").push(&tag, &image);
                    other.repository("team/app").assert_holds(&tag, &image);
                    images.push((tag, image));
                    done.fetch_add(1, Ordering::SeqCst);
                }
                images
            })
        });
        // Also when a client fails.
        let _ending = Ending(&enough);
        for _ in 0..2 {
            let gone_on = |what: &str| {
                let before = done.load(Ordering::SeqCst);
                eventually(what, || (done.load(Ordering::SeqCst) >= before + 8).then_some(()));
            };
            gone_on("the clients work");
            server.restart();
            gone_on("the clients go on");
        }
        enough.store(true, Ordering::SeqCst);
        clients.map(|client| client.join().expect("nothing fails")).concat()
    });
    for (tag, image) in &images {
        cluster.replicas[0].repository("team/app").assert_holds(tag, image);
    }
    reap_and_check(&cluster);
}

/// Lets clients end, also when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn requests_that_find_no_connection_are_told_so_in_time() {
    let environment = [
        ("FOUNDRY_DATABASE__MAX_CONNECTIONS", "2"),
        ("FOUNDRY_DATABASE__ACQUIRE_TIMEOUT", "1s"),
        ("FOUNDRY_DATABASE__STATEMENT_TIMEOUT", "60s"),
        STEPS,
    ];
    let Some(cluster) = Cluster::start_with("an exhausted pool", 1, &environment) else { return };
    let [replica] = cluster.replicas.as_slice() else { panic!("there is one") };
    let repository = replica.repository("team/app");
    let database = cluster.database();
    let kept = repository.push_blob(b"kept");
    let location = repository.start_upload();
    repository.patch(&location, b"some bytes").expect(202);
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND application_name = 'foundry'
         AND wait_event_type = 'Lock'",
        database.name
    );

    thread::scope(|scope| {
        let lock = database.lock("uploads");
        let start = || replica.request("POST", "/v2/team/app/blobs/uploads/", &[], b"");
        let both: Vec<_> = (0..2).map(|_| scope.spawn(start)).collect();
        eventually("both connections wait", || (database.run(&waiting) == "2").then_some(()));
        let asked = Instant::now();
        let others: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
        let pull = scope.spawn(|| repository.get_blob(&kept));
        let ready = scope.spawn(|| readiness(replica.address()));
        for other in others {
            assert_unavailable(&other.join().unwrap());
        }
        assert_unavailable(&pull.join().unwrap());
        assert_eq!(ready.join().unwrap(), (503, vec!["metadata".to_owned()]));
        // They were told after the second that they may wait, not after the ten that locks are waited for.
        assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
        drop(lock);
        for other in both {
            other.join().unwrap().expect(202);
        }
    });
    eventually_ready(replica);
    assert_eq!(replica.has_reached(steps::UPLOAD_COMMITTED), 1);
    let digest = sha256(b"some bytes");
    replica.request("PUT", &with_digest(&location, &digest), &[], b"").expect(201);
    assert_eq!(repository.get_blob(&digest).expect(200).body, b"some bytes");
    assert_eq!(repository.get_blob(&kept).expect(200).body, b"kept");
    reap_and_check(&cluster);
}

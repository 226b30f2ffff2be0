//! A database that crashes, loses its connections, or has none left.

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

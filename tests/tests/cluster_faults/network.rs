//! Networks between replicas and their stores that are slow, or swallow everything.

use std::time::{Duration, Instant};

use registry_tests::oci::sha256;
use registry_tests::{Answer, Cluster, Random, S3, Stores, Toxiproxy, postgres};

use crate::{
    HalfSent, IMPATIENT, MIB, STEPS, assert_everywhere, assert_unavailable, eventually_not_ready, eventually_ready,
    offset, reap_and_check,
};

/// How long a request may take at most whose store is silent: what `IMPATIENT` allows for a few tries, far less than
/// anybody's patience without it.
const BOUND: Duration = Duration::from_secs(25);

/// An answer that says that a store is away, and came in time.
#[track_caller]
fn assert_told_in_time(ask: impl FnOnce() -> Answer) {
    let asked = Instant::now();
    assert_unavailable(&ask());
    assert!(asked.elapsed() < BOUND, "{:?}", asked.elapsed());
}

#[test]
fn a_silent_network_to_the_bucket_holds_nobody_for_ever() {
    let test = "a silent network to the bucket";
    let (Some(s3), Some(server)) = (S3::shared(test), postgres::server(test)) else { return };
    let Some(toxiproxy) = Toxiproxy::start(test) else { return };
    let way = toxiproxy.way("bucket", s3.endpoint.strip_prefix("http://").expect("plain HTTP"));
    let endpoint = format!("http://127.0.0.1:{}", way.port);
    let environment = [&IMPATIENT[..], &[STEPS]].concat();
    let cluster = Cluster::start_on(Stores { endpoint, ..Stores::new(s3, server.database()) }, 2, &environment);
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    let bytes = Random::seeded("silent bucket", 9).bytes(30 * MIB);
    let location = one.repository("team/app").start_upload();

    way.delay(200);
    one.repository("team/app").patch(&location, &bytes[..9 * MIB]).expect(202);
    let kept = one.repository("team/app").push_blob(b"kept");
    assert_eq!(other.repository("team/app").get_blob(&kept).expect(200).body, b"kept");
    way.heal();

    let half = HalfSent::begin(other, &location, 9 * MIB, &bytes[9 * MIB..]);
    way.swallow();
    assert_told_in_time(|| half.end().expect("an answer"));
    assert_told_in_time(|| one.repository("team/app").get_blob(&kept));
    one.repository("team/app").head_blob(&kept).expect(200);
    for replica in &cluster.replicas {
        eventually_not_ready(replica, "blobs");
    }

    way.heal();
    for replica in &cluster.replicas {
        eventually_ready(replica);
    }
    let durable = offset(&one.repository("team/app").status(&location).expect(204));
    assert_eq!(durable, 9 * MIB);
    one.repository("team/app").patch_at(&location, durable, &bytes[durable..]).expect(202);
    other.repository("team/app").finish(&location, &sha256(&bytes), b"").expect(201);
    assert_everywhere(&cluster.replicas, "team/app", &sha256(&bytes), &bytes);
    reap_and_check(&cluster);
}

#[test]
fn a_silent_network_to_the_database_holds_nobody_for_ever() {
    let test = "a silent network to the database";
    let (Some(s3), Some(server)) = (S3::shared(test), postgres::own(test)) else { return };
    let Some(toxiproxy) = Toxiproxy::start(test) else { return };
    let (port, _) = server.tcp_parts().expect("it is our own");
    let way = toxiproxy.way("database", &format!("127.0.0.1:{port}"));
    let database = server.database();
    let database_url = database.url_through(way.port).expect("it is our own");
    let environment = [&IMPATIENT[..], &[STEPS]].concat();
    let cluster = Cluster::start_on(Stores { database_url, ..Stores::new(s3, database) }, 2, &environment);
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    let bytes = Random::seeded("silent database", 10).bytes(20 * MIB);
    let location = one.repository("team/app").start_upload();

    way.delay(50);
    one.repository("team/app").patch(&location, &bytes[..9 * MIB]).expect(202);
    let kept = one.repository("team/app").push_blob(b"kept");
    assert_eq!(other.repository("team/app").get_blob(&kept).expect(200).body, b"kept");
    way.heal();

    let half = HalfSent::begin(other, &location, 9 * MIB, &bytes[9 * MIB..]);
    way.swallow();
    assert_told_in_time(|| half.end().expect("an answer"));
    assert_told_in_time(|| one.repository("team/app").get_blob(&kept));
    assert_told_in_time(|| one.request("POST", "/v2/team/app/blobs/uploads/", &[], b""));
    for replica in &cluster.replicas {
        eventually_not_ready(replica, "metadata");
    }

    way.heal();
    for replica in &cluster.replicas {
        eventually_ready(replica);
    }
    let durable = offset(&one.repository("team/app").status(&location).expect(204));
    assert_eq!(durable, 9 * MIB);
    one.repository("team/app").patch_at(&location, durable, &bytes[durable..]).expect(202);
    other.repository("team/app").finish(&location, &sha256(&bytes), b"").expect(201);
    assert_everywhere(&cluster.replicas, "team/app", &sha256(&bytes), &bytes);
    reap_and_check(&cluster);
}

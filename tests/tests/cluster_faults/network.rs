//! Networks between replicas and their stores that are slow, or swallow everything.

use std::time::{Duration, Instant};

use registry_tests::toxiproxy::Way;
use registry_tests::{Answer, Cluster, Random, S3, Stores, Toxiproxy, postgres};

use crate::{
    HalfSent, IMPATIENT, MIB, STEPS, assert_goes_on, assert_unavailable, eventually_not_ready, reap_and_check,
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

/// Uploads the first 9 MiB, and a blob, while each answer of a store is late; then the store says nothing while another
/// replica receives the rest: both are told so in time. The digest of the blob.
#[track_caller]
fn slow_then_silent(cluster: &Cluster, way: &Way<'_>, milliseconds: u64, location: &str, bytes: &[u8]) -> String {
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    way.delay(milliseconds);
    one.repository("team/app").patch(location, &bytes[..9 * MIB]).expect(202);
    let kept = one.repository("team/app").push_blob(b"kept");
    assert_eq!(other.repository("team/app").get_blob(&kept).expect(200).body, b"kept");
    way.heal();

    let half = HalfSent::begin(other, location, 9 * MIB, &bytes[9 * MIB..]);
    way.swallow();
    assert_told_in_time(|| half.end().expect("an answer"));
    assert_told_in_time(|| one.repository("team/app").get_blob(&kept));
    kept
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
    let [one, _] = cluster.replicas.as_slice() else { panic!("there are two") };
    let bytes = Random::seeded("silent bucket", 9).bytes(30 * MIB);
    let location = one.repository("team/app").start_upload();

    let kept = slow_then_silent(&cluster, &way, 200, &location, &bytes);
    one.repository("team/app").head_blob(&kept).expect(200);
    for replica in &cluster.replicas {
        eventually_not_ready(replica, "blobs");
    }

    way.heal();
    assert_goes_on(&cluster, &location, 9 * MIB, &bytes);
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
    let [one, _] = cluster.replicas.as_slice() else { panic!("there are two") };
    let bytes = Random::seeded("silent database", 10).bytes(27 * MIB);
    let location = one.repository("team/app").start_upload();

    slow_then_silent(&cluster, &way, 50, &location, &bytes);
    assert_told_in_time(|| one.request("POST", "/v2/team/app/blobs/uploads/", &[], b""));
    for replica in &cluster.replicas {
        eventually_not_ready(replica, "metadata");
    }

    way.heal();
    assert_goes_on(&cluster, &location, 9 * MIB, &bytes);
    reap_and_check(&cluster);
}

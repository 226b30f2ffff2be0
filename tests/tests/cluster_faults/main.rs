//! Faults of replicas, of their bucket, their database, their network and their clocks: what each looks like to a client,
//! and that nothing acknowledged is lost or altered.

mod bucket;
mod clocks;
mod database;
mod network;
mod replicas;

use std::net::SocketAddr;

use registry_core::ports::steps;
use registry_tests::oci::{offset, sha256};
use registry_tests::server::ADMIN;
use registry_tests::{Answer, Cluster, Connection, Server, eventually};

const MIB: usize = 1 << 20;

/// How long replicas wait for stores that do not answer: short, so that the tests are.
const IMPATIENT: [(&str, &str); 4] = [
    ("FOUNDRY_STORAGE__S3__READ_TIMEOUT", "2s"),
    ("FOUNDRY_STORAGE__S3__RETRY_TIMEOUT", "1s"),
    ("FOUNDRY_DATABASE__ACQUIRE_TIMEOUT", "2s"),
    ("FOUNDRY_DATABASE__STATEMENT_TIMEOUT", "2s"),
];

/// Replicas whose logs tell of the steps of the state machines.
const STEPS: (&str, &str) = ("FOUNDRY_LOG__LEVEL", "info,registry_server::fail_points=debug");

/// A refusal that says that the same may be tried again, and when.
#[track_caller]
fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{answer:?}");
}

/// A request that writes, of which only the beginning has been sent.
struct HalfSent {
    connection: Connection,
    rest: Vec<u8>,
}

impl HalfSent {
    /// A PATCH, of which a part is in the bucket by now.
    fn begin(replica: &Server, location: &str, first: usize, bytes: &[u8]) -> Self {
        let before = replica.has_reached(steps::UPLOAD_PART_STORED);
        let half = Self::begin_with("PATCH", replica, location, Some(first), bytes);
        let stored = || (replica.has_reached(steps::UPLOAD_PART_STORED) > before).then_some(());
        eventually("a part is stored", stored);
        half
    }

    /// Sends the first half of `bytes` to a replica whose log tells of steps, and waits until the replica writes.
    fn begin_with(method: &str, replica: &Server, target: &str, first: Option<usize>, bytes: &[u8]) -> Self {
        let before = replica.has_reached(steps::UPLOAD_EPOCH_RAISED);
        let mut connection = Connection::open(replica.address());
        let mut lines = vec![
            format!("Authorization: Bearer {ADMIN}"),
            format!("Content-Length: {}", bytes.len()),
            "Content-Type: application/octet-stream".to_owned(),
        ];
        lines.extend(first.map(|first| format!("Content-Range: {first}-{}", first + bytes.len() - 1)));
        connection.send_head(method, target, &lines).unwrap();
        let (half, rest) = bytes.split_at(bytes.len() / 2);
        connection.send(half).unwrap();
        let writes = || (replica.has_reached(steps::UPLOAD_EPOCH_RAISED) > before).then_some(());
        eventually("the replica writes", writes);
        Self { connection, rest: rest.to_vec() }
    }

    /// Sends the other half: the answer, if there is one.
    fn end(mut self) -> std::io::Result<Answer> {
        // A refusal may come before all is sent.
        let sent = self.connection.send(&self.rest);
        self.connection.answer().map_err(|error| sent.err().unwrap_or(error))
    }
}

/// What a replica says of itself: whether it is ready, and which of its checks failed.
fn readiness(address: SocketAddr) -> (u16, Vec<String>) {
    let answer = registry_tests::server::request(address, None, "GET", "/readyz", &[], b"").expect("it answers");
    let checks = answer.json()["checks"].as_array().expect("it lists its checks").clone();
    let failed = checks.iter().filter(|check| check["ok"] == false);
    (answer.status, failed.map(|check| check["name"].as_str().unwrap().to_owned()).collect())
}

/// Waits until a replica says that it is not ready because of one store.
#[track_caller]
fn eventually_not_ready(replica: &Server, store: &str) {
    eventually("the replica says what it lacks", || {
        let (status, failed) = readiness(replica.address());
        (status == 503 && failed == [store]).then_some(())
    });
}

#[track_caller]
fn eventually_ready(replica: &Server) {
    eventually("the replica is ready again", || (readiness(replica.address()).0 == 200).then_some(()));
}

/// Every replica has exactly these bytes.
#[track_caller]
fn assert_everywhere(replicas: &[Server], repository: &str, digest: &str, bytes: &[u8]) {
    for replica in replicas {
        assert!(replica.repository(repository).get_blob(digest).expect(200).body == bytes, "{digest}");
    }
}

/// Once all replicas are ready, an upload of these bytes goes on after those that were acknowledged, and ends at another
/// replica.
#[track_caller]
fn assert_goes_on(cluster: &Cluster, location: &str, acknowledged: usize, bytes: &[u8]) {
    for replica in &cluster.replicas {
        eventually_ready(replica);
    }
    let [one, other, ..] = cluster.replicas.as_slice() else { panic!("there are several") };
    let durable = offset(&one.repository("team/app").status(location).expect(204));
    assert_eq!(durable, acknowledged);
    one.repository("team/app").patch_at(location, durable, &bytes[durable..]).expect(202);
    other.repository("team/app").finish(location, &sha256(bytes), b"").expect(201);
    assert_everywhere(&cluster.replicas, "team/app", &sha256(bytes), bytes);
}

/// Ends what was left over, as a day later, and compares ledger and bucket both ways, byte for byte.
#[track_caller]
fn reap_and_check(cluster: &Cluster) {
    let reaper = cluster.builder().environment("FOUNDRY_GC__UPLOAD_IDLE", "1ms").start();
    reaper.gc("24h");
    let (clean, report) = reaper.check(&["--deep", "--restart"]);
    assert!(clean, "{report}");
}

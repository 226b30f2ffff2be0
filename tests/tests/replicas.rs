//! Three replicas over one bucket and one database: any request of an upload on any of them.

use registry_tests::oci::{sha256, with_digest};
use registry_tests::{Cluster, Random, Server};

const MIB: usize = 1 << 20;

/// Which replica answers what.
struct Order {
    start: usize,
    pieces: Vec<usize>,
    status: usize,
    finish: usize,
}

/// Uploads `pieces`, each by the replica that `order` names: the digest.
#[track_caller]
fn upload(replicas: &[Server], name: &str, pieces: &[&[u8]], order: &Order) -> String {
    let whole = pieces.concat();
    let digest = sha256(&whole);
    let location = replicas[order.start].repository(name).start_upload();
    let mut offset = 0;
    for (piece, replica) in pieces.iter().zip(&order.pieces) {
        let answer = replicas[*replica].repository(name).patch(&location, piece).expect(202);
        offset += piece.len();
        assert_eq!(answer.header("range"), Some(format!("0-{}", offset.max(1) - 1).as_str()));
    }
    let status = replicas[order.status].repository(name).status(&location).expect(204);
    assert_eq!(status.header("range"), Some(format!("0-{}", offset - 1).as_str()));
    replicas[order.finish].request("PUT", &with_digest(&location, &digest), &[], b"").expect(201);
    digest
}

#[test]
fn an_upload_may_change_replicas_with_every_request() {
    let Some(cluster) = Cluster::start("an upload over replicas", 3) else { return };
    let bytes = Random::seeded("replicas", 0x7265_706c).bytes(40 * MIB);
    let (first, second) = bytes.split_at(13 * MIB);
    // POST → A, PATCH → B, PATCH → C, GET → A, PUT → B.
    let order = Order { start: 0, pieces: vec![1, 2], status: 0, finish: 1 };
    let digest = upload(&cluster.replicas, "seed/case", &[first, second], &order);
    for replica in &cluster.replicas {
        let repository = replica.repository("seed/case");
        assert_eq!(repository.head_blob(&digest).expect(200).header("content-length"), Some("41943040"));
        assert!(repository.get_blob(&digest).expect(200).body == bytes, "{digest}");
    }
}

/// All sequences of `length` replicas.
fn sequences(length: u32) -> impl Iterator<Item = Vec<usize>> {
    (0..3_usize.pow(length)).map(move |number| (0..length).map(|place| number / 3_usize.pow(place) % 3).collect())
}

#[test]
fn every_sequence_of_replicas_makes_the_same_blob() {
    let Some(cluster) = Cluster::start("every sequence of replicas", 3) else { return };
    let mut random = Random::seeded("replicas, sequences", 0x7365_7175);
    let mut known = Vec::new();
    for (number, sequence) in sequences(5).enumerate() {
        // POST, PATCH, PATCH, GET, PUT: so few requests that there is a case for each sequence of replicas.
        let [start, first, second, status, finish] = sequence[..] else { panic!("{sequence:?}") };
        let order = Order { start, pieces: vec![first, second], status, finish };
        let bytes = random.bytes(1_000 + number);
        // One that has no bytes, one that has one, and halves.
        let (one, other) = bytes.split_at([0, 1, 500, bytes.len() - 1, bytes.len()][number % 5]);
        let digest = upload(&cluster.replicas, "every/sequence", &[one, other], &order);
        for replica in &cluster.replicas {
            let answer = replica.repository("every/sequence").get_blob(&digest).expect(200);
            assert!(answer.body == bytes, "{sequence:?}: {digest}");
        }
        known.push(digest);
    }
    known.sort();
    known.dedup();
    assert_eq!(known.len(), 243, "each is a blob of its own");
    let (clean, report) = cluster.replicas[0].check(&["--deep"]);
    assert!(clean, "{report}");
}

/// The first four of the five pieces of a large upload; the last is the rest of it. Each is around the length of a part,
/// or of the least that S3 takes, or hardly anything.
const SIZES: [[usize; 4]; 4] = [
    [1, 5 * MIB + 1, 0, 8 * MIB - 1],
    [8 * MIB + 1, 0, 5 * MIB - 1, 1],
    [5 * MIB, 1, 8 * MIB, 0],
    [0, 8 * MIB - 1, 8 * MIB + 1, 5 * MIB + 1],
];

#[test]
fn every_sequence_of_replicas_takes_the_pieces_of_a_large_blob() {
    let Some(cluster) = Cluster::start("pieces on every sequence of replicas", 3) else { return };
    let mut random = Random::seeded("replicas, pieces", 0x6f72_6465);
    let mut bytes = random.bytes(40 * MIB);
    // For the pieces every sequence there is; for the three requests around them every one nine times.
    let mut around = Vec::new();
    for (number, pieces) in sequences(5).enumerate() {
        if around.is_empty() {
            around = sequences(3).collect();
        }
        let others = around.swap_remove(random.below(around.len() as u64) as usize);
        let [start, status, finish] = others[..] else { panic!("{others:?}") };
        let order = Order { start, pieces, status, finish };
        // Bytes of their own, so that each becomes a blob and none is found to be there already.
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let mut rest = bytes.as_slice();
        let mut parts = Vec::new();
        for size in SIZES[number % SIZES.len()] {
            let (piece, after) = rest.split_at(size);
            parts.push(piece);
            rest = after;
        }
        parts.push(rest);
        let digest = upload(&cluster.replicas, "every/piece", &parts, &order);
        // All three would be three times the bytes; each replica reads every third blob.
        let reader = cluster.replicas[number % 3].repository("every/piece");
        assert!(reader.get_blob(&digest).expect(200).body == bytes, "{number}: {digest}");
        reader.server.request("DELETE", &reader.path(&format!("blobs/{digest}")), &[], b"").expect(202);
        if number % 27 == 26 {
            cluster.replicas[0].gc("0s");
        }
    }
    let (clean, report) = cluster.replicas[0].check(&["--deep"]);
    assert!(clean, "{report}");
}

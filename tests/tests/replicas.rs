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

/// Uploads 40 MiB in pieces of `sizes` and the rest, reads them from one replica, and deletes them there.
#[track_caller]
fn upload_read_and_delete(replicas: &[Server], bytes: &[u8], sizes: [usize; 4], order: &Order, reader: usize) {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for size in sizes {
        let (piece, after) = rest.split_at(size);
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    let digest = upload(replicas, "every/piece", &pieces, order);
    let reader = replicas[reader].repository("every/piece");
    assert!(reader.get_blob(&digest).expect(200).body == bytes, "{digest}");
    reader.server.request("DELETE", &reader.path(&format!("blobs/{digest}")), &[], b"").expect(202);
}

#[test]
fn every_sequence_of_replicas_takes_the_pieces_of_a_large_blob() {
    let Some(cluster) = Cluster::start("pieces on every sequence of replicas", 3) else { return };
    let replicas = &cluster.replicas;
    let mut random = Random::seeded("replicas, pieces", 0x6f72_6465);
    let bytes = random.bytes(40 * MIB);
    // For the pieces every sequence there is; for the three requests around them every one nine times.
    let mut around = Vec::new();
    let orders: Vec<Order> = sequences(5)
        .map(|pieces| {
            if around.is_empty() {
                around = sequences(3).collect();
            }
            let others = around.swap_remove(random.below(around.len() as u64) as usize);
            let [start, status, finish] = others[..] else { panic!("{others:?}") };
            Order { start, pieces, status, finish }
        })
        .collect();
    // Three at once, and what they leave is collected when none of them uploads.
    for (round, orders) in orders.chunks(27).enumerate() {
        std::thread::scope(|scope| {
            for (third, orders) in orders.chunks(9).enumerate() {
                let mut bytes = bytes.clone();
                scope.spawn(move || {
                    for (number, order) in (round * 27 + third * 9..).zip(orders) {
                        // Bytes of their own, so that each becomes a blob and none is found to be there already.
                        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
                        // All three would be three times the bytes; each replica reads every third blob.
                        upload_read_and_delete(replicas, &bytes, SIZES[number % SIZES.len()], order, number % 3);
                    }
                });
            }
        });
        replicas[0].gc("0s");
    }
    let (clean, report) = replicas[0].check(&["--deep"]);
    assert!(clean, "{report}");
}

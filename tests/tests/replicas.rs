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

#[test]
fn every_order_of_replicas_makes_the_same_blob() {
    let Some(cluster) = Cluster::start("every order of replicas", 3) else { return };
    let mut bytes = Random::seeded("replicas, orders", 0x6f72_6465).bytes(40 * MIB);
    let sizes = [1, 5 * MIB + 1, 0, 8 * MIB - 1];
    for number in 0..3_usize.pow(5) {
        // Bytes of their own, so that each becomes a blob and none is found to be there already.
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let mut rest = bytes.as_slice();
        let mut pieces = Vec::new();
        for size in sizes {
            let (piece, after) = rest.split_at(size);
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        let digit = |place: u32| number / 3_usize.pow(place) % 3;
        let order = Order {
            start: digit(0),
            pieces: (0..5).map(digit).collect(),
            status: (digit(4) + 1) % 3,
            finish: (digit(1) + digit(3)) % 3,
        };
        let digest = upload(&cluster.replicas, "every/order", &pieces, &order);
        // All three would be three times the bytes; each replica reads every third blob.
        let reader = cluster.replicas[number % 3].repository("every/order");
        assert!(reader.get_blob(&digest).expect(200).body == bytes, "order {number}: {digest}");
        reader.server.request("DELETE", &reader.path(&format!("blobs/{digest}")), &[], b"").expect(202);
        if number % 27 == 26 {
            cluster.replicas[0].gc("0s");
        }
    }
    let (clean, report) = cluster.replicas[0].check(&["--deep"]);
    assert!(clean, "{report}");
}

//! What S3 does not take and other stores do: the lengths and the number of parts, and objects of more than 5 GiB.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use registry_tests::oci::{sha256, with_digest};
use registry_tests::server::ADMIN;
use registry_tests::store_proxy::{Action, Kind, Seen};
use registry_tests::{Connection, Random, Repository, Server, StoreProxy};
use sha2::{Digest, Sha256};

use crate::{Bucket, MIB};

/// The shortest part but the last one.
const SHORTEST_PART: u64 = 5 << 20;
/// The longest part, object of one PUT, and copied object.
const LONGEST: u64 = 5 << 30;
/// How many parts there may be, which are counted from 1.
const MOST_PARTS: u64 = 10_000;

/// The lengths of an upload's parts by their numbers.
type Parts = BTreeMap<u64, u64>;

/// The limits of S3 (its user guide, "Amazon S3 multipart upload limits"), before a store that does not have them.
#[derive(Default)]
struct Limits {
    parts: HashMap<String, Parts>,
    /// What was refused, and why.
    refused: Vec<(String, Seen)>,
}

impl Limits {
    /// Has `proxy` keep to them, and do `otherwise` with what is within them.
    fn before(proxy: &StoreProxy, mut otherwise: impl FnMut(&Seen) -> Action + Send + 'static) -> Arc<Mutex<Self>> {
        let limits = Arc::<Mutex<Self>>::default();
        let shared = Arc::clone(&limits);
        proxy.rule(move |seen| {
            let mut limits = shared.lock().unwrap();
            match limits.check(seen) {
                Ok(()) => otherwise(seen),
                Err(code) => {
                    limits.refused.push((code.to_owned(), seen.clone()));
                    Action::Answer(400, code)
                }
            }
        });
        limits
    }

    fn check(&mut self, seen: &Seen) -> Result<(), &'static str> {
        match seen.kind {
            // Whether what is copied is short enough is known to the store alone; none of ours has to be.
            Kind::Put | Kind::Part if seen.copies => return Err("InvalidRequest"),
            Kind::Put | Kind::Part if seen.length > LONGEST => return Err("EntityTooLarge"),
            Kind::Part => {
                let number = seen.parameter("partNumber").and_then(|number| number.parse().ok()).unwrap_or(0);
                if !(1..=MOST_PARTS).contains(&number) {
                    return Err("InvalidArgument");
                }
                self.parts.entry(seen.parameter("uploadId").unwrap()).or_default().insert(number, seen.length);
            }
            Kind::Complete => {
                let parts = self.parts.get(&seen.parameter("uploadId").unwrap()).ok_or("NoSuchUpload")?;
                let mut all_but_the_last = parts.values().rev().skip(1);
                if all_but_the_last.any(|length| *length < SHORTEST_PART) {
                    return Err("EntityTooSmall");
                }
            }
            _ => {}
        }
        Ok(())
    }

    #[track_caller]
    fn assert_kept(&self) {
        assert!(self.refused.is_empty(), "{:?}", self.refused);
    }
}

fn server(bucket: &Bucket, part_size: &str, proxy: &StoreProxy) -> Server {
    let builder = Server::builder().environment("FOUNDRY_STORAGE__S3__PART_SIZE", part_size);
    builder.s3_below(bucket.s3, &proxy.endpoint(), &bucket.prefix).start()
}

#[test]
fn pieces_of_whatever_sizes_become_parts_that_s3_takes() {
    let Some(bucket) = Bucket::new("pieces and S3's parts") else { return };
    let proxy = StoreProxy::start(&bucket.endpoint);
    let limits = Limits::before(&proxy, |_| Action::Pass);
    let server = server(&bucket, "5MiB", &proxy);
    let repository = server.repository("team/app");
    let sizes = [0, 1, 4_999, MIB, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 8 * MIB - 1, 8 * MIB + 1, 11 * MIB];
    let mut random = Random::seeded("pieces and S3's parts", 0x7061_7274);
    for _ in 0..6 {
        let pieces: Vec<_> = (0..5).map(|_| sizes[random.below(sizes.len() as u64) as usize]).collect();
        let bytes = random.bytes(pieces.iter().sum());
        let (location, mut first) = (repository.start_upload(), 0);
        for length in &pieces {
            repository.patch(&location, &bytes[first..first + length]).expect(202);
            first += length;
        }
        repository.finish(&location, &sha256(&bytes), b"").expect(201);
        assert!(repository.get_blob(&sha256(&bytes)).expect(200).body == bytes, "{pieces:?}");
        limits.lock().unwrap().assert_kept();
    }
    assert!(limits.lock().unwrap().parts.len() > 2, "some of them have parts");
}

/// PATCHes a layer of that length, of which each mebibyte begins with its number: its digest.
fn patch(repository: &Repository<'_>, location: &str, length: u64) -> String {
    let mut connection = Connection::open(repository.server.address());
    let headers = [
        format!("Authorization: Bearer {ADMIN}"),
        "Content-Type: application/octet-stream".to_owned(),
        format!("Content-Length: {length}"),
    ];
    connection.send_head("PATCH", location, &headers).unwrap();
    let (mut piece, mut hash) = (vec![0x5a; MIB], Sha256::new());
    for number in 0..length.div_ceil(MIB as u64) {
        piece[..8].copy_from_slice(&number.to_le_bytes());
        let piece = &piece[..(length - number * MIB as u64).min(MIB as u64) as usize];
        hash.update(piece);
        connection.send(piece).expect("the server takes all of it");
    }
    connection.answer().unwrap().expect(202);
    format!("sha256:{}", hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[test]
fn a_layer_of_more_than_5_gib_is_parts_that_s3_takes() {
    let Some(bucket) = Bucket::new("a layer of more than 5 GiB") else { return };
    let proxy = StoreProxy::start(&bucket.endpoint);
    // The store is spared the bytes: what counts is how they are cut.
    let limits = Limits::before(&proxy, |seen| match seen.kind {
        Kind::Part => Action::Forget(format!("\"part-{}\"", seen.parameter("partNumber").unwrap())),
        Kind::Complete => Action::Forget("\"whole\"".to_owned()),
        _ => Action::Pass,
    });
    let server = server(&bucket, "8MiB", &proxy);
    let repository = server.repository("team/app");
    let length = LONGEST + 1;
    let location = repository.start_upload();
    proxy.take();
    let digest = patch(&repository, &location, length);

    // 640 parts are there, and an object of the last byte; before it, others of what was not a part yet have come and gone.
    let seen = proxy.take();
    let lengths = |kind: Kind| seen.iter().filter(|seen| seen.kind == kind).map(|seen| seen.length).collect::<Vec<_>>();
    assert_eq!(lengths(Kind::Part), [8 << 20; 640]);
    let tails = lengths(Kind::Put);
    assert!(tails.iter().all(|length| *length < 8 << 20) && tails.last() == Some(&1), "{tails:?}");
    assert_eq!(lengths(Kind::Create).len(), 1);

    // Finalising sends that byte again, and none of the others: nothing is copied. What is superseded is deleted.
    server.request("PUT", &with_digest(&location, &digest), &[], b"").expect(201);
    let finish: Vec<_> = proxy.take().into_iter().filter(|seen| seen.kind != Kind::Delete).collect();
    let kinds: Vec<_> = finish.iter().map(|seen| seen.kind).collect();
    assert_eq!(kinds, [Kind::Get, Kind::Part, Kind::Complete, Kind::List]);
    assert_eq!(finish[1].length, 1);
    let mut document = finish[2].document.as_str();
    for number in 1..=641 {
        for text in [format!("part-{number}"), format!("<PartNumber>{number}</PartNumber>")] {
            document = document.split_once(&text).unwrap_or_else(|| panic!("part {number} is missing")).1;
        }
    }
    assert!(!document.contains("<PartNumber>"), "{document}");
    limits.lock().unwrap().assert_kept();

    let told = repository.head_blob(&digest).expect(200);
    assert_eq!(told.header("content-length"), Some(length.to_string().as_str()));
    server.request("DELETE", &repository.path(&format!("blobs/{digest}")), &[], b"").expect(202);
    let report = server.gc("0s");
    assert_eq!((&report["objects_deleted"], &report["bytes_freed"]), (&1.into(), &length.into()), "{report}");
}

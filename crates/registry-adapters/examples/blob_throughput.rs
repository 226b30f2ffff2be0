//! How fast the file store takes and gives bytes, without a network.
//!
//! `cargo run --release -p registry-adapters --example blob_throughput -- <folder>`

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use registry_adapters::blob::filesystem::{FilesystemBlobStore, FilesystemOptions};
use registry_adapters::entropy::OsEntropy;
use registry_core::digest::{Digest, Hashes};
use registry_core::ports::blob_store::{BlobStore, ObjectKey, Published};
use registry_core::ports::entropy::Entropy;
use registry_core::upload::UploadId;

const GIB: u64 = 1 << 30;
const PIECE: usize = 64 * 1024;

fn id() -> UploadId {
    let mut bytes = [0; 16];
    OsEntropy.fill(&mut bytes);
    UploadId::from_random(bytes)
}

async fn ingest(store: &dyn BlobStore, length: u64, hashed: bool) -> (UploadId, Digest) {
    let piece = Bytes::from(vec![7; PIECE]);
    let (id, mut hashes) = (id(), Hashes::new(false));
    let mut writer = store.append(id, 0, &Default::default()).await.unwrap();
    for _ in 0..length / PIECE as u64 {
        if hashed {
            hashes.update(&piece);
        }
        writer.write(piece.clone()).await.unwrap();
        // As a connection would, give others a turn.
        tokio::task::consume_budget().await;
    }
    writer.checkpoint().await.unwrap();
    (id, hashes.digest(registry_core::digest::Algorithm::Sha256).unwrap())
}

async fn put(store: &dyn BlobStore, content: Bytes) -> ObjectKey {
    let (id, digest) = (id(), Digest::sha256(&content));
    let size = content.len() as u64;
    let mut writer = store.append(id, 0, &Default::default()).await.unwrap();
    writer.write(content).await.unwrap();
    let staging = writer.checkpoint().await.unwrap();
    drop(writer);
    let key = store.key_candidates(id, &digest, &Default::default()).nth(0);
    assert_eq!(store.publish(id, size, &staging, &key).await.unwrap(), Published::Yes);
    key
}

async fn read(store: &dyn BlobStore, key: &ObjectKey) -> u64 {
    let reader = store.open(key).await.unwrap().unwrap();
    let size = reader.size();
    let mut stream = reader.stream(0..size);
    let mut total = 0;
    while let Some(piece) = stream.next().await {
        total += piece.unwrap().len() as u64;
    }
    total
}

fn rate(name: &str, bytes: u64, took: Duration) {
    println!("{name:<44} {:>7.0} MB/s", bytes as f64 / 1e6 / took.as_secs_f64());
}

fn latency(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("{name:<44} p50 {:>7.0} µs, p99 {:>7.0} µs", at(0.5), at(0.99));
}

fn small(number: u32) -> Bytes {
    let mut content = vec![0; 4096];
    OsEntropy.fill(&mut content[..16]);
    content[16..20].copy_from_slice(&number.to_le_bytes());
    content.into()
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let folder = std::env::args().nth(1).expect("the folder to use");
    let store: Arc<dyn BlobStore> =
        Arc::new(FilesystemBlobStore::open(&folder, FilesystemOptions::default()).expect("open the store"));

    for (name, hashed) in [("ingest 1 GiB", false), ("ingest 1 GiB, hashed", true)] {
        for _ in 0..4 {
            let start = Instant::now();
            let (id, _) = ingest(store.as_ref(), GIB, hashed).await;
            rate(name, GIB, start.elapsed());
            store.discard(id, &Default::default()).await.unwrap();
        }
    }
    let start = Instant::now();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { ingest(store.as_ref(), GIB, true).await.0 })
        })
        .collect();
    for task in tasks {
        store.discard(task.await.unwrap(), &Default::default()).await.unwrap();
    }
    rate("ingest 4 x 1 GiB at once, hashed", 4 * GIB, start.elapsed());

    let (mut times, mut keys) = (Vec::new(), Vec::new());
    for number in 0..2000 {
        let content = small(number);
        let start = Instant::now();
        keys.push(put(store.as_ref(), content).await);
        times.push(start.elapsed());
    }
    latency("stage and publish 4 KiB", times);
    let start = Instant::now();
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for number in 0..250 {
                    put(store.as_ref(), small(number)).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    println!("{:<44} {:>7.0} a second", "stage and publish 4 KiB, 16 at once", 4000.0 / start.elapsed().as_secs_f64());

    let mut times = Vec::new();
    for _ in 0..5 {
        for key in &keys {
            let start = Instant::now();
            assert_eq!(read(store.as_ref(), key).await, 4096);
            times.push(start.elapsed());
        }
    }
    latency("open and read 4 KiB, in memory", times);
    let mut times = Vec::new();
    for key in &keys {
        let start = Instant::now();
        assert_eq!(store.size_of(key).await.unwrap(), Some(4096));
        times.push(start.elapsed());
    }
    latency("size of an object", times);

    let (id, digest) = ingest(store.as_ref(), GIB, true).await;
    let key = store.key_candidates(id, &digest, &Default::default()).nth(0);
    store.publish(id, GIB, &Default::default(), &key).await.unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        assert_eq!(read(store.as_ref(), &key).await, GIB);
        rate("read 1 GiB, in memory", GIB, start.elapsed());
    }
    for _ in 0..3 {
        let file = store.open(&key).await.unwrap().unwrap().file().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let start = Instant::now();
        assert_eq!(read(store.as_ref(), &key).await, GIB);
        rate("read 1 GiB, from disk", GIB, start.elapsed());
    }
}

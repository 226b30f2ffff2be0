//! Random moments of a load of blobs, images, artifacts, deletions and collections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use registry_tests::oci::{sha256, with_digest};
use registry_tests::server::{ADMIN, request};
use registry_tests::wait::eventually;
use registry_tests::{Answer, Image, Random, Server};

/// So short that what a repository lost is reviewed and dropped while the load goes on.
const GRACE: Duration = Duration::from_secs(1);
const WORKERS: usize = 4;
const ROUNDS: usize = 8;
/// Tags are so few that they often move.
const TAGS: u64 = 4;

/// What a repository holds.
#[derive(Clone, Default)]
struct Images {
    /// The digests of their manifests.
    tags: BTreeMap<String, String>,
    /// By their digests.
    manifests: BTreeMap<String, Image>,
}

impl Images {
    fn with(&self, tag: &str, image: &Image) -> Self {
        let mut images = self.clone();
        images.tags.insert(tag.to_owned(), image.digest());
        images.manifests.insert(image.digest(), image.clone());
        images
    }

    fn without_tag(&self, tag: &str) -> Self {
        let mut images = self.clone();
        images.tags.remove(tag);
        images
    }

    fn without_manifest(&self, digest: &str) -> Self {
        let mut images = self.clone();
        images.manifests.remove(digest);
        images.tags.retain(|_, tagged| tagged != digest);
        images
    }

    fn need(&self, blob: &str) -> bool {
        self.manifests.values().any(|image| image.blobs.iter().any(|bytes| sha256(bytes) == blob))
    }
}

/// Bytes of which nobody knows whether they are still, or already, there: all of them, or none.
struct Perhaps {
    bytes: Vec<u8>,
    /// From when on they are there at least for half the grace, if that was acknowledged.
    since: Option<Instant>,
}

/// Works under names of its own, one request after the other, and knows what must be there.
struct Worker {
    address: SocketAddr,
    /// Its repository.
    name: String,
    package: String,
    random: Random,
    images: Images,
    /// What the repository holds if the request that was never answered was carried out.
    doubt: Option<Images>,
    /// Every manifest that was ever sent.
    sent: BTreeSet<String>,
    artifacts: BTreeMap<String, Vec<u8>>,
    /// Artifacts that were deleted, or are known not to have been stored: must not come back.
    gone: BTreeSet<String>,
    /// Blobs that no image may need, and artifacts of requests that were never answered.
    perhaps: BTreeMap<String, Perhaps>,
}

impl Worker {
    fn new(address: SocketAddr, number: usize, seed: u64) -> Self {
        Self {
            address,
            name: format!("load/{number}"),
            package: format!("load-{number}"),
            random: Random::new(seed),
            images: Images::default(),
            doubt: None,
            sent: BTreeSet::new(),
            artifacts: BTreeMap::new(),
            gone: BTreeSet::new(),
            perhaps: BTreeMap::new(),
        }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v2/{}/{rest}", self.name)
    }

    fn ask(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Option<Answer> {
        request(self.address, Some(ADMIN), method, target, headers, body).ok()
    }

    fn some_bytes(&mut self) -> Vec<u8> {
        let length = 1 + self.random.below(100_000) as usize;
        self.random.bytes(length)
    }

    fn some_manifest(&mut self) -> Option<String> {
        let number = self.random.below(self.images.manifests.len() as u64) as usize;
        self.images.manifests.keys().nth(number).cloned()
    }

    /// Works until it should stop, or an answer does not come.
    fn work(&mut self, stop: &AtomicBool, done: &AtomicU64) {
        while !stop.load(Ordering::SeqCst) {
            let worked = match self.random.below(20) {
                0..4 => {
                    let bytes = self.some_bytes();
                    self.ensure_blob(&bytes)
                }
                4..9 => self.publish(),
                9..12 => self.delete_artifact(),
                12..17 => self.push_image(),
                17..19 => self.delete_manifest(),
                _ => self.delete_tag(),
            };
            if worked.is_none() {
                return;
            }
            done.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Uploads a blob unless it is there. From when it asked on, it is there for half the grace at least.
    fn ensure_blob(&mut self, bytes: &[u8]) -> Option<()> {
        let digest = sha256(bytes);
        let target = self.path(&format!("blobs/{digest}"));
        let mut since = Instant::now();
        let found = self.ask("HEAD", &target, &[], b"")?;
        if found.status != 200 {
            found.expect(404);
            assert!(!self.images.need(&digest), "{target} is missing");
            let started = self.ask("POST", &self.path("blobs/uploads/"), &[], b"")?.expect(202);
            let location = started.header("location").expect("a started upload has a location").to_owned();
            self.perhaps.insert(target.clone(), Perhaps { bytes: bytes.to_vec(), since: None });
            since = Instant::now();
            self.ask("PUT", &with_digest(&location, &digest), &[], bytes)?.expect(201);
        }
        self.perhaps.insert(target, Perhaps { bytes: bytes.to_vec(), since: Some(since) });
        Some(())
    }

    /// A new image, perhaps with a layer of an older one, under a tag that perhaps was another's.
    fn push_image(&mut self) -> Option<()> {
        let mut layers = vec![self.some_bytes()];
        if self.random.chance(40)
            && let Some(other) = self.some_manifest()
        {
            layers.push(self.images.manifests[&other].blobs[0].clone());
        }
        let image = Image::new(layers);
        let tag = format!("t{}", self.random.below(TAGS));
        let known_since = Instant::now();
        for blob in &image.blobs {
            self.ensure_blob(blob)?;
        }
        self.sent.insert(image.digest());
        let after = self.images.with(&tag, &image);
        let content_type = format!("Content-Type: {}", image.media_type);
        let target = self.path(&format!("manifests/{tag}"));
        let answer = self.change("PUT", &target, &[&content_type], &image.manifest, after)?;
        if answer.status == 404 && answer.oci_code() == "MANIFEST_BLOB_UNKNOWN" {
            // It came too late; then nothing of it is there.
            assert!(known_since.elapsed() > GRACE / 2, "refused in time: {}", answer.text());
        } else {
            answer.expect(201);
        }
        Some(())
    }

    fn delete_manifest(&mut self) -> Option<()> {
        let Some(digest) = self.some_manifest() else { return Some(()) };
        // From now on its blobs may have lost their last reference.
        for bytes in self.images.manifests[&digest].blobs.clone() {
            let target = self.path(&format!("blobs/{}", sha256(&bytes)));
            self.perhaps.insert(target, Perhaps { bytes, since: Some(Instant::now()) });
        }
        let after = self.images.without_manifest(&digest);
        self.change("DELETE", &self.path(&format!("manifests/{digest}")), &[], b"", after)?.expect(202);
        Some(())
    }

    fn delete_tag(&mut self) -> Option<()> {
        let Some(tag) = self.images.tags.keys().next().cloned() else { return Some(()) };
        let after = self.images.without_tag(&tag);
        self.change("DELETE", &self.path(&format!("manifests/{tag}")), &[], b"", after)?.expect(202);
        Some(())
    }

    /// A request after which the repository holds `after` if it was carried out.
    fn change(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8], after: Images) -> Option<Answer> {
        self.doubt = Some(after);
        let answer = self.ask(method, target, headers, body)?;
        let after = self.doubt.take().expect("it was just put there");
        if matches!(answer.status, 201 | 202) {
            self.images = after;
        }
        Some(answer)
    }

    fn publish(&mut self) -> Option<()> {
        let bytes = self.some_bytes();
        let target = format!("/api/v1/artifacts/{}/1.{}", self.package, self.random.next());
        self.perhaps.insert(target.clone(), Perhaps { bytes: bytes.clone(), since: None });
        self.ask("POST", &target, &[], &bytes)?.expect(201);
        self.perhaps.remove(&target);
        self.artifacts.insert(target, bytes);
        Some(())
    }

    fn delete_artifact(&mut self) -> Option<()> {
        let Some((target, bytes)) = self.artifacts.pop_first() else { return Some(()) };
        self.perhaps.insert(target.clone(), Perhaps { bytes, since: None });
        self.ask("DELETE", &target, &[], b"")?.expect(204);
        self.perhaps.remove(&target);
        self.gone.insert(target);
        Some(())
    }

    /// Whether the repository holds just these images, whole and byte for byte.
    fn holds(&self, images: &Images) -> Result<(), String> {
        let get = |rest: String| self.ask("GET", &self.path(&rest), &[], b"").expect("the server runs");
        let expect = |rest: String, bytes: Option<&Vec<u8>>| {
            let answer = get(rest.clone());
            let is_right = match bytes {
                Some(bytes) => answer.status == 200 && answer.body == *bytes,
                None => answer.status == 404,
            };
            if is_right { Ok(()) } else { Err(format!("{rest}: {} {:.200}", answer.status, answer.text())) }
        };
        for tag in (0..TAGS).map(|number| format!("t{number}")) {
            let image = images.tags.get(&tag).map(|digest| &images.manifests[digest]);
            expect(format!("manifests/{tag}"), image.map(|image| &image.manifest))?;
        }
        for digest in &self.sent {
            let image = images.manifests.get(digest);
            expect(format!("manifests/{digest}"), image.map(|image| &image.manifest))?;
            for bytes in image.iter().flat_map(|image| &image.blobs) {
                expect(format!("blobs/{}", sha256(bytes)), Some(bytes))?;
            }
        }
        Ok(())
    }

    /// What was acknowledged is there, what was deleted is not, and what is in doubt is there whole or not at all; from
    /// now on it is in doubt no more.
    fn verify(&mut self) {
        let doubt = self.doubt.take();
        if let Err(is_not_undone) = self.holds(&self.images) {
            let after = doubt.unwrap_or_else(|| panic!("{is_not_undone}"));
            if let Err(is_not_done) = self.holds(&after) {
                panic!("neither as before nor as after the last request: {is_not_undone}; {is_not_done}");
            }
            self.images = after;
        }
        for (target, Perhaps { bytes, since }) in std::mem::take(&mut self.perhaps) {
            let answer = self.ask("GET", &target, &[], b"").expect("the server runs");
            let is_artifact = target.starts_with("/api/");
            match answer.status {
                200 => {
                    assert!(answer.body == bytes, "{target}: other bytes");
                    if is_artifact {
                        self.artifacts.insert(target, bytes);
                    } else {
                        self.perhaps.insert(target, Perhaps { bytes, since });
                    }
                }
                404 => {
                    let late = since.is_none_or(|since| since.elapsed() > GRACE / 2);
                    assert!(late, "{target} is missing {:?} after it was there", since.map(|since| since.elapsed()));
                    if is_artifact {
                        self.gone.insert(target);
                    }
                }
                _ => panic!("{target}: {answer:?}"),
            }
        }
        for (target, bytes) in &self.artifacts {
            let answer = self.ask("GET", target, &[], b"").expect("the server runs");
            assert!(answer.expect(200).body == *bytes, "{target}: other bytes");
        }
        for target in &self.gone {
            self.ask("GET", target, &[], b"").expect("the server runs").expect(404);
        }
    }

    /// Of the blobs, those alone are left that images need.
    fn verify_collected(&self, server: &Server) {
        for target in self.perhaps.keys() {
            let (_, digest) = target.rsplit_once('/').expect("a path");
            let expected = if self.images.need(digest) { 200 } else { 404 };
            eventually("what nobody needs is collected", || {
                let status = server.get(target).status;
                if status != expected {
                    server.gc("0s");
                }
                (status == expected).then_some(())
            });
        }
    }
}

#[test]
fn at_random_moments_of_a_load() {
    let mut random = Random::seeded("kill9 load", 0x6c6f_6164);
    let mut server = Server::builder().environment("FOUNDRY_GC__GRACE", &format!("{}s", GRACE.as_secs())).start();
    let mut workers: Vec<_> = (0..WORKERS).map(|number| Worker::new(server.address(), number, random.next())).collect();
    let dropped = AtomicU64::new(0);
    for _ in 0..ROUNDS {
        let stop = AtomicBool::new(false);
        let done = AtomicU64::new(0);
        let acknowledgements = 5 + random.below(60);
        let address = server.address();
        thread::scope(|scope| {
            let (stop, done) = (&stop, &done);
            let working: Vec<_> =
                workers.iter_mut().map(|worker| scope.spawn(move || worker.work(stop, done))).collect();
            let collecting = scope.spawn(|| collect(address, stop, &dropped));
            // Nobody ends before the server does, but who found a fault.
            while done.load(Ordering::SeqCst) < acknowledgements && !working.iter().any(|worker| worker.is_finished()) {
                thread::yield_now();
            }
            server.kill();
            stop.store(true, Ordering::SeqCst);
            for worker in working {
                worker.join().unwrap();
            }
            collecting.join().unwrap();
        });
        server = server.restart();
        verify(&mut workers, &server);
    }
    assert!(dropped.into_inner() > 0, "nothing was dropped while the load went on");
    let server = server.again().environment("FOUNDRY_GC__UPLOAD_IDLE", "1ms").start();
    server.gc("0s");
    for worker in &workers {
        worker.verify_collected(&server);
    }
    verify(&mut workers, &server);
    assert_eq!(server.staged_files(), Vec::<String>::new(), "something is still staged");
    let (clean, report) = server.check(&["--deep"]);
    assert!(clean, "{report}");
}

/// Each worker looks at what is its own.
fn verify(workers: &mut [Worker], server: &Server) {
    thread::scope(|scope| {
        for worker in workers {
            worker.address = server.address();
            scope.spawn(|| worker.verify());
        }
    });
}

/// Collects over and over until the server is gone; how many blobs of repositories that took.
fn collect(address: SocketAddr, stop: &AtomicBool, dropped: &AtomicU64) {
    while !stop.load(Ordering::SeqCst) {
        let Ok(answer) = request(address, Some(ADMIN), "POST", "/api/v1/gc", &[], b"") else { return };
        let report = answer.expect(200).json();
        dropped.fetch_add(report["references_dropped"].as_u64().expect("a number"), Ordering::SeqCst);
    }
}

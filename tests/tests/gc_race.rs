//! Pushes, mounts, HEADs, deletes and collections at once, with a short grace; on one server, and on three replicas, of
//! which each request goes to another.
//!
//! Every manifest that was answered 201 is pulled afterwards with all its blobs, byte for byte: before it is deleted, or
//! at the end. A refusal `MANIFEST_BLOB_UNKNOWN` is a failure when the PUT arrived within half the grace of the "exists"
//! that it relies on. The same run must fail when references are not validated, and when the review does not hold its
//! lock: that shows that it can.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use registry_tests::oci::{sha256, with_digest};
use registry_tests::{Cluster, Image, Random, Repository, Server, ServerBuilder};

const GRACE: Duration = Duration::from_secs(2);
const PUSHERS: u64 = 6;
const DELETERS: u64 = 1;
/// Layers are drawn from few, so that they are shared, lost and wanted again all the time.
const LAYERS: u64 = 40;
/// How many pushes in a hundred come after their leases have ended.
const LATE_PERCENT: u64 = 10;

#[derive(Default)]
struct Outcome {
    /// Manifests that were answered 201 and not deleted: repository, digest.
    alive: Mutex<BTreeMap<(String, String), Image>>,
    /// Pushes that were to come in time.
    attempts: AtomicU64,
    qualified: AtomicU64,
    collections: AtomicU64,
    freed: AtomicU64,
    failures: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Counts {
    /// Pushes that were to come in time.
    attempts: u64,
    /// Attempts whose PUT arrived within half the grace of the "exists" that they rely on.
    qualified: u64,
    collections: u64,
    freed: u64,
}

fn seconds() -> u64 {
    std::env::var("FOUNDRY_RACE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}

fn layer(number: u64) -> Vec<u8> {
    Random::new(number).bytes(2_000 + (number as usize) * 17)
}

fn builder() -> ServerBuilder {
    Server::builder().environment("FOUNDRY_GC__GRACE", &format!("{}s", GRACE.as_secs()))
}

/// The servers as a client behind a balancer has them: each request goes to any.
struct Servers<'a> {
    all: &'a [Server],
    random: Random,
}

impl<'a> Servers<'a> {
    fn new(all: &'a [Server], seed: u64) -> Self {
        Self { all, random: Random::new(seed) }
    }

    fn any(&mut self) -> &'a Server {
        &self.all[self.random.below(self.all.len() as u64) as usize]
    }

    fn repository(&mut self, name: &str) -> Repository<'a> {
        self.any().repository(name)
    }
}

/// Makes sure that the blob is there, by HEAD, mount or upload; since when it is known to be.
fn ensure(servers: &mut Servers<'_>, name: &str, bytes: &[u8], mount_from: Option<&str>) -> Instant {
    let digest = sha256(bytes);
    let asked = Instant::now();
    if servers.repository(name).head_blob(&digest).status == 200 {
        return asked;
    }
    let repository = servers.repository(name);
    if let Some(from) = mount_from {
        let asked = Instant::now();
        let target = format!("{}?mount={digest}&from={from}", repository.path("blobs/uploads/"));
        let answer = servers.any().request("POST", &target, &[], b"");
        match answer.status {
            201 => return asked,
            202 => {
                let location = answer.header("location").unwrap().to_owned();
                let asked = Instant::now();
                servers.repository(name).finish(&location, &digest, bytes).expect(201);
                return asked;
            }
            _ => panic!("{answer:?}"),
        }
    }
    let asked = Instant::now();
    let target = with_digest(&repository.path("blobs/uploads/"), &digest);
    servers.any().request("POST", &target, &[], bytes).expect(201);
    asked
}

fn push(mut servers: Servers<'_>, pusher: u64, stop: &AtomicBool, seed: u64, outcome: &Outcome) {
    let mut random = Random::new(seed ^ pusher);
    while !stop.load(Ordering::SeqCst) {
        let name = format!("race/{}", random.below(3));
        let other = format!("race/{}", random.below(3));
        let mut layers: Vec<_> = (0..1 + random.below(3)).map(|_| layer(random.below(LAYERS))).collect();
        // A few come too late, with a layer that nobody else keeps alive: only validation stands between them and a
        // manifest without its blobs.
        let too_late = random.chance(LATE_PERCENT);
        if too_late {
            layers.push(random.bytes(1_000));
        }
        // The annotation makes manifests differ, so that one pusher's deletion is not another's.
        let note = serde_json::json!({ "annotations": { "by": format!("{pusher}-{}", random.next()) } });
        let image = Image::with(layers, note);
        let mount = random.chance(30).then_some(other.as_str());
        let known_since = image.blobs.iter().map(|blob| ensure(&mut servers, &name, blob, mount)).min().unwrap();
        // Some take their time, into the second half of a lease's life.
        if too_late || random.chance(20) {
            let pause = GRACE.mul_f64(if too_late { 1.3 } else { 0.3 });
            while known_since.elapsed() < pause && !stop.load(Ordering::SeqCst) {
                thread::yield_now();
            }
        }
        let answer = servers.repository(&name).put_manifest(&image.digest(), &image);
        let qualified = known_since.elapsed() <= GRACE / 2;
        outcome.attempts.fetch_add(u64::from(!too_late), Ordering::SeqCst);
        outcome.qualified.fetch_add(u64::from(qualified), Ordering::SeqCst);
        match answer.status {
            201 => {
                outcome.alive.lock().unwrap().insert((name, image.digest()), image);
            }
            404 if answer.oci_code() == "MANIFEST_BLOB_UNKNOWN" => {
                if qualified {
                    let failure =
                        format!("{name}: refused {:?} after \"exists\": {}", known_since.elapsed(), answer.text());
                    outcome.failures.lock().unwrap().push(failure);
                }
            }
            _ => panic!("{answer:?}"),
        }
    }
}

fn delete(mut servers: Servers<'_>, stop: &AtomicBool, seed: u64, outcome: &Outcome) {
    let mut random = Random::new(seed);
    while !stop.load(Ordering::SeqCst) {
        let victim = {
            let mut alive = outcome.alive.lock().unwrap();
            let few = alive.len() < 10;
            let chosen = alive.keys().nth(random.below(alive.len() as u64) as usize).cloned();
            chosen.filter(|_| !few).and_then(|key| alive.remove_entry(&key))
        };
        match victim {
            Some(((name, digest), image)) => {
                // What was lost would otherwise be noticed of the few alone that are alive at the end.
                let lost = missing(&mut servers, &name, &image);
                outcome.failures.lock().unwrap().extend(lost);
                servers.repository(&name).delete_manifest(&digest).expect(202);
            }
            None => thread::yield_now(),
        }
    }
}

/// What of an acknowledged image is not there, or is not what was pushed.
fn missing(servers: &mut Servers<'_>, name: &str, image: &Image) -> Vec<String> {
    let mut failures = Vec::new();
    let repository = servers.repository(name);
    let digest = image.digest();
    let manifest = repository.get_manifest(&digest);
    if manifest.status != 200 || manifest.body != image.manifest {
        failures.push(format!("{name}@{digest}: {}", manifest.status));
    }
    for blob in &image.blobs {
        let got = repository.get_blob(&sha256(blob));
        if got.status != 200 || got.body != *blob {
            failures.push(format!("{name}@{digest} without {}: {}", sha256(blob), got.status));
        }
    }
    failures
}

fn collect(server: &Server, stop: &AtomicBool, outcome: &Outcome) {
    while !stop.load(Ordering::SeqCst) {
        let report = server.request("POST", "/api/v1/gc", &[], b"").expect(200).json();
        outcome.collections.fetch_add(1, Ordering::SeqCst);
        outcome.freed.fetch_add(report["blobs_deleted"].as_u64().unwrap(), Ordering::SeqCst);
    }
}

/// Runs the race until something goes wrong, or its time is over; what went wrong.
fn race(servers: &[Server], seed: u64) -> (Vec<String>, Counts) {
    let outcome = Outcome::default();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for pusher in 0..PUSHERS {
            let (outcome, stop) = (&outcome, &stop);
            scope.spawn(move || push(Servers::new(servers, seed + pusher), pusher, stop, seed, outcome));
        }
        for deleter in 0..DELETERS {
            let (outcome, stop) = (&outcome, &stop);
            let seed = seed.wrapping_add(deleter);
            scope.spawn(move || delete(Servers::new(servers, seed), stop, seed, outcome));
        }
        // On two replicas at once, where there are several.
        for server in servers.iter().take(2) {
            scope.spawn(|| collect(server, &stop, &outcome));
        }
        let end = Instant::now() + Duration::from_secs(seconds());
        while Instant::now() < end && outcome.failures.lock().unwrap().is_empty() {
            thread::park_timeout(Duration::from_millis(50));
        }
        stop.store(true, Ordering::SeqCst);
    });
    let mut failures = std::mem::take(&mut *outcome.failures.lock().unwrap());
    let mut readers = Servers::new(servers, seed);
    for ((name, _), image) in outcome.alive.lock().unwrap().iter() {
        failures.extend(missing(&mut readers, name, image));
    }
    let counts = Counts {
        attempts: outcome.attempts.into_inner(),
        qualified: outcome.qualified.into_inner(),
        collections: outcome.collections.into_inner(),
        freed: outcome.freed.into_inner(),
    };
    eprintln!("{counts:?}");
    (failures, counts)
}

/// Runs the race for its whole time: nothing is lost, and at the end nothing is left over.
fn survive(servers: &[Server], seed: u64) {
    let (failures, counts) = race(servers, seed);
    assert!(counts.qualified * 10 >= counts.attempts * 9, "too few attempts arrived in time: {counts:?}");
    assert!(counts.freed > 0 && counts.collections > 10 && counts.attempts > 50, "the race was none: {counts:?}");
    assert!(failures.is_empty(), "{}: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
    let (clean, report) = servers[0].check(&["--deep"]);
    assert!(clean, "{report}");
}

#[test]
fn nothing_acknowledged_is_lost_in_the_race() {
    let seed = Random::seeded("gc_race", 0x7261_6365).next();
    survive(&[builder().start()], seed);
}

#[test]
fn nothing_acknowledged_is_lost_in_the_race_of_replicas() {
    let grace = format!("{}s", GRACE.as_secs());
    let environment = [("FOUNDRY_GC__GRACE", grace.as_str())];
    let Some(cluster) = Cluster::start_with("the race of replicas", 3, &environment) else { return };
    let seed = Random::seeded("gc_race, replicas", 0x7261_6365).next();
    survive(&cluster.replicas, seed);
}

#[test]
fn the_race_notices_when_references_are_not_validated() {
    let seed = Random::seeded("gc_race, lenient", 0x7261_6365).next();
    let server = builder().config("registries: { oci: { format: oci, references: lenient } }").start();
    assert!(loses(&[server], seed), "without validation nothing was lost: the race shows nothing");
}

#[test]
fn the_race_notices_when_the_review_holds_no_lock() {
    let seed = Random::seeded("gc_race, unlocked", 0x7261_6365).next();
    let server = builder().environment("FOUNDRY_FAULT", "unlocked-review").start();
    assert!(loses(&[server], seed), "with the review unlocked nothing was lost: the race shows nothing");
}

#[test]
fn the_race_notices_when_the_reviews_of_replicas_hold_no_lock() {
    let grace = format!("{}s", GRACE.as_secs());
    let environment = [("FOUNDRY_GC__GRACE", grace.as_str()), ("FOUNDRY_FAULT", "unlocked-review")];
    let Some(cluster) = Cluster::start_with("the race of unlocked replicas", 3, &environment) else { return };
    let seed = Random::seeded("gc_race, unlocked replicas", 0x7261_6365).next();
    assert!(loses(&cluster.replicas, seed), "with the reviews unlocked nothing was lost: the race shows nothing");
}

/// Whether one of at most three races, which end with the first loss, shows one.
fn loses(servers: &[Server], seed: u64) -> bool {
    (0..3).any(|round| {
        let started = Instant::now();
        let (failures, _) = race(servers, seed.wrapping_add(round));
        eprintln!("round {round}, {:?}: {:?}", started.elapsed(), failures.first());
        !failures.is_empty()
    })
}

//! `kill -9` at every step of the state machines, and at random moments of a load: what was acknowledged is there
//! after the restart, and what was left over goes.

mod load;

use std::collections::BTreeMap;
use std::time::Duration;

use registry_core::ports::steps;
use registry_tests::oci::{sha256, with_digest};
use registry_tests::{Answer, Image, Random, Server};

/// What the server has acknowledged, and what is in doubt because an answer never came.
#[derive(Default)]
struct Acknowledged {
    blobs: BTreeMap<String, Vec<u8>>,
    tags: BTreeMap<String, Image>,
    artifacts: BTreeMap<String, Vec<u8>>,
    /// Deleted with an acknowledgement: must not come back.
    gone: Vec<String>,
}

/// A client that stops at the first request that is not answered.
struct Client<'a> {
    server: &'a Server,
    acknowledged: &'a mut Acknowledged,
}

impl Client<'_> {
    fn ask(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Option<Answer> {
        self.server.try_request(method, target, headers, body).ok()
    }

    fn push_blob(&mut self, bytes: &[u8]) -> Option<()> {
        let started = self.ask("POST", "/v2/kill/nine/blobs/uploads/", &[], b"")?.expect(202);
        let location = started.header("location")?.to_owned();
        let half = bytes.len() / 2;
        self.ask("PATCH", &location, &[], &bytes[..half])?.expect(202);
        let digest = sha256(bytes);
        self.ask("PUT", &with_digest(&location, &digest), &[], &bytes[half..])?.expect(201);
        self.acknowledged.blobs.insert(digest, bytes.to_vec());
        Some(())
    }

    fn push_image(&mut self, tag: &str, image: &Image) -> Option<()> {
        for blob in &image.blobs {
            self.push_blob(blob)?;
        }
        let content_type = format!("Content-Type: {}", image.media_type);
        self.ask("PUT", &format!("/v2/kill/nine/manifests/{tag}"), &[&content_type], &image.manifest)?.expect(201);
        self.acknowledged.tags.insert(tag.to_owned(), image.clone());
        Some(())
    }

    fn publish(&mut self, version: &str, bytes: &[u8]) -> Option<()> {
        self.ask("POST", &format!("/api/v1/artifacts/kill/{version}"), &[], bytes)?.expect(201);
        self.acknowledged.artifacts.insert(version.to_owned(), bytes.to_vec());
        Some(())
    }

    /// From the moment it asks until it is told, the deletion may or may not have happened.
    fn delete_artifact(&mut self, version: &str) -> Option<()> {
        self.acknowledged.artifacts.remove(version);
        self.ask("DELETE", &format!("/api/v1/artifacts/kill/{version}"), &[], b"")?.expect(204);
        self.acknowledged.gone.push(format!("/api/v1/artifacts/kill/{version}"));
        Some(())
    }

    fn delete_image(&mut self, tag: &str) -> Option<()> {
        let image = self.acknowledged.tags.remove(tag).expect("it was pushed");
        for blob in &image.blobs {
            self.acknowledged.blobs.remove(&sha256(blob));
        }
        let target = format!("/v2/kill/nine/manifests/{}", image.digest());
        self.ask("DELETE", &target, &[], b"")?.expect(202);
        self.acknowledged.gone.push(target);
        Some(())
    }

    fn collect(&self) -> Option<()> {
        self.ask("POST", "/api/v1/gc?grace=0s", &[], b"")?.expect(200);
        Some(())
    }

    /// Passes every step of the state machines several times.
    fn work(&mut self, seed: u64) -> Option<()> {
        let mut random = Random::new(seed);
        let keep = Image::new(vec![random.bytes(20_000), random.bytes(3_000)]);
        self.push_image("keep", &keep)?;
        self.publish("1.0.0", &random.bytes(10_000))?;
        let dropped = Image::new(vec![random.bytes(15_000)]);
        self.push_image("dropped", &dropped)?;
        self.publish("2.0.0", &random.bytes(10_000))?;
        let cancelled = self.ask("POST", "/v2/kill/nine/blobs/uploads/", &[], b"")?.expect(202);
        let location = cancelled.header("location")?.to_owned();
        self.ask("PATCH", &location, &[], &random.bytes(1_000))?.expect(202);
        self.ask("DELETE", &location, &[], b"")?.expect(204);
        self.delete_image("dropped")?;
        self.delete_artifact("2.0.0")?;
        // With no grace at all this takes what is not referenced: blobs of images go only when those are gone.
        self.acknowledged.blobs.clear();
        self.collect()?;
        let late = Image::new(vec![random.bytes(9_000)]);
        self.push_image("late", &late)
    }
}

fn verify(server: &Server, acknowledged: &Acknowledged) {
    let repository = server.repository("kill/nine");
    for (digest, bytes) in &acknowledged.blobs {
        assert_eq!(repository.get_blob(digest).expect(200).body, *bytes);
    }
    for (tag, image) in &acknowledged.tags {
        repository.assert_holds(tag, image);
    }
    for (version, bytes) in &acknowledged.artifacts {
        assert_eq!(server.get(&format!("/api/v1/artifacts/kill/{version}")).expect(200).body, *bytes);
    }
    for path in &acknowledged.gone {
        server.get(path).expect(404);
    }
}

/// Ends what was left over, and compares ledger and store both ways.
#[track_caller]
fn reap_and_check(server: Server, acknowledged: &Acknowledged) {
    let server = server.again().environment("FOUNDRY_GC__UPLOAD_IDLE", "1ms").start();
    server.gc("24h");
    verify(&server, acknowledged);
    assert_eq!(server.staged_files(), Vec::<String>::new(), "something is still staged");
    let (clean, report) = server.check(&["--deep"]);
    assert!(clean, "{report}");
}

#[test]
fn at_every_step_of_the_state_machines() {
    let mut random = Random::seeded("kill9 steps", 0x6b69_6c6c);
    for step in steps::ALL {
        let mut reached = 0;
        for nth in 1..=3 {
            let seed = random.next();
            let mut server = Server::builder().fail_point(step, nth).start();
            let mut acknowledged = Acknowledged::default();
            let finished = Client { server: &server, acknowledged: &mut acknowledged }.work(seed);
            if finished.is_some() {
                // It is passed less often than that.
                break;
            }
            assert!(server.wait_for_end(Duration::from_secs(10)), "{step}: it still runs");
            reached += 1;
            let server = server.restart();
            verify(&server, &acknowledged);
            // What was cut short can be done again.
            let mut again = Acknowledged::default();
            let image = Image::new(vec![Random::new(seed).bytes(20_000)]);
            Client { server: &server, acknowledged: &mut again }.push_image("again", &image).unwrap();
            verify(&server, &again);
            reap_and_check(server, &acknowledged);
        }
        assert!(reached > 0, "the work never passes {step}");
    }
}

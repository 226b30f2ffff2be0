//! Replicas that are killed or stopped in the middle of something that another one then takes over.

use std::thread;
use std::time::Duration;

use registry_core::ports::steps;
use registry_tests::oci::{offset, sha256, sha512, with_digest};
use registry_tests::{Cluster, Image, Random, Server, eventually};
use rustix::process::Signal;

use crate::{HalfSent, MIB, STEPS, assert_everywhere, reap_and_check};

const UPLOADS: &str = "/v2/team/app/blobs/uploads/";

#[test]
fn a_patch_whose_replica_is_killed_goes_on_at_another() {
    let Some(mut cluster) = Cluster::start_with("a killed replica", 3, &[STEPS]) else { return };
    let bytes = Random::seeded("killed replica", 1).bytes(32 * MIB);
    let location = cluster.replicas[0].repository("team/app").start_upload();
    let acknowledged = 9 * MIB;
    cluster.replicas[1].repository("team/app").patch(&location, &bytes[..acknowledged]).expect(202);
    let half = HalfSent::begin(&cluster.replicas[0], &location, acknowledged, &bytes[acknowledged..27 * MIB]);
    cluster.replicas[0].kill();
    half.end().expect_err("its connection is gone");

    let [_, second, third] = cluster.replicas.as_slice() else { panic!("there are three") };
    let durable = offset(&second.repository("team/app").status(&location).expect(204));
    assert_eq!(durable, acknowledged);
    second.repository("team/app").patch_at(&location, durable, &bytes[durable..27 * MIB]).expect(202);
    let digest = sha256(&bytes);
    third.repository("team/app").finish(&location, &digest, &bytes[27 * MIB..]).expect(201);
    assert_everywhere(&cluster.replicas[1..], "team/app", &digest, &bytes);
    reap_and_check(&cluster);
}

#[test]
fn what_was_recorded_within_a_body_is_not_sent_again() {
    const CHECKPOINT: usize = 10 * MIB;
    let Some(cluster) = Cluster::start("replicas killed within a body", 2) else { return };
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    let mut random = Random::seeded("killed within a body", 13);
    // How often the offset was recorded before the end.
    for (step, recorded) in [(steps::UPLOAD_CHECKPOINTED, 2), (steps::UPLOAD_BYTES_DURABLE, 1)] {
        let bytes = random.bytes(27 * MIB);
        let builder = cluster.builder().environment("FOUNDRY_CHECKPOINT_BYTES", &CHECKPOINT.to_string());
        let mut replica = builder.fail_point(step, 2).start();
        let location = one.repository("team/app").start_upload();
        replica.try_request("PATCH", &location, &[], &bytes).expect_err("its replica is gone");
        assert!(replica.wait_for_end(Duration::from_secs(30)), "{step}: it still runs");
        let durable = offset(&one.repository("team/app").status(&location).expect(204));
        let expected = recorded * CHECKPOINT..(recorded + 1) * CHECKPOINT;
        assert!(expected.contains(&durable), "{step}: {durable} bytes are recorded");
        other.repository("team/app").patch_at(&location, durable, &bytes[durable..]).expect(202);
        one.repository("team/app").finish(&location, &sha256(&bytes), b"").expect(201);
        assert_everywhere(&cluster.replicas, "team/app", &sha256(&bytes), &bytes);
    }
    reap_and_check(&cluster);
}

/// What a client has seen of an upload, as far as it came.
#[derive(Default)]
struct Progress {
    location: Option<String>,
    /// The offset that the last answer said.
    acknowledged: usize,
    is_stored: bool,
}

/// Where the pieces of an upload end: of a tail, of a part and a tail, and of another part and the last tail.
const PIECES: [usize; 3] = [3 * MIB, 9 * MIB, 20 * MIB];

/// Uploads to one replica, until it is gone.
fn upload(replica: &Server, bytes: &[u8], progress: &mut Progress) -> std::io::Result<()> {
    let started = replica.try_request("POST", UPLOADS, &[], b"")?.expect(202);
    let location = started.header("location").unwrap().to_owned();
    progress.location = Some(location.clone());
    for pieces in PIECES.windows(2) {
        let answer = replica.try_request("PATCH", &location, &[], &bytes[progress.acknowledged..pieces[0]])?;
        progress.acknowledged = offset(&answer.expect(202));
        assert_eq!(progress.acknowledged, pieces[0]);
    }
    let target = with_digest(&location, &sha256(bytes));
    replica.try_request("PUT", &target, &[], &bytes[progress.acknowledged..])?.expect(201);
    progress.is_stored = true;
    Ok(())
}

/// Goes on with an upload at other replicas, as a client does that was cut off: by the status, and where that says that
/// there is no open upload, by the same end again.
fn resume(one: &Server, other: &Server, bytes: &[u8], progress: &Progress, what: &str) {
    let digest = sha256(bytes);
    let Some(location) = &progress.location else {
        one.repository("team/app").push_blob(bytes);
        return;
    };
    let status = one.repository("team/app").status(location);
    let durable = match status.status {
        204 => offset(&status),
        404 => progress.acknowledged,
        _ => panic!("{what}: {status:?}"),
    };
    assert!(durable >= progress.acknowledged, "{what}: {durable} bytes, but {} were told", progress.acknowledged);
    let end = other.repository("team/app").finish(location, &digest, &bytes[durable..]);
    assert_eq!(end.status, 201, "{what}, after {}: {end:?}", status.status);
}

#[test]
fn at_every_step_of_an_upload_another_replica_takes_over() {
    let Some(cluster) = Cluster::start("replicas killed at every step", 2) else { return };
    let mut random = Random::seeded("cluster steps", 2);
    let mut seen = Vec::new();
    let of_uploads = [
        steps::UPLOAD_CREATED,
        steps::UPLOAD_EPOCH_RAISED,
        steps::UPLOAD_PART_STORED,
        steps::UPLOAD_BYTES_DURABLE,
        steps::UPLOAD_CHECKPOINTED,
        steps::UPLOAD_SEALED,
        steps::UPLOAD_PARTS_NAMED,
        steps::UPLOAD_PUBLISHED,
        steps::UPLOAD_COMMITTED,
    ];
    for step in of_uploads {
        for nth in 1..=3 {
            let bytes = random.bytes(PIECES[2]);
            let mut replica = cluster.builder().fail_point(step, nth).start();
            let mut progress = Progress::default();
            if upload(&replica, &bytes, &mut progress).is_ok() {
                // It is passed less often than that.
                assert!(nth > 1, "an upload never passes {step}");
                break;
            }
            let what = format!("{step}:{nth}");
            assert!(replica.wait_for_end(Duration::from_secs(30)), "{what}: it still runs");
            let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
            resume(one, other, &bytes, &progress, &what);
            seen.push((sha256(&bytes), bytes));
        }
    }
    for (digest, bytes) in &seen {
        assert_everywhere(&cluster.replicas, "team/app", digest, bytes);
    }
    assert_eq!(seen.len(), 1 + 3 + 3 + 3 + 2 + 1 + 1 + 1 + 1);

    // The same manifest again, after the answer to it was lost.
    let image = Image::new(vec![random.bytes(1000)]);
    for blob in &image.blobs {
        cluster.replicas[0].repository("team/app").push_blob(blob);
    }
    let mut replica = cluster.builder().fail_point(steps::MANIFEST_COMMITTED, 1).start();
    let content_type = format!("Content-Type: {}", image.media_type);
    let put = replica.try_request("PUT", "/v2/team/app/manifests/v1", &[&content_type], &image.manifest);
    put.expect_err("its replica is gone");
    assert!(replica.wait_for_end(Duration::from_secs(30)));
    cluster.replicas[1].repository("team/app").put_manifest("v1", &image).expect(201);
    cluster.replicas[0].repository("team/app").assert_holds("v1", &image);
    reap_and_check(&cluster);
}

#[test]
fn a_collection_that_dies_is_finished_by_another_replica() {
    let Some(cluster) = Cluster::start("dying collections", 2) else { return };
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    let mut random = Random::seeded("dying collections", 3);
    let kept = random.bytes(10 * MIB);
    one.request("POST", "/api/v1/artifacts/kept/1", &[], &kept).expect(201);
    let image = Image::new(vec![random.bytes(9 * MIB)]);
    one.repository("team/kept").push("v1", &image);
    let of_collections = [
        steps::UPLOAD_ENDED,
        steps::UPLOAD_DISCARDED,
        steps::GC_REVIEWED,
        steps::GC_DOOMED,
        steps::GC_OBJECT_DELETED,
        steps::GC_LEDGER_CLEARED,
    ];
    for step in of_collections {
        // An artifact, an image and an upload that nobody needs any more.
        one.request("POST", "/api/v1/artifacts/dropped/1", &[], &random.bytes(9 * MIB)).expect(201);
        other.request("DELETE", "/api/v1/artifacts/dropped/1", &[], b"").expect(204);
        let dropped = Image::new(vec![random.bytes(100_000)]);
        one.repository("team/dropped").push("v1", &dropped);
        other.repository("team/dropped").delete_manifest(&dropped.digest()).expect(202);
        let idle = one.repository("team/dropped").start_upload();
        other.repository("team/dropped").patch(&idle, &random.bytes(9 * MIB)).expect(202);

        let builder = || cluster.builder().environment("FOUNDRY_GC__UPLOAD_IDLE", "1ms");
        let mut dying = builder().fail_point(step, 1).start();
        dying.try_request("POST", "/api/v1/gc?grace=0s", &[], b"").expect_err("its replica is gone");
        assert!(dying.wait_for_end(Duration::from_secs(30)), "{step} was not passed");

        // What is referred to stays, and the rest goes, whoever collects next.
        let next = builder().start();
        next.gc("0s");
        let again = next.gc("0s");
        for left in ["blobs_deleted", "references_dropped", "uploads_ended", "objects_deleted"] {
            assert_eq!(again[left], 0, "{step}: {again}");
        }
        assert_eq!(other.repository("team/dropped").status(&idle).expect(404).oci_code(), "BLOB_UPLOAD_UNKNOWN");
        for blob in &dropped.blobs {
            other.repository("team/dropped").head_blob(&sha256(blob)).expect(404);
        }
        let (clean, report) = next.check(&["--deep", "--restart"]);
        // The artifact, the layer and the config; and the ledger has nothing that is still to be deleted.
        assert_eq!(cluster.database().run("SELECT count(*) FROM objects"), "3", "{step}");
        assert!(clean && report.contains("\"objects\":3"), "{step}: {report}");
    }
    for replica in &cluster.replicas {
        assert!(replica.get("/api/v1/artifacts/kept/1").expect(200).body == kept);
        replica.repository("team/kept").assert_holds("v1", &image);
    }
}

#[test]
fn a_writer_that_sleeps_while_another_replica_takes_over_changes_nothing_when_it_wakes() {
    let Some(cluster) = Cluster::start_with("stopped writers", 2, &[STEPS]) else { return };
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    let mut random = Random::seeded("stopped writers", 4);
    let mut stored = Vec::new();
    for step in [steps::UPLOAD_EPOCH_RAISED, steps::UPLOAD_BYTES_DURABLE, steps::UPLOAD_CHECKPOINTED] {
        let (older, newer) = (random.bytes(10 * MIB), random.bytes(11 * MIB));
        let sleeper = cluster.builder().stop_point(step, 1).start();
        let location = one.repository("team/app").start_upload();
        let (whole, answer) = thread::scope(|scope| {
            let patch = scope.spawn(|| sleeper.repository("team/app").patch(&location, &older));
            eventually("the writer sleeps", || sleeper.is_stopped().then_some(()));
            // What the sleeper has recorded counts; after it comes what another client sends.
            let durable = offset(&one.repository("team/app").status(&location).expect(204));
            let whole = [&older[..durable], &newer].concat();
            one.repository("team/app").patch_at(&location, durable, &newer).expect(202);
            other.repository("team/app").finish(&location, &sha256(&whole), b"").expect(201);
            sleeper.signal(Signal::CONT);
            (whole, patch.join().unwrap())
        });
        match step {
            // It was recorded before it slept: then it is true.
            steps::UPLOAD_CHECKPOINTED => assert_eq!(offset(&answer.expect(202)), older.len()),
            _ => assert_eq!(answer.expect(416).oci_code(), "BLOB_UPLOAD_INVALID", "{step}"),
        }
        one.repository("team/app").head_blob(&sha256(&older)).expect(404);
        stored.push((sha256(&whole), whole));
    }

    // In the middle of a body, by a signal from outside; what comes after it is more than the newer client sent.
    let (older, newer) = (random.bytes(30 * MIB), random.bytes(12 * MIB));
    let sleeper = cluster.builder().start();
    let location = one.repository("team/app").start_upload();
    let half = HalfSent::begin(&sleeper, &location, 0, &older);
    sleeper.signal(Signal::STOP);
    eventually("the writer sleeps", || sleeper.is_stopped().then_some(()));
    one.repository("team/app").patch_at(&location, 0, &newer).expect(202);
    other.repository("team/app").finish(&location, &sha256(&newer), b"").expect(201);
    sleeper.signal(Signal::CONT);
    // Told, or cut off before it has sent all.
    if let Ok(answer) = half.end() {
        assert_eq!(answer.expect(416).oci_code(), "BLOB_UPLOAD_INVALID");
    }
    stored.push((sha256(&newer), newer));

    // Two that end the same upload are both right.
    for step in [steps::UPLOAD_SEALED, steps::UPLOAD_PUBLISHED, steps::UPLOAD_COMMITTED] {
        let bytes = random.bytes(10 * MIB);
        let digest = sha256(&bytes);
        let sleeper = cluster.builder().stop_point(step, 1).start();
        let location = one.repository("team/app").start_upload();
        one.repository("team/app").patch(&location, &bytes).expect(202);
        thread::scope(|scope| {
            let put = scope.spawn(|| sleeper.repository("team/app").finish(&location, &digest, b""));
            eventually("the writer sleeps", || sleeper.is_stopped().then_some(()));
            other.repository("team/app").finish(&location, &digest, b"").expect(201);
            sleeper.signal(Signal::CONT);
            put.join().unwrap().expect(201);
        });
        stored.push((digest, bytes));
    }
    for (digest, bytes) in &stored {
        assert_everywhere(&cluster.replicas, "team/app", digest, bytes);
    }
    reap_and_check(&cluster);
}

/// Both write to the multipart upload that the session has, and nothing in the bucket keeps them apart: so the sleeper's
/// parts may come into the places of the other's. What the client is told of the other's bytes is then 201, with exactly these
/// bytes, or 404 (the upload has ended, and is begun again), with nothing stored. Never are other bytes stored.
#[test]
fn a_writer_that_wakes_among_the_parts_of_another_makes_no_other_blob() {
    let Some(cluster) = Cluster::start("sleepers among parts", 2) else { return };
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    let mut random = Random::seeded("sleepers among parts", 12);
    let shared = random.bytes(9 * MIB);
    for wakes_before_the_end in [true, false] {
        let (older, newer) = (random.bytes(20 * MIB), random.bytes(20 * MIB));
        let whole = [&shared[..], &newer].concat();
        let digest = sha256(&whole);
        let sleeper = cluster.builder().stop_point(steps::UPLOAD_PART_STORED, 1).start();
        let location = one.repository("team/app").start_upload();
        one.repository("team/app").patch(&location, &shared).expect(202);
        let end = thread::scope(|scope| {
            let patch = scope.spawn(|| sleeper.try_request("PATCH", &location, &[], &older));
            eventually("the writer sleeps", || sleeper.is_stopped().then_some(()));
            let patched = one.repository("team/app").patch_at(&location, shared.len(), &newer).expect(202);
            assert_eq!(offset(&patched), whole.len());
            // Told, or cut off before it has sent all.
            let wake = || {
                sleeper.signal(Signal::CONT);
                if let Ok(answer) = patch.join().unwrap() {
                    assert!([404, 416].contains(&answer.status), "{answer:?}");
                }
            };
            let end = || other.request("PUT", &with_digest(&location, &digest), &[], b"");
            if wakes_before_the_end {
                wake();
                end()
            } else {
                let end = end();
                wake();
                end
            }
        });
        match end.status {
            201 => assert_everywhere(&cluster.replicas, "team/app", &digest, &whole),
            404 => {
                assert_eq!(end.oci_code(), "BLOB_UPLOAD_UNKNOWN");
                one.repository("team/app").head_blob(&digest).expect(404);
                one.repository("team/app").push_blob(&whole);
                assert_everywhere(&cluster.replicas, "team/app", &digest, &whole);
            }
            _ => panic!("{end:?}"),
        }
        one.repository("team/app").head_blob(&sha256(&[&shared[..], &older].concat())).expect(404);
    }
    reap_and_check(&cluster);
}

/// The newer writer's answer removes the tail that both began with.
#[test]
fn a_writer_that_wakes_when_its_tail_is_superseded_ends_no_upload() {
    let Some(cluster) = Cluster::start("superseded tails", 2) else { return };
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    let bytes = Random::seeded("superseded tails", 5).bytes(3000);
    let sleeper = cluster.builder().stop_point(steps::UPLOAD_EPOCH_RAISED, 1).start();
    let location = one.repository("team/app").start_upload();
    one.repository("team/app").patch(&location, &bytes[..1000]).expect(202);
    let answer = thread::scope(|scope| {
        let patch = scope.spawn(|| sleeper.repository("team/app").patch_at(&location, 1000, &bytes[1000..]));
        eventually("the writer sleeps", || sleeper.is_stopped().then_some(()));
        one.repository("team/app").patch_at(&location, 1000, &bytes[1000..]).expect(202);
        sleeper.signal(Signal::CONT);
        patch.join().unwrap()
    });
    assert_eq!(answer.expect(416).oci_code(), "BLOB_UPLOAD_INVALID");
    let digest = sha256(&bytes);
    other.repository("team/app").finish(&location, &digest, b"").expect(201);
    assert_everywhere(&cluster.replicas, "team/app", &digest, &bytes);
    reap_and_check(&cluster);
}

/// A sha512 that was not announced is compared by completing the bytes in the bucket, before anybody knows whether they
/// are still the upload's.
#[test]
fn what_an_overtaken_writer_completes_in_order_to_read_it_is_in_nobodys_place() {
    let Some(cluster) = Cluster::start_with("late digests", 2, &[STEPS]) else { return };
    let [one, other] = cluster.replicas.as_slice() else { panic!("there are two") };
    let mut random = Random::seeded("late digests", 6);
    let (bytes, others) = (random.bytes(9 * MIB), random.bytes(9 * MIB));
    let location = one.repository("team/app").start_upload();
    let late = HalfSent::begin_with("PUT", one, &with_digest(&location, &sha512(&others)), None, &others);
    let digest = sha256(&bytes);
    other.repository("team/app").finish(&location, &digest, &bytes).expect(201);
    assert_everywhere(&cluster.replicas, "team/app", &digest, &bytes);
    if let Ok(answer) = late.end() {
        answer.expect(416);
    }
    assert_everywhere(&cluster.replicas, "team/app", &digest, &bytes);
    reap_and_check(&cluster);
}

//! Comparing ledger and store.

use std::time::Duration;

use bytes::Bytes;
use registry_core::ports::blob_store::ObjectKey;
use registry_core::ports::clock::Clock;
use registry_core::ports::metadata::ledger::LedgerEntry;
use registry_core::ports::metadata::{JobStore, ObjectLedger};
use registry_core::services::{
    CheckFinding, CheckOptions, CheckReport, CheckSum, CollectGarbage, InterruptedCheck, StoreLikeness,
};
use registry_core::time::Timestamp;

use crate::world::{World, at_once, sha256};

const PLAIN: CheckOptions = CheckOptions { deep: false, repair: false, restart: false, at_once: 2 };
const DEEP: CheckOptions = CheckOptions { deep: true, ..PLAIN };
const REPAIR: CheckOptions = CheckOptions { deep: true, repair: true, ..PLAIN };

impl World {
    async fn check(&self, options: CheckOptions) -> CheckReport {
        let mut told = Vec::new();
        let report = self.services.check_storage(options, |finding| told.push(finding.clone())).await.unwrap();
        assert_eq!(told, report.findings, "each finding is told at once");
        assert_eq!(self.metadata.job_cursor("check").await.unwrap(), None, "a finished check begins anew");
        report
    }

    fn key(&self, content: &str) -> ObjectKey {
        let entries = at_once(self.metadata.ledger_page(None, 100)).unwrap();
        let of_it = |blob: &Option<_>| blob.as_ref().is_some_and(|(digest, _)| *digest == sha256(content));
        entries.into_iter().find(|entry| of_it(&entry.blob)).expect("it is stored").key
    }
}

#[tokio::test]
async fn a_sound_store_has_no_findings_and_is_counted() {
    let world = World::new().await;
    for content in ["1", "22", "333"] {
        world.push("app", content).await;
    }
    for options in [PLAIN, DEEP, REPAIR] {
        assert_eq!(world.check(options).await, CheckReport { objects: 3, bytes: 6, ..CheckReport::default() });
    }
    assert_eq!(world.objects().await.len(), 3);
}

#[tokio::test]
async fn damage_is_found_repaired_and_can_be_pushed_again() {
    let world = World::new().await;
    for content in ["missing", "torn", "altered", "sound"] {
        world.push("app", content).await;
    }
    let (missing, torn, altered) = (world.key("missing"), world.key("torn"), world.key("altered"));
    world.blobs.damage(&missing, None);
    world.blobs.damage(&torn, Some(Bytes::from_static(b"tor")));
    world.blobs.damage(&altered, Some(Bytes::from_static(b"Altered")));
    let orphan = ObjectKey("zz/orphan".into());
    world.blobs.damage(&orphan, Some(Bytes::from_static(b"orphan")));

    let expect = |deep: bool| {
        let mut findings = vec![
            CheckFinding::Missing { digest: sha256("missing"), key: missing.clone() },
            CheckFinding::WrongSize { digest: sha256("torn"), key: torn.clone(), expected: 4, actual: 3 },
            CheckFinding::Orphaned { key: orphan.clone(), size: 6 },
        ];
        if deep {
            let (digest, actual) = (sha256("altered"), sha256("Altered"));
            findings.push(CheckFinding::WrongContent { digest, key: altered.clone(), actual });
        }
        findings
    };
    let assert_found = |report: &CheckReport, deep: bool| {
        let mut expected = expect(deep);
        expected.sort_by_key(|finding| format!("{finding:?}"));
        let mut found = report.findings.clone();
        found.sort_by_key(|finding| format!("{finding:?}"));
        assert_eq!(found, expected);
    };
    let report = world.check(PLAIN).await;
    assert_found(&report, false);
    assert_eq!((report.objects, report.repaired), (4, 0));
    let report = world.check(DEEP).await;
    assert_found(&report, true);
    assert_eq!(report.repaired, 0);
    let report = world.check(REPAIR).await;
    assert_found(&report, true);
    assert_eq!(report.repaired, 4);
    assert_eq!(world.check(DEEP).await, CheckReport { objects: 1, bytes: 5, ..CheckReport::default() });
    assert_eq!(world.objects().await, [world.key("sound")]);
    for content in ["missing", "torn", "altered"] {
        assert_eq!(world.blob("app", &sha256(content)).await, None);
        let digest = world.push("app", content).await;
        assert_eq!(world.blob("app", &digest).await.as_deref(), Some(content));
    }
}

#[tokio::test]
async fn damaged_bytes_of_a_version_are_reported_and_not_repaired() {
    let world = World::new().await;
    let artifact = world.publish("tool", "1", "bytes").await.unwrap();
    world.blobs.damage(&world.key("bytes"), None);
    let report = world.check(REPAIR).await;
    assert_eq!((report.findings.len(), report.repaired), (1, 0));
    let registry = world.registry("generic").await.id;
    let described = world.services.describe_artifact(registry, &artifact.package, &artifact.version).await.unwrap();
    assert_eq!(described, Some(artifact), "whoever published it is not told that it never was");
}

#[tokio::test]
async fn what_is_collected_or_removed_while_it_looks_is_no_finding() {
    for options in [PLAIN, DEEP, CheckOptions { at_once: 1, ..PLAIN }] {
        let world = World::new().await;
        for content in ["one", "two"] {
            world.push("app", content).await;
            world.blobs.damage(&world.key(content), None);
        }
        for orphan in ["zz/1", "zz/2"] {
            world.blobs.damage(&ObjectKey(orphan.into()), Some(Bytes::from_static(b"orphan")));
        }
        let (blobs, metadata, now) = (world.blobs.clone(), world.metadata.clone(), world.clock.now());
        let report = world.services.check_storage(options, |finding| match finding {
            CheckFinding::Missing { digest, .. } => {
                let other = if *digest == sha256("one") { "two" } else { "one" };
                let of_it =
                    |entry: &LedgerEntry| entry.blob.as_ref().is_some_and(|(digest, _)| *digest == sha256(other));
                let other = at_once(metadata.ledger_page(None, 100)).unwrap().into_iter().find(of_it);
                at_once(metadata.forget_blob(&other.unwrap(), now)).unwrap();
            }
            _ => {
                blobs.damage(&ObjectKey("zz/2".into()), None);
            }
        });
        let findings = report.await.unwrap().findings;
        assert_eq!(findings.len(), 2, "{findings:?}");
    }
}

#[tokio::test]
async fn an_interrupted_check_goes_on_where_it_stood_unless_it_is_restarted() {
    let world = World::new().await;
    let mut keys = Vec::new();
    for content in ["1", "2", "3"] {
        world.push("app", content).await;
        keys.push(world.key(content));
        world.blobs.damage(&ObjectKey(format!("zz/{content}")), Some(Bytes::from_static(b"orphan")));
    }
    keys.sort();
    let counts = async |options| {
        let report = world.check(options).await;
        let CheckSum { objects, findings, .. } = report.before;
        ((objects, findings), (report.objects, report.findings.len()))
    };
    // As a check leaves it that is killed there; the first object of the ledger was damaged.
    let stand = async |options: CheckOptions, list: &str, after: &str| {
        let CheckOptions { deep, repair, .. } = options;
        let cursor = format!("2 {deep} {repair} 1735689600000000 1 1 1 0 {list} {after}");
        world.metadata.set_job_cursor("check", Some(&cursor)).await.unwrap();
    };
    let begun_at = Timestamp::from_micros(1_735_689_600_000_000);
    assert_eq!(counts(PLAIN).await, ((0, 0), (3, 3)));
    stand(PLAIN, "ledger", keys[0].as_str()).await;
    let sum = CheckSum { objects: 1, bytes: 1, findings: 1, repaired: 0 };
    let interrupted = InterruptedCheck { begun_at, after: Some(keys[0].clone()), sum };
    assert_eq!(world.services.interrupted_check(PLAIN).await.unwrap(), Some(interrupted));
    assert_eq!(counts(PLAIN).await, ((1, 1), (2, 3)));
    stand(PLAIN, "store", "zz/1").await;
    let report = world.check(PLAIN).await;
    assert_eq!((report.objects, report.sum()), (0, CheckSum { findings: 3, ..sum }), "its sum is that of both");

    let restarted = CheckOptions { restart: true, ..PLAIN };
    stand(PLAIN, "store", "zz/1").await;
    assert_eq!(world.services.interrupted_check(restarted).await.unwrap(), None);
    assert_eq!(counts(restarted).await, ((0, 0), (3, 3)));
    // Nor does a check go on with one that looked at less, or repaired nothing, or with one of an earlier release.
    let repairing = CheckOptions { repair: true, ..PLAIN };
    for (stopped, next) in [(PLAIN, DEEP), (DEEP, PLAIN), (repairing, PLAIN), (PLAIN, repairing)] {
        stand(stopped, "store", "zz/1").await;
        assert_eq!(world.services.interrupted_check(next).await.unwrap(), None);
        assert_eq!(counts(next).await, ((0, 0), (3, 3)), "{next:?} after {stopped:?}");
    }
    world.metadata.set_job_cursor("check", Some("store:zz/3")).await.unwrap();
    assert_eq!(counts(PLAIN).await, ((0, 0), (3, 0)), "the orphans were deleted");
}

#[tokio::test]
async fn what_was_repaired_before_an_interruption_counts() {
    let world = World::new().await;
    for number in 1..=3 {
        world.blobs.damage(&ObjectKey(format!("zz/{number}")), Some(Bytes::from_static(b"orphan")));
    }
    let cursor = "2 true true 1735689600000000 5 7 4 3 store zz/1";
    world.metadata.set_job_cursor("check", Some(cursor)).await.unwrap();
    let report = world.check(REPAIR).await;
    assert_eq!((report.findings.len(), report.repaired), (2, 2));
    assert_eq!(report.sum(), CheckSum { objects: 5, bytes: 7, findings: 6, repaired: 5 });
}

#[tokio::test]
async fn what_is_doomed_or_reserved_is_no_finding() {
    let world = World::new().await;
    crate::finishing::finalising(&world, "reserved").await;
    world.push("app", "doomed").await;
    let key = world.key("doomed");
    let claim = registry_core::ports::blob_store::BlobStore::claim_deletion(&world.blobs, &key).await.unwrap();
    let now = CollectGarbage { grace: Some(Duration::ZERO), dry_run: false };
    world.services.collect_garbage(now).await.unwrap();
    drop(claim);
    assert_eq!(world.objects().await, [key]);
    assert_eq!(world.check(REPAIR).await, CheckReport::default());
}

#[tokio::test]
async fn a_store_that_lacks_most_or_holds_mostly_unknown_objects_is_another_one() {
    let likeness = async |world: &World| {
        let StoreLikeness { wanted, missing, stored, unknown } = world.services.recognise_store(2).await.unwrap();
        let is_likely = world.services.recognise_store(2).await.unwrap().is_likely();
        ((wanted, missing), (stored, unknown), is_likely)
    };
    let world = World::new().await;
    assert_eq!(likeness(&world).await, ((0, 0), (0, 0), true), "both are new");
    for content in ["1", "2", "3", "4"] {
        world.push("app", content).await;
    }
    crate::finishing::finalising(&world, "reserved").await;
    let orphan = |number: u8| ObjectKey(format!("zz/{number}"));
    assert_eq!(likeness(&world).await, ((4, 0), (4, 0), true));
    for content in ["1", "2"] {
        world.blobs.damage(&world.key(content), None);
    }
    assert_eq!(likeness(&world).await, ((4, 2), (2, 0), true), "it lost half");
    world.blobs.damage(&world.key("3"), None);
    assert_eq!(likeness(&world).await, ((4, 3), (1, 0), false));
    world.blobs.damage(&world.key("4"), None);
    assert_eq!(likeness(&world).await, ((4, 4), (0, 0), false), "it is not mounted");

    // The other way round: the database is another one.
    let world = World::new().await;
    world.push("app", "known").await;
    for number in 0..3 {
        assert!(likeness(&world).await.2, "two tell nothing");
        world.blobs.damage(&orphan(number), Some(Bytes::from_static(b"orphan")));
    }
    assert_eq!(likeness(&world).await, ((1, 0), (4, 3), false));

    let world = World::new().await;
    for content in ["1", "2"] {
        world.push("app", content).await;
        world.blobs.damage(&world.key(content), None);
    }
    assert_eq!(likeness(&world).await, ((2, 2), (0, 0), true), "two tell nothing");
}

#[tokio::test]
async fn a_store_is_recognised_by_a_sample_of_live_objects() {
    let world = World::new().await;
    for number in 0..250 {
        world.push("app", &number.to_string()).await;
    }
    let rows = world.metadata.ledger_page(None, 1_000).await.unwrap();
    // What is doomed has no part in it: the first 150 rows.
    for row in &rows[..150] {
        world.metadata.forget_blob(row, world.clock.now()).await.unwrap();
        world.blobs.damage(&row.key, None);
    }
    world.blobs.damage(&rows[150].key, None);
    let likeness = world.services.recognise_store(4).await.unwrap();
    assert_eq!(likeness, StoreLikeness { wanted: 100, missing: 1, stored: 99, unknown: 0 });
}

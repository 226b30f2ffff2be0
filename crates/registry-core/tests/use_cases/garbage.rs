//! Collections: what they take, what they leave, and what a crashed one left.

use std::time::Duration;

use bytes::Bytes;
use registry_core::ports::blob_store::{BlobStore, ObjectKey};
use registry_core::ports::metadata::{GarbageStore, ObjectLedger};
use registry_core::ports::steps;
use registry_core::services::{CollectGarbage, GarbageReport, Settings};
use registry_core::upload::{StagingState, UploadId};

use crate::world::{HOUR, MICROSECOND, World, at_once, body, sha256};

impl World {
    async fn collect(&self) -> GarbageReport {
        self.collect_after(None).await
    }

    async fn collect_after(&self, grace: Option<Duration>) -> GarbageReport {
        self.services.collect_garbage(CollectGarbage { grace, dry_run: false }).await.unwrap()
    }
}

/// More than three batches.
const MANY: usize = 320;

#[tokio::test]
async fn a_blob_that_nobody_names_stays_for_the_grace_and_no_longer() {
    let world = World::new().await;
    // Once stored anew and once already there: both ways lead to the same lease.
    world.push("app", "layer").await;
    world.clock.advance(HOUR);
    world.push("copy", "layer").await;
    world.clock.advance(24 * HOUR - MICROSECOND);
    let report = world.collect().await;
    let dropped = GarbageReport { memberships_reviewed: 1, memberships_dropped: 1, ..GarbageReport::default() };
    assert_eq!(GarbageReport { uploads_ended: 0, ..report }, dropped);
    world.clock.advance(MICROSECOND);
    let report = world.collect().await;
    let freed = GarbageReport { blobs_deleted: 1, bytes_freed: 5, objects_deleted: 1, ..dropped };
    assert_eq!(GarbageReport { uploads_ended: 0, ..report }, freed);
    assert_eq!((world.objects().await, world.ledger().await), (vec![], vec![]));
}

#[tokio::test]
async fn what_a_manifest_names_stays() {
    let world = World::new().await;
    let config = world.push("app", "config").await;
    world.tag("app", "v1", &config).await;
    world.clock.advance(100 * HOUR);
    let report = world.collect().await;
    assert_eq!((report.memberships_reviewed, report.memberships_dropped, report.blobs_deleted), (1, 0, 0));
    assert_eq!(world.collect().await, GarbageReport::default(), "reviewed once is reviewed");
    assert_eq!(world.blob("app", &config).await.as_deref(), Some("config"));
}

#[tokio::test]
async fn an_administrator_may_shorten_or_lengthen_the_grace() {
    let world = World::new().await;
    let digest = world.push("app", "layer").await;
    world.clock.advance(HOUR - MICROSECOND);
    assert_eq!(world.collect_after(Some(HOUR)).await, GarbageReport::default());
    world.clock.advance(MICROSECOND);
    assert_eq!(world.collect_after(Some(HOUR)).await.blobs_deleted, 1);
    assert_eq!(world.blob("app", &digest).await, None);
    world.push("app", "layer").await;
    world.clock.advance(48 * HOUR - MICROSECOND);
    assert_eq!(world.collect_after(Some(48 * HOUR)).await.blobs_deleted, 0);
    world.clock.advance(MICROSECOND);
    assert_eq!(world.collect_after(Some(48 * HOUR)).await.blobs_deleted, 1);
}

#[tokio::test]
async fn a_dry_run_says_what_would_go_and_touches_nothing() {
    let world = World::new().await;
    let digest = world.push("app", "layer").await;
    let dry = |grace| CollectGarbage { grace, dry_run: true };
    let report = world.services.collect_garbage(dry(Some(Duration::ZERO))).await.unwrap();
    let would = GarbageReport { dry_run: true, blobs_deleted: 1, bytes_freed: 5, ..GarbageReport::default() };
    assert_eq!(report, would);
    let report = world.services.collect_garbage(dry(None)).await.unwrap();
    assert_eq!(report, GarbageReport { dry_run: true, ..GarbageReport::default() });
    assert_eq!(world.blob("app", &digest).await.as_deref(), Some("layer"));
}

#[tokio::test]
async fn an_upload_that_was_idle_for_too_long_is_ended_and_a_finished_one_forgotten() {
    let world = World::with(Settings { upload_idle: HOUR, ..Settings::default() }).await;
    let idle = world.start("app").await.id;
    world.write(idle, None, &mut *body(&["abc"])).await.unwrap();
    world.push("app", "done").await;
    world.clock.advance(HOUR);
    assert_eq!(world.collect().await.uploads_ended, 0);
    let busy = world.start("app").await.id;
    world.write(busy, None, &mut *body(&["abc"])).await.unwrap();
    world.clock.advance(MICROSECOND);
    assert_eq!(world.collect().await.uploads_ended, 2);
    assert_eq!(world.sessions().await, [busy]);
    assert_eq!(world.blobs.list_staged().await.unwrap(), [busy], "the bytes of an open upload are left alone");
    assert_eq!(world.write(busy, None, &mut *body(&["def"])).await.unwrap().durable.offset, 6);
}

#[tokio::test]
async fn one_collection_takes_all_however_many() {
    let world = World::with(Settings { upload_idle: HOUR, ..Settings::default() }).await;
    for number in 0..MANY {
        world.push("app", &format!("layer {number:03}")).await;
        world.start("app").await;
        let key = ObjectKey(format!("left/{number}"));
        world.blobs.damage(&key, Some(Bytes::from_static(b"left over")));
        assert!(world.metadata.doom_orphan(&key, world.services.ports().clock.now()).await.unwrap());
    }
    world.clock.advance(24 * HOUR);
    let many = MANY as u64;
    let all = GarbageReport {
        dry_run: false,
        blobs_deleted: many,
        bytes_freed: 9 * many,
        memberships_reviewed: many,
        memberships_dropped: many,
        uploads_ended: 2 * many,
        objects_deleted: 2 * many,
    };
    assert_eq!(world.collect().await, all);
    world.assert_empty().await;
    assert!(world.moments.count(steps::GC_REVIEWED) >= 4, "in small transactions");
}

#[tokio::test]
async fn whole_batches_end_too() {
    let world = World::with(Settings { upload_idle: HOUR, ..Settings::default() }).await;
    for number in 0..100 {
        world.push("app", &format!("layer {number:03}")).await;
        let key = ObjectKey(format!("left/{number}"));
        assert!(world.metadata.doom_orphan(&key, world.services.ports().clock.now()).await.unwrap());
    }
    world.clock.advance(24 * HOUR);
    let report = world.collect().await;
    assert_eq!((report.blobs_deleted, report.objects_deleted, report.uploads_ended), (100, 200, 100));
    world.assert_empty().await;
}

#[tokio::test]
async fn a_candidate_that_came_back_into_use_is_left() {
    let world = World::new().await;
    let digest = world.push("app", "layer").await;
    let repository = world.repository("app").await;
    world.services.delete_blob(&repository, &digest).await.unwrap();
    world.push("app", "layer").await;
    assert_eq!(world.metadata.garbage_candidates(9).await.unwrap(), std::slice::from_ref(&digest));
    let report = world.collect().await;
    assert_eq!((report.blobs_deleted, report.objects_deleted), (0, 0));
    assert_eq!(world.blob("app", &digest).await.as_deref(), Some("layer"));
}

#[tokio::test]
async fn an_object_that_another_worker_is_deleting_is_left_to_it() {
    let world = World::new().await;
    world.push("app", "layer").await;
    let [key] = &world.objects().await[..] else { panic!("one object") };
    let claim = world.blobs.claim_deletion(key).await.unwrap().unwrap();
    let report = world.collect_after(Some(Duration::ZERO)).await;
    assert_eq!((report.blobs_deleted, report.objects_deleted), (1, 0));
    assert_eq!(world.objects().await, std::slice::from_ref(key));
    drop(claim);
    assert_eq!(world.collect().await.objects_deleted, 1, "what one that died began, the next one finishes");
    assert_eq!((world.objects().await, world.ledger().await), (vec![], vec![]));
}

/// In a bucket, nobody keeps two workers apart who look at the same key at the same moment.
#[tokio::test]
async fn an_object_that_two_delete_is_counted_once() {
    let world = World::new().await;
    world.push("app", "layer").await;
    let [key] = world.objects().await.try_into().unwrap();
    let metadata = world.metadata.clone();
    world.moments.at(steps::GC_OBJECT_DELETED, move || {
        assert!(at_once(metadata.clear_doomed(&key)).unwrap());
    });
    let report = world.collect_after(Some(Duration::ZERO)).await;
    assert_eq!((report.blobs_deleted, report.objects_deleted), (1, 0));
}

/// Wherever a worker begins, it comes to all that is doomed, in pages.
#[tokio::test]
async fn all_that_is_doomed_is_deleted_from_whichever_place() {
    let world = World::new().await;
    let now = world.services.ports().clock.now();
    for number in 0..450_u128 {
        // All over the range of random identities, and beyond it.
        let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
        let name = if number % 10 == 0 { format!("sha256/{random:032x}") } else { format!("{random:032x}/tail") };
        assert!(world.metadata.doom_orphan(&ObjectKey(name), now).await.unwrap());
    }
    assert_eq!(world.collect().await.objects_deleted, 450);
    assert_eq!(world.ledger().await, vec![]);
}

#[tokio::test]
async fn staged_bytes_of_no_session_are_removed() {
    let world = World::new().await;
    let lost = UploadId::from_random([7; 16]);
    let mut writer = world.blobs.append(lost, 0, &StagingState::default()).await.unwrap();
    writer.write(Bytes::from_static(b"abc")).await.unwrap();
    drop(writer);
    let sealed = crate::finishing::finalising(&world, "sealed").await;
    let report = world.collect().await;
    assert_eq!(report, GarbageReport::default());
    assert_eq!(world.blobs.list_staged().await.unwrap(), [sealed], "those of a session to be finished stay");
    world.finish(sealed, &sha256("sealed"), &mut *body(&[])).await.unwrap();
}

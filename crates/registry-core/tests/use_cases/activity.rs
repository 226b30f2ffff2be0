//! What a process counts for those who watch it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use registry_core::ports::clock::Clock;
use registry_core::ports::steps;
use registry_core::services::{ActivitySnapshot, CollectGarbage, GarbageReport, UploadError};

use crate::world::{World, body, cut, sha256};

impl World {
    fn activity(&self) -> ActivitySnapshot {
        self.services.activity().snapshot()
    }
}

#[tokio::test]
async fn uploads_are_counted_as_they_begin_and_by_how_they_end() {
    let world = World::new().await;
    assert_eq!(world.activity(), ActivitySnapshot::default());
    let session = world.start("app").await.id;
    let begun = ActivitySnapshot { uploads_begun: 1, ..ActivitySnapshot::default() };
    assert_eq!(world.activity(), begun);
    world.finish(session, &sha256("other"), &mut *body(&["bytes"])).await.unwrap_err();
    assert_eq!(world.activity(), ActivitySnapshot { uploads_refused: 1, ..begun });
    world.finish(session, &sha256("bytes"), &mut *body(&["bytes"])).await.unwrap();
    assert_eq!(world.activity(), ActivitySnapshot { uploads_refused: 1, uploads_committed: 1, ..begun });
    // In one request.
    world.push("app", "more bytes").await;
    let target = world.target("app").await;
    let refused = world.services.upload_blob(target, sha256("whole"), None, &mut *cut(&["who"])).await;
    assert!(matches!(refused, Err(UploadError::Body(_))), "{refused:?}");
    let all =
        ActivitySnapshot { uploads_begun: 3, uploads_committed: 2, uploads_refused: 2, ..ActivitySnapshot::default() };
    assert_eq!(world.activity(), all);
}

#[tokio::test]
async fn collections_are_counted_while_they_run_and_with_what_they_did() {
    let world = Arc::new(World::new().await);
    let pushed = ["1", "22"];
    for content in pushed {
        world.push("app", content).await;
    }
    let before = world.activity();
    let dry = CollectGarbage { grace: Some(Duration::ZERO), dry_run: true };
    world.services.collect_garbage(dry).await.unwrap();
    assert_eq!(world.activity(), before, "a dry run is no collection");

    let running = Arc::new(Mutex::new(None));
    let (seen, there) = (running.clone(), world.clone());
    world.moments.at(steps::GC_REVIEWED, move || {
        *seen.lock().unwrap() = Some(there.activity().collections_running);
        there.clock.advance(Duration::from_secs(3));
    });
    let all = CollectGarbage { grace: Some(Duration::ZERO), dry_run: false };
    let report = world.services.collect_garbage(all).await.unwrap();
    let did = GarbageReport {
        dry_run: false,
        blobs_deleted: 2,
        bytes_freed: 3,
        memberships_reviewed: 2,
        memberships_dropped: 2,
        uploads_ended: 0,
        objects_deleted: 2,
    };
    assert_eq!(report, did);
    assert_eq!(*running.lock().unwrap(), Some(1), "it is running");
    let after = ActivitySnapshot {
        collections_succeeded: 1,
        collected: did,
        last_success: Some(world.clock.now()),
        last_duration: Duration::from_secs(3),
        ..before
    };
    assert_eq!(world.activity(), after, "and runs no more");

    world.push("app", "333").await;
    world.clock.advance(Duration::from_secs(1));
    world.services.collect_garbage(all).await.unwrap();
    let collected = GarbageReport {
        blobs_deleted: 3,
        bytes_freed: 6,
        memberships_reviewed: 3,
        memberships_dropped: 3,
        objects_deleted: 3,
        ..did
    };
    let again = world.activity();
    assert_eq!((again.collections_succeeded, again.collected), (2, collected), "the sum of all");
    assert_eq!((again.last_success, again.last_duration), (Some(world.clock.now()), Duration::ZERO), "the last one");
}

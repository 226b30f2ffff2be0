//! What a look at the store may count as missing or unknown while others work and the store fails.

use std::sync::Arc;

use bytes::Bytes;
use registry_core::error::StoreErrorKind;
use registry_core::ports::blob_store::ObjectKey;
use registry_core::ports::clock::Clock;
use registry_core::ports::metadata::ObjectLedger;
use registry_core::services::StoreLikeness;

use crate::check_at_once::{failure, filled, with};

#[test]
fn a_store_that_lacks_up_to_half_or_no_more_than_two_is_likely_the_same() {
    for (least_unlikely, whole) in [(3, 2), (3, 3), (3, 4), (3, 5), (4, 6), (4, 7), (51, 100)] {
        for part in 0..=whole {
            let missing = StoreLikeness { wanted: whole, missing: part, ..StoreLikeness::default() };
            let unknown = StoreLikeness { stored: whole, unknown: part, ..StoreLikeness::default() };
            let expected = part < least_unlikely;
            assert_eq!((missing.is_likely(), unknown.is_likely()), (expected, expected), "{part} of {whole}");
        }
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_there_and_a_store_that_cannot_be_reached_says_nothing() {
    let (world, blobs) = filled(3).await;
    let of = |kind: StoreErrorKind| {
        let bad = blobs[1].0.clone();
        with(&world, move |key| {
            let fails = key == bad;
            async move { if fails { Err(failure(kind)) } else { Ok(()) } }
        })
    };
    let likeness = of(StoreErrorKind::Other).recognise_store(2).await.unwrap();
    assert_eq!(likeness, StoreLikeness { wanted: 3, missing: 0, stored: 3, unknown: 0 });
    let failed = of(StoreErrorKind::Unavailable).recognise_store(2).await;
    assert_eq!(failed.unwrap_err().kind, StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn what_is_collected_before_it_is_looked_for_is_not_missing() {
    for is_doomed_still in [false, true] {
        let (world, blobs) = filled(3).await;
        let (collected, world) = (blobs[1].0.clone(), Arc::new(world));
        let (collecting, wanted) = (Arc::clone(&world), collected.clone());
        let services = with(&world, move |key| {
            let (world, is_it) = (Arc::clone(&collecting), key == wanted);
            async move {
                if is_it {
                    let row = world.metadata.ledger_entry(&key).await?.unwrap();
                    world.metadata.forget_blob(&row, world.clock.now()).await?;
                    world.blobs.damage(&key, None);
                    if !is_doomed_still {
                        world.metadata.clear_doomed(&key).await?;
                    }
                }
                Ok(())
            }
        });
        let likeness = services.recognise_store(1).await.unwrap();
        assert_eq!(likeness, StoreLikeness { wanted: 3, missing: 0, stored: 2, unknown: 0 });
    }
}

#[tokio::test]
async fn what_goes_after_its_row_was_looked_for_is_not_unknown() {
    let (world, _) = filled(2).await;
    let orphan = |number: u8| ObjectKey(format!("zz/{number}"));
    for number in 0..2 {
        world.blobs.damage(&orphan(number), Some(Bytes::from_static(b"orphan")));
    }
    let (going, bytes) = (orphan(0), world.blobs.clone());
    let services = with(&world, move |key| {
        if key == going {
            bytes.damage(&key, None);
        }
        async { Ok(()) }
    });
    let likeness = services.recognise_store(2).await.unwrap();
    assert_eq!(likeness, StoreLikeness { wanted: 2, missing: 0, stored: 4, unknown: 1 });
}

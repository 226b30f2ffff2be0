//! How many batches may wait for the disk.
//!
//! What waits is memory, and it waits longest when many uploads come faster than the disk takes them. So the bound is
//! one over all writers of a store, and not one for each; but every writer has one slot that is its own, so that it
//! waits for its own bytes only, never for another's.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many slots all writers of a store share, beside the one that each has.
const SHARED: usize = 12;

/// The slots that the writers of one store share.
#[derive(Clone, Debug)]
pub(super) struct SharedSlots(Arc<Semaphore>);

impl Default for SharedSlots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SHARED)))
    }
}

impl SharedSlots {
    /// The slots of one more writer.
    pub(super) fn of_a_writer(&self) -> Slots {
        Slots { own: Arc::new(Semaphore::new(1)), shared: self.clone() }
    }
}

/// The slots that one writer may take.
#[derive(Debug)]
pub(super) struct Slots {
    own: Arc<Semaphore>,
    shared: SharedSlots,
}

/// The right of one batch to wait for the disk; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Slot(#[expect(dead_code, reason = "held for its end")] OwnedSemaphorePermit);

impl Slots {
    /// A slot, if there is a free one.
    pub(super) fn try_take(&self) -> Option<Slot> {
        let free = |slots: &Arc<Semaphore>| Arc::clone(slots).try_acquire_owned().ok();
        free(&self.own).or_else(|| free(&self.shared.0)).map(Slot)
    }

    /// A slot; waits for the writer's own where there is none. Dropping the future takes none.
    pub(super) async fn take(&self) -> Slot {
        if let Some(slot) = self.try_take() {
            return slot;
        }
        Slot(Arc::clone(&self.own).acquire_owned().await.expect("nobody closes the semaphore"))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn however_many_writers_there_are_each_has_one_slot_and_all_share_the_others() {
        let shared = SharedSlots::default();
        let first = shared.of_a_writer();
        let mut taken: Vec<_> = std::iter::from_fn(|| first.try_take()).collect();
        assert_eq!(taken.len(), SHARED + 1);

        let others: Vec<_> = (0..20).map(|_| shared.of_a_writer()).collect();
        let own: Vec<_> = others.iter().filter_map(Slots::try_take).collect();
        assert_eq!(own.len(), others.len());
        assert!(others.iter().all(|slots| slots.try_take().is_none()));

        taken.pop();
        assert!(others[0].try_take().is_some(), "what one writer gives back is there for another");
    }

    #[test]
    fn a_writer_that_has_to_wait_goes_on_when_its_own_batch_is_written() {
        let shared = SharedSlots::default();
        let hog = shared.of_a_writer();
        let _all: Vec<_> = std::iter::from_fn(|| hog.try_take()).collect();
        let slots = shared.of_a_writer();
        let own = slots.try_take().unwrap();

        let mut waiting = pin!(slots.take());
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        drop(own);
        assert!(matches!(waiting.as_mut().poll(&mut context), Poll::Ready(_)));
    }
}

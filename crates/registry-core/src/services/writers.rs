//! The writers of this process, so that a newer one need not wait for an older one's client.
//!
//! Only a shortcut: the epoch in the session's row and the store's own lock decide, on every replica alike.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::upload::{Epoch, UploadId};

type Entered = HashMap<UploadId, (Epoch, watch::Sender<bool>)>;

#[derive(Default)]
pub(super) struct Writers(Arc<Mutex<Entered>>);

/// A writer that has entered; it leaves when dropped.
pub(super) struct Writer {
    all: Arc<Mutex<Entered>>,
    id: UploadId,
    epoch: Epoch,
    overtaken: watch::Receiver<bool>,
}

impl Writers {
    /// Enters, and tells an older writer of the same upload in this process to stop.
    pub(super) fn enter(&self, id: UploadId, epoch: Epoch) -> Writer {
        let (sender, overtaken) = watch::channel(false);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(&id) {
            // A still newer one came in between: this one is overtaken already.
            Some((newer, _)) if *newer > epoch => {
                let _ = sender.send(true);
            }
            _ => {
                if let Some((_, older)) = all.insert(id, (epoch, sender)) {
                    let _ = older.send(true);
                }
            }
        }
        Writer { all: Arc::clone(&self.0), id, epoch, overtaken }
    }

    /// Tells the writer of an upload in this process to stop, if there is one.
    pub(super) fn stop(&self, id: UploadId) {
        if let Some((_, writer)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            let _ = writer.send(true);
        }
    }
}

impl Writer {
    /// Returns when a newer writer has entered; otherwise never.
    pub(super) async fn overtaken(&mut self) {
        // The sender is dropped only together with a newer one's entry or this one's leaving.
        let _ = self.overtaken.wait_for(|overtaken| *overtaken).await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(&self.id).is_some_and(|(epoch, _)| *epoch == self.epoch) {
            all.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_overtaken(writer: &mut Writer) -> bool {
        writer.overtaken().now_or_never().is_some()
    }

    #[test]
    fn the_newest_writer_goes_on_and_every_older_one_stops() {
        let (writers, id) = (Writers::default(), UploadId::from_random([1; 16]));
        let mut first = writers.enter(id, Epoch(1));
        assert!(!is_overtaken(&mut first));
        let mut third = writers.enter(id, Epoch(3));
        assert!(is_overtaken(&mut first));
        let mut second = writers.enter(id, Epoch(2));
        assert!(is_overtaken(&mut second), "who enters late is overtaken already");
        assert!(!is_overtaken(&mut third));
        let mut other = writers.enter(UploadId::from_random([2; 16]), Epoch(4));
        assert!(!is_overtaken(&mut third) && !is_overtaken(&mut other), "uploads do not disturb each other");
    }

    #[test]
    fn who_leaves_takes_its_own_entry_along_and_no_other() {
        let (writers, id) = (Writers::default(), UploadId::from_random([1; 16]));
        let first = writers.enter(id, Epoch(1));
        let mut second = writers.enter(id, Epoch(2));
        drop(first);
        assert!(!is_overtaken(&mut second), "who leaves does not stop the newer one");
        writers.stop(id);
        assert!(is_overtaken(&mut second), "the newer one can still be stopped");
        drop(second);
        assert!(writers.0.lock().unwrap().is_empty());
        writers.stop(id);
    }
}

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

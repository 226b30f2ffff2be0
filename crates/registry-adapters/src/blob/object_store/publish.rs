//! Making staged bytes an object.

use object_store::multipart::PartId;
use object_store::{ObjectStoreExt, PutPayload};
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::ports::blob_store::{ObjectKey, Published};
use registry_core::upload::UploadId;

use super::Inner;
use super::errors::{failure, is_absent, is_wrong_part};
use super::staged::{Multipart, Staged};

/// How often completing is tried when the store says that a part is another one. Two that publish at once both store the
/// tail as the last part, and a store may call the same bytes by a new name each time.
const ATTEMPTS: usize = 3;

impl Inner {
    /// Makes the staged bytes the object that they become. No bytes but those of the tail pass through here.
    pub(super) async fn publish(&self, id: UploadId, staged: &Staged) -> Result<Published, StoreError> {
        let Some(multipart) = &staged.multipart else { return self.publish_tail(id, staged).await };
        for _ in 0..ATTEMPTS {
            if let Some(published) = self.complete(id, staged, multipart).await? {
                return Ok(published);
            }
        }
        Ok(Published::Lost)
    }

    /// The tail is an object already, and has been where it is since before the checkpoint that names it.
    async fn publish_tail(&self, id: UploadId, staged: &Staged) -> Result<Published, StoreError> {
        let Some(tail) = &staged.tail else { return Ok(Published::Lost) };
        let key = staged.object(id);
        // This process was told that it is stored, a moment ago: it need not ask.
        let is_there = self.acknowledged().remove(&key) || self.size_of(&key).await? == Some(tail.size);
        Ok(if is_there { Published::Yes } else { Published::Lost })
    }

    /// Completes the multipart upload; `None` when a part of it is not the one that the checkpoint names.
    async fn complete(
        &self,
        id: UploadId,
        staged: &Staged,
        multipart: &Multipart,
    ) -> Result<Option<Published>, StoreError> {
        let mut parts: Vec<_> =
            staged.parts.iter().map(|content_id| PartId { content_id: content_id.clone() }).collect();
        if let Some(tail) = staged.tail.as_ref().filter(|tail| tail.size > 0) {
            let _room = self.room_for(tail.size).await;
            let Some(bytes) = self.read_tail(id, tail).await? else { return self.published_before(id, staged).await };
            match self.put_part(id, multipart, parts.len(), PutPayload::from(bytes)).await {
                Ok(part) => parts.push(part),
                Err(error) if error.kind == StoreErrorKind::Corrupt => return self.published_before(id, staged).await,
                Err(error) => return Err(error),
            }
        }
        let path = self.path(&staged.object(id))?;
        match self.backend.multipart.complete_multipart(&path, &multipart.id, parts).await {
            // Stores answer the same to a second completing, whichever parts the first one named.
            Ok(_) => self.unless_other_bytes_were_read(id, staged).await.map(Some),
            Err(error) if is_absent(&error) => self.published_before(id, staged).await,
            Err(error) if is_wrong_part(&error) => {
                // Unless another request has completed it meanwhile.
                let published = self.published_before(id, staged).await?;
                Ok(published.filter(|published| *published == Published::Yes))
            }
            Err(error) => Err(failure(format!("complete the upload {id}"))(error)),
        }
    }

    /// The multipart upload is gone: it was completed by an earlier call, whose answer was lost perhaps, or given up.
    async fn published_before(&self, id: UploadId, staged: &Staged) -> Result<Option<Published>, StoreError> {
        if self.size_of(&staged.object(id)).await? != Some(staged.size()) {
            return Ok(Some(Published::Lost));
        }
        self.unless_other_bytes_were_read(id, staged).await.map(Some)
    }

    /// Whether the object that is there has these bytes.
    ///
    /// What was completed after the session was sealed are the bytes of that one checkpoint. What was completed in
    /// order to be read may be those of another; then there is a mark, which is not that of these bytes.
    async fn unless_other_bytes_were_read(&self, id: UploadId, staged: &Staged) -> Result<Published, StoreError> {
        let (own, begins) = (staged.reading_mark(id), staged.reading_marks(id));
        let is_other = |key: &ObjectKey| key.as_str().starts_with(&begins) && *key != own;
        let others = self.upload_objects(id).await?.iter().any(is_other);
        Ok(if others { Published::Lost } else { Published::Yes })
    }

    /// Completes the multipart upload in order to read it, before anybody knows whether its bytes will be sealed.
    pub(super) async fn publish_to_read(&self, id: UploadId, staged: &Staged) -> Result<Published, StoreError> {
        let mark = staged.reading_mark(id);
        let put = self.backend.objects.put(&self.path(&mark)?, PutPayload::default()).await;
        put.map_err(failure(format!("mark that {} is read", staged.object(id))))?;
        self.publish(id, staged).await
    }
}

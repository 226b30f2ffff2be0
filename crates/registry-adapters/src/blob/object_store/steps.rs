//! Tells tests of the moments between the requests of a multipart upload.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartId, PutPayload, PutResult, Result};
use registry_core::ports::steps::{self, Steps};

use super::Backend;

impl Backend {
    /// The same, whose multipart uploads pass the moments [`steps::MULTIPART`].
    #[must_use]
    pub fn telling(self, steps: Arc<dyn Steps>) -> Self {
        Self { multipart: Arc::new(Telling { multipart: self.multipart, steps }), ..self }
    }
}

struct Telling {
    multipart: Arc<dyn MultipartStore>,
    steps: Arc<dyn Steps>,
}

#[async_trait]
impl MultipartStore for Telling {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.multipart.create_multipart(path).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, part_idx: usize, data: PutPayload) -> Result<PartId> {
        let part = self.multipart.put_part(path, id, part_idx, data).await?;
        self.steps.reached(steps::UPLOAD_PART_STORED);
        Ok(part)
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.steps.reached(steps::UPLOAD_PARTS_NAMED);
        self.multipart.complete_multipart(path, id, parts).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.multipart.abort_multipart(path, id).await
    }
}

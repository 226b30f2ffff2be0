//! Where long jobs stand, so that they resume.

use async_trait::async_trait;

use crate::error::StoreError;

/// Places of jobs.
#[async_trait]
pub trait JobStore: Send + Sync {
    /// What [`set_job_cursor`](Self::set_job_cursor) last stored for `job`.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn job_cursor(&self, job: &str) -> Result<Option<String>, StoreError>;

    /// Stores where `job` stands; `None` forgets it.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    async fn set_job_cursor(&self, job: &str, cursor: Option<&str>) -> Result<(), StoreError>;
}

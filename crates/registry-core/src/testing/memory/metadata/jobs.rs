//! Where long jobs stand.

use async_trait::async_trait;

use super::MemoryMetadata;
use crate::error::StoreError;
use crate::ports::metadata::JobStore;

#[async_trait]
impl JobStore for MemoryMetadata {
    async fn job_cursor(&self, job: &str) -> Result<Option<String>, StoreError> {
        Ok(self.state().job_cursors.get(job).cloned())
    }

    async fn set_job_cursor(&self, job: &str, cursor: Option<&str>) -> Result<(), StoreError> {
        let mut state = self.state();
        match cursor {
            Some(cursor) => state.job_cursors.insert(job.to_owned(), cursor.to_owned()),
            None => state.job_cursors.remove(job),
        };
        Ok(())
    }
}

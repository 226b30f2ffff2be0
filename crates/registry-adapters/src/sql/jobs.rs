//! Where long jobs stand.

use async_trait::async_trait;
use registry_core::error::StoreError;
use registry_core::ports::metadata::JobStore;

use super::SqlMetadata;
use super::database::Decision;
use super::statement::sql;

#[async_trait]
impl JobStore for SqlMetadata {
    async fn job_cursor(&self, job: &str) -> Result<Option<String>, StoreError> {
        let statement = sql("SELECT cursor FROM job_cursors WHERE job = $1").bind(job);
        self.database.fetch_optional("reading where a job stands", statement, |row| row.get("cursor")).await
    }

    async fn set_job_cursor(&self, job: &str, cursor: Option<&str>) -> Result<(), StoreError> {
        let input = (job.to_owned(), cursor.map(str::to_owned));
        self.database
            .write("storing where a job stands", input, |connection, (job, cursor)| {
                Box::pin(async move {
                    let statement = match cursor {
                        Some(cursor) => sql("INSERT INTO job_cursors (job, cursor) VALUES ($1, $2)
                             ON CONFLICT (job) DO UPDATE SET cursor = excluded.cursor")
                        .bind(job)
                        .bind(cursor),
                        None => sql("DELETE FROM job_cursors WHERE job = $1").bind(job),
                    };
                    connection.execute(statement).await?;
                    Ok(Decision::Commit(()))
                })
            })
            .await
    }
}

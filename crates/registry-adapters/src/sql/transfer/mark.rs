//! The mark of a transfer in its target: whose it is, and whether it is finished.

use registry_core::error::StoreError;

use super::TransferError;
use crate::sql::SqlMetadata;
use crate::sql::database::Decision;
use crate::sql::error::Result as SqlResult;
use crate::sql::statement::{Connection, on_postgres, sql};

/// The job whose cursor is the mark.
const JOB: &str = "migrate-storage";
const COPYING: &str = "copying";
const FINISHED: &str = "finished";

/// One run of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferMark {
    /// Which installation is carried over.
    pub installation: String,
    /// Which run this is; nobody else has it.
    pub run: String,
}

/// Why a target is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferRefusal {
    /// It holds something.
    #[error("the target database holds a registry of its own, or one that has served since its migration")]
    Occupied,
    /// It is the target of the migration of another installation.
    #[error("the target database holds a migration of another installation")]
    OtherInstallation,
}

impl TransferMark {
    fn cursor(&self) -> String {
        format!("{COPYING} {} {}", self.installation, self.run)
    }

    fn finished_cursor(&self) -> String {
        format!("{FINISHED} {}", self.installation)
    }

    /// Whether the target is this run's, and stays so until the intention ends.
    pub(super) async fn hold(&self, connection: &mut Connection) -> SqlResult<bool> {
        let find = on_postgres("SELECT cursor FROM job_cursors WHERE job = $1 FOR SHARE").bind(JOB);
        let row = connection.fetch_optional(find).await?;
        Ok(row.map(|row| row.get::<String>("cursor")).transpose()?.as_deref() == Some(&self.cursor()))
    }
}

async fn is_empty(connection: &mut Connection) -> SqlResult<bool> {
    // Every row of the other tables refers to one of these, or is left by one that did.
    let find = on_postgres(
        "SELECT 1 AS found WHERE EXISTS (SELECT 1 FROM registries) OR EXISTS (SELECT 1 FROM objects)
             OR EXISTS (SELECT 1 FROM tokens) OR EXISTS (SELECT 1 FROM uploads)",
    );
    Ok(connection.fetch_optional(find).await?.is_none())
}

async fn set(connection: &mut Connection, cursor: &str) -> SqlResult<()> {
    let set = sql("INSERT INTO job_cursors (job, cursor) VALUES ($1, $2)
         ON CONFLICT (job) DO UPDATE SET cursor = excluded.cursor");
    connection.execute(set.bind(JOB).bind(cursor)).await?;
    Ok(())
}

impl SqlMetadata {
    /// Takes this Postgres database as the target of a run: it is empty, or the target of the same installation that no
    /// server has used since. An earlier run can write no more.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn begin_transfer(&self, mark: &TransferMark) -> Result<Result<(), TransferRefusal>, StoreError> {
        self.require_postgres()?;
        self.database
            .write("beginning a migration", mark.clone(), |connection, mark| {
                Box::pin(async move {
                    // A server that starts makes its registries before, and is seen, or after, and sees the mark.
                    connection.lock(on_postgres("LOCK TABLE registries IN SHARE ROW EXCLUSIVE MODE")).await?;
                    let find = on_postgres("SELECT cursor FROM job_cursors WHERE job = $1 FOR UPDATE").bind(JOB);
                    let found = connection.fetch_optional(find).await?;
                    let found = found.map(|row| row.get::<String>("cursor")).transpose()?;
                    let refusal = match &found {
                        None => (!is_empty(connection).await?).then_some(TransferRefusal::Occupied),
                        Some(cursor) => {
                            let installation = cursor.split(' ').nth(1);
                            (installation != Some(&mark.installation)).then_some(TransferRefusal::OtherInstallation)
                        }
                    };
                    if let Some(refusal) = refusal {
                        return Ok(Decision::Rollback(Err(refusal)));
                    }
                    set(connection, &mark.cursor()).await?;
                    Ok(Decision::Commit(Ok(())))
                })
            })
            .await
    }

    /// Whether a run has ever begun here, and no server has used the result.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn is_transfer_target(&self) -> Result<bool, StoreError> {
        let find = sql("SELECT cursor FROM job_cursors WHERE job = $1").bind(JOB);
        Ok(self.database.fetch_optional("looking for a migration", find, |_| Ok(())).await?.is_some())
    }

    /// Gives a target back that nothing was carried over to.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn abandon_transfer(&self, mark: &TransferMark) -> Result<(), StoreError> {
        self.database
            .write("giving up a migration", mark.clone(), |connection, mark| {
                Box::pin(async move {
                    let end = sql("DELETE FROM job_cursors WHERE job = $1 AND cursor = $2");
                    connection.execute(end.bind(JOB).bind(mark.cursor())).await?;
                    Ok(Decision::Commit(()))
                })
            })
            .await
    }

    /// Releases the target: a server may use it.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn finish_transfer(&self, mark: &TransferMark) -> Result<(), TransferError> {
        let finished = self.database.write("finishing a migration", mark.clone(), |connection, mark| {
            Box::pin(async move {
                let change = sql("UPDATE job_cursors SET cursor = $3 WHERE job = $1 AND cursor = $2");
                let change = change.bind(JOB).bind(mark.cursor()).bind(mark.finished_cursor());
                Ok(Decision::Commit(connection.execute(change).await? > 0))
            })
        });
        if finished.await? { Ok(()) } else { Err(TransferError::Overtaken) }
    }

    /// Whether a server may use this database: it is not the target of an unfinished migration. With that a finished one
    /// ends; nothing can be carried over to here any more.
    ///
    /// # Errors
    /// [`StoreError`] when the store failed.
    pub async fn admit_server(&self) -> Result<bool, StoreError> {
        // Read first: nearly always there is nothing, and nothing is to be written.
        if !self.is_transfer_target().await? {
            return Ok(true);
        }
        self.database
            .write("ending a migration", (), |connection, ()| {
                Box::pin(async move {
                    let end = sql("DELETE FROM job_cursors WHERE job = $1 AND cursor LIKE $2");
                    connection.execute(end.bind(JOB).bind(format!("{FINISHED} %"))).await?;
                    let left = sql("SELECT cursor FROM job_cursors WHERE job = $1").bind(JOB);
                    Ok(Decision::Commit(connection.fetch_optional(left).await?.is_none()))
                })
            })
            .await
    }
}

//! Pulling a version into a file.
use std::path::Path;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use crate::partial::{Partial, discard_others, file_error, folder_of};
use crate::{Client, Error, FileInfo, Phase, Progress, Result};

/// How often a pull starts over, when the artifact changes meanwhile or what an earlier pull left turns out to be
/// damaged.
const STARTS: u32 = 3;

impl Client {
    /// Pulls `package` `version` into the file `output`, which appears, or is replaced, only when its bytes are
    /// complete, have the announced digest and are on disk.
    ///
    /// What was received is kept next to `output` in `<output>.sha256-<hex>.partial` if the pull fails or is killed,
    /// and the next one goes on from there.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`] if the server sent other bytes than it announced (nothing is kept then);
    /// [`Error::Busy`] if another pull writes to the same output; [`Error::File`]; else as every read.
    pub async fn pull_to_file(
        &self,
        package: &str,
        version: &str,
        output: &Path,
        progress: Arc<dyn Progress>,
    ) -> Result<FileInfo> {
        let folder = folder_of(output);
        tokio::fs::metadata(folder).await.map_err(|source| file_error("write to", folder, source))?;
        let mut start = 1;
        loop {
            let info = self.head(package, version).await?;
            let mut partial = Partial::open(output, &info.digest)?;
            let mut attempt = Attempt { client: self, package, version, info: &info, progress: &progress };
            match attempt.fill(&mut partial).await {
                Ok(()) => {
                    let target = output.to_owned();
                    blocking(move || partial.finish(&target).map(|()| discard_others(&target))).await?;
                    return Ok(info);
                }
                Err(Error::Changed { .. }) if start < STARTS => partial.discard(),
                Err(error @ Error::DigestMismatch { .. }) => {
                    partial.discard();
                    return Err(error);
                }
                Err(error) => {
                    partial.discard_if_empty();
                    return Err(error);
                }
            }
            start += 1;
        }
    }
}

/// One start of a pull.
struct Attempt<'a> {
    client: &'a Client,
    package: &'a str,
    version: &'a str,
    info: &'a FileInfo,
    progress: &'a Arc<dyn Progress>,
}

impl Attempt<'_> {
    /// Fills `partial` to the end with verified bytes. If what it held does not belong to the artifact, it is filled
    /// from the start.
    async fn fill(&mut self, partial: &mut Partial) -> Result<()> {
        let resumed = self.fill_the_rest(partial).await;
        match resumed {
            Err((Error::DigestMismatch { .. }, from)) if from > 0 => {
                partial.clear()?;
                self.fill_the_rest(partial).await.map_err(|(error, _)| error)
            }
            ended => ended.map_err(|(error, _)| error),
        }
    }

    /// An error comes with the position at which this try began.
    async fn fill_the_rest(&mut self, partial: &mut Partial) -> std::result::Result<(), (Error, u64)> {
        let clone =
            |partial: &Partial| partial.file.try_clone().map_err(|source| file_error("write", &partial.path, source));
        let (file, path) = (clone(partial).map_err(|error| (error, 0))?, partial.path.clone());
        let (size, progress) = (self.info.size, self.progress.clone());
        let mut reading = Partial { path: path.clone(), file };
        let hasher = blocking(move || reading.hash(size, &progress)).await.map_err(|error| (error, 0))?;
        let from = hasher.length();
        let at_start = |error| (error, from);

        self.progress.begin(Phase::Receiving, Some(size), from);
        // The clone shares the position, which is at the end now.
        let mut file = tokio::fs::File::from_std(clone(partial).map_err(at_start)?);
        let mut pull = self.client.resume_pull(self.package, self.version, self.info.clone(), hasher);
        let received = loop {
            match pull.next_chunk().await {
                Ok(Some(chunk)) => {
                    if let Err(source) = file.write_all(&chunk).await {
                        break Err(file_error("write", &path, source));
                    }
                    self.progress.advance(chunk.len() as u64);
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // What was received before an error is worth keeping, so it is written out too.
        let flushed = file.flush().await.map_err(|source| file_error("write", &path, source));
        received.and(flushed).map_err(at_start)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work on a local file does not panic")
}

//! `registry-cli pull`.
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use registry_client::{Client, Digest, FileInfo, Phase};
use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::progress::Watcher;

/// Pull a version of a package into a file
///
/// The file appears, or is replaced, only when all its bytes are there, have the right digest and are on disk. What an
/// interrupted pull received stays next to it, in FILE.sha256-DIGEST.partial, and the next pull goes on from there.
#[derive(Debug, Args)]
pub struct Pull {
    /// The package
    pub package: String,
    /// The version
    version: String,
    /// The file, a folder, or - for stdout [default: the file name that was pushed, in the current folder]
    ///
    /// In a folder the file gets the name that was pushed, and an existing one is not replaced. Bytes on stdout are
    /// passed on before they are verified: use them only if the command ends with 0.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Where the bytes go.
enum Target {
    /// A file that is replaced as a whole.
    File(PathBuf),
    /// A pipe or a device, written while the bytes arrive.
    Device(PathBuf),
    Stdout,
}

#[derive(Serialize)]
struct Pulled<'a> {
    package: &'a str,
    version: &'a str,
    digest: Digest,
    size: u64,
    content_type: Option<&'a str>,
    filename: Option<&'a str>,
    output: String,
}

impl Pull {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        if context.json() && self.output.as_deref() == Some(Path::new("-")) {
            return Err(Failure::Usage("--json and --output - would both write to stdout".to_owned()));
        }
        let client = context.client()?;
        let (info, output) = match self.target(&client).await? {
            Target::File(path) => {
                let watcher = Watcher::new();
                let pulled = client.pull_to_file(&self.package, &self.version, &path, watcher.progress()).await;
                drop(watcher);
                (pulled?, path)
            }
            Target::Device(path) => {
                let failed = |source| Failure::file("write", &path, source);
                let mut device = tokio::fs::OpenOptions::new().write(true).open(&path).await.map_err(failed)?;
                (self.stream(&client, &mut device, failed).await?, path)
            }
            Target::Stdout => {
                self.stream(&client, &mut tokio::io::stdout(), Failure::Output).await?;
                return Ok(());
            }
        };
        let pulled = Pulled {
            package: &self.package,
            version: &self.version,
            digest: info.digest,
            size: info.size,
            content_type: info.content_type.as_deref(),
            filename: info.filename.as_deref(),
            output: output.display().to_string(),
        };
        let sentence = format!(
            "Pulled {} {} into {}: {}, {}",
            self.package,
            self.version,
            output.display(),
            output::size(info.size),
            info.digest
        );
        output::result(context, &pulled, &sentence)
    }

    async fn target(&self, client: &Client) -> Result<Target, Failure> {
        let named = self.output.as_deref().unwrap_or(Path::new("."));
        if named == Path::new("-") {
            return Ok(Target::Stdout);
        }
        match fs::metadata(named) {
            // Behind a link the file itself is replaced, not the link.
            Ok(there) if there.is_file() => {
                Ok(Target::File(fs::canonicalize(named).map_err(|source| Failure::file("read", named, source))?))
            }
            Ok(there) if there.is_dir() => {
                let info = client.head(&self.package, &self.version).await?;
                let name = info.filename.as_deref().and_then(safe_name).ok_or_else(|| {
                    Failure::Usage(
                        "the file name that was pushed cannot be used here: name the file with --output".to_owned(),
                    )
                })?;
                let path = if self.output.is_some() { named.join(name) } else { PathBuf::from(name) };
                if fs::symlink_metadata(&path).is_ok() {
                    Err(Failure::OutputExists { path })
                } else {
                    Ok(Target::File(path))
                }
            }
            Ok(_) => Ok(Target::Device(named.to_owned())),
            Err(_) => Ok(Target::File(named.to_owned())),
        }
    }

    /// Passes the bytes on while they arrive. An error means that what was passed on must not be used.
    async fn stream(
        &self,
        client: &Client,
        output: &mut (impl AsyncWrite + Unpin),
        failed: impl Fn(std::io::Error) -> Failure,
    ) -> Result<FileInfo, Failure> {
        let mut pull = client.pull(&self.package, &self.version).await?;
        let watcher = Watcher::new();
        let progress = watcher.progress();
        progress.begin(Phase::Receiving, Some(pull.info().size), 0);
        while let Some(chunk) = pull.next_chunk().await.map_err(Failure::from)? {
            output.write_all(&chunk).await.map_err(&failed)?;
            progress.advance(chunk.len() as u64);
        }
        output.flush().await.map_err(&failed)?;
        Ok(pull.info().clone())
    }
}

/// The last part of a file name that somebody else chose, if it harms nothing as a name here: no way out of the folder,
/// no hidden file, nothing that a terminal obeys.
fn safe_name(name: &str) -> Option<&str> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let harmless =
        !last.is_empty() && last.len() <= 150 && !last.starts_with(['.', '-']) && !last.contains(char::is_control);
    harmless.then_some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushed_name_cannot_leave_the_folder() {
        for (name, safe) in [
            ("f.bin", Some("f.bin")),
            ("../../etc/passwd", Some("passwd")),
            ("C:\\x\\y.exe", Some("y.exe")),
            ("a b é", Some("a b é")),
            ("..", None),
            (".bashrc", None),
            ("-rf", None),
            ("dir/", None),
            ("", None),
            ("a\u{1b}b", None),
            (&"n".repeat(151), None),
        ] {
            assert_eq!(safe_name(name), safe, "{name:?}");
        }
    }
}

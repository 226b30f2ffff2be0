//! `registry-cli push`.
use std::path::PathBuf;

use clap::Args;
use registry_client::Upload;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, printable};
use crate::progress::Watcher;

/// Push a file as a version of a package
///
/// The server checks the bytes against the digest that is computed here before anything is sent. A version is never
/// overwritten. After a broken connection the file is sent again by itself.
#[derive(Debug, Args)]
pub struct Push {
    /// The package
    pub package: String,
    /// The version, such as 1.0.0
    version: String,
    /// The file, or - for stdin, which cannot be sent again
    file: PathBuf,
    /// The file name that a download gets [default: the file's own]
    #[arg(long, value_name = "NAME")]
    filename: Option<String>,
    /// The media type that a download gets [default: application/octet-stream]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
}

impl Push {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        let mut upload = if self.file.as_os_str() == "-" {
            Upload::from_reader(tokio::io::stdin())
        } else {
            Upload::from_path(&self.file).await?
        };
        if let Some(filename) = &self.filename {
            upload = upload.filename(filename);
        }
        if let Some(content_type) = &self.content_type {
            upload = upload.content_type(content_type);
        }
        let client = context.client()?;
        let watcher = Watcher::new();
        let pushed = client.push(&self.package, &self.version, upload, watcher.progress()).await;
        drop(watcher);
        let artifact = pushed?;
        let (package, version) = (printable(&artifact.package), printable(&artifact.version));
        let sentence = format!("Pushed {package} {version}: {}, {}", output::size(artifact.size), artifact.digest);
        output::result(context, &artifact, &sentence)
    }
}

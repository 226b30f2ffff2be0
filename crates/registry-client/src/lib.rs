//! A typed client of Foundry's `/api/v1`: generic artifacts, packages, garbage collection and tokens.
//!
//! ```no_run
//! # async fn example() -> registry_client::Result<()> {
//! use registry_client::{Client, ServerUrl, Token, Upload, silent};
//!
//! let server: ServerUrl = "http://localhost:8080".parse()?;
//! let client = Client::builder(server).token(Token::new("the token")?).build()?;
//! let artifact = client.push("mypkg", "1.0.0", Upload::from_path("./f").await?, silent()).await?;
//! client.pull_to_file("mypkg", "1.0.0", "./copy".as_ref(), silent()).await?;
//! # Ok(()) }
//! ```
//!
//! What holds for every call:
//!
//! - **Bytes are verified.** A pull answers success only if the bytes have the digest that the server announced; a push
//!   only if the server stored the digest of what was read here.
//! - **Transfers stream.** Memory does not grow with the size of an artifact.
//! - **Only what is safe is retried.** Reads are; a push is when the digest proves which bytes the server holds
//!   afterwards; deleting, collecting garbage, and making and revoking tokens are not. A server that refuses the first
//!   connection is not waited for.
//! - **Time is bounded by silence, not by size.** Connecting may take 10 s and a connection may be silent for 60 s,
//!   however long the whole takes. See [`Timeouts`].
//! - **The token stays here.** It goes to the configured server alone: redirects are not followed, and neither errors
//!   nor `Debug` show it.
#![forbid(unsafe_code)]

mod artifacts;
mod client;
mod content_disposition;
mod digest;
mod error;
mod gc;
mod packages;
mod paging;
mod partial;
mod progress;
mod pull;
mod pull_to_file;
mod push;
mod server_url;
mod tls;
mod token;
mod tokens;
mod transport;
mod upload;

pub use artifacts::{Artifact, FileInfo};
pub use client::{Client, ClientBuilder, Timeouts};
pub use digest::{Digest, Hasher, InvalidDigest};
pub use error::{Error, Refusal, RefusalKind, Result, UnreachableReason};
pub use gc::{GcOptions, GcReport};
pub use packages::{PackageQuery, PackageSummary};
pub use paging::Page;
pub use progress::{Phase, Progress, silent};
pub use pull::Pull;
pub use server_url::{DEFAULT_SERVER, ServerUrl};
pub use token::Token;
pub use tokens::{CreatedToken, NewToken, TokenInfo, token_id};
pub use upload::Upload;

//! `registry-cli login`.
use std::io::{self, IsTerminal, Read};

use clap::Args;
use registry_client::{Error, PackageQuery, RefusalKind, Token};
use serde_json::json;

use crate::context::Context;
use crate::credentials;
use crate::failure::Failure;
use crate::output;

/// Save a token for a server
///
/// The token is asked for without showing it, or read from stdin with --token-stdin, or taken from REGISTRY_TOKEN or
/// --token. It is tried, and then saved in a file that only you can read. The server becomes the default one.
#[derive(Debug, Args)]
pub struct Login {
    /// Read the token from stdin
    #[arg(long)]
    token_stdin: bool,
}

impl Login {
    pub async fn run(&self, context: &Context) -> Result<(), Failure> {
        let server = context.server()?;
        let token = self.token(context, &server.to_string()).await?;
        let client = context.client_of(server.clone(), Some(token.clone()))?;
        let query = PackageQuery { page_size: Some(1), ..PackageQuery::default() };
        match client.packages_page(&query, None).await {
            Ok(_) => {}
            // The token is good; it just may not list.
            Err(Error::Refused(refusal)) if refusal.kind() == RefusalKind::Forbidden => {}
            Err(error) => return Err(error.into()),
        }
        if !server.is_https() && !server.is_loopback() {
            output::warn(&format!("{server} is not encrypted: everybody on the way can read the token"));
        }
        let path = credentials::save(&server, &token)?;
        let document = json!({ "server": server.to_string(), "file": path.display().to_string() });
        output::result(context, &document, &format!("Logged in to {server}; the token is saved in {}", path.display()))
    }

    async fn token(&self, context: &Context, server: &str) -> Result<Token, Failure> {
        if self.token_stdin {
            return read_token(|| {
                let mut text = String::new();
                io::stdin().read_to_string(&mut text).map(|_| text)
            })
            .await;
        }
        if let Some(token) = context.given_token()? {
            return Ok(token);
        }
        if !io::stdin().is_terminal() {
            let text = "there is no token: set REGISTRY_TOKEN, or pipe the token into login --token-stdin";
            return Err(Failure::Usage(text.to_owned()));
        }
        let _echo = Echo::remember();
        eprint!("Token for {server}: ");
        read_token(|| console::Term::stderr().read_secure_line()).await
    }
}

/// Whether the terminal shows what is typed: an interrupt, while it does not, must not leave it so.
struct Echo {
    #[cfg(unix)]
    modes: Option<rustix::termios::Termios>,
}

impl Echo {
    fn remember() -> Self {
        Self {
            #[cfg(unix)]
            modes: rustix::termios::tcgetattr(io::stdin()).ok(),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(modes) = &self.modes {
            use rustix::termios::{OptionalActions, tcsetattr};
            // Where there is no terminal any more, there is nothing to restore.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, modes);
        }
    }
}

/// Reads the token on a thread of its own, so that an interrupt is heard meanwhile.
async fn read_token(read: impl FnOnce() -> io::Result<String> + Send + 'static) -> Result<Token, Failure> {
    let text = tokio::task::spawn_blocking(read).await.expect("reading a line does not panic");
    let text = text.map_err(|source| Failure::file("read", "stdin".as_ref(), source))?;
    Ok(Token::new(&text)?)
}

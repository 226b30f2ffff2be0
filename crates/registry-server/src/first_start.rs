//! The administrator's token that a server makes when it is given none.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use registry_core::permission::Scope;
use registry_core::services::{NewToken, Services, TokenRefusal};
use registry_core::token::{TokenId, TokenSecret};

use crate::data_folder::{self, DataFolderError};

/// The file below the data folder that keeps the token.
pub const TOKEN_FILE: &str = "admin-token";
/// What logs call it.
const TOKEN_NAME: &str = "admin";

/// The token cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FirstStartError {
    /// Its file cannot be written.
    #[error(transparent)]
    File(#[from] DataFolderError),
    /// The store did not take it.
    #[error("cannot make the administrator's token: {0}")]
    Token(#[from] TokenRefusal),
}

/// What became of the token's file.
#[derive(Debug)]
pub enum AdminToken {
    /// It was made now.
    Made(TokenSecret),
    /// There is one, and it opens the server.
    Kept,
    /// There is one that opens nothing: it was revoked, or belongs to other metadata.
    Stale,
}

/// Makes the token, unless its file is there. The store gets its hash, the file (mode 0600) the token itself.
///
/// When several processes start on one folder at once, each makes a token, one writes the file, and the others remove
/// theirs from the store again. A crash in between leaves the hash of a token that nobody knows.
///
/// # Errors
/// [`FirstStartError`].
pub async fn ensure_admin_token(services: &Services, file: &Path) -> Result<AdminToken, FirstStartError> {
    match std::fs::read_to_string(file) {
        Ok(text) => return Ok(if opens(services, text.trim()).await? { AdminToken::Kept } else { AdminToken::Stale }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(DataFolderError::new("read", file, error).into()),
    }
    let new = NewToken { name: TOKEN_NAME.to_owned(), scopes: vec![Scope::everything()], lifetime: None };
    let (record, secret) = services.create_token(new).await?;
    match data_folder::write_secret_once(file, &format!("{}\n", secret.reveal())) {
        Ok(true) => Ok(AdminToken::Made(secret)),
        Ok(false) => {
            forget(services, &record.id).await?;
            Ok(AdminToken::Kept)
        }
        Err(error) => {
            forget(services, &record.id).await?;
            Err(error.into())
        }
    }
}

async fn opens(services: &Services, text: &str) -> Result<bool, FirstStartError> {
    let secret = TokenSecret::presented(text);
    let Some(id) = secret.id() else { return Ok(false) };
    let record = services.ports().metadata.find_token(&id).await.map_err(TokenRefusal::Store)?;
    Ok(record.is_some_and(|record| record.hash.matches(&secret.hash())))
}

async fn forget(services: &Services, id: &TokenId) -> Result<(), FirstStartError> {
    services.revoke_token(id).await.map_err(TokenRefusal::Store)?;
    Ok(())
}

/// How clients on this machine reach the server.
#[derive(Clone, Debug)]
pub struct Reachable {
    /// The public URL, where one is configured.
    pub base_url: Option<String>,
    /// The address that is listened on.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
}

impl Reachable {
    /// The URL to give to clients.
    pub fn url(&self) -> String {
        if let Some(url) = &self.base_url {
            return url.clone();
        }
        format!("{}://{}", if self.tls { "https" } else { "http" }, loopback(self.address))
    }

    /// What docker calls the server: the URL without its scheme.
    pub fn host(&self) -> String {
        let url = self.url();
        url.split_once("://").map_or(url.clone(), |(_, rest)| rest.to_owned())
    }
}

/// An address to connect to: that of this machine, where all addresses are listened on.
pub fn loopback(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let ip = if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
    SocketAddr::new(ip, address.port())
}

/// Shows the token, once, with lines to paste. Standard output, which is not the log.
///
/// # Errors
/// What the writer says.
pub fn show(mut output: impl Write, secret: &TokenSecret, file: &Path, server: &Reachable) -> std::io::Result<()> {
    let file = shell_word(&absolute(file));
    let (url, host) = (server.url(), server.host());
    write!(
        output,
        "This is a new registry. Its administrator's token, shown once and kept in {file}:\n\n    {token}\n\n\
         To use it:\n\n    \
         docker login {host} -u admin --password-stdin < {file}\n    \
         curl -H \"Authorization: Bearer $(cat {file})\" {url}/api/v1/packages\n    \
         registry-cli login --server {url} --token-stdin < {file}\n\n",
        token = secret.reveal(),
    )?;
    output.flush()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A path that a shell reads as one word.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+,:=@%".contains(&byte));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reachable(address: &str, base_url: Option<&str>, tls: bool) -> Reachable {
        Reachable { base_url: base_url.map(str::to_owned), address: address.parse().unwrap(), tls }
    }

    #[test]
    fn clients_get_an_address_that_they_can_reach() {
        for (server, url) in [
            (reachable("127.0.0.1:8080", None, false), "http://127.0.0.1:8080"),
            (reachable("0.0.0.0:80", None, true), "https://127.0.0.1:80"),
            (reachable("[::]:8080", None, false), "http://[::1]:8080"),
            (reachable("10.0.0.7:8080", None, false), "http://10.0.0.7:8080"),
            (reachable("0.0.0.0:80", Some("https://r.example"), false), "https://r.example"),
        ] {
            assert_eq!(server.url(), url);
            assert_eq!(server.host(), url.split_once("://").unwrap().1);
        }
    }

    #[test]
    fn the_lines_can_be_pasted() {
        let mut output = Vec::new();
        let server = reachable("127.0.0.1:8080", None, false);
        show(&mut output, &TokenSecret::presented("fdy_x"), Path::new("/srv/my data/admin-token"), &server).unwrap();
        let text = String::from_utf8(output).unwrap();
        assert_eq!(text.matches("fdy_x").count(), 1);
        for line in [
            "    docker login 127.0.0.1:8080 -u admin --password-stdin < '/srv/my data/admin-token'\n",
            "    curl -H \"Authorization: Bearer $(cat '/srv/my data/admin-token')\" http://127.0.0.1:8080/api/v1/packages\n",
            "    registry-cli login --server http://127.0.0.1:8080 --token-stdin < '/srv/my data/admin-token'\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(shell_word(Path::new("/a/b-c")), "/a/b-c");
        assert_eq!(shell_word(Path::new("/a'b $c")), r"'/a'\''b $c'");
    }
}

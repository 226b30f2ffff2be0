//! What `login` saved: a token for each server, in a file that only its owner can read.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use registry_client::{ServerUrl, Token};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::output;

/// The saved tokens. A token is only ever used for the server it was saved for.
#[derive(Default, Serialize, Deserialize)]
pub struct Credentials {
    /// The server of the last login.
    #[serde(default)]
    last_server: Option<String>,
    #[serde(default)]
    servers: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    token: String,
}

/// `registry-cli/credentials.json` below `XDG_CONFIG_HOME`, or below `~/.config` if that is unset or, as the XDG base
/// directory specification says, not absolute.
pub fn path() -> Result<PathBuf, Failure> {
    path_below(std::env::var_os("XDG_CONFIG_HOME"), std::env::var_os("HOME")).ok_or_else(|| {
        Failure::Usage(
            "there is no place to keep credentials: set HOME or XDG_CONFIG_HOME, or give the token each time".into(),
        )
    })
}

fn path_below(config_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |text: OsString| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
    let below = config_home.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".config")))?;
    Some(below.join("registry-cli").join("credentials.json"))
}

impl Credentials {
    /// What was saved; nothing if there is no file, or no place for one.
    pub fn load() -> Result<Self, Failure> {
        match path() {
            Ok(path) => Self::load_from(&path),
            Err(_) => Ok(Self::default()),
        }
    }

    fn load_from(path: &Path) -> Result<Self, Failure> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(source) => return Err(Failure::file("read", path, source)),
        };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0) {
                output::warn(&format!("others can read {}; run: chmod 600 {0}", path.display()));
            }
        }
        serde_json::from_slice(&text).map_err(|_| Failure::DamagedCredentials { path: path.to_owned() })
    }

    pub fn last_server(&self) -> Option<ServerUrl> {
        self.last_server.as_deref().and_then(|text| text.parse().ok())
    }

    pub fn token(&self, server: &ServerUrl) -> Result<Option<Token>, Failure> {
        Ok(self.servers.get(&server.to_string()).map(|entry| Token::new(&entry.token)).transpose()?)
    }
}

/// Saves `token` for `server`, which becomes the default server.
pub fn save(server: &ServerUrl, token: &Token) -> Result<PathBuf, Failure> {
    let path = path()?;
    update(&path, |credentials| {
        credentials.last_server = Some(server.to_string());
        credentials.servers.insert(server.to_string(), Entry { token: token.reveal().to_owned() });
    })?;
    Ok(path)
}

/// Forgets the token of `server`, or of every server, and returns whose tokens were forgotten.
pub fn forget(server: Option<&ServerUrl>) -> Result<Vec<String>, Failure> {
    let path = path()?;
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut forgotten = Vec::new();
    update(&path, |credentials| {
        let (out, kept) = std::mem::take(&mut credentials.servers)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(name, _)| server.is_none_or(|server| *name == server.to_string()));
        credentials.servers = kept;
        forgotten = out.into_keys().collect();
        if server.is_none() || credentials.last_server.as_ref().is_some_and(|last| forgotten.contains(last)) {
            credentials.last_server = None;
        }
    })?;
    Ok(forgotten)
}

/// Changes the file at `path`. Two at once wait for each other, and a reader sees the old file or the new one: it is
/// written under another name, with mode 0600 from its first byte, and renamed.
fn update(path: &Path, change: impl FnOnce(&mut Credentials)) -> Result<(), Failure> {
    let folder = path.parent().expect("the path was made of several names");
    let failed = |source| Failure::file("write", path, source);
    create_private_folder(folder).map_err(failed)?;
    let lock = File::create(folder.join("credentials.lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;

    let mut credentials = Credentials::load_from(path)?;
    change(&mut credentials);
    // A temporary file of this crate is created exclusively and with mode 0600.
    let mut file = tempfile::Builder::new().prefix(".credentials").tempfile_in(folder).map_err(failed)?;
    let text = serde_json::to_vec_pretty(&credentials).expect("text and maps of text serialise");
    file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

fn create_private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_lies_below_the_configuration_folder() {
        let below = |config: Option<&str>, home: Option<&str>| path_below(config.map(Into::into), home.map(Into::into));
        assert_eq!(below(Some("/c"), Some("/h")), Some("/c/registry-cli/credentials.json".into()));
        assert_eq!(below(None, Some("/h")), Some("/h/.config/registry-cli/credentials.json".into()));
        assert_eq!(below(Some("relative"), Some("/h")), Some("/h/.config/registry-cli/credentials.json".into()));
        assert_eq!(below(Some(""), None), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners_alone_and_replaces_an_open_one() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry-cli/credentials.json");
        fs::create_dir(path.parent().expect("it has one")).expect("made");
        fs::write(&path, "{}").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        update(&path, |credentials| credentials.last_server = Some("http://h".into())).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let names: Vec<_> = fs::read_dir(path.parent().expect("it has one")).expect("there").flatten().collect();
        assert_eq!(names.len(), 2, "the file and the lock, nothing temporary: {names:?}");
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("credentials.json");
        fs::write(&path, "{").expect("written");
        assert!(matches!(Credentials::load_from(&path), Err(Failure::DamagedCredentials { .. })));
        assert!(update(&path, |_| {}).is_err());
        assert_eq!(fs::read(&path).expect("there"), b"{", "it is not overwritten");
    }
}

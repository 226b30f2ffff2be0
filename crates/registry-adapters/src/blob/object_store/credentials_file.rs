//! Keys from the file that AWS' own tools share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

/// A profile of a shared credentials file. Whoever replaces the file replaces the keys of this process too.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    path: PathBuf,
    profile: String,
    last: Mutex<Option<(SystemTime, Arc<AwsCredential>)>>,
}

impl CredentialsFile {
    /// The file and profile that the environment says; `None` when that file has no keys in that profile.
    pub(super) fn find(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let path = match variable("AWS_SHARED_CREDENTIALS_FILE") {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(variable("HOME")?).join(".aws/credentials"),
        };
        let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        let file = Self { path, profile, last: Mutex::default() };
        file.read().ok().map(|_| file)
    }

    fn read(&self) -> Result<Arc<AwsCredential>, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.path.display());
        let modified = std::fs::metadata(&self.path).and_then(|metadata| metadata.modified()).map_err(failed)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, credential)) = last.as_ref().filter(|(at, _)| *at == modified) {
            return Ok(Arc::clone(credential));
        }
        let text = std::fs::read_to_string(&self.path).map_err(failed)?;
        let credential = parse(&text, &self.profile)
            .ok_or_else(|| format!("{}: the profile {} has no keys", self.path.display(), self.profile))?;
        let credential = Arc::new(credential);
        *last = Some((modified, Arc::clone(&credential)));
        Ok(credential)
    }
}

#[async_trait]
impl CredentialProvider for CredentialsFile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        // A file of a few lines, most often not even opened: no thread of its own.
        self.read().map_err(|error| object_store::Error::Generic { store: "S3", source: error.into() })
    }
}

/// The keys of a profile.
fn parse(text: &str, profile: &str) -> Option<AwsCredential> {
    let (mut is_ours, mut key_id, mut secret_key, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_ours = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| is_ours && !line.starts_with('#')) {
            let value = value.trim().to_owned();
            match name.trim() {
                "aws_access_key_id" => key_id = Some(value),
                "aws_secret_access_key" => secret_key = Some(value),
                "aws_session_token" => token = Some(value),
                _ => {}
            }
        }
    }
    Some(AwsCredential { key_id: key_id?, secret_key: secret_key?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n[default]\naws_access_key_id = ID1\n#aws_access_key_id = NO\naws_secret_access_key=S=1\n\n\
                        [ other ]\naws_secret_access_key = S2\naws_access_key_id=ID2\naws_session_token = T2\nregion = x\n\
                        [half]\naws_access_key_id = ID3\n";

    #[test]
    fn each_profile_has_its_own_keys() {
        let keys = |profile| parse(TEXT, profile).map(|keys| (keys.key_id, keys.secret_key, keys.token));
        assert_eq!(keys("default"), Some(("ID1".into(), "S=1".into(), None)));
        assert_eq!(keys("other"), Some(("ID2".into(), "S2".into(), Some("T2".into()))));
        assert_eq!((keys("half"), keys("absent")), (None, None));
    }

    #[tokio::test]
    async fn the_environment_says_which_file_and_a_new_one_is_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".aws/credentials");
        let home = folder.path().to_str().unwrap().to_owned();
        let variable = |name: &str| (name == "HOME").then(|| home.clone());
        assert!(CredentialsFile::find(variable).is_none());
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, TEXT).unwrap();
        let file = CredentialsFile::find(variable).unwrap();
        assert_eq!(file.get_credential().await.unwrap().key_id, "ID1");
        std::fs::write(&path, TEXT.replace("ID1", "ID9")).unwrap();
        let later = std::fs::metadata(&path).unwrap().modified().unwrap() + std::time::Duration::from_secs(9);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(file.get_credential().await.unwrap().key_id, "ID9");

        let elsewhere = folder.path().join("elsewhere");
        std::fs::write(&elsewhere, TEXT).unwrap();
        let variable = |name: &str| match name {
            "AWS_SHARED_CREDENTIALS_FILE" => Some(elsewhere.to_str().unwrap().to_owned()),
            "AWS_PROFILE" => Some("other".to_owned()),
            _ => None,
        };
        assert_eq!(CredentialsFile::find(variable).unwrap().get_credential().await.unwrap().key_id, "ID2");
    }
}

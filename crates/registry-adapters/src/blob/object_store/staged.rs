//! What a session's row remembers of staged bytes, and the names that an upload's objects have.
//!
//! Every object of an upload is called `<upload>/<name>`. The full parts go to a multipart upload, which becomes an object
//! with a name of its own; the rest that is shorter than a part is an object with a name of its own for each checkpoint.
//! So whatever another writer of the same upload stores or completes, it is never in the place of these bytes.

use registry_core::digest::Digest;
use registry_core::error::StoreError;
use registry_core::ports::blob_store::ObjectKey;
use registry_core::upload::{StagingState, UploadId};
use serde::{Deserialize, Serialize};

/// The name of what has no bytes staged; there is no such object.
const NOTHING: &str = "nothing";

/// How the names of marks begin; those of tails and multipart uploads are hexadecimal.
const READING_MARK: char = 'r';

/// The version of this document that is written; others are refused.
const VERSION: u32 = 2;

/// Staged bytes: the full parts, then the tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Staged {
    #[serde(rename = "v")]
    version: u32,
    /// The length in bytes of every part; it stays that of the first one, whatever the configuration says later.
    pub(super) part_bytes: u64,
    /// Where the full parts go; there from the first of them on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) multipart: Option<Multipart>,
    /// The store's names for the parts, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<String>,
    /// The bytes after the last full part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tail: Option<Tail>,
    /// The names of earlier tails that the writer of this one began with or made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) superseded: Vec<String>,
}

/// A multipart upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Multipart {
    /// The name of the object that it becomes, which no other ever has.
    pub(super) name: String,
    /// What the store calls it.
    pub(super) id: String,
}

/// An object of bytes that are fewer than a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tail {
    /// Its name, which no other object ever has.
    pub(super) name: String,
    /// Its length in bytes.
    pub(super) size: u64,
}

impl Staged {
    /// Nothing yet, to be cut into parts of that length.
    pub(super) fn nothing(part_bytes: u64) -> Self {
        let (multipart, parts, tail, superseded) = Default::default();
        Self { version: VERSION, part_bytes, multipart, parts, tail, superseded }
    }

    /// As a session's row has it; an empty one is nothing yet.
    ///
    /// # Errors
    /// When another version wrote it, or it is damaged.
    pub(super) fn read(state: &StagingState, part_bytes: u64) -> Result<Self, StoreError> {
        if state.0.is_empty() {
            return Ok(Self::nothing(part_bytes));
        }
        let damaged = |why: String| StoreError::corrupt(format!("the state of staged bytes cannot be used: {why}"));
        let staged: Self = serde_json::from_str(&state.0).map_err(|error| damaged(error.to_string()))?;
        if staged.version != VERSION {
            return Err(damaged(format!("its version is {}", staged.version)));
        }
        if staged.part_bytes == 0 || staged.multipart.is_some() == staged.parts.is_empty() {
            return Err(damaged("its parts contradict each other".into()));
        }
        Ok(staged)
    }

    /// As a session's row keeps it.
    pub(super) fn write(&self) -> StagingState {
        StagingState(serde_json::to_string(self).expect("numbers and texts are a document"))
    }

    /// How many bytes are staged.
    pub(super) fn size(&self) -> u64 {
        let tail = self.tail.as_ref().map_or(0, |tail| tail.size);
        (self.parts.len() as u64).saturating_mul(self.part_bytes).saturating_add(tail)
    }

    /// The key of the object that these bytes become: that of the parts, or else the tail's, where it lies already.
    pub(super) fn object(&self, id: UploadId) -> ObjectKey {
        match (&self.multipart, &self.tail) {
            (Some(multipart), _) => key(id, &multipart.name),
            (None, Some(tail)) => key(id, &tail.name),
            (None, None) => nothing(id),
        }
    }

    /// The key of the mark that these very bytes were completed in order to be read, before any were sealed. It begins
    /// as all [marks](Self::reading_marks) of this multipart upload do.
    pub(super) fn reading_mark(&self, id: UploadId) -> ObjectKey {
        let bytes = (&self.parts, &self.tail);
        let digest = Digest::sha256(&serde_json::to_vec(&bytes).expect("numbers and texts are a document"));
        ObjectKey(format!("{}{}", self.reading_marks(id), &digest.encoded()[..32]))
    }

    /// How the keys begin that mark a reading of what this multipart upload became.
    pub(super) fn reading_marks(&self, id: UploadId) -> String {
        let name = self.multipart.as_ref().map_or(NOTHING, |multipart| &multipart.name);
        key(id, &format!("{READING_MARK}{name}")).0
    }

    /// The keys of earlier tails.
    pub(super) fn superseded(&self, id: UploadId) -> impl Iterator<Item = ObjectKey> {
        self.superseded.iter().map(move |name| key(id, name))
    }
}

/// The key of an upload's object.
pub(super) fn key(id: UploadId, name: &str) -> ObjectKey {
    ObjectKey(format!("{id}/{name}"))
}

/// The key of no object.
pub(super) fn nothing(id: UploadId) -> ObjectKey {
    key(id, NOTHING)
}

/// The upload that a key belongs to; `None` when it is no key of ours.
pub(super) fn upload_of(key: &str) -> Option<UploadId> {
    let (id, name) = key.split_once('/')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let upload: UploadId = id.parse().ok()?;
    // Identities have other spellings, which are not ours.
    (is_name && upload.to_string() == id).then_some(upload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(parts: usize, tail: Option<u64>) -> Staged {
        Staged {
            multipart: (parts > 0).then(|| Multipart { name: "0c".into(), id: "m".into() }),
            parts: vec!["\"e\"".to_owned(); parts],
            tail: tail.map(|size| Tail { name: "0a".into(), size }),
            ..Staged::nothing(10)
        }
    }

    #[test]
    fn a_state_reads_back() {
        for (parts, tail) in [(0, None), (0, Some(3)), (2, None), (2, Some(9))] {
            let staged = staged(parts, tail);
            assert_eq!(Staged::read(&staged.write(), 99).unwrap(), staged);
            assert_eq!(staged.size(), 10 * parts as u64 + tail.unwrap_or(0));
        }
        assert_eq!(Staged::read(&StagingState::default(), 99).unwrap(), Staged::nothing(99));
    }

    #[test]
    fn what_is_damaged_or_of_another_version_is_refused() {
        let newer = staged(1, None).write().0.replace("\"v\":2", "\"v\":3");
        for text in ["{", "null", "{}", r#"{"v":2,"part_bytes":0}"#, r#"{"v":2,"part_bytes":9,"parts":["x"]}"#, &newer]
        {
            assert!(Staged::read(&StagingState(text.to_owned()), 9).is_err(), "{text}");
        }
    }

    #[test]
    fn the_object_is_the_tail_until_there_are_parts() {
        let id = UploadId::from_random([7; 16]);
        assert_eq!(staged(0, Some(1)).object(id), ObjectKey(format!("{id}/0a")));
        assert_eq!(staged(1, Some(1)).object(id), ObjectKey(format!("{id}/0c")));
        assert_eq!(upload_of(staged(1, None).object(id).as_str()), Some(id));
    }

    #[test]
    fn other_bytes_have_another_mark() {
        let id = UploadId::from_random([7; 16]);
        let marks = [staged(1, Some(1)), staged(1, Some(2)), staged(2, Some(1)), staged(1, None)]
            .map(|staged| staged.reading_mark(id));
        let begins = staged(1, None).reading_marks(id);
        for (index, mark) in marks.iter().enumerate() {
            assert!(mark.as_str().starts_with(&begins) && upload_of(mark.as_str()) == Some(id));
            assert!(!marks[..index].contains(mark));
        }
        let other = Multipart { name: "0d".into(), id: "m".into() };
        let other = Staged { multipart: Some(other), ..staged(1, Some(1)) };
        for key in [other.reading_mark(id), staged(1, None).object(id), key(id, "0a")] {
            assert!(!key.as_str().starts_with(&begins), "{key}");
        }
        let superseded = Staged { superseded: vec!["0b".into()], ..staged(1, Some(1)) };
        assert_eq!(superseded.reading_mark(id), marks[0]);
    }

    #[test]
    fn only_our_own_keys_name_an_upload() {
        // With letters, which can be capitals.
        let id = UploadId::from_random([0xab; 16]).to_string();
        for key in
            ["", "x", "x/y", &id, &format!("{id}/"), &format!("{id}/A"), &format!("{id}/a/b"), &format!("{id}/..")]
        {
            assert_eq!(upload_of(key), None, "{key}");
        }
        assert_eq!(upload_of(&format!("{}/a", id.to_uppercase())), None);
        assert_eq!(upload_of(&format!("{}/a", id.replace('-', ""))), None);
    }
}

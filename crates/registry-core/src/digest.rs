//! Content digests, and the running hashes that make them.
//!
//! Grammar and registered algorithms: OCI image-spec, `descriptor.md`, section *Digests*.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256, Sha512};

/// A digest algorithm that this registry computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256: 64 lower-case hexadecimal characters.
    Sha256,
    /// SHA-512: 128 lower-case hexadecimal characters.
    Sha512,
}

impl Algorithm {
    /// The name in a digest: `sha256` or `sha512`.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    const fn encoded_length(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

impl FromStr for Algorithm {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        match text {
            "sha256" => Ok(Algorithm::Sha256),
            "sha512" => Ok(Algorithm::Sha512),
            _ => Err(InvalidDigest::Algorithm),
        }
    }
}

/// A text is not a digest that this registry can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// There is no `algorithm:encoded`.
    #[error("a digest is `algorithm:encoded`")]
    Shape,
    /// The algorithm is not one of ours.
    #[error("the digest's algorithm is neither sha256 nor sha512")]
    Algorithm,
    /// The encoded part has the wrong length or characters.
    #[error("the digest's encoded part is not lower-case hexadecimal of the algorithm's length")]
    Encoded,
}

/// A digest `algorithm:encoded`, always in canonical form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::from_hash(algorithm, &Sha256::digest(bytes)),
            Algorithm::Sha512 => Self::from_hash(algorithm, &Sha512::digest(bytes)),
        }
    }

    /// The SHA-256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, bytes)
    }

    fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        Self(format!("{}:{}", algorithm.name(), hex(hash)))
    }

    /// The whole text, `algorithm:encoded`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The algorithm before the colon.
    pub fn algorithm(&self) -> Algorithm {
        if self.0.starts_with("sha256:") { Algorithm::Sha256 } else { Algorithm::Sha512 }
    }

    /// The lower-case hexadecimal part after the colon.
    pub fn encoded(&self) -> &str {
        &self.0[7..]
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;
    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let (algorithm, encoded) = text.split_once(':').ok_or(InvalidDigest::Shape)?;
        let algorithm: Algorithm = algorithm.parse()?;
        let hexadecimal = encoded.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if encoded.len() != algorithm.encoded_length() || !hexadecimal {
            return Err(InvalidDigest::Encoded);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;
    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower-case hexadecimal of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// The running hashes of an upload: SHA-256 always, SHA-512 when it was asked for before the first byte.
#[derive(Clone)]
pub struct Hashes {
    sha256: Sha256,
    sha512: Option<Sha512>,
}

impl fmt::Debug for Hashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hashes").field("sha512", &self.sha512.is_some()).finish_non_exhaustive()
    }
}

/// A saved state of running hashes cannot be taken up again: it is of another version or was altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the saved hash state is damaged or of an unknown version")]
pub struct DamagedHashState;

const STATE_VERSION: u8 = 1;
const SHA256_STATE_BYTES: usize = 104;
const SHA512_STATE_BYTES: usize = 208;
const CHECKSUM_BYTES: usize = 8;

impl Hashes {
    /// Fresh hashes over no bytes; `with_sha512` also runs SHA-512.
    pub fn new(with_sha512: bool) -> Self {
        Self { sha256: Sha256::new(), sha512: with_sha512.then(Sha512::new) }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    /// The digest of all bytes taken in so far, or `None` when `algorithm` was not running.
    pub fn digest(&self, algorithm: Algorithm) -> Option<Digest> {
        match algorithm {
            Algorithm::Sha256 => Some(Digest::from_hash(algorithm, &self.sha256.clone().finalize())),
            Algorithm::Sha512 => {
                self.sha512.as_ref().map(|sha512| Digest::from_hash(algorithm, &sha512.clone().finalize()))
            }
        }
    }

    /// The state as bytes: a version, the midstates, and a checksum over both.
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = vec![STATE_VERSION];
        bytes.extend_from_slice(&self.sha256.serialize());
        if let Some(sha512) = &self.sha512 {
            bytes.extend_from_slice(&sha512.serialize());
        }
        let checksum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&checksum[..CHECKSUM_BYTES]);
        bytes
    }

    /// Takes up a state that [`save`](Self::save) made, in this process or another.
    ///
    /// # Errors
    /// [`DamagedHashState`] when a single bit differs, or the version is not known here.
    pub fn restore(bytes: &[u8]) -> Result<Self, DamagedHashState> {
        let body_length = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(DamagedHashState)?;
        let (body, checksum) = bytes.split_at(body_length);
        if Sha256::digest(body)[..CHECKSUM_BYTES] != *checksum || body.first() != Some(&STATE_VERSION) {
            return Err(DamagedHashState);
        }
        let states = &body[1..];
        let (first, second) = match states.len() {
            SHA256_STATE_BYTES => (states, None),
            length if length == SHA256_STATE_BYTES + SHA512_STATE_BYTES => {
                (&states[..SHA256_STATE_BYTES], Some(&states[SHA256_STATE_BYTES..]))
            }
            _ => return Err(DamagedHashState),
        };
        let state = SerializedState::<Sha256>::try_from(first).map_err(|_| DamagedHashState)?;
        let sha256 = Sha256::deserialize(&state).map_err(|_| DamagedHashState)?;
        let sha512 = second
            .map(|second| {
                let state = SerializedState::<Sha512>::try_from(second).map_err(|_| DamagedHashState)?;
                Sha512::deserialize(&state).map_err(|_| DamagedHashState)
            })
            .transpose()?;
        Ok(Self { sha256, sha512 })
    }
}

/// The digest of bytes that come in pieces, for one algorithm.
pub struct DigestOf {
    algorithm: Algorithm,
    hashes: Hashes,
}

impl DigestOf {
    /// A running digest over no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, hashes: Hashes::new(algorithm == Algorithm::Sha512) }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hashes.update(bytes);
    }

    /// The digest of all bytes taken in.
    pub fn finish(&self) -> Digest {
        self.hashes.digest(self.algorithm).expect("the algorithm was started in new()")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn grammar() {
        assert_eq!(EMPTY.parse::<Digest>().unwrap().as_str(), EMPTY);
        assert_eq!(Digest::sha256(b"").as_str(), EMPTY);
        let sha512 = Digest::of(Algorithm::Sha512, b"");
        assert_eq!(sha512.as_str().parse::<Digest>().unwrap(), sha512);
        assert_eq!((sha512.algorithm(), sha512.encoded().len()), (Algorithm::Sha512, 128));
        for (text, error) in [
            ("", InvalidDigest::Shape),
            ("sha256", InvalidDigest::Shape),
            ("md5:d41d8cd98f00b204e9800998ecf8427e", InvalidDigest::Algorithm),
            ("sha256:", InvalidDigest::Encoded),
            ("sha256:baddigeststring", InvalidDigest::Encoded),
            (&EMPTY.to_uppercase().replace("SHA256", "sha256"), InvalidDigest::Encoded),
            (&EMPTY[..70], InvalidDigest::Encoded),
            (&format!("{EMPTY}0"), InvalidDigest::Encoded),
            (&EMPTY.replace("sha256", "sha512"), InvalidDigest::Encoded),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_document_holds_a_digest_as_its_text() {
        let digest = Digest::sha256(b"");
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{EMPTY}\""));
        assert_eq!(serde_json::from_str::<Digest>(&format!("\"{EMPTY}\"")).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>("\"sha256:\"").is_err());
    }

    #[test]
    fn a_sound_state_of_another_length_is_refused() {
        for length in
            [0, 10, SHA256_STATE_BYTES - 1, SHA256_STATE_BYTES + 1, SHA256_STATE_BYTES + SHA512_STATE_BYTES + 1]
        {
            let mut saved = vec![STATE_VERSION];
            saved.resize(1 + length, 0);
            let checksum = Sha256::digest(&saved);
            saved.extend_from_slice(&checksum[..CHECKSUM_BYTES]);
            assert_eq!(Hashes::restore(&saved).err(), Some(DamagedHashState), "{length}");
        }
    }

    #[test]
    fn a_flipped_bit_in_a_saved_state_is_noticed() {
        let mut hashes = Hashes::new(true);
        hashes.update(b"some bytes");
        let saved = hashes.save();
        for index in 0..saved.len() {
            let mut damaged = saved.clone();
            damaged[index] ^= 1;
            assert_eq!(Hashes::restore(&damaged).err(), Some(DamagedHashState), "byte {index}");
        }
        assert!(Hashes::restore(&saved[..saved.len() - 1]).is_err());
        assert!(Hashes::restore(b"").is_err());
    }

    proptest! {
        #[test]
        fn a_restored_state_goes_on_where_it_was_saved(bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..600, both: bool) {
            let cut = cut.min(bytes.len());
            let mut hashes = Hashes::new(both);
            hashes.update(&bytes[..cut]);
            let mut restored = Hashes::restore(&hashes.save()).unwrap();
            restored.update(&bytes[cut..]);
            prop_assert_eq!(restored.digest(Algorithm::Sha256), Some(Digest::of(Algorithm::Sha256, &bytes)));
            prop_assert_eq!(restored.digest(Algorithm::Sha512), both.then(|| Digest::of(Algorithm::Sha512, &bytes)));
        }

        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,200}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}

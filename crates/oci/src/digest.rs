//! Content digests (`sha256:…`): parsing with the texts users know, and hashing while bytes pass by.
//!
//! A digest is the only name of content that cannot lie, so it is a type of its own: a `Digest` value
//! is always well formed and its hex part is safe to use as a file name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// Why a string is not a digest. The texts are those of the Go digest package, which Kubernetes shows
/// (IMG-12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No `algorithm:hex` shape, or characters that are not lower-case hex.
    #[error("invalid checksum digest format")]
    Format,
    /// The hex part has not the length that the algorithm gives.
    #[error("invalid checksum digest length")]
    Length,
    /// Well formed, but not sha256, sha384 or sha512.
    #[error("unsupported digest algorithm")]
    Unsupported,
}

/// The hash functions of the OCI image specification, and sha384 which Kubernetes also knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, what practically everything uses.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name in front of the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Number of hex characters of a digest.
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha384" => Some(Self::Sha384),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

/// A checked digest: algorithm and lower-case hex of the right length.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// The sha256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hex part, lower case; safe as a file name.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The first twelve hex characters, as people see them in listings.
    pub fn short(&self) -> &str {
        &self.hex[..12]
    }

    /// The chain id of a layer on top of `parent` (OCI image-spec, "Layer ChainID"): the layer's own
    /// diff id when there is no parent.
    pub fn chain(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
        match parent {
            None => diff_id.clone(),
            Some(parent) => Digest::sha256(format!("{parent} {diff_id}").as_bytes()),
        }
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(s: &str) -> Result<Self, DigestError> {
        let (name, hex) = s.split_once(':').ok_or(DigestError::Format)?;
        if name.is_empty() || hex.is_empty() {
            return Err(DigestError::Format);
        }
        let Some(algorithm) = Algorithm::from_name(name) else {
            let known_shape = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+.".contains(&b))
                && hex.bytes().all(|b| b.is_ascii_alphanumeric() || b"=_-".contains(&b));
            return Err(if known_shape { DigestError::Unsupported } else { DigestError::Format });
        };
        if hex.len() != algorithm.hex_len() {
            return Err(DigestError::Length);
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Format);
        }
        Ok(Self { algorithm, hex: hex.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|e| serde::de::Error::custom(format!("digest `{text}`: {e}")))
    }
}

/// A running hash of bytes that pass by.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hash of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => State::Sha384(sha2::Sha384::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(h) => h.update(bytes),
            State::Sha384(h) => h.update(bytes),
            State::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(h) => Digest { algorithm: Algorithm::Sha256, hex: to_hex(&h.finalize()) },
            State::Sha384(h) => Digest { algorithm: Algorithm::Sha384, hex: to_hex(&h.finalize()) },
            State::Sha512(h) => Digest { algorithm: Algorithm::Sha512, hex: to_hex(&h.finalize()) },
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// Content that did not have the digest or size that was promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The hash differs.
    #[error("content has digest {actual}, expected {expected}")]
    Digest {
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The number of bytes differs.
    #[error("content of {digest} has {actual} bytes, expected {expected}")]
    Size {
        /// Which content.
        digest: Digest,
        /// Promised number of bytes.
        expected: u64,
        /// Bytes that came (at least).
        actual: u64,
    },
}

/// Hashes a stream and compares at its end with what was promised.
#[derive(Debug, Clone)]
pub struct Verifier {
    expected: Digest,
    size: Option<u64>,
    seen: u64,
    hasher: Hasher,
}

impl Verifier {
    /// Expects content with this digest and, when known, this many bytes.
    pub fn new(expected: Digest, size: Option<u64>) -> Self {
        let hasher = Hasher::new(expected.algorithm());
        Self { expected, size, seen: 0, hasher }
    }

    /// Adds bytes; fails as soon as there are more than promised, so that an endless body ends early.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), VerifyError> {
        self.seen += bytes.len() as u64;
        if let Some(expected) = self.size
            && self.seen > expected
        {
            return Err(VerifyError::Size { digest: self.expected.clone(), expected, actual: self.seen });
        }
        self.hasher.update(bytes);
        Ok(())
    }

    /// Bytes seen so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The verdict after the last byte.
    pub fn finish(self) -> Result<u64, VerifyError> {
        if let Some(expected) = self.size
            && self.seen != expected
        {
            return Err(VerifyError::Size { digest: self.expected, expected, actual: self.seen });
        }
        let actual = self.hasher.finish();
        if actual != self.expected {
            return Err(VerifyError::Digest { expected: self.expected, actual });
        }
        Ok(self.seen)
    }
}

fn to_hex(bytes: &[u8]) -> Box<str> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        out.push(char::from(HEX[usize::from(b >> 4)]));
        out.push(char::from(HEX[usize::from(b & 15)]));
    }
    out.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn img_12_digest_texts() {
        let hex = "a".repeat(64);
        assert_eq!(format!("sha256:{hex}").parse::<Digest>().unwrap().hex(), hex);
        assert!(format!("sha512:{}", "0".repeat(128)).parse::<Digest>().is_ok());
        assert!(format!("sha384:{}", "0".repeat(96)).parse::<Digest>().is_ok());
        assert_eq!("sha256:abc".parse::<Digest>(), Err(DigestError::Length));
        assert_eq!(format!("sha256:{}", "A".repeat(64)).parse::<Digest>(), Err(DigestError::Format));
        assert_eq!(format!("md5:{}", "0".repeat(32)).parse::<Digest>(), Err(DigestError::Unsupported));
        assert_eq!("sha256".parse::<Digest>(), Err(DigestError::Format));
        assert_eq!(
            Digest::sha256(b"").to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn a_verifier_notices_every_difference() {
        let digest = Digest::sha256(b"hello");
        let mut v = Verifier::new(digest.clone(), Some(5));
        v.update(b"hel").unwrap();
        v.update(b"lo").unwrap();
        assert_eq!(v.finish(), Ok(5));
        let mut v = Verifier::new(digest.clone(), Some(5));
        assert!(matches!(v.update(b"hello!"), Err(VerifyError::Size { actual: 6, .. })));
        let mut v = Verifier::new(digest.clone(), Some(5));
        v.update(b"hell").unwrap();
        assert!(matches!(v.finish(), Err(VerifyError::Size { actual: 4, .. })));
        let mut v = Verifier::new(digest, None);
        v.update(b"hellO").unwrap();
        assert!(matches!(v.finish(), Err(VerifyError::Digest { .. })));
    }
}

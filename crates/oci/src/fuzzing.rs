//! Entry points for the fuzzers in `fuzz/`, and for the bounded mutations that run with the tests.
//!
//! Each takes any bytes and panics when a promise is broken; reading or refusing them is both fine.
#![doc(hidden)]
#![allow(missing_docs)]

use crate::manifest::{Document, ImageConfig};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::HostsFile;

/// What parses is normal: its text parses to the same.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(parsed) = Reference::parse(text) {
        let again = Reference::parse(&parsed.to_string()).expect("what was written is read");
        assert_eq!(again.to_string(), parsed.to_string());
        assert!(parsed.path().len() <= 255 + "library/".len());
        let _ = (parsed.repo_tag(), parsed.version());
    }
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse(), Ok(platform));
    }
}

/// Whatever a registry calls it.
pub fn manifest(bytes: &[u8]) {
    for content_type in [None, Some("application/json"), Some(crate::manifest::media_type::OCI_INDEX)] {
        match Document::parse(bytes, content_type) {
            Ok(Document::Index(index)) => drop(index.select(&Platform::host()).map(|entry| entry.size)),
            Ok(Document::Manifest(manifest)) => {
                assert!(manifest.layers.len() <= crate::manifest::MAX_LAYERS);
            }
            Err(error) => assert!(error.to_string().len() < 100_000),
        }
    }
}

/// Image configurations.
pub fn config(bytes: &[u8]) {
    if let Ok(config) = ImageConfig::parse(bytes) {
        let text = serde_json::to_vec(&config).expect("a configuration serialises");
        assert_eq!(ImageConfig::parse(&text).expect("what was written is read"), config);
    }
}

/// `hosts.toml`.
pub fn hosts(bytes: &[u8]) {
    if let Err(reason) = HostsFile::parse(bytes) {
        assert!(!reason.is_empty());
    }
}

/// `WWW-Authenticate`.
pub fn challenge(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        crate::registry::fuzz_challenge(text);
    }
}

/// A small generator of numbers that is the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % sides.max(1)
    }
}

const TOKENS: [&[u8]; 20] = [
    b"null",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"/",
    b"@",
    b"sha256:",
    b"\xff",
    b"\0",
    b"-1",
    b"1e400",
    b"18446744073709551616",
    b"=",
    b"..",
    b"\\u0000",
    b"true",
];

fn mutated(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.roll(4) {
        let at = dice.roll(bytes.len() + 1);
        match dice.roll(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at..at, TOKENS[dice.roll(TOKENS.len())].iter().copied())),
            3 => {
                let end = (at + dice.roll(20)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let end = (at + dice.roll(40)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = dice.roll(bytes.len() + 1);
                drop(bytes.splice(to..to, piece));
            }
        }
    }
    bytes
}

/// Gives an entry point good documents, and 1,500 mutations of each: the same every time.
pub fn run(entry: fn(&[u8]), seeds: &[&str]) {
    let mut dice = Dice(0x5eed_5eed);
    for seed in seeds {
        entry(seed.as_bytes());
        for _ in 0..1500 {
            entry(&mutated(seed.as_bytes(), &mut dice));
        }
    }
}

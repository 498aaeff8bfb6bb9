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

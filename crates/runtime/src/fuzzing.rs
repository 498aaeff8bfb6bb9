//! Entry points for the fuzzers in `fuzz/`, and for the bounded mutations that run with the tests.
#![doc(hidden)]
#![allow(missing_docs)]

use std::io::{BufReader, Read};
use std::path::Path;

use crate::unpack::{UnpackLimits, unpack};

/// Any bytes as a layer, compressed or not, unpacked into the empty directory `dir`: nothing outside of it is
/// touched, and what it takes is bounded.
pub fn layer(bytes: &[u8], dir: &Path) {
    let limits = UnpackLimits { max_bytes: 1 << 20, max_entries: 1000, ..UnpackLimits::default() };
    let Ok(decoder) = sampan_oci::codec::Decoder::new(bytes) else { return };
    if let Ok(unpacked) = unpack(BufReader::new(decoder.take(8 << 20)), dir, &limits) {
        assert!(unpacked.inodes <= 2 * limits.max_entries, "{} entries", unpacked.inodes);
    }
}

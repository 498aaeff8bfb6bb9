//! Layer tars to directories, with strangers' tars in mind.
//!
//! A layer is unpacked into a directory of its own, without its parents. What the tar says about places
//! outside of that directory is confined to it; what it takes is bounded. Two things need the parents after
//! all and are reported instead of done: directories that the tar uses without describing them, and hard
//! links to files of lower layers. [`parents::complete`] settles them.

mod entries;
mod error;
mod files;
mod metadata;
pub(crate) mod parents;
pub(crate) mod tar;
mod tree;
mod whiteout;

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::UnpackError;

/// Bounds of what a layer may unpack to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of one uncompressed layer.
    pub max_bytes: u64,
    /// Files, directories and links of one layer.
    pub max_entries: u64,
    /// Bytes of the names of directories and of links to lower layers: they are remembered to a layer's end, and a small
    /// stream can hold millions of long ones.
    pub max_names: u64,
    /// How many times larger than its compressed form a layer may become, once it is above
    /// [`UnpackLimits::ratio_from`] bytes.
    pub max_ratio: u64,
    /// Where the ratio begins to count, in bytes.
    pub ratio_from: u64,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self {
            max_bytes: 128 << 30,
            max_entries: 2_000_000,
            max_names: 64 << 20,
            max_ratio: 500,
            ratio_from: 4 << 30,
        }
    }
}

/// What came out of a layer.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Allocated bytes, rounded up to blocks.
    pub(crate) bytes: u64,
    /// Entries that were made.
    pub(crate) inodes: u64,
    /// Directories that the tar did not describe, parents before children, relative to the layer.
    pub(crate) implicit: Vec<PathBuf>,
    /// Hard links whose target is not in this layer: (link, target), relative to the layer. Links to one file share
    /// its name.
    pub(crate) dangling: Vec<(PathBuf, Arc<Path>)>,
}

/// Unpacks the tar in `reader` into the existing, empty directory `dir`. Reads to the end of the tar, not of
/// the reader.
pub(crate) fn unpack(
    reader: impl BufRead,
    dir: &Path,
    limits: &UnpackLimits,
) -> Result<Unpacked, UnpackError> {
    let mut unpacker = entries::Unpacker::new(dir, limits)?;
    let mut tar = tar::TarReader::new(reader);
    while let Some(entry) = tar.next_entry()? {
        unpacker.entry(entry, &mut tar)?;
    }
    unpacker.finish()
}

#[cfg(test)]
mod tests;

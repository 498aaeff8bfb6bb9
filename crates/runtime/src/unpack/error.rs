//! Why a layer could not be unpacked.

use std::io;

/// Errors of unpacking; each names the entry.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The tar is damaged or cut.
    #[error("damaged tar at byte {offset}: {what}")]
    Tar {
        /// Where, in the uncompressed stream.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The compressed stream is damaged.
    #[error("decompress")]
    Compression(#[source] io::Error),
    /// The stream below ended with an error.
    #[error("read layer")]
    Read(#[source] io::Error),
    /// More bytes than allowed.
    #[error("layer is larger than the {limit} bytes that are allowed uncompressed")]
    TooLarge {
        /// The bound in bytes.
        limit: u64,
    },
    /// Grows suspiciously.
    #[error(
        "layer grows to more than {ratio} times its compressed size, which looks like a decompression bomb"
    )]
    Ratio {
        /// The bound.
        ratio: u64,
    },
    /// More entries than allowed.
    #[error("layer has more than the {limit} entries that are allowed")]
    TooManyEntries {
        /// The bound.
        limit: u64,
    },
    /// More to remember than allowed.
    #[error(
        "the names of the layer's directories and late links take more than the {limit} bytes that are allowed"
    )]
    TooManyNames {
        /// The bound in bytes.
        limit: u64,
    },
    /// A path that cannot be meant.
    #[error("entry {path:?}: {what}")]
    Path {
        /// The entry's name, shortened.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A hard link to something that no layer has.
    #[error("entry {path:?}: hard link to {target:?}, which does not exist")]
    LinkTarget {
        /// The link.
        path: String,
        /// What it names.
        target: String,
    },
    /// The disk is full.
    #[error("no space left on the image file system (entry {path:?})")]
    DiskFull {
        /// The entry that did not fit.
        path: String,
    },
    /// A system call failed.
    #[error("entry {path:?}: {operation}")]
    Io {
        /// The entry.
        path: String,
        /// What was done.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl UnpackError {
    pub(crate) fn io(path: &[u8], operation: &'static str, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let path = shown(path);
        if crate::images::is_disk_full(&source) {
            Self::DiskFull { path }
        } else {
            Self::Io { path, operation, source }
        }
    }

    pub(crate) fn path(path: &[u8], what: &'static str) -> Self {
        Self::Path { path: shown(path), what }
    }
}

/// At most 200 characters of a name that may be anything.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).chars().take(200).collect()
}

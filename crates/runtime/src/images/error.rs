//! What can go wrong with images on this node.

use std::io;
use std::path::{Path, PathBuf};

use sampan_oci::digest::VerifyError;
use sampan_oci::manifest::ManifestError;
use sampan_oci::reference::ReferenceError;
use sampan_oci::registry::RegistryError;
use sampan_oci::{Digest, Platform};

use crate::network::chain;
use crate::unpack::UnpackError;

/// Errors of the image and snapshot store.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is no image name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// No such image in the local store.
    #[error("no such image {0:?}")]
    NotFound(String),
    /// An id prefix that several images share.
    #[error("image id {0:?} is ambiguous")]
    AmbiguousId(String),
    /// The registry did not give what was asked for.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A document could not be used.
    #[error("image {image}")]
    Manifest {
        /// Which image.
        image: String,
        /// What is wrong.
        #[source]
        source: ManifestError,
    },
    /// A blob was not what its digest or size promised.
    #[error("blob of image {image}")]
    Verify {
        /// Which image.
        image: String,
        /// The difference.
        #[source]
        source: VerifyError,
    },
    /// A layer's uncompressed content has not the diff id that the configuration names.
    #[error("layer {layer} unpacks to {actual}, the image configuration promises {expected}")]
    DiffId {
        /// The compressed layer.
        layer: Digest,
        /// `rootfs.diff_ids`.
        expected: Digest,
        /// What came out.
        actual: Digest,
    },
    /// A layer could not be unpacked.
    #[error("unpack layer {layer}")]
    Unpack {
        /// The compressed layer.
        layer: Digest,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// An image for another platform.
    #[error("image {image} is for {found}, this node runs {wanted}")]
    Platform {
        /// Which image.
        image: String,
        /// What it was built for.
        found: Platform,
        /// What was wanted.
        wanted: Platform,
    },
    /// An operation on the store's files failed.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was done, as a verb: `write`, `rename`, `mount`.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The disk is full; named because people can do something about it.
    #[error(
        "no space left on the image file system at {}{}; make room there (`sampan image prune` removes unused images) \
         or move the data directory to a larger disk (`--data-dir`)",
        path.display(), lacking(*room)
    )]
    DiskFull {
        /// Where.
        path: PathBuf,
        /// Bytes that the image still needs at least, and bytes that it may have; when that was known before.
        room: Option<(u64, u64)>,
    },
    /// An archive for `load` that is neither an OCI layout nor a docker archive, or is damaged.
    #[error("image archive: {0}")]
    Archive(String),
    /// Another process has the store open.
    #[error("the image store {} is in use by process {holder}", path.display())]
    Busy {
        /// The store's directory.
        path: PathBuf,
        /// The process's number.
        holder: String,
    },
    /// The store's own database cannot be read.
    #[error("image database {} is damaged; move it away and pull the images again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The built-in image cannot be pulled, changed or removed.
    #[error("{0:?} is built in: it cannot be removed or unpinned")]
    Builtin(String),
    /// Indexes in indexes in indexes.
    #[error("image {image}: its indexes are nested too deeply; {digest} is another index")]
    NestedIndex {
        /// Which image.
        image: String,
        /// The entry.
        digest: Digest,
    },
    /// No such name on the built-in registry host.
    #[error("{0:?}: not found on the built-in host sampan.local (it serves only sampan.local/toolbox)")]
    NoBuiltin(String),
    /// A snapshot that should be there is not.
    #[error("snapshot {0} is missing; remove the image and pull it again")]
    SnapshotMissing(Digest),
    /// A container id that is not safe as a file name.
    #[error("container id {0:?} is not valid")]
    ContainerId(String),
    /// A blocking task died (a bug; its message is in the log).
    #[error("a worker of the image store died")]
    Worker,
    /// Another task's pull of the same layer failed.
    #[error("{0}")]
    Shared(std::sync::Arc<ImageError>),
}

impl ImageError {
    /// Wraps an I/O error; a full disk becomes [`ImageError::DiskFull`].
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if is_disk_full(&source) {
            Self::DiskFull { path, room: None }
        } else {
            Self::Io { operation, path, source }
        }
    }

    /// A layer's error of unpacking below `dir`.
    pub(crate) fn unpack(layer: &Digest, dir: &Path, source: UnpackError) -> Self {
        match source {
            UnpackError::DiskFull { .. } => Self::DiskFull { path: dir.to_owned(), room: None },
            source => Self::Unpack { layer: layer.clone(), source },
        }
    }

    /// Whether room on the disk would mend it.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Self::Shared(shared) => shared.is_disk_full(),
            other => matches!(other, Self::DiskFull { .. }),
        }
    }

    /// The message with all its causes, on one line: what CRI and events show.
    pub fn chain(&self) -> String {
        match self {
            // Its own text is the shared one's without the causes.
            Self::Shared(shared) => shared.chain(),
            other => chain(other),
        }
    }
}

fn lacking(room: Option<(u64, u64)>) -> String {
    // Of what is needed no less than it is, of what is there no more.
    let mib = |bytes: u64| bytes >> 20;
    match room {
        Some((needs, left)) => {
            format!(" (the image needs {} MiB more, {} MiB may be used)", mib(needs) + 1, mib(left))
        }
        None => String::new(),
    }
}

/// ENOSPC and EDQUOT.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

//! The file systems of images and containers.
//!
//! Each layer of an image is unpacked into a directory of its own, `<dir>/<chain id>/fs`, shared by all
//! images that build on it. A container gets `<dir>/containers/<id>/{fs,work}` as the writable part of an
//! overlay mount over its image's layers. A layer directory appears by one rename when everything in it
//! was verified, so one that is there is whole.

mod containers;
mod layers;
pub(crate) mod overlay;
mod usage;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sampan_oci::Digest;

pub use containers::Rootfs;
pub(crate) use layers::{LayerInfo, Staging, boot_id};
pub use usage::Usage;

use crate::images::ImageError;

/// The snapshot store. Its methods block on the disk for a few system calls; those that walk trees
/// ([`Snapshots::usage`], [`Snapshots::remove`]) belong on a blocking thread.
#[derive(Debug)]
pub struct Snapshots {
    dir: PathBuf,
    /// What stands in each layer directory, so that space is known without walking trees.
    layers: Mutex<HashMap<Digest, Arc<LayerInfo>>>,
}

impl Snapshots {
    /// Opens the store in `dir`, which is made when missing; collects what a killed process left.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Arc<Self>, ImageError> {
        let dir = dir.into();
        for sub in ["", "tmp", "containers", "empty"] {
            let path = dir.join(sub);
            std::fs::create_dir_all(&path).map_err(|e| ImageError::io("create", &path, e))?;
        }
        layers::spread_directories(&dir);
        layers::collect_leftovers(&dir)?;
        let layers = layers::scan(&dir)?;
        Ok(Arc::new(Self { dir, layers: Mutex::new(layers) }))
    }

    /// The directory of the store.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<LayerInfo>>> {
        self.layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

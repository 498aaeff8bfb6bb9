//! Layers with mapped ids for kernels that do not take them by descriptor (before Linux 6.13): each view is attached
//! beside the target until the overlay has its own of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::unmount;
use crate::user_namespace::MappedIds;

/// Where the views of the layers of what is mounted at `target` are.
pub(crate) fn directory(target: &Path) -> PathBuf {
    target.with_extension("layers")
}

/// Views that are attached; dropped, they are not any more.
pub(super) struct Attached {
    dir: PathBuf,
    pub(super) views: Vec<PathBuf>,
}

impl Attached {
    pub(super) fn new(lower: &[PathBuf], target: &Path, ids: &MappedIds) -> io::Result<Self> {
        let mut attached = Self { dir: directory(target), views: Vec::new() };
        for (number, layer) in lower.iter().enumerate() {
            let place = attached.dir.join(number.to_string());
            fs::create_dir_all(&place)?;
            attached.views.push(place.clone());
            ids.attach(layer, &place)?;
        }
        Ok(attached)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        clear(&self.dir);
    }
}

/// Detaches what is in such a directory, and removes it: never what a view shows, which is mounted read-only.
pub(crate) fn clear(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if unmount(&entry.path()).is_ok() {
            let _ = fs::remove_dir(entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

//! Layer directories: staged, filled, verified, then put in place by one rename.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::IFlags;
use sampan_oci::Digest;
use serde::{Deserialize, Serialize};

use super::Snapshots;
use crate::content::is_older;
use crate::images::ImageError;

/// `<dir>/<chain>/layer.json`, written before the rename that makes the layer visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LayerInfo {
    pub(crate) chain_id: Digest,
    pub(crate) diff_id: Digest,
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// The boot in which it was unpacked. Its pages may not have reached the disk when the machine lost
    /// power, so after another boot it counts only when `<chain>/synced` exists.
    pub(crate) boot_id: String,
}

/// A layer being unpacked; removed again unless it is committed.
#[derive(Debug)]
pub(crate) struct Staging {
    dir: PathBuf,
}

impl Staging {
    /// The directory to unpack into.
    pub(crate) fn fs(&self) -> PathBuf {
        self.dir.join("fs")
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.dir) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(dir = %self.dir.display(), %error, "cannot remove a staged layer"),
        }
    }
}

impl Snapshots {
    /// The directory of an unpacked layer.
    pub fn layer(&self, chain: &Digest) -> Option<PathBuf> {
        self.known().contains_key(chain).then(|| self.dir.join(dir_name(chain)).join("fs"))
    }

    /// Whether a layer is unpacked.
    pub fn has(&self, chain: &Digest) -> bool {
        self.known().contains_key(chain)
    }

    /// A place to unpack a layer.
    pub(crate) fn stage(&self, chain: &Digest) -> Result<Staging, ImageError> {
        let dir = self.dir.join("tmp").join(format!("{}-{:08x}", chain.short(), rand::random::<u32>()));
        let staging = Staging { dir };
        let fs = staging.fs();
        fs::create_dir_all(&fs).map_err(|e| ImageError::io("create", &fs, e))?;
        Ok(staging)
    }

    /// Makes a staged layer visible. When another pull was first, that one stays.
    pub(crate) fn commit(&self, staging: Staging, info: LayerInfo) -> Result<(), ImageError> {
        let chain = info.chain_id.clone();
        let mut known = self.known();
        if known.contains_key(&chain) {
            return Ok(());
        }
        let record = staging.dir.join("layer.json");
        let text = serde_json::to_vec(&info).expect("layer information serialises");
        fs::write(&record, text).map_err(|e| ImageError::io("write", &record, e))?;
        let place = self.dir.join(dir_name(&chain));
        fs::rename(&staging.dir, &place).map_err(|e| ImageError::io("rename", &place, e))?;
        known.insert(chain, Arc::new(info));
        Ok(())
    }

    /// Removes every layer that is not in `keep` and below no container (with an age, only older ones); gives
    /// the bytes freed.
    pub(crate) fn retain(&self, keep: &HashSet<Digest>, age: Option<Duration>) -> Result<u64, ImageError> {
        let used = self.used_by_containers()?;
        let unused: Vec<Digest> = {
            let known = self.known();
            let unused = |chain: &&Digest| {
                !keep.contains(*chain)
                    && !used.contains(*chain)
                    && is_older(&self.dir.join(dir_name(chain)).join("layer.json"), age)
            };
            known.keys().filter(unused).cloned().collect()
        };
        unused.iter().try_fold(0, |freed, chain| Ok(freed + self.take_away(chain)?))
    }

    /// Removes a layer, unless a container stands on it.
    pub(crate) fn discard(&self, chain: &Digest) -> Result<(), ImageError> {
        if self.has(chain) && !self.used_by_containers()?.contains(chain) {
            self.take_away(chain)?;
        }
        Ok(())
    }

    fn used_by_containers(&self) -> Result<HashSet<Digest>, ImageError> {
        let mut used = HashSet::new();
        for container in self.containers()? {
            used.extend(self.images_below(&container)?.into_iter().flatten());
        }
        Ok(used)
    }

    /// Away by one rename first, so that no half of a layer is ever seen.
    fn take_away(&self, chain: &Digest) -> Result<u64, ImageError> {
        let away = self.dir.join("tmp").join(format!("gone-{}-{:08x}", chain.short(), rand::random::<u32>()));
        let freed = {
            let mut known = self.known();
            let place = self.dir.join(dir_name(chain));
            fs::rename(&place, &away).map_err(|e| ImageError::io("rename", &place, e))?;
            known.remove(chain).map_or(0, |info| info.bytes)
        };
        fs::remove_dir_all(&away).map_err(|e| ImageError::io("remove", &away, e))?;
        Ok(freed)
    }

    /// Marks layers that were unpacked in this boot as safely on disk, after flushing the file system.
    /// Slow (it waits for the disk); belongs on a blocking thread, after a pull, not in its way.
    pub(crate) fn sync(&self) -> Result<(), ImageError> {
        let unsynced: Vec<PathBuf> = self
            .known()
            .keys()
            .map(|chain| self.dir.join(dir_name(chain)).join("synced"))
            .filter(|marker| !marker.exists())
            .collect();
        if unsynced.is_empty() {
            return Ok(());
        }
        let dir = fs::File::open(&self.dir).map_err(|e| ImageError::io("open", &self.dir, e))?;
        rustix::fs::syncfs(&dir).map_err(|e| ImageError::io("flush", &self.dir, e.into()))?;
        for marker in unsynced {
            match fs::write(&marker, b"") {
                // Removed meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|e| ImageError::io("write", &marker, e))?,
            }
        }
        Ok(())
    }

    /// Bytes and inodes of all layers, as counted when they were unpacked.
    pub(crate) fn layers_usage(&self) -> (u64, u64) {
        self.known().values().fold((0, 0), |(bytes, inodes), l| (bytes + l.bytes, inodes + l.inodes))
    }
}

/// Asks ext4 to spread the directories made in `dir` over its block groups (the top-directory flag):
/// after mass deletes, creating files in the same group is fifteen times slower. Other file systems
/// refuse, which is fine.
pub(super) fn spread_directories(dir: &Path) {
    for dir in [dir, &dir.join("tmp")] {
        if let Ok(file) = fs::File::open(dir)
            && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
        {
            let _ = rustix::fs::ioctl_setflags(&file, flags | IFlags::TOPDIR);
        }
    }
}

/// Removes what a killed process was unpacking or removing.
pub(super) fn collect_leftovers(dir: &Path) -> Result<(), ImageError> {
    let tmp = dir.join("tmp");
    for entry in fs::read_dir(&tmp).map_err(|e| ImageError::io("list", &tmp, e))?.flatten() {
        let path = entry.path();
        fs::remove_dir_all(&path).map_err(|e| ImageError::io("remove", &path, e))?;
    }
    Ok(())
}

/// Reads the layers on disk; those whose content may have been lost with the power are removed.
pub(super) fn scan(dir: &Path) -> Result<HashMap<Digest, Arc<LayerInfo>>, ImageError> {
    let boot = boot_id();
    let mut layers = HashMap::new();
    for entry in fs::read_dir(dir).map_err(|e| ImageError::io("list", dir, e))?.flatten() {
        let name = entry.file_name();
        let Some(chain) = name.to_str().and_then(chain_of) else { continue };
        let path = entry.path();
        let info = fs::read(path.join("layer.json"))
            .ok()
            .and_then(|text| serde_json::from_slice::<LayerInfo>(&text).ok())
            .filter(|info| info.chain_id == chain && (info.boot_id == boot || path.join("synced").exists()));
        match info {
            Some(info) => {
                layers.insert(chain, Arc::new(info));
            }
            None => {
                tracing::warn!(layer = %chain, "removing a layer that may not have reached the disk");
                fs::remove_dir_all(&path).map_err(|e| ImageError::io("remove", &path, e))?;
            }
        }
    }
    Ok(layers)
}

/// The kernel's id of this boot; empty when unknown, which never equals a recorded one.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

/// sha256 chains are named by their bare hex; others (possible, never seen) carry their algorithm.
fn dir_name(chain: &Digest) -> String {
    match chain.algorithm() {
        sampan_oci::Algorithm::Sha256 => chain.hex().to_owned(),
        other => format!("{}-{}", other.name(), chain.hex()),
    }
}

fn chain_of(name: &str) -> Option<Digest> {
    let text = if name.contains('-') { name.replacen('-', ":", 1) } else { format!("sha256:{name}") };
    text.parse().ok()
}

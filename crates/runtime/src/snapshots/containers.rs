//! The writable file system of a container over its image's layers.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sampan_oci::Digest;
use serde::{Deserialize, Serialize};

use super::{Snapshots, Usage, overlay, usage};
use crate::images::{ImageError, ImageRecord};
use crate::user_namespace::MappedIds;

/// Everything a container's overlay mount is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The container it belongs to.
    pub container_id: String,
    /// Chain ids of the layers below, lowest first.
    pub layers: Vec<Digest>,
    /// The read-only directories, topmost first.
    pub lower: Vec<PathBuf>,
    /// The writable directory.
    pub upper: PathBuf,
    /// The kernel's scratch directory.
    pub work: PathBuf,
}

/// `<dir>/containers/<id>/snapshot.json`.
#[derive(Serialize, Deserialize)]
struct Prepared {
    layers: Vec<Digest>,
    /// The layers of each image that is mounted into the container as a volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<Vec<Digest>>,
}

impl Snapshots {
    /// Makes the writable directories of a container. Calling it again for the same container gives the
    /// same directories with their content. With `ids` its root directory belongs to their root.
    pub fn prepare(
        &self,
        container_id: &str,
        image: &ImageRecord,
        ids: Option<&MappedIds>,
    ) -> Result<Rootfs, ImageError> {
        self.prepare_with(container_id, image, &[], ids)
    }

    /// As [`Snapshots::prepare`], for a container that mounts these images too: from now on their layers are in use
    /// as its own are.
    pub fn prepare_with(
        &self,
        container_id: &str,
        image: &ImageRecord,
        volumes: &[Arc<ImageRecord>],
        ids: Option<&MappedIds>,
    ) -> Result<Rootfs, ImageError> {
        let dir = self.container_dir(container_id)?;
        let layers: Vec<Digest> = image.chain_ids().cloned().collect();
        let lower = self.lower(&layers)?;
        // The root directory of the container looks like the image's topmost one, or 0755.
        let mode = lower
            .first()
            .and_then(|top| fs::metadata(top).ok())
            .map_or(0o755, |m| m.permissions().mode() & 0o7777);
        make_dir(&dir, 0o700)?;
        make_dir(&dir.join("work"), 0o700)?;
        let upper = dir.join("fs");
        if make_dir(&upper, mode)? {
            fs::set_permissions(&upper, fs::Permissions::from_mode(mode))
                .map_err(|e| ImageError::io("chmod", &upper, e))?;
            if let Some(ids) = ids {
                chown(&upper, Some(ids.uid), Some(ids.gid))
                    .map_err(|e| ImageError::io("chown", &upper, e))?;
            }
        }
        let record = dir.join("snapshot.json");
        let volumes = volumes.iter().map(|image| image.chain_ids().cloned().collect()).collect();
        let text = serde_json::to_vec(&Prepared { layers, volumes }).expect("digests serialise");
        let fresh = dir.join("snapshot.new");
        fs::write(&fresh, text).map_err(|e| ImageError::io("write", &fresh, e))?;
        fs::rename(&fresh, &record).map_err(|e| ImageError::io("rename", &record, e))?;
        self.rootfs(container_id)?.ok_or_else(|| ImageError::NotFound(container_id.to_owned()))
    }

    /// The directories of a container that was prepared before (also by an earlier daemon).
    pub fn rootfs(&self, container_id: &str) -> Result<Option<Rootfs>, ImageError> {
        let dir = self.container_dir(container_id)?;
        let Some(Prepared { layers, .. }) = read(&dir)? else { return Ok(None) };
        let lower = self.lower(&layers)?;
        Ok(Some(Rootfs {
            container_id: container_id.to_owned(),
            layers,
            lower,
            upper: dir.join("fs"),
            work: dir.join("work"),
        }))
    }

    /// The layers below a container, lowest first; none for a container that is not here.
    pub fn container_layers(&self, container_id: &str) -> Result<Vec<Digest>, ImageError> {
        Ok(read(&self.container_dir(container_id)?)?.map(|prepared| prepared.layers).unwrap_or_default())
    }

    /// The layers of every image that a container stands on or mounts, lowest first.
    pub(crate) fn images_below(&self, container_id: &str) -> Result<Vec<Vec<Digest>>, ImageError> {
        let prepared = match read(&self.container_dir(container_id)?) {
            // The machine went down before it was on disk. Nothing can be mounted by it any more, and nobody else's
            // images shall suffer from it.
            Err(ImageError::Damaged { path, .. }) => {
                tracing::warn!(path = %path.display(), "the record of a container's snapshot is damaged");
                None
            }
            other => other?,
        };
        Ok(prepared.map(|p| p.volumes.into_iter().chain([p.layers]).collect()).unwrap_or_default())
    }

    /// Mounts a container's file system on `target`, an existing directory; with `ids` the image's files are those
    /// ids' as well.
    pub fn mount(&self, rootfs: &Rootfs, target: &Path, ids: Option<&MappedIds>) -> Result<(), ImageError> {
        let writable = Some((rootfs.upper.as_path(), rootfs.work.as_path()));
        // An image without layers still needs one lower directory.
        let empty = [self.dir.join("empty")];
        let lower = if rootfs.lower.is_empty() { &empty[..] } else { &rootfs.lower };
        overlay::mount(lower, writable, target, ids)
            .map_err(|e| ImageError::io("mount overlay on", target, e))
    }

    /// Mounts an image read-only on `target` (image volumes, IMG-87).
    pub fn mount_image(
        &self,
        image: &ImageRecord,
        target: &Path,
        ids: Option<&MappedIds>,
    ) -> Result<(), ImageError> {
        let layers: Vec<Digest> = image.chain_ids().cloned().collect();
        let mut lower = self.lower(&layers)?;
        // A read-only overlay needs two lower directories.
        lower.push(self.dir.join("empty"));
        if lower.len() == 1 {
            lower.push(self.dir.join("tmp"));
        }
        overlay::mount(&lower, None, target, ids).map_err(|e| ImageError::io("mount overlay on", target, e))
    }

    /// Unmounts what [`Snapshots::mount`] mounted; not being mounted is no error.
    pub fn unmount(&self, target: &Path) -> Result<(), ImageError> {
        overlay::unmount(target).map_err(|e| ImageError::io("unmount", target, e))
    }

    /// Removes a container's directories (they must be unmounted); missing ones are no error.
    pub fn remove(&self, container_id: &str) -> Result<(), ImageError> {
        let dir = self.container_dir(container_id)?;
        // Away by one rename first, so that a crash in between leaves nothing that looks prepared.
        let trash = self.dir.join("tmp").join(format!("gone-{}-{:08x}", container_id, rand::random::<u32>()));
        match fs::rename(&dir, &trash) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(ImageError::io("rename", &dir, e)),
        }
        fs::remove_dir_all(&trash).map_err(|e| ImageError::io("remove", &trash, e))
    }

    /// Space that the writable part of a container takes.
    pub fn usage(&self, container_id: &str) -> Result<Usage, ImageError> {
        let upper = self.container_dir(container_id)?.join("fs");
        usage::of(&upper).map_err(|e| ImageError::io("walk", &upper, e))
    }

    /// Ids of all containers that have directories here.
    pub fn containers(&self) -> Result<Vec<String>, ImageError> {
        let dir = self.dir.join("containers");
        let entries = fs::read_dir(&dir).map_err(|e| ImageError::io("list", &dir, e))?;
        Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
    }

    fn container_dir(&self, container_id: &str) -> Result<PathBuf, ImageError> {
        let safe = (1..=200).contains(&container_id.len())
            && !container_id.starts_with('.')
            && container_id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !safe {
            return Err(ImageError::ContainerId(container_id.to_owned()));
        }
        Ok(self.dir.join("containers").join(container_id))
    }

    /// The directories of these layers, topmost first.
    fn lower(&self, layers: &[Digest]) -> Result<Vec<PathBuf>, ImageError> {
        layers
            .iter()
            .rev()
            .map(|chain| self.layer(chain).ok_or_else(|| ImageError::SnapshotMissing(chain.clone())))
            .collect()
    }
}

fn read(dir: &Path) -> Result<Option<Prepared>, ImageError> {
    let record = dir.join("snapshot.json");
    let text = match fs::read(&record) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(ImageError::io("read", &record, e)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| ImageError::Damaged { path: record, source })
}

/// True when it was made now.
fn make_dir(path: &Path, mode: u32) -> Result<bool, ImageError> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(ImageError::io("create", path, e)),
    }
}

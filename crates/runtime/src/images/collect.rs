//! Removing images, and what no image needs any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sampan_oci::{Digest, Reference};

use super::{FsInfo, ImageError, ImageRecord, ImageStore, Removed};
use crate::builtin;

impl ImageStore {
    /// Removes one name; the image goes with its last one. By id, the image goes with all its names. A name
    /// that is not there removes nothing and is no error (CRI asks for that); [`Removed`] is then empty.
    pub async fn remove(self: &Arc<Self>, name: &str) -> Result<Removed, ImageError> {
        let Some(image) = self.resolve(name)? else { return Ok(Removed::default()) };
        let names: Vec<&str> = image.names().collect();
        let tag = Reference::parse(name).ok().and_then(|reference| reference.repo_tag());
        let only_tag = tag.filter(|tag| image.repo_tags.contains(tag) && image.repo_tags.len() > 1);
        match only_tag {
            Some(tag) if names.len() > 1 => self.untag(&image, tag).await,
            _ => self.remove_image(name).await,
        }
    }

    /// Removes an image with all its names (CRI `RemoveImage`). Layers that other images or containers use
    /// stay.
    pub async fn remove_image(self: &Arc<Self>, name: &str) -> Result<Removed, ImageError> {
        let Some(image) = self.resolve(name)? else { return Ok(Removed::default()) };
        self.remove_where(move |candidate| candidate.id == image.id).await
    }

    /// Removes all images that `in_use` does not name (by id or by any of their names), that are not pinned
    /// and not built in; and everything that nothing refers to.
    pub async fn prune(self: &Arc<Self>, in_use: HashSet<String>) -> Result<Removed, ImageError> {
        self.remove_where(move |image| {
            let used = in_use.contains(&image.id.to_string())
                || in_use.contains(image.id.hex())
                || image.names().any(|name| in_use.contains(name));
            !used && !image.pinned && !builtin::is_builtin(image)
        })
        .await
    }

    async fn untag(self: &Arc<Self>, image: &ImageRecord, tag: String) -> Result<Removed, ImageError> {
        let (this, id) = (self.clone(), image.id.clone());
        let change = move || {
            this.database.change(|images| {
                if let Some(image) = images.get_mut(&id) {
                    Arc::make_mut(image).repo_tags.retain(|name| *name != tag);
                }
                Ok(Removed { untagged: vec![tag], ..Removed::default() })
            })
        };
        tokio::task::spawn_blocking(change).await.map_err(|_| ImageError::Worker)?
    }

    async fn remove_where(
        self: &Arc<Self>,
        unwanted: impl Fn(&ImageRecord) -> bool + Send + 'static,
    ) -> Result<Removed, ImageError> {
        let this = self.clone();
        let work = move || {
            let mut removed = this.database.change(|images| {
                let mut removed = Removed::default();
                for image in images.values().filter(|image| unwanted(image)) {
                    if builtin::is_builtin(image) {
                        return Err(ImageError::Builtin(image.names().next().unwrap_or_default().to_owned()));
                    }
                    removed.untagged.extend(image.names().map(str::to_owned));
                    removed.deleted.push(image.id.clone());
                }
                images.retain(|id, _| !removed.deleted.contains(id));
                Ok(removed)
            })?;
            removed.bytes = this.collect(None)?;
            Ok(removed)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| ImageError::Worker)?
    }

    /// Removes blobs and layers that neither an image, nor a container, nor a pull under way needs; with an
    /// age, only those older than it. Blocks.
    pub(super) fn collect(&self, age: Option<Duration>) -> Result<u64, ImageError> {
        self.leases.collect(|mut keep| {
            for image in self.database.images().values() {
                keep.extend(needed(image));
            }
            let layers = self.snapshots.retain(&keep, age)?;
            Ok(layers + self.content.retain(&keep, age)?)
        })
    }

    /// Space that images take.
    pub async fn fs_info(self: &Arc<Self>) -> Result<FsInfo, ImageError> {
        let this = self.clone();
        let count = move || {
            let (blob_bytes, blobs) = this.content.usage()?;
            let (layer_bytes, inodes) = this.snapshots.layers_usage();
            Ok(FsInfo {
                mountpoint: this.config.dir.clone(),
                used_bytes: blob_bytes + layer_bytes,
                inodes_used: blobs + inodes,
            })
        };
        tokio::task::spawn_blocking(count).await.map_err(|_| ImageError::Worker)?
    }
}

/// Blobs and layers of an image.
pub(super) fn needed(image: &ImageRecord) -> impl Iterator<Item = Digest> + '_ {
    let documents = image.manifest.iter().chain(&image.index).map(|d| d.digest.clone());
    let layers = image.layers.iter().flat_map(|layer| [layer.blob.digest.clone(), layer.chain_id.clone()]);
    documents.chain([image.id.clone()]).chain(layers)
}

//! Which names mean which images: `<dir>/images/images.json`, replaced as a whole with every change.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use sampan_oci::{Digest, Platform, Reference};
use serde::{Deserialize, Serialize};

use super::{ImageError, ImageRecord};
use crate::content::write_durably;

#[derive(Serialize)]
struct ToDisk<'a> {
    version: u32,
    images: Vec<&'a ImageRecord>,
}

#[derive(Deserialize)]
struct FromDisk {
    images: Vec<ImageRecord>,
}

/// Records by image id. Readers never wait for the disk.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    images: RwLock<Arc<BTreeMap<Digest, Arc<ImageRecord>>>>,
    /// One writer at a time; held while the file is written.
    writer: std::sync::Mutex<()>,
}

type Images = BTreeMap<Digest, Arc<ImageRecord>>;

impl Database {
    pub(crate) fn open(dir: PathBuf) -> Result<Self, ImageError> {
        fs::create_dir_all(&dir).map_err(|e| ImageError::io("create", &dir, e))?;
        for entry in fs::read_dir(&dir).map_err(|e| ImageError::io("list", &dir, e))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("tmp-") {
                let _ = fs::remove_file(entry.path());
            }
        }
        let path = dir.join("images.json");
        let images = match fs::read(&path) {
            Ok(text) => {
                let disk: FromDisk = serde_json::from_slice(&text)
                    .map_err(|source| ImageError::Damaged { path: path.clone(), source })?;
                disk.images.into_iter().map(|image| (image.id.clone(), Arc::new(image))).collect()
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(ImageError::io("read", &path, e)),
        };
        Ok(Self { path, images: RwLock::new(Arc::new(images)), writer: std::sync::Mutex::new(()) })
    }

    pub(crate) fn images(&self) -> Arc<Images> {
        self.images.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Changes the records durably: what `change` returns is visible once it is on disk. Blocks.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Images) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let _writer = self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut images = (*self.images()).clone();
        let result = change(&mut images)?;
        let disk = ToDisk { version: 1, images: images.values().map(Arc::as_ref).collect() };
        let text = serde_json::to_vec(&disk).expect("records serialise");
        write_durably(&self.path, self.path.parent().unwrap_or(&self.path), &text)?;
        *self.images.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(images);
        Ok(result)
    }

    /// Adds an image or new names of one. A tag moves away from the image that had it.
    pub(crate) fn put(&self, image: ImageRecord) -> Result<Arc<ImageRecord>, ImageError> {
        self.change(|images| {
            for (id, other) in images.iter_mut() {
                if *id == image.id {
                    continue;
                }
                if other.repo_tags.iter().any(|tag| image.repo_tags.contains(tag)) {
                    Arc::make_mut(other).repo_tags.retain(|tag| !image.repo_tags.contains(tag));
                }
                for (platform, tags) in &image.platform_tags {
                    if other
                        .platform_tags
                        .get(platform)
                        .is_some_and(|has| has.iter().any(|t| tags.contains(t)))
                    {
                        let has = Arc::make_mut(other).platform_tags.entry(platform.clone()).or_default();
                        has.retain(|tag| !tags.contains(tag));
                    }
                }
            }
            let mut image = image;
            if let Some(known) = images.get(&image.id) {
                image.repo_tags = union(&known.repo_tags, &image.repo_tags);
                // The newest digest first: it is the one reported as the image's reference.
                image.repo_digests = union(&image.repo_digests, &known.repo_digests);
                for (platform, tags) in &known.platform_tags {
                    let own = image.platform_tags.entry(platform.clone()).or_default();
                    *own = union(tags, own);
                }
                image.foreign &= known.foreign;
                image.pinned |= known.pinned;
                image.stored_at.clone_from(&known.stored_at);
            }
            let image = Arc::new(image);
            images.insert(image.id.clone(), image.clone());
            Ok(image)
        })
    }

    /// An image by id, id prefix, or any spelling of a name as containers of this node (or of a handler's
    /// platform) mean it.
    pub(crate) fn resolve(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<Arc<ImageRecord>>, ImageError> {
        let images = self.images();
        if let Ok(id) = name.parse::<Digest>() {
            return Ok(images.get(&id).cloned());
        }
        if let Ok(id) = format!("sha256:{name}").parse::<Digest>()
            && let Some(image) = images.get(&id)
        {
            return Ok(Some(image.clone()));
        }
        if let Ok(reference) = Reference::parse(name)
            && let Some(image) = by_reference(&images, &reference, platform)
        {
            return Ok(Some(image));
        }
        by_prefix(&images, name)
    }
}

/// The image that has this name.
fn by_reference(
    images: &Images,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Option<Arc<ImageRecord>> {
    match reference.digest() {
        Some(digest) => {
            let name = reference.repo_digest(digest);
            // The digest of an index means an image for each platform.
            let mut named = images.values().filter(|image| image.repo_digests.contains(&name));
            named.find(|image| image.is_for(platform)).cloned()
        }
        None => {
            let name = reference.repo_tag()?;
            images.values().find(|image| image.tags_for(platform).contains(&name)).cloned()
        }
    }
}

/// As people copy them from listings: at least four hex characters.
fn by_prefix(images: &Images, name: &str) -> Result<Option<Arc<ImageRecord>>, ImageError> {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    if hex.len() < 4 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(None);
    }
    let mut matching = images.values().filter(|image| image.id.hex().starts_with(hex));
    match (matching.next(), matching.next()) {
        (Some(_), Some(_)) => Err(ImageError::AmbiguousId(name.to_owned())),
        (found, _) => Ok(found.cloned()),
    }
}

fn union(first: &[String], second: &[String]) -> Vec<String> {
    let mut all = first.to_vec();
    all.extend(second.iter().filter(|name| !first.contains(name)).cloned());
    all
}

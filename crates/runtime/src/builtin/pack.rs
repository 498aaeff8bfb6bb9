//! The built-in image as other engines take it: a layer, a configuration and a manifest that hash.
//!
//! On this machine it is a directory that nobody has to read. Saved, it is an image like any other, for
//! `ctr images import`, `docker load` and registries. The same executable gives the same bytes every time.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sampan_oci::digest::Hasher;
use sampan_oci::manifest::{Manifest, media_type};
use sampan_oci::{Algorithm, Descriptor, Digest, ImageConfig};
use tar::{EntryType, Header};

use crate::images::{ImageError, ImageRecord, LayerRecord};

/// Writes the blobs of the built-in image, whose one layer is the directory `root`, into `dir`, each under the
/// hexadecimal part of its digest. The answer is the image that they are. Blocks.
pub(crate) fn pack(image: &ImageRecord, root: &Path, dir: &Path) -> Result<ImageRecord, ImageError> {
    let layer = layer(root, dir).map_err(|e| ImageError::io("pack the built-in image from", root, e))?;
    let mut config: ImageConfig = image.config.clone();
    // This machine's is what it can run; the binary asks for less.
    config.platform.variant.clear();
    config.rootfs.diff_ids = vec![layer.digest.clone()];
    let config_blob = document(dir, media_type::OCI_CONFIG, &config)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: config_blob.clone(),
        layers: vec![layer.clone()],
        annotations: Default::default(),
    };
    let manifest = document(dir, media_type::OCI_MANIFEST, &manifest)?;
    let (diff_id, chain_id) = (layer.digest.clone(), layer.digest.clone());
    Ok(ImageRecord {
        id: config_blob.digest,
        size: manifest.size + config_blob.size + layer.size,
        manifest: Some(manifest),
        repo_digests: Vec::new(),
        config,
        layers: vec![LayerRecord { blob: layer, diff_id, chain_id }],
        ..image.clone()
    })
}

fn document(dir: &Path, media_type: &str, value: &impl serde::Serialize) -> Result<Descriptor, ImageError> {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let blob = Descriptor::of(media_type, &bytes);
    let path = dir.join(blob.digest.hex());
    fs::write(&path, bytes).map_err(|e| ImageError::io("write", &path, e))?;
    Ok(blob)
}

fn layer(root: &Path, dir: &Path) -> io::Result<Descriptor> {
    let unnamed = dir.join("layer");
    let out = Hashing { out: File::create(&unnamed)?, hasher: Hasher::new(Algorithm::Sha256), size: 0 };
    let mut tar = tar::Builder::new(out);
    append(&mut tar, root, "".as_ref())?;
    let Hashing { hasher, size, .. } = tar.into_inner()?;
    let digest: Digest = hasher.finish();
    fs::rename(unnamed, dir.join(digest.hex()))?;
    Ok(Descriptor { digest, size, ..Descriptor::of(media_type::OCI_LAYER, b"") })
}

/// What is in `root/at`, by name; times and owners are nobody's.
fn append(tar: &mut tar::Builder<Hashing>, root: &Path, at: &Path) -> io::Result<()> {
    let mut names: Vec<_> =
        fs::read_dir(root.join(at))?.map(|e| Ok(e?.file_name())).collect::<io::Result<_>>()?;
    names.sort();
    for name in names {
        let (path, full) = (at.join(&name), root.join(at).join(&name));
        let meta = fs::symlink_metadata(&full)?;
        let mut header = Header::new_gnu();
        header.set_mode(meta.mode() & 0o7777);
        header.set_size(0);
        if meta.is_dir() {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, &path, io::empty())?;
            append(tar, root, &path)?;
        } else if meta.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, &path, fs::read_link(&full)?)?;
        } else {
            header.set_size(meta.len());
            tar.append_data(&mut header, &path, File::open(&full)?.take(meta.len()))?;
        }
    }
    Ok(())
}

/// A file whose content is hashed as it is written.
struct Hashing {
    out: File,
    hasher: Hasher,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

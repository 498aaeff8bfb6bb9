//! Images to archives.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use sampan_oci::digest::Verifier;
use sampan_oci::manifest::{Index, MAX_CONFIG, MAX_MANIFEST, media_type};
use sampan_oci::{Descriptor, Digest};
use serde_json::json;
use tar::{EntryType, Header};

use super::{ArchiveFormat, ImageError, ImageRecord, ImageStore};
use crate::builtin;

impl ImageStore {
    /// Writes images as one archive: an OCI layout, and for [`ArchiveFormat::Docker`] also the
    /// `manifest.json` that `docker load` wants. Only this platform's part of a multi-platform image is
    /// here to be saved.
    pub async fn save<W>(
        self: &Arc<Self>,
        names: &[String],
        format: ArchiveFormat,
        writer: W,
    ) -> Result<W, ImageError>
    where
        W: Write + Send + 'static,
    {
        let mut images = Vec::new();
        for name in names {
            let image = self.resolve(name)?.ok_or_else(|| ImageError::NotFound(name.clone()))?;
            if builtin::is_builtin(&image) {
                return Err(ImageError::Archive(format!(
                    "{name:?} is built in and made anew on every machine"
                )));
            }
            images.push((name.clone(), image));
        }
        let lease = self.leases.open();
        for (_, image) in &images {
            lease.hold(super::collect::needed(image)).await;
        }
        let this = self.clone();
        let write = move || this.write_archive(&images, format, writer);
        let written = tokio::task::spawn_blocking(write).await.map_err(|_| ImageError::Worker)?;
        drop(lease);
        written
    }

    fn write_archive<W: Write>(
        &self,
        images: &[(String, Arc<ImageRecord>)],
        format: ArchiveFormat,
        mut out: W,
    ) -> Result<W, ImageError> {
        let mut written = std::collections::HashSet::new();
        let mut index = Index {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            manifests: Vec::new(),
            annotations: Default::default(),
        };
        let mut docker = Vec::new();
        append(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        for (name, image) in images {
            let Some(manifest) = &image.manifest else { continue };
            for (digest, limit) in [(&manifest.digest, MAX_MANIFEST), (&image.id, MAX_CONFIG)] {
                if written.insert(digest.clone()) {
                    let bytes = self.content.read(digest, limit)?.ok_or_else(|| missing(digest))?;
                    append(&mut out, &blob_name(digest), &bytes)?;
                }
            }
            for layer in &image.layers {
                if written.insert(layer.blob.digest.clone()) {
                    self.append_blob(&mut out, &layer.blob)?;
                }
            }
            let tags = tags_of(name, image);
            for tag in tags.iter().map(Some).chain(tags.is_empty().then_some(None)) {
                let mut entry =
                    Descriptor { platform: Some(image.config.platform.clone()), ..manifest.clone() };
                if let Some(tag) = tag {
                    entry.annotations.insert("io.containerd.image.name".to_owned(), tag.clone());
                    let short = tag.rsplit_once(':').map_or("latest", |(_, tag)| tag);
                    entry
                        .annotations
                        .insert("org.opencontainers.image.ref.name".to_owned(), short.to_owned());
                }
                index.manifests.push(entry);
            }
            let layers: Vec<String> =
                image.layers.iter().map(|layer| blob_name(&layer.blob.digest)).collect();
            docker.push(json!({ "Config": blob_name(&image.id), "RepoTags": tags, "Layers": layers }));
        }
        append(&mut out, "index.json", &serde_json::to_vec(&index).unwrap_or_default())?;
        if format == ArchiveFormat::Docker {
            append(&mut out, "manifest.json", &serde_json::to_vec(&docker).unwrap_or_default())?;
        }
        // Two empty blocks end a tar.
        out.write_all(&[0; 1024]).and_then(|()| out.flush()).map_err(written_error)?;
        Ok(out)
    }

    fn append_blob<W: Write>(&self, out: &mut W, blob: &Descriptor) -> Result<(), ImageError> {
        let path = self.content.path(&blob.digest);
        let mut file = File::open(&path).map_err(|_| missing(&blob.digest))?;
        out.write_all(header(&blob_name(&blob.digest), blob.size).as_bytes()).map_err(written_error)?;
        let mut verifier = Verifier::new(blob.digest.clone(), Some(blob.size));
        let mut buffer = vec![0; 256 << 10];
        let bad = |source| ImageError::Verify { image: blob.digest.to_string(), source };
        loop {
            let n = file.read(&mut buffer).map_err(|e| ImageError::io("read", &path, e))?;
            if n == 0 {
                break;
            }
            verifier.update(&buffer[..n]).map_err(bad)?;
            out.write_all(&buffer[..n]).map_err(written_error)?;
        }
        verifier.finish().map_err(bad)?;
        pad(out, blob.size)
    }
}

/// The tags that are saved: the named one, or all of an image that was named by id.
fn tags_of(name: &str, image: &ImageRecord) -> Vec<String> {
    let tag = sampan_oci::Reference::parse(name).ok().and_then(|r| r.repo_tag());
    match tag.filter(|tag| image.repo_tags.contains(tag)) {
        Some(tag) => vec![tag],
        None => image.repo_tags.clone(),
    }
}

fn missing(digest: &Digest) -> ImageError {
    ImageError::Archive(format!("{digest} is missing or damaged in the store; pull the image again"))
}

fn written_error(source: io::Error) -> ImageError {
    ImageError::io("write", "archive", source)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

fn append(out: &mut impl Write, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
    let size = bytes.len() as u64;
    let result = out.write_all(header(name, size).as_bytes()).and_then(|()| out.write_all(bytes));
    result.map_err(written_error)?;
    pad(out, size)
}

fn pad(out: &mut impl Write, size: u64) -> Result<(), ImageError> {
    let padding = usize::try_from((512 - size % 512) % 512).unwrap_or_default();
    out.write_all(&[0; 512][..padding]).map_err(written_error)
}

fn header(name: &str, size: u64) -> Header {
    let mut header = Header::new_ustar();
    // Our names are short: `blobs/sha512/<128 hex>` fits the prefix split.
    let _ = header.set_path(name);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    header
}

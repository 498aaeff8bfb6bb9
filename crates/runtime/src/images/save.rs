//! Images to archives.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use sampan_oci::digest::Verifier;
use sampan_oci::manifest::{Document, Index, MAX_CONFIG, MAX_MANIFEST, media_type};
use sampan_oci::{Descriptor, Digest, Reference};
use serde_json::json;
use tar::{EntryType, Header};

use super::{ArchiveFormat, ImageError, ImageRecord, ImageStore};
use crate::builtin;
use crate::content::Scratch;

/// An image that is saved.
struct Subject {
    /// As it was asked for.
    name: String,
    image: Arc<ImageRecord>,
    /// Where the blobs of the built-in image are, which has none in the store.
    packed: Option<Scratch>,
}

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
            images.push(self.subject(name.clone(), image).await?);
        }
        let lease = self.leases.open();
        for subject in &images {
            lease.hold(super::collect::needed(&subject.image)).await;
        }
        let this = self.clone();
        let write = move || this.write_archive(&images, format, writer);
        let written = tokio::task::spawn_blocking(write).await.map_err(|_| ImageError::Worker)?;
        drop(lease);
        written
    }

    async fn subject(&self, name: String, image: Arc<ImageRecord>) -> Result<Subject, ImageError> {
        if !builtin::is_builtin(&image) {
            return Ok(Subject { name, image, packed: None });
        }
        let root = image.chain_ids().next().and_then(|layer| self.snapshots.layer(layer));
        let root = root.ok_or_else(|| ImageError::NotFound(name.clone()))?;
        let scratch = self.content.scratch()?;
        let work = move || {
            let image = Arc::new(builtin::pack(&image, &root, scratch.path())?);
            Ok(Subject { name, image, packed: Some(scratch) })
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| ImageError::Worker)?
    }

    fn write_archive<W: Write>(
        &self,
        images: &[Subject],
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
        for subject in images {
            let Subject { name, image, .. } = subject;
            let Some(manifest) = &image.manifest else { continue };
            let entries = self.entries(name, image, manifest);
            let named = entries.iter().map(|entry| (&entry.digest, MAX_MANIFEST));
            let own = [(&manifest.digest, MAX_MANIFEST), (&image.id, MAX_CONFIG)];
            for (digest, limit) in named.chain(own) {
                if written.insert(digest.clone()) {
                    let bytes = self.document(subject, digest, limit)?;
                    append(&mut out, &blob_name(digest), &bytes)?;
                }
            }
            index.manifests.extend(entries);
            for layer in &image.layers {
                if written.insert(layer.blob.digest.clone()) {
                    self.append_blob(&mut out, subject, &layer.blob)?;
                }
            }
            let tags = tags_of(name, image);
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

    /// What the index of a layout says of an image: what each of its names means.
    fn entries(&self, name: &str, image: &ImageRecord, manifest: &Descriptor) -> Vec<Descriptor> {
        let manifest = Descriptor { platform: Some(image.config.platform.clone()), ..manifest.clone() };
        let index = image.index.as_ref().filter(|index| self.lists(index, &manifest.digest));
        let mut entries = Vec::new();
        for name in names_of(name, image) {
            let (document, short) = match name.split_once('@') {
                Some((_, digest)) => {
                    let mut documents = index.into_iter().chain([&manifest]);
                    (documents.find(|document| document.digest.to_string() == digest), None)
                }
                None => (Some(&manifest), Some(name.rsplit_once(':').map_or("latest", |(_, tag)| tag))),
            };
            let Some(mut entry) = document.cloned() else { continue };
            if let Some(short) = short {
                entry.annotations.insert("org.opencontainers.image.ref.name".to_owned(), short.to_owned());
            }
            entry.annotations.insert("io.containerd.image.name".to_owned(), name);
            entries.push(entry);
        }
        if entries.is_empty() {
            entries.push(manifest);
        }
        entries
    }

    /// Whether a manifest stands in a stored index. In one within it does not count: only the outermost is kept.
    fn lists(&self, index: &Descriptor, manifest: &Digest) -> bool {
        let bytes = self.content.read(&index.digest, MAX_MANIFEST).ok().flatten();
        let document = bytes.and_then(|bytes| Document::parse(&bytes, Some(&index.media_type)).ok());
        let Some(Document::Index(index)) = document else { return false };
        index.manifests.iter().any(|entry| entry.digest == *manifest)
    }

    fn path_of(&self, subject: &Subject, digest: &Digest) -> PathBuf {
        let packed = subject.packed.as_ref().map(|dir| dir.path().join(digest.hex()));
        packed.unwrap_or_else(|| self.content.path(digest))
    }

    fn document(&self, subject: &Subject, digest: &Digest, limit: u64) -> Result<Vec<u8>, ImageError> {
        if subject.packed.is_none() {
            return self.content.read(digest, limit)?.ok_or_else(|| missing(digest));
        }
        let path = self.path_of(subject, digest);
        fs::read(&path).map_err(|e| ImageError::io("read", &path, e))
    }

    fn append_blob<W: Write>(
        &self,
        out: &mut W,
        subject: &Subject,
        blob: &Descriptor,
    ) -> Result<(), ImageError> {
        let path = self.path_of(subject, &blob.digest);
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

/// The names that a layout gives: the one that was asked for, or all tags of an image that was named by id, or all
/// digests of one that has no tag.
fn names_of(name: &str, image: &ImageRecord) -> Vec<String> {
    let reference = Reference::parse(name).ok();
    let asked = reference.and_then(|r| r.digest().map(|digest| r.repo_digest(digest)));
    match asked.filter(|name| image.repo_digests.contains(name)) {
        Some(asked) => vec![asked],
        None if image.repo_tags.is_empty() => image.repo_digests.clone(),
        None => tags_of(name, image),
    }
}

/// The tags that are saved: the named one, or all of an image that was named by id.
fn tags_of(name: &str, image: &ImageRecord) -> Vec<String> {
    let tag = Reference::parse(name).ok().and_then(|r| r.repo_tag());
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

//! Images from archives: OCI layouts and what `docker save` writes, plain or compressed, from any reader.
//!
//! An archive lists its content first or last, as its writer liked, and the reader may be a pipe: everything
//! is spooled to disk first, hashed on the way, and nothing is believed that does not hash.

mod archive;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use sampan_oci::manifest::{Document, Index, MAX_CONFIG, MAX_MANIFEST, Manifest, media_type};
use sampan_oci::{Descriptor, Digest, Reference};
use serde::Deserialize;

use super::leases::Lease;
use super::progress::Reporter;
use super::pull::{MAX_INDEXES, Plan};
use super::{ImageError, ImageRecord, ImageStore};
use archive::{Archive, spool};

/// One image of an archive, before its layers are unpacked.
struct Candidate {
    manifest: Manifest,
    descriptor: Descriptor,
    index: Option<Descriptor>,
    config: Vec<u8>,
    names: Vec<Reference>,
}

/// `manifest.json` of a docker archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl ImageStore {
    /// Loads all images of an archive that are for this platform. What has no name in the archive is known
    /// by its id afterwards.
    pub async fn load<R>(self: &Arc<Self>, reader: R) -> Result<Vec<Arc<ImageRecord>>, ImageError>
    where
        R: Read + Send + 'static,
    {
        let scratch = Arc::new(self.content.scratch()?);
        let lease = Arc::new(self.leases.open());
        let (this, dir) = (self.clone(), scratch.clone());
        let read = move || {
            let archive = spool(reader, dir.path(), this.config.limits.max_bytes)?;
            this.candidates(&archive).map(|candidates| (archive, candidates))
        };
        let (archive, candidates) =
            tokio::task::spawn_blocking(read).await.map_err(|_| ImageError::Worker)??;
        let mut loaded = Vec::new();
        for candidate in candidates {
            let image = self.load_one(&archive, candidate, &lease).await?;
            loaded.push(image);
        }
        drop((lease, scratch));
        self.sync_later();
        Ok(loaded)
    }

    async fn load_one(
        self: &Arc<Self>,
        archive: &Archive,
        candidate: Candidate,
        lease: &Arc<Lease>,
    ) -> Result<Arc<ImageRecord>, ImageError> {
        let Candidate { manifest, descriptor, index, config, names } = candidate;
        let label = names.first().map_or_else(|| manifest.config.digest.to_string(), ToString::to_string);
        let document = serde_json::to_vec(&manifest).unwrap_or_default();
        let plan: Plan =
            self.assemble(&label, &self.config.platform, manifest, descriptor, index, &config)?;
        lease.hold(plan.digests()).await;
        lease.hold(plan.index.iter().map(|index| index.digest.clone())).await;
        self.content.write(&plan.config_descriptor.digest, &config)?;
        let documents = plan.index.iter().chain([&plan.manifest]);
        for wanted in documents {
            match archive.by_digest(&wanted.digest) {
                Some(file) => self.content.write(&wanted.digest, &file.read(MAX_MANIFEST)?)?,
                // Made by us from a docker archive.
                None => self.content.write(&wanted.digest, &document)?,
            }
        }
        for layer in &plan.layers {
            let blob = &layer.blob;
            // The archive's copy has just been hashed; a stored one may be damaged.
            let wanted = !self.snapshots.has(&layer.chain_id) || !self.content.has(&blob.digest, blob.size);
            if wanted
                && let Some(file) = archive.by_digest(&blob.digest)
                && file.path.exists()
            {
                self.content.adopt(&file.path, &blob.digest)?;
            }
        }
        self.obtain_layers(&plan, &None, &Reporter::default()).await?;
        let digests = digests_of(archive, &plan);
        let unnamed = Reference::parse("unnamed").map_err(ImageError::from)?;
        let mut record = self.record(plan, &unnamed, None);
        // What another machine has saved of its built-in image does not stand in for this one's.
        let foreign = || names.iter().filter(|name| !crate::builtin::is_ours(name));
        record.repo_tags = foreign().filter_map(Reference::repo_tag).collect();
        for name in foreign() {
            // A name with another digest claims what the archive does not show.
            let shown = digests.iter().filter(|digest| name.digest().is_none_or(|own| own == *digest));
            for name in shown.map(|digest| name.repo_digest(digest)) {
                if !record.repo_digests.contains(&name) {
                    record.repo_digests.push(name);
                }
            }
        }
        let (this, lease) = (self.clone(), Arc::clone(lease));
        // The lease goes with the record, also when nobody waits for it any more.
        let put = move || {
            let _lease = lease;
            this.database.put(record)
        };
        tokio::task::spawn_blocking(put).await.map_err(|_| ImageError::Worker)?
    }

    fn candidates(&self, archive: &Archive) -> Result<Vec<Candidate>, ImageError> {
        let mut found = match archive.get("index.json") {
            Some(file) => self.layout_images(archive, &file.read(MAX_MANIFEST)?)?,
            None => Vec::new(),
        };
        if let Some(file) = archive.get("manifest.json") {
            let docker = docker_images(archive, &file.read(MAX_MANIFEST)?)?;
            if found.is_empty() {
                found = docker;
            } else {
                // Both describe the same images; the names stand in the docker part.
                for candidate in &mut found {
                    let config = &candidate.manifest.config.digest;
                    let names =
                        docker.iter().filter(|d| d.manifest.config.digest == *config).flat_map(|d| &d.names);
                    for name in names {
                        if !candidate.names.contains(name) {
                            candidate.names.push(name.clone());
                        }
                    }
                }
            }
        }
        if found.is_empty() {
            let what =
                "there is no image for this platform in it (neither index.json nor manifest.json names one)";
            return Err(ImageError::Archive(what.to_owned()));
        }
        Ok(found)
    }

    fn layout_images(&self, archive: &Archive, bytes: &[u8]) -> Result<Vec<Candidate>, ImageError> {
        let bad = |source| ImageError::Manifest { image: "index.json".to_owned(), source };
        let Document::Index(top) = Document::parse(bytes, Some(media_type::OCI_INDEX)).map_err(bad)? else {
            return Err(ImageError::Archive("index.json is not an index".to_owned()));
        };
        let mut found: Vec<Candidate> = Vec::new();
        for entry in &top.manifests {
            if entry
                .platform
                .as_ref()
                .is_some_and(|p| p.is_unknown() || self.config.platform.rank(p).is_none())
            {
                continue;
            }
            let Some(file) = archive.by_digest(&entry.digest) else { continue };
            let document =
                Document::parse(&file.read(MAX_MANIFEST)?, Some(&entry.media_type)).map_err(bad)?;
            let candidate = match document {
                Document::Manifest(manifest) => archive.candidate(manifest, entry.clone(), None)?,
                Document::Index(index) => self.index_image(archive, &index, entry, 1)?,
            };
            let Some(mut candidate) = candidate else { continue };
            candidate.names = name_of(entry).into_iter().collect();
            match found.iter_mut().find(|c| c.manifest.config.digest == candidate.manifest.config.digest) {
                Some(same) => same.names.extend(candidate.names),
                None => found.push(candidate),
            }
        }
        Ok(found)
    }

    fn index_image(
        &self,
        archive: &Archive,
        index: &Index,
        top: &Descriptor,
        depth: usize,
    ) -> Result<Option<Candidate>, ImageError> {
        let Ok(entry) = index.select(&self.config.platform) else { return Ok(None) };
        let Some(file) = archive.by_digest(&entry.digest) else { return Ok(None) };
        let bad = |source| ImageError::Manifest { image: entry.digest.to_string(), source };
        match Document::parse(&file.read(MAX_MANIFEST)?, Some(&entry.media_type)).map_err(bad)? {
            Document::Manifest(manifest) => archive.candidate(manifest, entry.clone(), Some(top.clone())),
            Document::Index(index) if depth < MAX_INDEXES => {
                self.index_image(archive, &index, top, depth + 1)
            }
            Document::Index(_) => {
                Err(ImageError::NestedIndex { image: top.digest.to_string(), digest: entry.digest.clone() })
            }
        }
    }
}

/// The digests that a layout's image is known by, first what its name means; what we make of a docker archive has none
/// that anybody knows.
fn digests_of(archive: &Archive, plan: &Plan) -> Vec<Digest> {
    let documents = plan.index.iter().chain([&plan.manifest]);
    let in_archive = documents.filter(|document| archive.by_digest(&document.digest).is_some());
    in_archive.map(|document| document.digest.clone()).collect()
}

/// The name that a layout's entry carries; a bare tag (`latest`) is none.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let get = |key: &str| entry.annotations.get(key);
    let full = get("io.containerd.image.name");
    let short = get("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':']));
    Reference::parse(full.or(short)?).ok()
}

fn docker_images(archive: &Archive, bytes: &[u8]) -> Result<Vec<Candidate>, ImageError> {
    let entries: Vec<DockerEntry> = serde_json::from_slice(bytes)
        .map_err(|e| ImageError::Archive(format!("manifest.json is malformed: {e}")))?;
    let mut found = Vec::new();
    for entry in entries {
        let missing = |name: &str| ImageError::Archive(format!("{name:?} is missing"));
        let config = archive.get(&entry.config).ok_or_else(|| missing(&entry.config))?;
        let mut layers = Vec::new();
        for name in entry.layers.unwrap_or_default() {
            let file = archive.get(&name).ok_or_else(|| missing(&name))?;
            layers.push(file.descriptor(media_type::OCI_LAYER));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            config: config.descriptor(media_type::OCI_CONFIG),
            layers,
            annotations: BTreeMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest).unwrap_or_default();
        let descriptor = Descriptor::of(media_type::OCI_MANIFEST, &bytes);
        let names = entry
            .repo_tags
            .unwrap_or_default()
            .iter()
            .filter_map(|name| Reference::parse(name).ok())
            .collect();
        found.push(Candidate { manifest, descriptor, index: None, config: config.read(MAX_CONFIG)?, names });
    }
    Ok(found)
}

impl Archive {
    fn candidate(
        &self,
        manifest: Manifest,
        descriptor: Descriptor,
        index: Option<Descriptor>,
    ) -> Result<Option<Candidate>, ImageError> {
        let digest = &manifest.config.digest;
        let Some(config) = self.by_digest(digest) else {
            return Err(ImageError::Archive(format!("configuration {digest} is missing")));
        };
        let config = config.read(MAX_CONFIG)?;
        Ok(Some(Candidate { manifest, descriptor, index, config, names: Vec::new() }))
    }
}

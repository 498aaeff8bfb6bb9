//! Images made by hand, so that every detail can be right or wrong.
#![allow(dead_code)]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sampan_oci::manifest::media_type as mt;
use sampan_oci::registry::ClientConfig;
use sampan_oci::{Descriptor, Digest};
use sampan_runtime::images::{ImageError, ImageRecord, ImageStore, ImageStoreConfig, PullRequest};
use serde_json::{Value, json};

use super::fake::Fake;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Coding {
    Plain,
    Gzip,
    Zstd,
}

pub(crate) fn encode(tar: &[u8], coding: Coding) -> Vec<u8> {
    match coding {
        Coding::Plain => tar.to_vec(),
        Coding::Gzip => {
            let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            e.write_all(tar).unwrap();
            e.finish().unwrap()
        }
        Coding::Zstd => zstd::encode_all(tar, 1).unwrap(),
    }
}

/// A tar of files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(if name.ends_with('/') { 0o755 } else { 0o644 });
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) struct Image {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) manifest_type: &'static str,
    /// (descriptor, blob)
    pub(crate) layers: Vec<(Descriptor, Vec<u8>)>,
}

impl Image {
    pub(crate) fn new(layers: &[(Vec<u8>, Coding)]) -> Self {
        Self::with(layers, false, json!({"Cmd": ["/bin/app"], "User": "1000:1000", "Env": ["A=b"]}))
    }

    pub(crate) fn with(layers: &[(Vec<u8>, Coding)], docker: bool, config: Value) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _)| Digest::sha256(tar).to_string()).collect();
        let layers = layers
            .iter()
            .map(|(tar, coding)| {
                let media_type = match (docker, coding) {
                    (true, _) => mt::DOCKER_LAYER_GZIP,
                    (false, Coding::Plain) => mt::OCI_LAYER,
                    (false, Coding::Gzip) => mt::OCI_LAYER_GZIP,
                    (false, Coding::Zstd) => mt::OCI_LAYER_ZSTD,
                };
                let blob = encode(tar, *coding);
                (Descriptor::of(media_type, &blob), blob)
            })
            .collect();
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64", "os": "linux", "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))
        .unwrap();
        let mut image = Self {
            config,
            manifest: Vec::new(),
            manifest_type: if docker { mt::DOCKER_MANIFEST } else { mt::OCI_MANIFEST },
            layers,
        };
        image.seal();
        image
    }

    /// Writes the manifest anew.
    pub(crate) fn seal(&mut self) {
        let config_type =
            if self.manifest_type == mt::DOCKER_MANIFEST { mt::DOCKER_CONFIG } else { mt::OCI_CONFIG };
        let layers: Vec<&Descriptor> = self.layers.iter().map(|(d, _)| d).collect();
        self.manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": self.manifest_type,
            "config": Descriptor::of(config_type, &self.config), "layers": layers,
        }))
        .unwrap();
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::sha256(&self.manifest)
    }

    pub(crate) fn id(&self) -> Digest {
        Digest::sha256(&self.config)
    }

    /// Puts it into a registry, under a tag and its digest.
    pub(crate) fn publish(&self, fake: &Fake, tag: &str) {
        for (descriptor, blob) in &self.layers {
            fake.blob(&descriptor.digest.to_string(), blob.clone());
        }
        fake.blob(&self.id().to_string(), self.config.clone());
        fake.manifest(&self.digest().to_string(), self.manifest_type, self.manifest.clone());
        if !tag.is_empty() {
            fake.manifest(tag, self.manifest_type, self.manifest.clone());
        }
    }

    pub(crate) fn entry(&self, platform: Value) -> Value {
        json!({"mediaType": self.manifest_type, "digest": self.digest(), "size": self.manifest.len(), "platform": platform})
    }
}

/// Content that does not compress well, different for each seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

pub(crate) fn config(dir: &Path) -> ImageStoreConfig {
    let mut config = ImageStoreConfig::new(dir);
    config.registry = ClientConfig {
        retry_pause: Duration::from_millis(10),
        stall_timeout: Duration::from_secs(2),
        ..ClientConfig::default()
    };
    config
}

pub(crate) async fn open(dir: &Path) -> Arc<ImageStore> {
    ImageStore::open(config(dir)).await.unwrap()
}

pub(crate) async fn pull(store: &Arc<ImageStore>, image: &str) -> Result<Arc<ImageRecord>, ImageError> {
    store.pull(PullRequest { image: image.to_owned(), ..PullRequest::default() }).await
}

/// A file of the image, through its layers' directories.
pub(crate) fn file_of(store: &ImageStore, image: &ImageRecord, path: &str) -> Option<Vec<u8>> {
    image.chain_ids().rev().find_map(|chain| std::fs::read(store.snapshots().layer(chain)?.join(path)).ok())
}

/// No staged layer is left.
pub(crate) fn assert_tidy(dir: &Path) {
    let left: Vec<_> =
        std::fs::read_dir(dir.join("snapshots/tmp")).unwrap().flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

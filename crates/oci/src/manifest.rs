//! Manifests, indexes and image configurations, in their OCI and Docker spellings.
//!
//! Registries hold documents written by fifteen years of tools: nulls where lists belong, missing media
//! types, empty platforms. What an image needs is demanded; everything else is read leniently. A
//! document that could be read as two different things is refused.

mod config;
pub(crate) mod lenient;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use config::{ContainerConfig, ImageConfig, RootFs};

use crate::digest::Digest;
use crate::platform::Platform;

/// The largest manifest or index that is read: 4 MiB, the limit registries are told to accept.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// The largest image configuration that is read.
pub const MAX_CONFIG: u64 = 8 << 20;
/// The most layers an image may have: what one overlay mount of the kernel takes, less two.
pub const MAX_LAYERS: usize = 498;
/// The most entries an index may have.
pub const MAX_INDEX_ENTRIES: usize = 4096;

/// Media types, as they stand in documents and `Accept` headers.
pub mod media_type {
    /// OCI image manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image configuration.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, not compressed; `+gzip` and `+zstd` follow.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker image manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker image configuration.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer that must be fetched from elsewhere (Windows base images).
    pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    /// Docker manifest, schema 1 (refused).
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1";
    /// What a client that reads all of the above sends.
    pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
        application/vnd.oci.image.manifest.v1+json, \
        application/vnd.docker.distribution.manifest.list.v2+json, \
        application/vnd.docker.distribution.manifest.v2+json";
}

/// Why a document is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Larger than this crate reads.
    #[error("{what} has {size} bytes, more than the {limit} that are accepted")]
    TooLarge {
        /// `manifest`, `image configuration`.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The bound in bytes.
        limit: u64,
    },
    /// Not the JSON it should be.
    #[error("{what} is malformed: {source}")]
    Malformed {
        /// `manifest`, `index`, `image configuration`.
        what: &'static str,
        /// The parser's message.
        source: serde_json::Error,
    },
    /// Docker schema 1, which has no verifiable layers.
    #[error(
        "the image has a Docker schema 1 manifest, a format removed from registries and runtimes; \
         push it again with a current tool"
    )]
    Schema1,
    /// A media type that is no image.
    #[error("media type {0:?} is not an image manifest or index")]
    MediaType(String),
    /// Has both `manifests` and `layers` or `config`, so that two readers could see two images.
    #[error("the document is both an index and a manifest")]
    Ambiguous,
    /// More layers than can be mounted.
    #[error(
        "the image has {count} layers, a node mounts at most {limit}; build it again with fewer (join RUN lines, copy \
         from a build stage, or flatten it: `docker export` and `docker import`)"
    )]
    TooManyLayers {
        /// How many it has.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// More entries than are accepted.
    #[error("the {what} lists {count} entries, more than the {limit} that are accepted")]
    TooMany {
        /// `index`.
        what: &'static str,
        /// How many it lists.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// An index without an entry for the platform (IMG-47).
    #[error("no match for platform in manifest: not found (wanted {wanted}, the image has {})", list(.available))]
    NoPlatform {
        /// What was looked for.
        wanted: Platform,
        /// What the index offers.
        available: Vec<Platform>,
    },
    /// Layers of manifest and configuration do not belong together.
    #[error("the manifest has {layers} layers, the image configuration names {diff_ids}")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In `rootfs.diff_ids`.
        diff_ids: usize,
    },
    /// An artifact (chart, signature, …) instead of an image.
    #[error("{0:?} is not a container image (configuration media type)")]
    NotAnImage(String),
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none".to_owned();
    }
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A pointer to content (OCI image-spec, "descriptor").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type; empty when the document does not say.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where else the content may be (foreign layers).
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What an index entry is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// A descriptor of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::sha256(bytes),
            size: bytes.len() as u64,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
        }
    }
}

/// One image: its configuration and layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Media type; may be missing in OCI documents.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub layers: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Several images under one name, usually one per platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Media type; may be missing in OCI documents.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The entries.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub manifests: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, deserialize_with = "lenient::or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest URL can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

impl Document {
    /// Reads a manifest or index. `content_type` is what the registry called it (or the descriptor's
    /// media type); the document's own `mediaType` wins, its shape decides when there is neither.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        bound("manifest", bytes.len(), MAX_MANIFEST)?;
        let probe: Probe = serde_json::from_slice(bytes)
            .map_err(|source| ManifestError::Malformed { what: "manifest", source })?;
        let sent = content_type.map(|t| t.split(';').next().unwrap_or_default().trim()).unwrap_or_default();
        let named = if probe.media_type.is_empty() { sent } else { probe.media_type.as_str() };
        if probe.schema_version == Some(1) || named.starts_with(media_type::DOCKER_SCHEMA1) {
            return Err(ManifestError::Schema1);
        }
        let index_shape = probe.manifests.is_some();
        let manifest_shape = probe.layers.is_some() || probe.config.is_some();
        if index_shape && manifest_shape {
            return Err(ManifestError::Ambiguous);
        }
        let is_index = match named {
            media_type::OCI_INDEX | media_type::DOCKER_INDEX => true,
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => false,
            _ if index_shape => true,
            _ if manifest_shape => false,
            other => return Err(ManifestError::MediaType(other.to_owned())),
        };
        if is_index { Self::parse_index(bytes) } else { Self::parse_manifest(bytes) }
    }

    /// What the document says that it is; OCI's name for it when it says nothing.
    pub fn media_type(&self) -> &str {
        let (own, usual) = match self {
            Self::Manifest(manifest) => (&manifest.media_type, media_type::OCI_MANIFEST),
            Self::Index(index) => (&index.media_type, media_type::OCI_INDEX),
        };
        if own.is_empty() { usual } else { own }
    }

    fn parse_index(bytes: &[u8]) -> Result<Self, ManifestError> {
        let index: Index = serde_json::from_slice(bytes)
            .map_err(|source| ManifestError::Malformed { what: "index", source })?;
        too_many("index", index.manifests.len(), MAX_INDEX_ENTRIES)?;
        Ok(Self::Index(index))
    }

    fn parse_manifest(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|source| ManifestError::Malformed { what: "manifest", source })?;
        too_many_layers(manifest.layers.len())?;
        bound(
            "image configuration",
            usize::try_from(manifest.config.size).unwrap_or(usize::MAX),
            MAX_CONFIG,
        )?;
        Ok(Self::Manifest(manifest))
    }
}

impl Index {
    /// The entry that runs best on `platform`; the first of equals (IMG-46). Attestations and other
    /// `unknown/unknown` entries never match (IMG-47). An entry without platform matches only when it
    /// is the only one.
    pub fn select(&self, platform: &Platform) -> Result<&Descriptor, ManifestError> {
        let best = self
            .manifests
            .iter()
            .filter_map(|d| Some((platform.rank(d.platform.as_ref()?)?, d)))
            .min_by_key(|(rank, _)| *rank);
        if let Some((_, descriptor)) = best {
            return Ok(descriptor);
        }
        if let [only] = self.manifests.as_slice()
            && only.platform.as_ref().is_none_or(|p| p.os.is_empty() && p.architecture.is_empty())
        {
            return Ok(only);
        }
        let available =
            self.manifests.iter().filter_map(|d| d.platform.clone()).filter(|p| !p.is_unknown()).collect();
        Err(ManifestError::NoPlatform { wanted: platform.clone(), available })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default, deserialize_with = "lenient::or_default")]
    media_type: String,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
}

pub(crate) fn bound(what: &'static str, size: usize, limit: u64) -> Result<(), ManifestError> {
    let size = size as u64;
    if size > limit { Err(ManifestError::TooLarge { what, size, limit }) } else { Ok(()) }
}

fn too_many(what: &'static str, count: usize, limit: usize) -> Result<(), ManifestError> {
    if count > limit { Err(ManifestError::TooMany { what, count, limit }) } else { Ok(()) }
}

/// One overlay shows all layers.
fn too_many_layers(count: usize) -> Result<(), ManifestError> {
    if count > MAX_LAYERS { Err(ManifestError::TooManyLayers { count, limit: MAX_LAYERS }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;

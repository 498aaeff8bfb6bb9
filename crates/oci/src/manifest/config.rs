//! The image configuration: what to run and which layers make the root file system.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MAX_CONFIG, ManifestError, bound, lenient, too_many_layers};
use crate::digest::Digest;
use crate::platform::Platform;

/// An image configuration (OCI image-spec `config.md`, Docker image JSON).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// RFC 3339 time of the build; empty when not said.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// What it was built for.
    #[serde(flatten)]
    pub platform: Platform,
    /// What a container of it runs.
    #[serde(deserialize_with = "lenient::or_default")]
    pub config: ContainerConfig,
    /// The layers, uncompressed.
    #[serde(deserialize_with = "lenient::or_default")]
    pub rootfs: RootFs,
}

/// The `config` part: defaults for containers of the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `user[:group]`, names or numbers; empty is root.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `KEY=value` lines.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// First part of the command line.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Second part, or all of it when there is no entrypoint.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Initial directory; empty is `/`.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Signal that asks it to stop (`SIGQUIT`, `3`, `RTMIN+3`); empty is SIGTERM.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Paths that want a volume.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// Ports it listens on (`80/tcp`), informational.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Labels.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The `rootfs` part.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", deserialize_with = "lenient::or_default")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(deserialize_with = "lenient::or_default")]
    pub diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Reads an image configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        bound("image configuration", bytes.len(), MAX_CONFIG)?;
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|source| ManifestError::Malformed { what: "image configuration", source })?;
        too_many_layers(config.rootfs.diff_ids.len())?;
        Ok(config)
    }
}

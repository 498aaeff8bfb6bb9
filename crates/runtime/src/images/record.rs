//! What the store knows about one image.

use std::collections::BTreeMap;

use sampan_oci::{Descriptor, Digest, ImageConfig, Platform};
use serde::{Deserialize, Serialize};

/// One image in the local store; written to disk as it stands here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRecord {
    /// The image id: digest of the configuration.
    pub id: Digest,
    /// The manifest it was unpacked from; `None` for the built-in image, which has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Descriptor>,
    /// The index the manifest was chosen from, when the name meant one (IMG-48).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Descriptor>,
    /// Names with tags, normalised: `docker.io/library/root:latest`.
    #[serde(default)]
    pub repo_tags: Vec<String>,
    /// Names with digests: `docker.io/library/root@sha256:…`; the digest is what the name resolved to,
    /// so an index's digest when the name meant an index (IMG-48, IMG-86).
    #[serde(default)]
    pub repo_digests: Vec<String>,
    /// Names with tags that it has for runtime handlers of another platform, by that platform (KEP-4216).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub platform_tags: BTreeMap<String, Vec<String>>,
    /// Only such handlers know it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
    /// Bytes of manifest, configuration and (compressed) layers: what a pull of it moves.
    pub size: u64,
    /// The parsed configuration: entrypoint, cmd, env, user, working directory, stop signal, volumes.
    pub config: ImageConfig,
    /// The layers, lowest first.
    #[serde(default)]
    pub layers: Vec<LayerRecord>,
    /// Never collected.
    #[serde(default)]
    pub pinned: bool,
    /// RFC 3339 time at which it came into the store.
    pub stored_at: String,
    /// Annotations of the manifest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerRecord {
    /// The compressed blob; its digest equals `diff_id` for layers that are not compressed.
    pub blob: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest of this layer on top of the ones below: the snapshot's name.
    pub chain_id: Digest,
}

impl ImageRecord {
    /// The snapshot names of the layers, lowest first.
    pub fn chain_ids(&self) -> impl DoubleEndedIterator<Item = &Digest> {
        self.layers.iter().map(|layer| &layer.chain_id)
    }

    /// What `status.containerStatuses[].imageID` shows (IMG-86): a repo digest when there is one, else
    /// the image id.
    pub fn image_ref(&self) -> String {
        self.repo_digests.first().cloned().unwrap_or_else(|| self.id.to_string())
    }

    /// Every name, tags first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let foreign = self.platform_tags.values().flatten().filter(|tag| !self.repo_tags.contains(tag));
        self.repo_tags.iter().chain(foreign).chain(&self.repo_digests).map(String::as_str)
    }

    /// The tags that it has on this node, or for handlers of another platform.
    pub fn tags_for(&self, platform: Option<&Platform>) -> &[String] {
        match platform {
            None => &self.repo_tags,
            Some(platform) => self.platform_tags.get(&platform.to_string()).map_or(&[], Vec::as_slice),
        }
    }

    /// Whether it was pulled for this node, or for handlers of another platform.
    pub fn is_for(&self, platform: Option<&Platform>) -> bool {
        match platform {
            None => !self.foreign,
            Some(platform) => self.platform_tags.contains_key(&platform.to_string()),
        }
    }

    /// The numeric user of the image, when it is one (`1000`, `1000:1000`); 0 when none is named.
    pub fn uid(&self) -> Option<i64> {
        let user = self.user_part();
        if user.is_empty() { Some(0) } else { user.parse().ok() }
    }

    /// The user's name, when the image names one that is not a number.
    pub fn username(&self) -> Option<&str> {
        let user = self.user_part();
        (!user.is_empty() && user.parse::<i64>().is_err()).then_some(user)
    }

    fn user_part(&self) -> &str {
        self.config.config.user.split(':').next().unwrap_or_default()
    }
}

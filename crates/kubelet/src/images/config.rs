//! What the kubelet is told about images, under the names of upstream's `KubeletConfiguration`.

use std::path::PathBuf;
use std::time::Duration;

/// How images are pulled, guarded and collected. [`ImageConfig::default`] has upstream's defaults, but for
/// pulls, which are parallel here.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageConfig {
    /// One pull at a time (IMG-42). Upstream's default is true, ours is false: pulls of several pods share the
    /// network well, and one registry that hangs must not hold up the others.
    pub serialize_image_pulls: bool,
    /// Pulls at the same time over all pods (IMG-43).
    pub max_parallel_image_pulls: u32,
    /// Pulls per second; 0 for no limit (IMG-44).
    pub registry_pull_qps: u32,
    /// Pulls at once before [`registry_pull_qps`](Self::registry_pull_qps) counts.
    pub registry_burst: u32,
    /// Percent of the image file system from which images are removed (IMG-83).
    pub image_gc_high_threshold_percent: u8,
    /// Percent of the image file system down to which images are removed.
    pub image_gc_low_threshold_percent: u8,
    /// An image younger than this is not removed.
    pub image_minimum_gc_age: Duration,
    /// An image that nothing used for this long is removed however empty the disk is; zero for never (IMG-84).
    pub image_maximum_gc_age: Duration,
    /// Images listed in the Node's status; -1 for all (IMG-85).
    pub node_status_max_images: i32,
    /// Who must prove that it may use an image that is already here (KEP-2535, IMG-78).
    pub image_pull_credentials_verification_policy: VerificationPolicy,
    /// Images without tag or digest, or prefixes that end in `/*`, for
    /// [`VerificationPolicy::NeverVerifyAllowlistedImages`].
    pub preloaded_images_verification_allowlist: Vec<String>,
    /// The `CredentialProviderConfig` (v1) file, if any (IMG-74).
    pub image_credential_provider_config: Option<PathBuf>,
    /// Where the programs that it names are.
    pub image_credential_provider_bin_dir: Option<PathBuf>,
    /// Directories in which `config.json` and `.dockercfg` are looked for, first one first (IMG-58). `None` for
    /// the usual: the kubelet's root, the working directory, `$HOME/.docker`, `/.docker`.
    pub credential_search_dirs: Option<Vec<PathBuf>>,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            serialize_image_pulls: false,
            max_parallel_image_pulls: 4,
            registry_pull_qps: 5,
            registry_burst: 10,
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            image_minimum_gc_age: Duration::from_secs(120),
            image_maximum_gc_age: Duration::ZERO,
            node_status_max_images: 50,
            image_pull_credentials_verification_policy: VerificationPolicy::default(),
            preloaded_images_verification_allowlist: Vec::new(),
            image_credential_provider_config: None,
            image_credential_provider_bin_dir: None,
            credential_search_dirs: None,
        }
    }
}

/// `imagePullCredentialsVerificationPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerificationPolicy {
    /// An image that is here is everybody's.
    NeverVerify,
    /// An image that the kubelet did not pull itself is everybody's.
    #[default]
    NeverVerifyPreloadedImages,
    /// Only images of the allow list are everybody's.
    NeverVerifyAllowlistedImages,
    /// Everybody proves it, for each image.
    AlwaysVerify,
}

impl VerificationPolicy {
    /// The policy of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "NeverVerify" => Self::NeverVerify,
            "NeverVerifyPreloadedImages" => Self::NeverVerifyPreloadedImages,
            "NeverVerifyAllowlistedImages" => Self::NeverVerifyAllowlistedImages,
            "AlwaysVerify" => Self::AlwaysVerify,
            _ => return None,
        })
    }
}

impl ImageConfig {
    /// Whether the values fit each other.
    ///
    /// # Errors
    /// What is wrong, by upstream's names of the fields.
    pub fn validate(&self) -> Result<(), String> {
        let (high, low) = (self.image_gc_high_threshold_percent, self.image_gc_low_threshold_percent);
        if self.max_parallel_image_pulls < 1 {
            return Err("maxParallelImagePulls must be a positive number".to_owned());
        }
        if self.serialize_image_pulls && self.max_parallel_image_pulls > 1 {
            return Err("maxParallelImagePulls cannot be larger than 1 unless serializeImagePulls is false"
                .to_owned());
        }
        if high > 100 || low > 100 {
            return Err(
                "imageGCHighThresholdPercent and imageGCLowThresholdPercent must be between 0 and 100"
                    .to_owned(),
            );
        }
        if low >= high {
            return Err(format!(
                "imageGCLowThresholdPercent ({low}) must be less than imageGCHighThresholdPercent ({high})"
            ));
        }
        if !self.image_maximum_gc_age.is_zero() && self.image_maximum_gc_age <= self.image_minimum_gc_age {
            return Err("imageMaximumGCAge must be greater than imageMinimumGCAge".to_owned());
        }
        if self.node_status_max_images < -1 {
            return Err("nodeStatusMaxImages must be -1 or greater".to_owned());
        }
        if self.image_credential_provider_config.is_some() != self.image_credential_provider_bin_dir.is_some()
        {
            return Err(
                "image-credential-provider-config and image-credential-provider-bin-dir belong together"
                    .to_owned(),
            );
        }
        let allowlist = &self.preloaded_images_verification_allowlist;
        let allows = self.image_pull_credentials_verification_policy
            == VerificationPolicy::NeverVerifyAllowlistedImages;
        if !allowlist.is_empty() && !allows {
            return Err("preloadedImagesVerificationAllowlist may only be set when imagePullCredentialsVerificationPolicy is NeverVerifyAllowlistedImages".to_owned());
        }
        super::access::Allowlist::parse(allowlist).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn img_43_img_84_values_that_do_not_fit_are_refused() {
        assert_eq!(ImageConfig::default().validate(), Ok(()));
        let bad = [
            ImageConfig { max_parallel_image_pulls: 0, ..Default::default() },
            ImageConfig { serialize_image_pulls: true, max_parallel_image_pulls: 2, ..Default::default() },
            ImageConfig { image_gc_low_threshold_percent: 85, ..Default::default() },
            ImageConfig { image_maximum_gc_age: Duration::from_secs(60), ..Default::default() },
            ImageConfig { image_credential_provider_config: Some("/x".into()), ..Default::default() },
            ImageConfig { preloaded_images_verification_allowlist: vec!["a".into()], ..Default::default() },
        ];
        for config in bad {
            assert!(config.validate().is_err(), "{config:?}");
        }
        let serial =
            ImageConfig { serialize_image_pulls: true, max_parallel_image_pulls: 1, ..Default::default() };
        assert_eq!(serial.validate(), Ok(()));
    }
}

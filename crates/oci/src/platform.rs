//! Which entry of an image index this machine runs (IMG-46, IMG-47).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::manifest::lenient;

/// Operating system, CPU architecture and variant, with Go's names (`linux/arm64/v8`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    /// `linux`.
    #[serde(deserialize_with = "lenient::or_default")]
    pub os: String,
    /// `amd64`, `arm64`, `arm`, …
    #[serde(deserialize_with = "lenient::or_default")]
    pub architecture: String,
    /// `v8`, `v7`, …; empty when the architecture has none or the image does not say.
    #[serde(deserialize_with = "lenient::or_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Windows only; kept so that nothing is lost on the way.
    #[serde(
        rename = "os.version",
        deserialize_with = "lenient::or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
}

impl Platform {
    /// A platform without variant.
    pub fn new(os: &str, architecture: &str) -> Self {
        Self { os: os.to_owned(), architecture: architecture.to_owned(), ..Self::default() }
    }

    /// The machine that this program runs on.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", amd64_level()),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "x86" => ("386", ""),
            "powerpc64" => ("ppc64le", ""),
            "loongarch64" => ("loong64", ""),
            other => (other, ""),
        };
        Self { variant: variant.to_owned(), ..Self::new("linux", architecture) }
    }

    /// Every attestation and signature entry of an index says `unknown/unknown` (IMG-47).
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    /// How well an image for `image` runs here: 0 is best, `None` not at all. Lower variants of the
    /// own architecture come next, then the 32-bit architecture that the CPU also executes.
    pub fn rank(&self, image: &Platform) -> Option<u32> {
        if !self.os.eq_ignore_ascii_case(&image.os) || image.is_unknown() {
            return None;
        }
        let (own, own_variant) = normal(&self.architecture, &self.variant);
        let (theirs, their_variant) = normal(&image.architecture, &image.variant);
        if own == theirs {
            return match (level(own_variant), level(their_variant)) {
                (Some(own), Some(theirs)) => own.checked_sub(theirs),
                _ => (own_variant == their_variant).then_some(0),
            };
        }
        match (own, theirs) {
            ("amd64", "386") => Some(100),
            ("arm64", "arm") => Some(100 + 8u32.checked_sub(level(their_variant)?)?),
            _ => None,
        }
    }
}

/// Why a text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform: write os/architecture[/variant], as in linux/arm64")]
pub struct PlatformError(String);

impl std::str::FromStr for Platform {
    type Err = PlatformError;

    /// `linux/arm64`, `linux/arm/v7`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let good = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
        match parts.as_slice() {
            [os, architecture] if parts.iter().all(good) => Ok(Self::new(os, architecture)),
            [os, architecture, variant] if parts.iter().all(good) => {
                Ok(Self { variant: (*variant).to_owned(), ..Self::new(os, architecture) })
            }
            _ => Err(PlatformError(text.to_owned())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        let baseline = self.architecture == "amd64" && self.variant == "v1";
        if !self.variant.is_empty() && !baseline {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// Aliases, and the variant that a missing one means.
fn normal<'a>(architecture: &'a str, variant: &'a str) -> (&'a str, &'a str) {
    match (architecture, variant) {
        ("x86_64" | "x86-64" | "amd64", "") => ("amd64", "v1"),
        ("x86_64" | "x86-64", v) => ("amd64", v),
        ("aarch64" | "arm64", "" | "8" | "v8.0") => ("arm64", "v8"),
        ("aarch64", v) => ("arm64", v),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        ("i386", _) => ("386", ""),
        other => other,
    }
}

/// `v7` is 7.
fn level(variant: &str) -> Option<u32> {
    variant.strip_prefix('v')?.split('.').next()?.parse().ok()
}

#[cfg(target_arch = "x86_64")]
fn amd64_level() -> &'static str {
    let v2 = is_x86_feature_detected!("sse4.2")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("cmpxchg16b");
    let v3 = v2
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("movbe");
    let v4 = v3 && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl");
    match (v2, v3, v4) {
        (_, _, true) => "v4",
        (_, true, _) => "v3",
        (true, _, _) => "v2",
        _ => "v1",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64_level() -> &'static str {
    "v1"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Platform {
        let mut parts = text.split('/');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        Platform { os: next(), architecture: next(), variant: next(), os_version: String::new() }
    }

    #[test]
    fn img_46_variants() {
        assert_eq!(p("linux/amd64/v3").rank(&p("linux/amd64")), Some(2));
        assert_eq!(p("linux/amd64/v3").rank(&p("linux/amd64/v3")), Some(0));
        assert_eq!(p("linux/amd64").rank(&p("linux/amd64/v2")), None);
        assert_eq!(p("linux/amd64").rank(&p("linux/386")), Some(100));
        assert_eq!(p("linux/arm64").rank(&p("linux/arm64/v8")), Some(0));
        assert_eq!(p("linux/arm64/v8").rank(&p("linux/arm64")), Some(0));
        assert_eq!(p("linux/arm/v7").rank(&p("linux/arm/v6")), Some(1));
        assert_eq!(p("linux/arm/v6").rank(&p("linux/arm/v7")), None);
        assert_eq!(p("linux/arm64").rank(&p("linux/amd64")), None);
        assert_eq!(p("linux/amd64").rank(&p("windows/amd64")), None);
    }

    #[test]
    fn img_47_unknown_never_matches() {
        assert_eq!(p("linux/amd64").rank(&p("unknown/unknown")), None);
        assert!(Platform::host().rank(&Platform::host()).is_some());
    }
}

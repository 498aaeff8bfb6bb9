//! `imagePullCredentialsVerificationPolicy`: for which images access has to be proven at all (IMG-78).

use crate::image_name;
use crate::images::config::VerificationPolicy;

/// The policy with its list.
#[derive(Debug)]
pub(super) struct Enforcer {
    policy: VerificationPolicy,
    allowlist: Allowlist,
}

impl Enforcer {
    pub(super) fn new(policy: VerificationPolicy, allowlist: &[String]) -> Self {
        // `ImageConfig::validate` has refused what does not parse.
        Self { policy, allowlist: Allowlist::parse(allowlist).unwrap_or_default() }
    }

    /// Whether no record has to be looked at.
    pub(super) fn lets_everybody(&self) -> bool {
        self.policy == VerificationPolicy::NeverVerify
    }

    /// Whether access to `image` (as the spec writes it) must be proven.
    pub(super) fn must_verify(&self, image: &str, pulled_by_kubelet: bool) -> bool {
        match self.policy {
            VerificationPolicy::NeverVerify => false,
            VerificationPolicy::NeverVerifyPreloadedImages => pulled_by_kubelet,
            VerificationPolicy::NeverVerifyAllowlistedImages => !self.allowlist.contains(image),
            VerificationPolicy::AlwaysVerify => true,
        }
    }
}

/// `preloadedImagesVerificationAllowlist`: names as specs write them, without tag or digest.
#[derive(Debug, Default)]
pub(crate) struct Allowlist {
    exact: Vec<String>,
    /// With the slash at their end.
    prefixes: Vec<String>,
}

impl Allowlist {
    /// Reads the list.
    ///
    /// # Errors
    /// An entry that is no image name without tag and digest.
    pub(crate) fn parse(entries: &[String]) -> Result<Self, String> {
        let mut list = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            let field = format!("preloadedImagesVerificationAllowlist[{index}]: {entry:?}");
            if entry.is_empty() || entry.trim() != entry {
                return Err(format!("{field}: must not be empty nor have leading or trailing blanks"));
            }
            let (name, is_prefix) = match entry.strip_suffix("/*") {
                Some(prefix) => (prefix, true),
                None => (entry.as_str(), false),
            };
            if name.contains('*') {
                return Err(format!(
                    "{field}: a wildcard may only be the whole last part of the path (`/*`)"
                ));
            }
            let last = name.rsplit('/').next().unwrap_or_default();
            // A host with its port may stand alone before `/*`.
            let host_alone = is_prefix && !name.contains('/');
            if name.contains('@') || last.contains(':') && !host_alone {
                return Err(format!("{field}: must have no tag and no digest"));
            }
            if !host_alone {
                image_name::parse(name).map_err(|error| format!("{field}: {error}"))?;
            }
            if is_prefix {
                list.prefixes.push(format!("{name}/"));
            } else {
                list.exact.push(name.to_owned());
            }
        }
        Ok(list)
    }

    fn contains(&self, image: &str) -> bool {
        let name = image.split('@').next().unwrap_or_default();
        let name = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name,
            _ => name,
        };
        self.exact.iter().any(|exact| exact == name)
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn img_78_the_four_policies() {
        let list = ["reg.io/base/*".to_owned(), "busybox".to_owned()];
        for (policy, image, pulled, expected) in [
            (VerificationPolicy::NeverVerify, "a", true, false),
            (VerificationPolicy::NeverVerifyPreloadedImages, "a", true, true),
            (VerificationPolicy::NeverVerifyPreloadedImages, "a", false, false),
            (VerificationPolicy::NeverVerifyAllowlistedImages, "reg.io/base/x:1", true, false),
            (VerificationPolicy::NeverVerifyAllowlistedImages, "reg.io/basement/x", false, true),
            (VerificationPolicy::NeverVerifyAllowlistedImages, "busybox@sha256:00", false, false),
            // Compared as written, not as normalised.
            (VerificationPolicy::NeverVerifyAllowlistedImages, "docker.io/library/busybox", false, true),
            (VerificationPolicy::AlwaysVerify, "busybox", false, true),
        ] {
            assert_eq!(
                Enforcer::new(policy, &list).must_verify(image, pulled),
                expected,
                "{policy:?} {image}"
            );
        }
    }

    #[test]
    fn img_78_bad_lists_are_refused() {
        for bad in ["", " a", "a:1", "a@sha256:00", "reg.io/*/x", "reg.io/a*", "A"] {
            assert!(Allowlist::parse(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
        assert!(Allowlist::parse(&["reg.io:5000/*".to_owned()]).unwrap().contains("reg.io:5000/x:2"));
    }
}

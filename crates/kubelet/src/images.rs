//! Images on a node: policies, pulls, credentials, who may use what, and their removal (IMG-18 to IMG-89).
//!
//! [`ensure`] is the way of one image for one container. It asks [`access`] whether the pod may use what is
//! here, [`credentials`] for what to show to the registry, [`queue`] and [`rate_limit`] whether it is its turn;
//! [`failure`] puts into words what went wrong and [`wait`] ends a back-off as soon as its cause is gone.
//! [`collect`] removes what nothing uses.

pub(crate) mod access;
pub(crate) mod collect;
pub mod config;
pub(crate) mod credentials;
pub(crate) mod ensure;
pub(crate) mod failure;
mod progress;
mod pull;
mod queue;
mod rate_limit;
pub(crate) mod wait;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use sampan_cri::v1;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::image_name;
use crate::pod_ref;
use access::ImageAccess;
use config::ImageConfig;
use credentials::{NodeCredentials, Versions};
pub(crate) use ensure::{LookedUp, PresentImage, Wanted, ensure_image};
use queue::PullQueue;
use rate_limit::RateLimit;

/// Forgotten after twice the longest wait without a failure (IMG-37).
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Node-wide state of images.
pub(crate) struct Images {
    backoff: Mutex<Backoff>,
    queue: PullQueue,
    rate_limit: RateLimit,
    pub(crate) access: ImageAccess,
    pub(crate) credentials: NodeCredentials,
    /// By back-off key.
    last_failures: Mutex<HashMap<String, LastFailure>>,
}

/// Why a pull waits.
#[derive(Clone, Debug)]
struct LastFailure {
    /// `<reason>: <message>`, for the waiting message (IMG-34).
    cause: String,
    /// What the attempt was made with.
    read: Versions,
}

impl Images {
    /// # Errors
    /// A configuration that cannot be used, with the reason (IMG-75).
    pub(crate) fn new(config: &ImageConfig, root: &Path, clock: Clock) -> Result<Self, String> {
        config.validate()?;
        let parallel = if config.serialize_image_pulls { 1 } else { config.max_parallel_image_pulls };
        Ok(Self {
            backoff: Mutex::new(Backoff::new(clock.clone(), FORGET_AFTER)),
            queue: PullQueue::new(parallel as usize),
            rate_limit: RateLimit::new(config.registry_pull_qps, config.registry_burst),
            access: ImageAccess::new(root, config, clock),
            credentials: NodeCredentials::new(config, root)?,
            last_failures: Mutex::default(),
        })
    }

    fn backoff(&self) -> MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_failures(&self) -> MutexGuard<'_, HashMap<String, LastFailure>> {
        self.last_failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a pod's pulls.
    pub(crate) fn forget(&self, uid: &str) {
        let prefix = format!("{uid}_");
        self.last_failures().retain(|key, _| !key.starts_with(&prefix));
        let mut backoff = self.backoff();
        backoff.forget_prefix(&prefix);
        backoff.collect_garbage();
    }

    /// Lets the next attempt of `key` through at once: what it waited for happened. A further failure waits as
    /// long as it would have, so that a cause that keeps changing is no way around the back-off.
    pub(crate) fn excuse(&self, key: &str) {
        self.backoff().excuse(key);
    }
}

/// The pull policy, defaulted as the API server does should it be missing (IMG-18).
pub(crate) fn pull_policy(container: &Container) -> &str {
    policy_of(container.image_pull_policy.as_deref(), container.image.as_deref())
}

/// A policy as it is written, or the default for the image.
pub(crate) fn policy_of<'a>(policy: Option<&'a str>, image: Option<&str>) -> &'a str {
    policy.filter(|policy| !policy.is_empty()).unwrap_or_else(|| {
        match image_name::parse(image.unwrap_or_default()) {
            Ok(name) if name.tag == "latest" => "Always",
            _ => "IfNotPresent",
        }
    })
}

/// What the runtime is asked for. `handler` is that of the pod's RuntimeClass: a runtime may keep other
/// variants of images for it (KEP-4216).
pub(crate) fn image_spec(image: &str, pod: &Pod, handler: &str) -> v1::ImageSpec {
    v1::ImageSpec {
        image: image.to_owned(),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        runtime_handler: handler.to_owned(),
        ..Default::default()
    }
}

/// Two containers of a pod with one image share their back-off; a pod made anew begins afresh (IMG-36).
fn backoff_key(pod: &Pod, image: &str) -> String {
    format!("{}_{image}", pod_ref::uid(pod))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn img_18_policies_are_defaulted_by_tag() {
        let digested = format!("x:latest@sha256:{}", "a".repeat(64));
        let by_digest = format!("x@sha256:{}", "a".repeat(64));
        for (image, policy) in [
            ("x", "Always"),
            ("x:latest", "Always"),
            ("x:1", "IfNotPresent"),
            (digested.as_str(), "Always"),
            (by_digest.as_str(), "IfNotPresent"),
            ("BAD", "IfNotPresent"),
        ] {
            let container = Container { image: Some(image.into()), ..Default::default() };
            assert_eq!(pull_policy(&container), policy, "{image}");
        }
    }
}

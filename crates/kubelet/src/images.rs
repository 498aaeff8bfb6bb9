//! Images for containers: pull policy, pulls with back-off, events and waiting reasons (IMG-23 to IMG-41).

pub mod keyring;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use sampan_cri::v1;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Status;

use crate::backoff::Backoff;
use crate::context::NodeContext;
use crate::cri::go_error;
use crate::events::EventType;
use crate::go_duration;
use crate::image_name;
use crate::pod_ref::{self, ContainerKind};
use crate::status::container_status::StartError;
use keyring::{Credential, Keyring};

/// Forgotten after twice the longest wait without a failure (IMG-37).
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// How long a failed pull is shown as such before the state becomes `ImagePullBackOff`.
const BACKOFF_SHOWN_AFTER: Duration = Duration::from_secs(1);

/// Node-wide state of image pulls.
pub(crate) struct ImagePulls {
    backoff: Mutex<Backoff>,
    slots: Semaphore,
    /// The last failure by back-off key, for the waiting message (IMG-34).
    last_errors: Mutex<HashMap<String, String>>,
}

/// An image that is present.
#[derive(Clone, Debug)]
pub(crate) struct PresentImage {
    /// What the runtime calls it.
    pub(crate) reference: String,
    /// The user of its configuration, when numeric.
    pub(crate) uid: Option<i64>,
    /// The user of its configuration, when a name.
    pub(crate) username: String,
}

/// A local look-up that was made ahead of time.
pub(crate) type LookedUp = Result<Option<v1::Image>, Status>;

/// A failure with the message of the `Failed` event, or none when the event was already recorded.
pub(crate) struct ImageError {
    pub(crate) start_error: StartError,
    /// When to try again.
    pub(crate) retry_after: Duration,
}

impl ImagePulls {
    pub(crate) fn new(clock: crate::clock::Clock, parallel: usize) -> Self {
        Self {
            backoff: Mutex::new(Backoff::new(clock, FORGET_AFTER)),
            slots: Semaphore::new(parallel.max(1)),
            last_errors: Mutex::default(),
        }
    }

    fn backoff(&self) -> std::sync::MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn last_errors(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.last_errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Forgets a pod's pulls.
    pub(crate) fn forget(&self, uid: &str) {
        let prefix = format!("{uid}_");
        self.last_errors().retain(|key, _| !key.starts_with(&prefix));
        let mut backoff = self.backoff();
        backoff.forget_prefix(&prefix);
        backoff.collect_garbage();
    }
}

/// The pull policy, defaulted as the API server does should it be missing (IMG-18).
pub(crate) fn pull_policy(container: &Container) -> &str {
    container.image_pull_policy.as_deref().filter(|policy| !policy.is_empty()).unwrap_or_else(|| {
        match image_name::parse(container.image.as_deref().unwrap_or_default()) {
            Ok(name) if name.tag == "latest" => "Always",
            _ => "IfNotPresent",
        }
    })
}

/// What the runtime is asked for.
pub(crate) fn image_spec(image: &str, pod: &Pod) -> v1::ImageSpec {
    v1::ImageSpec {
        image: image.to_owned(),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        ..Default::default()
    }
}

/// Makes sure that the container's image is there.
pub(crate) async fn ensure_image(
    ctx: &NodeContext,
    pod: &Pod,
    kind: ContainerKind,
    container: &Container,
    sandbox_config: &v1::PodSandboxConfig,
    looked_up: Option<LookedUp>,
) -> Result<PresentImage, ImageError> {
    let image = container.image.as_deref().unwrap_or_default();
    let event = |event_type, reason: &str, message: String| {
        let reference = pod_ref::container_reference(pod, kind, &container.name);
        ctx.recorder.record(reference, event_type, reason, message);
    };
    let fail = |reason: &str, message: String, retry_after: Duration| ImageError {
        start_error: StartError { reason: reason.to_owned(), message },
        retry_after,
    };
    let wanted = image_name::with_default_tag(image).map_err(|error| {
        let message = format!("Failed to apply default image tag {image:?}: {error}");
        event(EventType::Warning, "InspectFailed", message.clone());
        fail("InvalidImageName", message, ctx.config.sync_frequency)
    })?;
    let policy = pull_policy(container);
    if policy != "Always" {
        let found = match looked_up {
            Some(found) => found,
            None => ctx.config.cri.image_status(image_spec(&wanted, pod)).await,
        };
        match found {
            Ok(Some(found)) => {
                event(
                    EventType::Normal,
                    "Pulled",
                    format!(
                        "Container image {image:?} already present on machine and can be accessed by the pod"
                    ),
                );
                return Ok(present(found));
            }
            Ok(None) if policy == "Never" => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                event(EventType::Warning, "ErrImageNeverPull", message.clone());
                return Err(fail("ErrImageNeverPull", message, Duration::from_secs(10)));
            }
            Ok(None) => {}
            Err(status) => {
                let message = format!("Failed to inspect image \"\": {}", go_error(&status));
                event(EventType::Warning, "InspectFailed", message.clone());
                return Err(fail("ImageInspectError", message, Duration::from_secs(2)));
            }
        }
    }
    let key = format!("{}_{image}", pod_ref::uid(pod));
    let waiting = ctx.images.backoff().remaining_since_update(&key);
    if let Some(waiting) = waiting {
        let message = format!("Back-off pulling image {image:?}");
        event(EventType::Normal, "BackOff", message.clone());
        let message = match ctx.images.last_errors().get(&key) {
            Some(cause) => format!("{message}: {cause}"),
            None => message,
        };
        return Err(fail("ImagePullBackOff", message, waiting));
    }
    event(EventType::Normal, "Pulling", format!("Pulling image {image:?}"));
    match pull(ctx, pod, &wanted, sandbox_config).await {
        Ok(pulled) => {
            event(
                EventType::Normal,
                "Pulled",
                format!(
                    "Successfully pulled image {image:?} in {} ({} including waiting). Image size: {} bytes.",
                    go_duration::format_millis(pulled.pulling),
                    go_duration::format_millis(pulled.in_all),
                    pulled.size
                ),
            );
            ctx.images.backoff().collect_garbage();
            Ok(pulled.image)
        }
        Err(error) => {
            event(EventType::Warning, "Failed", format!("Failed to pull image {image:?}: {error}"));
            let now = ctx.config.clock.now();
            let (reason, message) = classify(image, &error);
            ctx.images.backoff().next(&key, now);
            ctx.images.last_errors().insert(key, format!("{reason}: {message}"));
            // Soon after, the state says that it backs off (IMG-33).
            Err(fail(reason, message, BACKOFF_SHOWN_AFTER))
        }
    }
}

/// Reason and message of a failed pull (IMG-30 to IMG-32).
fn classify(image: &str, error: &str) -> (&'static str, String) {
    let plain = error.split_once(" desc = ").map_or(error, |(_, message)| message);
    for (prefix, text) in [
        ("RegistryUnavailable", "because the registry is unavailable"),
        ("SignatureValidationFailed", "because the signature validation failed"),
    ] {
        if let Some(rest) = plain.strip_prefix(prefix) {
            return (prefix, format!("image pull failed for {image} {text}{rest}"));
        }
    }
    ("ErrImagePull", error.to_owned())
}

fn present(image: v1::Image) -> PresentImage {
    PresentImage { reference: image.id, uid: image.uid.map(|uid| uid.value), username: image.username }
}

struct Pulled {
    image: PresentImage,
    pulling: Duration,
    in_all: Duration,
    size: u64,
}

/// Pulls with each matching credential in turn, or with none (IMG-64, IMG-66).
async fn pull(
    ctx: &NodeContext,
    pod: &Pod,
    image: &str,
    sandbox_config: &v1::PodSandboxConfig,
) -> Result<Pulled, String> {
    let asked = Instant::now();
    let keyring = Keyring::from_secrets(&pull_secrets(ctx, pod).await)?;
    let credentials = keyring.lookup(image);
    let _slot = ctx.images.slots.acquire().await.map_err(|error| error.to_string())?;
    let began = Instant::now();
    let auths: Vec<Option<v1::AuthConfig>> = if credentials.is_empty() {
        vec![None]
    } else {
        credentials.into_iter().map(|credential| Some(auth_config(credential))).collect()
    };
    let mut errors = Vec::new();
    for auth in auths {
        match ctx.config.cri.pull_image(image_spec(image, pod), auth, sandbox_config.clone()).await {
            Ok(reference) => {
                let pulling = began.elapsed();
                let found = ctx.config.cri.image_status(image_spec(&reference, pod)).await.ok().flatten();
                let size = found.as_ref().map_or(0, |image| image.size);
                let image = match found {
                    Some(found) => present(found),
                    None => PresentImage { reference, uid: None, username: String::new() },
                };
                return Ok(Pulled { image, pulling, in_all: asked.elapsed(), size });
            }
            Err(status) => errors.push(go_error(&status)),
        }
    }
    Err(match errors.as_slice() {
        [error] => error.clone(),
        errors => format!("[{}]", errors.join(", ")),
    })
}

fn auth_config(credential: Credential) -> v1::AuthConfig {
    v1::AuthConfig { username: credential.username, password: credential.password, ..Default::default() }
}

/// The pod's pull secrets that exist; a warning names those that do not (IMG-70).
async fn pull_secrets(ctx: &NodeContext, pod: &Pod) -> Vec<Secret> {
    let names: Vec<&str> = pod_ref::spec(pod)
        .image_pull_secrets
        .iter()
        .flatten()
        .map(|reference| reference.name.as_str())
        .filter(|name| !name.is_empty())
        .collect();
    let namespace = pod_ref::namespace(pod);
    let mut secrets = Vec::new();
    let mut missing = Vec::new();
    for name in names {
        match ctx.objects.secret(namespace, name).await {
            Ok(Some(secret)) => secrets.push(secret),
            _ => missing.push(name),
        }
    }
    if !missing.is_empty() {
        ctx.recorder.record(
            pod_ref::object_reference(pod),
            EventType::Warning,
            "FailedToRetrieveImagePullSecret",
            format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            ),
        );
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn img_31_32_runtime_errors_with_known_beginnings() {
        assert_eq!(
            classify("i", "rpc error: code = Unknown desc = RegistryUnavailable: foo"),
            (
                "RegistryUnavailable",
                "image pull failed for i because the registry is unavailable: foo".to_owned()
            )
        );
        assert_eq!(
            classify("i", "SignatureValidationFailed: foo").1,
            "image pull failed for i because the signature validation failed: foo"
        );
        assert_eq!(classify("i", "x"), ("ErrImagePull", "x".to_owned()));
    }

    #[test]
    fn img_18_policies_are_defaulted_by_tag() {
        let policy = |image: &str| {
            pull_policy(&Container { image: Some(image.into()), ..Default::default() }).to_owned()
        };
        assert_eq!(policy("a"), "Always");
        assert_eq!(policy("a:1"), "IfNotPresent");
        assert_eq!(policy("A:B:C"), "IfNotPresent");
    }
}

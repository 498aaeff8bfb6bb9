//! The way of one image for one container or volume: policy, local copy, access, back-off, pull, and the
//! events of each (IMG-23 to IMG-41).

use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use sampan_cri::v1;
use tokio::sync::watch;
use tonic::Status;

use super::access::Verdict;
use super::credentials::{Found, Versions};
use super::failure::PullFailure;
use super::pull::{self, Pulled};
use super::wait::Awaited;
use super::{LastFailure, backoff_key, image_spec};
use crate::context::NodeContext;
use crate::cri::go_error;
use crate::events::EventType;
use crate::go_duration;
use crate::image_name;
use crate::status::container_status::StartError;

/// How long a failed pull is shown as such before the state becomes `ImagePullBackOff`.
const BACKOFF_SHOWN_AFTER: Duration = Duration::from_secs(1);
/// How often an image that nobody pulls is looked for, should nothing else tell that it came.
const NEVER_LOOKS: Duration = Duration::from_secs(10);
const INSPECT_RETRY: Duration = Duration::from_secs(2);

/// What is wanted.
pub(crate) struct Wanted<'a> {
    /// The image as the spec writes it.
    pub(crate) image: &'a str,
    /// `Always`, `IfNotPresent` or `Never`.
    pub(crate) policy: &'a str,
    /// What the events are about: a container, or the pod for its volumes.
    pub(crate) about: ObjectReference,
    /// The handler of the pod's RuntimeClass; empty for the default.
    pub(crate) runtime_handler: &'a str,
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
    /// Whether it had to be pulled.
    pub(crate) pulled: bool,
}

/// A local look-up that was made ahead of time.
pub(crate) type LookedUp = Result<Option<v1::Image>, Status>;

/// Why an image is not there, and what to do about it.
#[derive(Debug)]
pub(crate) struct ImageError {
    pub(crate) start_error: StartError,
    /// When to try again.
    pub(crate) retry_after: Duration,
    /// What ends the wait before that, if anything can.
    pub(crate) awaited: Option<Awaited>,
}

impl ImageError {
    fn new(reason: &str, message: String, retry_after: Duration) -> Self {
        let start_error = StartError { reason: reason.to_owned(), message };
        Self { start_error, retry_after, awaited: None }
    }

    fn awaiting(self, awaited: Awaited) -> Self {
        Self { awaited: Some(awaited), ..self }
    }
}

/// One run of [`ensure_image`].
struct Attempt<'a> {
    ctx: &'a NodeContext,
    pod: &'a Pod,
    wanted: &'a Wanted<'a>,
    /// With its tag.
    spec: v1::ImageSpec,
    key: String,
    /// The id of the local copy.
    present: Option<String>,
}

/// Makes sure that an image is there and that the pod may use it. While a pull runs, `progress` is told in
/// words how far it has come.
pub(crate) async fn ensure_image(
    ctx: &NodeContext,
    pod: &Pod,
    wanted: &Wanted<'_>,
    sandbox_config: &v1::PodSandboxConfig,
    looked_up: Option<LookedUp>,
    progress: &watch::Sender<String>,
) -> Result<PresentImage, ImageError> {
    let image = wanted.image;
    let named =
        image_name::with_default_tag(image).and_then(|tagged| Ok((image_name::parse(&tagged)?, tagged)));
    let (name, tagged) = match named {
        Ok(named) => named,
        Err(error) => {
            let message = format!("Failed to apply default image tag {image:?}: {error}");
            let about = wanted.about.clone();
            ctx.recorder.record(about, EventType::Warning, "InspectFailed", message.clone());
            return Err(ImageError::new("InvalidImageName", message, ctx.config.sync_frequency));
        }
    };
    let spec = image_spec(&tagged, pod, wanted.runtime_handler);
    let mut attempt = Attempt { ctx, pod, wanted, spec, key: backoff_key(pod, image), present: None };
    // Credentials are read once, and only when something depends on them (IMG-45).
    let mut found = None;
    if wanted.policy != "Always"
        && let Some(local) = attempt.local_copy(looked_up).await?
    {
        attempt.present = Some(local.id.clone());
        let accessible = match ctx.images.access.judge(image, &local.id) {
            Verdict::Accessible => true,
            Verdict::MustPull => false,
            Verdict::DependsOnCredentials(proof) => {
                let credentials = attempt.credentials(&name.repository).await?;
                let admitted = ctx.images.access.admits(&proof, credentials.proofs());
                found = Some(credentials);
                admitted
            }
        };
        if accessible {
            attempt.event(
                EventType::Normal,
                "Pulled",
                format!(
                    "Container image {image:?} already present on machine and can be accessed by the pod"
                ),
            );
            return Ok(present(local));
        }
    }
    if wanted.policy == "Never" {
        // Absent, or not for this pod: which of them is not told (IMG-82).
        return Err(attempt.never(found));
    }
    if let Some(error) = attempt.back_off() {
        return Err(error);
    }
    let found = match found {
        Some(found) => found,
        None => attempt.credentials(&name.repository).await?,
    };
    attempt.pull(&name.repository, found, sandbox_config, progress).await
}

impl Attempt<'_> {
    fn event(&self, event_type: EventType, reason: &str, message: String) {
        self.ctx.recorder.record(self.wanted.about.clone(), event_type, reason, message);
    }

    async fn local_copy(&self, looked_up: Option<LookedUp>) -> Result<Option<v1::Image>, ImageError> {
        let looked_up = match looked_up {
            Some(looked_up) => looked_up,
            None => self.ctx.config.cri.image_status(self.spec.clone()).await,
        };
        looked_up.map_err(|status| {
            let message = format!("Failed to inspect image \"\": {}", go_error(&status));
            self.event(EventType::Warning, "InspectFailed", message.clone());
            ImageError::new("ImageInspectError", message, INSPECT_RETRY)
        })
    }

    /// Whatever could be shown to the registry. A malformed Secret ends the attempt here (IMG-89).
    async fn credentials(&self, repository: &str) -> Result<Found, ImageError> {
        // A runtime that knows no mirrors, or does not tell, gets no credentials for them.
        let mirrors = self.ctx.config.cri.mirrors(&self.spec.image).await.unwrap_or_default();
        let found = self.ctx.images.credentials.find(self.ctx, self.pod, repository, &mirrors).await;
        found.map_err(|malformed| {
            let message = format!("Secret {}: {}", malformed.secret, malformed.error);
            ImageError::new(&malformed.error, message, NEVER_LOOKS)
        })
    }

    fn never(&self, found: Option<Found>) -> ImageError {
        let message =
            format!("Container image {:?} is not present with pull policy of Never", self.wanted.image);
        self.event(EventType::Warning, "ErrImageNeverPull", message.clone());
        let read = found.map(|found| found.read).unwrap_or_default();
        ImageError::new("ErrImageNeverPull", message, NEVER_LOOKS).awaiting(self.awaited(read))
    }

    /// The state between two attempts (IMG-33, IMG-34).
    fn back_off(&self) -> Option<ImageError> {
        let left = self.ctx.images.backoff().remaining_since_update(&self.key)?;
        let message = format!("Back-off pulling image {:?}", self.wanted.image);
        self.event(EventType::Normal, "BackOff", message.clone());
        let last = self.ctx.images.last_failures().get(&self.key).cloned();
        let (message, read) = match last {
            Some(last) => (format!("{message}: {}", last.cause), last.read),
            None => (message, Versions::default()),
        };
        Some(ImageError::new("ImagePullBackOff", message, left).awaiting(self.awaited(read)))
    }

    fn awaited(&self, read: Versions) -> Awaited {
        Awaited {
            key: self.key.clone(),
            // With `Always` a local copy changes nothing.
            image: (self.wanted.policy != "Always").then(|| self.spec.clone()),
            present: self.present.clone(),
            read,
        }
    }

    async fn pull(
        &self,
        repository: &str,
        found: Found,
        sandbox_config: &v1::PodSandboxConfig,
        progress: &watch::Sender<String>,
    ) -> Result<PresentImage, ImageError> {
        let (images, image) = (&self.ctx.images, self.wanted.image);
        let before = self.before().await;
        if let Err(error) = images.access.intend(image) {
            let message =
                format!("Failed to record image pull intent for container image {image:?}: {error}");
            return Err(ImageError::new("ErrImagePull", message, NEVER_LOOKS));
        }
        let intent = Intent { images, image, before };
        images.last_failures().remove(&self.key);
        self.event(EventType::Normal, "Pulling", format!("Pulling image {image:?}"));
        let pulling = pull::pull(self.ctx, &self.spec, image, repository, &found, sandbox_config, progress);
        let result = pulling.await;
        match result {
            Ok(pulled) => {
                intent.fulfilled(&pulled);
                self.succeeded(&pulled);
                Ok(pulled.image)
            }
            Err(failure) => {
                intent.failed();
                Err(self.failed(&failure, found.read))
            }
        }
    }

    /// What a pull replaces.
    async fn before(&self) -> Option<String> {
        if self.wanted.policy != "Always" {
            return self.present.clone();
        }
        let local = self.ctx.config.cri.image_status(self.spec.clone()).await;
        local.ok().flatten().map(|image| image.id)
    }

    fn succeeded(&self, pulled: &Pulled) {
        self.event(
            EventType::Normal,
            "Pulled",
            format!(
                "Successfully pulled image {:?} in {} ({} including waiting). Image size: {} bytes.",
                self.wanted.image,
                go_duration::format_millis(pulled.pulling),
                go_duration::format_millis(pulled.in_all),
                pulled.size
            ),
        );
        self.ctx.metrics.images.pulled(pulled.size, pulled.in_all);
        self.ctx.images.backoff().collect_garbage();
    }

    fn failed(&self, failure: &PullFailure, read: Versions) -> ImageError {
        let image = self.wanted.image;
        self.event(EventType::Warning, "Failed", format!("Failed to pull image {image:?}: {failure}"));
        let (reason, message) = failure.classify(image);
        self.ctx.metrics.images.failed(reason);
        self.ctx.images.backoff().next(&self.key, self.ctx.config.clock.now());
        let last = LastFailure { cause: format!("{reason}: {message}"), read: read.clone() };
        self.ctx.images.last_failures().insert(self.key.clone(), last);
        // Soon after, the state says that it backs off (IMG-33).
        ImageError::new(reason, message, BACKOFF_SHOWN_AFTER).awaiting(self.awaited(read))
    }
}

/// The record that a pull is under way. It goes with the pull's end; when that is not waited for (the pod is deleted,
/// the kubelet ends) it stays, because the runtime may have the image by then.
struct Intent<'a> {
    images: &'a super::Images,
    image: &'a str,
    /// The image that was there already.
    before: Option<String>,
}

impl Intent<'_> {
    fn fulfilled(self, pulled: &Pulled) {
        self.images.access.pulled(self.image, &pulled.image.reference, pulled.with.as_ref());
        std::mem::forget(self);
    }

    fn failed(self) {
        self.images.access.failed(self.image);
        std::mem::forget(self);
    }
}

impl Drop for Intent<'_> {
    fn drop(&mut self) {
        self.images.access.given_up(self.image, self.before.take());
    }
}

pub(super) fn present(image: v1::Image) -> PresentImage {
    PresentImage {
        reference: image.id,
        uid: image.uid.map(|uid| uid.value),
        username: image.username,
        pulled: false,
    }
}

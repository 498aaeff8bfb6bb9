//! The images of a container and of its volumes, as the worker gets them: with the pull's progress in the
//! status while it runs, and with the wait for a better time when it fails.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, Pod};
use sampan_cri::v1;
use tokio::sync::watch;

use super::PodWorker;
use super::start::Failure;
use crate::images::wait::{Awaited, CauseWatch};
use crate::images::{self, LookedUp, PresentImage, Wanted};
use crate::labels::container_hash;
use crate::pod_ref::{self, ContainerKind};
use crate::status::container_status::{StartError, waiting_reason_by_default};

impl PodWorker {
    /// The container's own image.
    pub(super) async fn image(
        &mut self,
        kind: ContainerKind,
        container: &Container,
        sandbox_config: &v1::PodSandboxConfig,
        looked_up: &mut HashMap<String, LookedUp>,
    ) -> Result<PresentImage, Failure> {
        let image = container.image.as_deref().unwrap_or_default();
        let ahead = crate::image_name::with_default_tag(image).ok().and_then(|name| looked_up.remove(&name));
        let wanted = Wanted {
            image,
            policy: images::pull_policy(container),
            about: pod_ref::container_reference(&self.pod, kind, &container.name),
            runtime_handler: &self.sandbox_handler(),
        };
        self.ensure(container, wanted, sandbox_config, ahead).await
    }

    /// The images of the image volumes that the container mounts, by volume (IMG-87, IMG-88).
    pub(super) async fn volume_images(
        &mut self,
        container: &Container,
        sandbox_config: &v1::PodSandboxConfig,
    ) -> Result<BTreeMap<String, v1::ImageSpec>, Failure> {
        let pod = Arc::clone(&self.pod);
        let mut images = BTreeMap::new();
        for mount in container.volume_mounts.iter().flatten() {
            let volume =
                pod_ref::spec(&pod).volumes.iter().flatten().find(|volume| volume.name == mount.name);
            let Some(source) = volume.and_then(|volume| volume.image.as_ref()) else { continue };
            if images.contains_key(&mount.name) {
                continue;
            }
            let ImageVolumeSource { reference, pull_policy } = source;
            let image = reference.as_deref().unwrap_or_default();
            let handler = self.sandbox_handler();
            let wanted = Wanted {
                image,
                policy: images::policy_of(pull_policy.as_deref(), Some(image)),
                about: pod_ref::object_reference(&pod),
                runtime_handler: &handler,
            };
            let present = self.ensure(container, wanted, sandbox_config, None).await?;
            let spec = v1::ImageSpec {
                image: present.reference,
                user_specified_image: image.to_owned(),
                runtime_handler: handler,
                ..Default::default()
            };
            images.insert(mount.name.clone(), spec);
        }
        Ok(images)
    }

    /// The handler of the pod's RuntimeClass, as the sandbox runs with it; empty for a pod without a class.
    fn sandbox_handler(&self) -> String {
        if pod_ref::spec(&self.pod).runtime_class_name.is_none() {
            return String::new();
        }
        self.runtime.ready_sandbox().map(|sandbox| sandbox.runtime_handler.clone()).unwrap_or_default()
    }

    /// Asks the runtime, once, whether the pod's handler makes whole trees of mounts read-only; only pods that want it
    /// are worth the question (ENV-54).
    pub(super) async fn ask_for_recursive_read_only(&mut self) {
        let wants = |container: &Container| {
            let mounts = container.volume_mounts.iter().flatten();
            mounts.filter_map(|mount| mount.recursive_read_only.as_deref()).any(|mode| mode != "Disabled")
        };
        let all = pod_ref::containers(&self.pod).iter().chain(pod_ref::init_containers(&self.pod));
        if self.recursive_read_only.is_some()
            || self.runtime.ready_sandbox().is_none()
            || !all.into_iter().any(wants)
        {
            return;
        }
        let handler = self.sandbox_handler();
        if let Ok(status) = self.ctx.config.cri.status().await {
            let found = status.runtime_handlers.into_iter().find(|known| known.name == handler);
            let features = found.and_then(|found| found.features);
            self.recursive_read_only =
                Some(features.is_some_and(|features| features.recursive_read_only_mounts));
        }
    }

    async fn ensure(
        &mut self,
        container: &Container,
        wanted: Wanted<'_>,
        sandbox_config: &v1::PodSandboxConfig,
        ahead: Option<LookedUp>,
    ) -> Result<PresentImage, Failure> {
        let ending = self.inbox.ending();
        let (ctx, pod) = (Arc::clone(&self.ctx), Arc::clone(&self.pod));
        let (told, mut progress) = watch::channel(String::new());
        let ensure = images::ensure_image(&ctx, &pod, &wanted, sandbox_config, ahead, &told);
        tokio::pin!(ensure);
        let began = tokio::time::Instant::now();
        let inbox = Arc::clone(&self.inbox);
        let result = loop {
            let happened = inbox.happened();
            tokio::pin!(happened);
            happened.as_mut().enable();
            tokio::select! {
                result = &mut ensure => break result,
                () = ending.cancelled() => return Err(Failure::silent("ContainerCreating", "")),
                Ok(()) = progress.changed() => {
                    let message = progress.borrow_and_update().clone();
                    self.show_progress(container, message);
                }
                // Other containers' readiness does not wait for a pull.
                () = happened => self.publish(false),
            }
        };
        if result.as_ref().map_or(true, |image| image.pulled) {
            self.timing.pulling += began.elapsed();
        }
        result.map_err(|error| {
            if let Some(awaited) = error.awaited {
                self.await_cause(container, awaited);
            }
            let reason = error.start_error.reason;
            Failure {
                event: Some(format!("Error: {reason}")),
                reason: reason.into(),
                message: error.start_error.message,
                retry_after: error.retry_after,
            }
        })
    }

    /// How far a pull has come, as the message of the container that waits for it.
    fn show_progress(&mut self, container: &Container, message: String) {
        let reason = waiting_reason_by_default(&self.pod).to_owned();
        self.start_errors.insert(container.name.clone(), StartError { reason, message });
        self.publish(false);
    }

    /// Another attempt as soon as what this one failed for is different.
    fn await_cause(&mut self, container: &Container, awaited: Awaited) {
        if self.image_waits.get(&container.name).is_some_and(|watch| watch.is_for(&awaited)) {
            return;
        }
        let inbox = Arc::clone(&self.inbox);
        let name = container.name.clone();
        let over = move || inbox.retry(&name);
        let watch = CauseWatch::start(Arc::clone(&self.ctx), Arc::clone(&self.pod), awaited, over);
        self.image_waits.insert(container.name.clone(), watch);
    }

    /// What a container waited for does not hold for another image or other resources (POD-12, POD-13).
    pub(super) fn end_waits_of_changed(&mut self, before: &Pod) {
        if self.not_before.is_empty() && self.image_waits.is_empty() {
            return;
        }
        let pod = Arc::clone(&self.pod);
        for container in pod_ref::init_containers(&pod).iter().chain(pod_ref::containers(&pod)) {
            let same = pod_ref::find_container(before, &container.name).is_some_and(|(_, had)| {
                container_hash(&had) == container_hash(container) && had.resources == container.resources
            });
            if !same {
                self.image_waits.remove(&container.name);
                self.not_before.remove(&container.name);
                self.awaited.forget(&container.name);
            }
        }
    }

    /// Containers whose wait was ended from outside are tried now.
    pub(super) fn end_waits(&mut self) {
        for name in self.inbox.take_retries() {
            self.image_waits.remove(&name);
            self.not_before.remove(&name);
        }
    }
}

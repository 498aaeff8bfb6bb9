//! Starting one container: back-off, image, configuration, create, start, postStart.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use tokio::time::Instant;

use super::PodWorker;
use crate::events::EventType;
use crate::generate::container::{ContainerInputs, container_config};
use crate::generate::security;
use crate::go_duration;
use crate::images::LookedUp;
use crate::labels::container_hash;
use crate::log_paths;
use crate::pod_ref::{self, ContainerKind};
use crate::pods::runtime_pod::{State, restart_count_from_logs};
use crate::status::container_status::StartError;
use crate::volumes::container_mounts::{self, MountInputs};

/// When a container is tried again whose configuration cannot be made, or that the runtime cannot make of it (upstream's
/// back-off of a pod's sync). What it refers to is watched meanwhile.
const CONFIG_RETRY: Duration = Duration::from_secs(10);

/// The same for what may have changed right after: a sandbox, a start.
const RETRY: Duration = Duration::from_secs(2);

/// The waiting reason of a container that waits for its next restart (POD-14).
const CRASH_LOOP: &str = "CrashLoopBackOff";

/// Why a container did not start.
pub(super) struct Failure {
    pub(super) reason: Cow<'static, str>,
    pub(super) message: String,
    /// The text of the `Failed` event, when it has to be recorded.
    pub(super) event: Option<String>,
    pub(super) retry_after: Duration,
}

impl Failure {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason: reason.into(), event: Some(format!("Error: {message}")), message, retry_after: RETRY }
    }

    /// The container cannot be configured (POD-11, ENV-42).
    fn config(message: String) -> Self {
        Self { retry_after: CONFIG_RETRY, ..Self::new("CreateContainerConfigError", message) }
    }

    /// A failure that needs no event.
    pub(super) fn silent(reason: &'static str, message: impl Into<String>) -> Self {
        Self { event: None, ..Self::new(reason, message) }
    }
}

impl PodWorker {
    /// Starts `container` unless it has to wait; false when it did not start.
    pub(super) async fn try_start(
        &mut self,
        kind: ContainerKind,
        container: &Container,
        looked_up: &mut HashMap<String, LookedUp>,
    ) -> bool {
        if self.still_waits(&container.name) && !self.awaited.arrived(&container.name) {
            return false;
        }
        self.awaited.forget(&container.name);
        let waited = self.has_waited(&container.name);
        if let Some(failure) = self.restart_backoff(kind, container, waited) {
            self.note_failure(kind, container, failure);
            return false;
        }
        match self.start(kind, container, looked_up).await {
            Ok(()) => {
                self.start_errors.remove(&container.name);
                true
            }
            Err(failure) => {
                self.note_failure(kind, container, failure);
                false
            }
        }
    }

    pub(super) fn still_waits(&self, name: &str) -> bool {
        self.not_before.get(name).is_some_and(|at| *at > Instant::now())
    }

    /// Whether a back-off has just been waited out. The wall clock, which counts it, may have jumped since; the
    /// wait itself did not (and so a clock set back by hours does not stop restarts for hours).
    pub(super) fn has_waited(&mut self, name: &str) -> bool {
        self.not_before.remove(name).is_some()
            && self.start_errors.get(name).is_some_and(|error| error.reason == CRASH_LOOP)
    }

    pub(super) fn note_failure(&mut self, kind: ContainerKind, container: &Container, failure: Failure) {
        tracing::info!(pod = %pod_ref::full_name(&self.pod), container = container.name, reason = &*failure.reason, message = failure.message, "container not started");
        if let Some(event) = failure.event {
            self.ctx.metrics.containers.start_failed(kind, &failure.reason);
            self.container_event(kind, container, EventType::Warning, "Failed", event);
        }
        self.start_errors.insert(
            container.name.clone(),
            StartError { reason: failure.reason.into_owned(), message: failure.message },
        );
        self.not_before.insert(container.name.clone(), Instant::now() + failure.retry_after);
        self.publish(false);
    }

    pub(super) fn container_event(
        &self,
        kind: ContainerKind,
        container: &Container,
        event_type: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let reference = pod_ref::container_reference(&self.pod, kind, &container.name);
        self.ctx.recorder.record(reference, event_type, reason, message);
    }

    /// The key of a container's back-off: a new image or new resources start afresh (POD-12, POD-13).
    fn backoff_key(&self, container: &Container) -> String {
        let resources = serde_json::to_string(&container.resources).unwrap_or_default();
        format!("{}_{}_{}_{resources}", self.uid, container.name, container_hash(container))
    }

    /// `CrashLoopBackOff` when the container ended too recently (POD-12, POD-14, POD-21).
    pub(super) fn restart_backoff(
        &self,
        kind: ContainerKind,
        container: &Container,
        waited: bool,
    ) -> Option<Failure> {
        let run = self.runtime.container(&container.name).filter(|run| run.state == State::Exited)?;
        let finished = run.finished_at.or(run.created_at)?;
        let key = self.backoff_key(container);
        let mut restarts = self.ctx.restarts();
        let remaining = restarts.remaining_since(&key, finished).filter(|_| !waited);
        let Some(remaining) = remaining else {
            restarts.next(&key, finished);
            return None;
        };
        let full_name = pod_ref::full_name(&self.pod);
        let wait = go_duration::format(restarts.current(&key));
        drop(restarts);
        let message =
            format!("back-off {wait} restarting failed container={} pod={full_name}", container.name);
        let known = self.start_errors.get(&container.name).is_some_and(|error| error.message == message);
        if !known {
            self.container_event(
                kind,
                container,
                EventType::Warning,
                "BackOff",
                format!("Back-off restarting failed container {} in pod {full_name}", container.name),
            );
        }
        Some(Failure { retry_after: remaining, ..Failure::silent(CRASH_LOOP, message) })
    }

    async fn start(
        &mut self,
        kind: ContainerKind,
        container: &Container,
        looked_up: &mut HashMap<String, LookedUp>,
    ) -> Result<(), Failure> {
        let ctx = Arc::clone(&self.ctx);
        let cri = &ctx.config.cri;
        let sandbox_id = match self.runtime.ready_sandbox() {
            Some(sandbox) => sandbox.id.clone(),
            None => return Err(Failure::silent("ContainerCreating", "no sandbox")),
        };
        ctx.metrics.containers.started(kind);
        let sandbox_config = match &self.sandbox_config {
            Some(config) => config.clone(),
            None => self.sandbox_config(0).map_err(Failure::config)?,
        };
        let image = self.image(kind, container, &sandbox_config, looked_up).await?;
        let volume_images = self.volume_images(container, &sandbox_config).await?;
        let restart_count = self.next_restart_count(container).await;
        security::verify_run_as_non_root(&self.pod, container, image.uid, &image.username)
            .map_err(Failure::config)?;
        let environment = self.environment(container).await.map_err(Failure::config)?;
        let hosts_file = self.hosts_file().map_err(Failure::config)?;
        self.ask_for_recursive_read_only().await;
        let mounts = container_mounts::mounts(&MountInputs {
            pod: &self.pod,
            container,
            restart_count,
            volumes: &*self.volumes.lock().await,
            pod_dir: &ctx.pod_dir(&self.uid),
            environment: &environment,
            hosts_file: Some(&hosts_file),
            images: &volume_images,
            recursive_read_only: self.recursive_read_only.unwrap_or(false),
        })
        .map_err(Failure::config)?;
        let target_id = self.target_id(kind, container).map_err(Failure::config)?;
        let mut config = container_config(
            &self.pod,
            container,
            ContainerInputs {
                image_ref: &image.reference,
                restart_count,
                environment,
                mounts,
                memory_capacity: ctx.memory_capacity,
                target_id: target_id.as_deref(),
                seccomp_root: &ctx.seccomp_root(),
                user_namespace: self.user_namespace().map_err(Failure::config)?,
            },
        );
        crate::generate::node_defaults::apply(&ctx.config, &ctx.cgroups, &self.pod, container, &mut config);
        let id = cri.create_container(&sandbox_id, config, sandbox_config).await.map_err(|status| {
            Failure { retry_after: CONFIG_RETRY, ..Failure::new("CreateContainerError", status.message()) }
        })?;
        self.reset.remove(&container.name);
        self.actuated(container);
        self.container_event(kind, container, EventType::Normal, "Created", "Container created");
        self.owe_post_start(container, &id).map_err(|error| Failure::new("PreStartHookError", error))?;
        if let Err(status) = cri.start_container(&id).await {
            // This run has ended, and only the newest of those is kept.
            self.refresh().await;
            self.remove_old_runs(&container.name).await;
            return Err(Failure::new("RunContainerError", status.message()));
        }
        self.container_event(kind, container, EventType::Normal, "Started", "Container started");
        self.link_log(container, &id, restart_count);
        let hook = self.post_start(kind, container, &id, restart_count).await;
        self.remove_old_runs(&container.name).await;
        hook
    }

    /// One more than the last run's count. A container that was made but never started (the daemon died in
    /// between) is no run: it is removed and its number used again.
    async fn next_restart_count(&mut self, container: &Container) -> u32 {
        while let Some(leftover) =
            self.runtime.container(&container.name).filter(|run| run.state == State::Created).cloned()
        {
            let _ = self.ctx.config.cri.remove_container(&leftover.id).await;
            self.runtime.containers.retain(|run| run.id != leftover.id);
            if self.runtime.container(&container.name).is_none() {
                return leftover.restart_count;
            }
        }
        match self.runtime.container(&container.name) {
            Some(run) => run.restart_count + 1,
            None => {
                let dir = log_paths::of_pod(&self.ctx.config.log_dir, &self.pod).join(&container.name);
                restart_count_from_logs(&dir)
            }
        }
    }

    /// The container whose processes an ephemeral container sees (POD-47).
    fn target_id(&self, kind: ContainerKind, container: &Container) -> Result<Option<String>, String> {
        if kind != ContainerKind::Ephemeral {
            return Ok(None);
        }
        let target = pod_ref::ephemeral_containers(&self.pod)
            .iter()
            .find(|ephemeral| ephemeral.name == container.name)
            .and_then(|ephemeral| ephemeral.target_container_name.as_deref())
            .filter(|target| !target.is_empty());
        match target {
            None => Ok(None),
            Some(target) => match self.runtime.container(target) {
                Some(run) => Ok(Some(run.id.clone())),
                None => Err(format!("unable to find target container {target:?}")),
            },
        }
    }
}

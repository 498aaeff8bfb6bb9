//! Starting one container: back-off, image, configuration, create, start, postStart.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Service};
use tokio::time::Instant;

use super::PodWorker;
use crate::events::EventType;
use crate::generate::container::{ContainerInputs, container_config};
use crate::generate::env::{self, EnvInputs, Sources};
use crate::generate::fields::Addresses;
use crate::generate::sandbox::log_directory_name;
use crate::generate::{env_size, hostname, hosts, security, service_env};
use crate::go_duration;
use crate::images::LookedUp;
use crate::labels::container_hash;
use crate::pod_ref::{self, ContainerKind};
use crate::pods::runtime_pod::{State, restart_count_from_logs};
use crate::status::container_status::StartError;
use crate::volumes::container_mounts::{self, MountInputs};
use crate::volumes::env_file;

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
        crate::generate::node_defaults::apply(&ctx.config, &self.pod, container, &mut config);
        let id = cri.create_container(&sandbox_id, config, sandbox_config).await.map_err(|status| {
            Failure { retry_after: CONFIG_RETRY, ..Failure::new("CreateContainerError", status.message()) }
        })?;
        self.reset.remove(&container.name);
        self.actuated(container);
        self.container_event(kind, container, EventType::Normal, "Created", "Container created");
        ctx.metrics.containers.started(kind);
        self.owe_post_start(container, &id).map_err(|error| Failure::new("PreStartHookError", error))?;
        if let Err(status) = cri.start_container(&id).await {
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
                let dir = self.ctx.config.log_dir.join(log_directory_name(&self.pod)).join(&container.name);
                restart_count_from_logs(&dir)
            }
        }
    }

    async fn environment(&mut self, container: &Container) -> Result<BTreeMap<String, String>, String> {
        let namespace = pod_ref::namespace(&self.pod);
        let services = if crate::static_pods::is_static(&self.pod) {
            // It runs even when there is no API (POD-51).
            self.ctx.objects.services_so_far()
        } else {
            self.ctx
                .objects
                .services()
                .await
                .ok_or("services have not yet been read at least once, cannot construct envvars")?
        };
        let references: Vec<&Service> = services.iter().map(Arc::as_ref).collect();
        let links = pod_ref::spec(&self.pod).enable_service_links.unwrap_or(true);
        let service_variables = service_env::variables(&service_env::visible(references, namespace, links));
        let mut sources = Sources::default();
        let wanted = env::references(container);
        for name in wanted.config_maps.clone() {
            if let Some(object) =
                self.ctx.objects.config_map(namespace, &name).await.map_err(|error| error.to_string())?
            {
                sources.config_maps.insert(name, object);
            }
        }
        for name in wanted.secrets.clone() {
            if let Some(object) =
                self.ctx.objects.secret(namespace, &name).await.map_err(|error| error.to_string())?
            {
                sources.secrets.insert(name, object);
            }
        }
        let volumes = self.volumes.lock().await;
        for (volume, path) in &wanted.files {
            let dir = volumes
                .path(volume)
                .ok_or_else(|| format!("cannot find the volume {volume:?} referenced by FileKeyRef"))?;
            if let Some(read) = env_file::read(dir, path).transpose() {
                sources.files.insert((volume.clone(), path.clone()), read);
            }
        }
        drop(volumes);
        let pod_ips = match pod_ref::is_host_network(&self.pod) {
            true => self.ctx.host_ips.clone(),
            false => self.runtime.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default(),
        };
        let addresses = Addresses { pod_ips, host_ips: self.ctx.host_ips.clone() };
        let inputs = EnvInputs {
            pod: &self.pod,
            services: &service_variables,
            sources: &sources,
            addresses: &addresses,
            allocatable: &self.ctx.allocatable,
        };
        let environment = env::environment(container, &inputs).and_then(|environment| {
            env_size::check(&environment, &service_variables)?;
            Ok(environment)
        });
        if environment.is_err() {
            let whose = (namespace, container.name.as_str());
            self.awaited.watch(&self.ctx.config.client, &self.inbox, whose, wanted, &sources);
        }
        environment
    }

    /// Writes the pod's hosts file.
    fn hosts_file(&self) -> Result<PathBuf, String> {
        let spec = pod_ref::spec(&self.pod);
        let aliases = spec.host_aliases.as_deref().unwrap_or_default();
        let content = if pod_ref::is_host_network(&self.pod) {
            hosts::host_network_hosts(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), aliases)
        } else {
            let names = hostname::host_name(&self.pod, &self.ctx.config.cluster_domain)?;
            let ips = self.runtime.ready_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
            hosts::pod_hosts(&ips, &names.hostname, &names.domain, aliases)
        };
        let dir = self.ctx.pod_dir(&self.uid);
        let file = dir.join("etc-hosts");
        // Containers of the pod may have added lines: an existing file is only written for a new address.
        let address = self.runtime.ready_sandbox().and_then(|sandbox| sandbox.ips.first());
        let address_known = match address {
            Some(ip) => hosts::has_address(&file, ip),
            None => file.exists(),
        };
        if !address_known {
            std::fs::create_dir_all(&dir)
                .and_then(|()| std::fs::write(&file, content))
                .map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(file)
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

    /// `<container_log_dir>/<pod>_<ns>_<container>-<id>.log`, which log collectors read.
    fn link_log(&self, container: &Container, id: &str, restart_count: u32) {
        let Some(dir) = &self.ctx.config.container_log_dir else { return };
        let target = self
            .ctx
            .config
            .log_dir
            .join(log_directory_name(&self.pod))
            .join(crate::generate::container::log_path(&container.name, restart_count));
        let link = dir.join(format!(
            "{}_{}_{}-{id}.log",
            pod_ref::name(&self.pod),
            pod_ref::namespace(&self.pod),
            container.name
        ));
        let linked = std::fs::create_dir_all(dir).and_then(|()| std::os::unix::fs::symlink(target, &link));
        if let Err(error) = linked {
            tracing::debug!(%error, link = %link.display(), "log link");
        }
    }

    /// Keeps one ended run per container, for `logs --previous`; older ones go with their logs.
    async fn remove_old_runs(&mut self, name: &str) {
        let old: Vec<_> = self
            .runtime
            .containers
            .iter()
            .filter(|run| run.name == name && run.state == State::Exited)
            .skip(1)
            .cloned()
            .collect();
        for run in old {
            if self.ctx.config.cri.remove_container(&run.id).await.is_ok() {
                let log = std::path::Path::new(&run.log_path);
                crate::log_rotation::remove_logs(log);
                container_mounts::remove_message_file(&self.ctx.pod_dir(&self.uid), name, run.restart_count);
                if let Some(logs) = log.parent() {
                    crate::hooks::log::remove(logs, run.restart_count);
                }
                if let Some(dir) = &self.ctx.config.container_log_dir {
                    let link = format!(
                        "{}_{}_{name}-{}.log",
                        pod_ref::name(&self.pod),
                        pod_ref::namespace(&self.pod),
                        run.id
                    );
                    let _ = std::fs::remove_file(dir.join(link));
                }
            }
        }
        // Nor is anything remembered of runs that nobody knows.
        let knows = |id: &str| self.runtime.containers.iter().any(|run| run.id == id);
        self.announced_kills.retain(|id| knows(id));
        self.pre_stop_done.retain(knows);
    }
}

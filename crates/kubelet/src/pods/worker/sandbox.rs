//! The pod's sandbox: making it, replacing it, and what follows when that fails.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use sampan_cri::v1;

use super::{Life, Next, PodWorker};
use crate::cri::go_error;
use crate::events::EventType;
use crate::generate::dns::pod_dns;
use crate::generate::hostname::host_name;
use crate::generate::sandbox::{SandboxInputs, sandbox_config};
use crate::log_paths;
use crate::pod_ref;
use crate::pods::runtime_pod::State;
use crate::status::pod_status::Verdict;

/// Why there is no sandbox.
#[derive(Debug)]
pub(super) enum SandboxFailure {
    /// Worth another try.
    Again(String),
    /// This node can never run the pod: no such runtime class or handler (DESIGN.md, "Where the documents
    /// differ").
    Never(String),
}

impl PodWorker {
    /// The sandbox's configuration, which containers need as well.
    pub(super) fn sandbox_config(&self, attempt: u32) -> Result<v1::PodSandboxConfig, String> {
        let names = host_name(&self.pod, &self.ctx.config.cluster_domain)?;
        let dns = pod_dns(&self.pod, &self.ctx.node_dns());
        Ok(sandbox_config(
            &self.pod,
            attempt,
            SandboxInputs {
                host_name: &names,
                dns: dns.config,
                log_dir: &self.ctx.config.log_dir,
                cgroup_root: &self.ctx.config.cgroup_root,
                systemd_cgroups: self.ctx.systemd_cgroups,
                seccomp_root: &self.ctx.seccomp_root(),
                user_namespace: self.user_namespace()?,
            },
        ))
    }

    /// The pod's own user namespace (`hostUsers: false`).
    pub(super) fn user_namespace(&self) -> Result<Option<v1::UserNamespace>, String> {
        if pod_ref::spec(&self.pod).host_users != Some(false) {
            return Ok(None);
        }
        self.ctx.user_namespaces.of(&self.uid, &self.ctx.pod_dir(&self.uid)).map(Some)
    }

    /// Whether the runtime can give a pod with this handler a user namespace of its own.
    async fn check_user_namespaces(&self, handler: &str) -> Result<(), SandboxFailure> {
        if pod_ref::spec(&self.pod).host_users != Some(false) {
            return Ok(());
        }
        let status = self.ctx.config.cri.status().await;
        let status = status
            .map_err(|status| SandboxFailure::Again(format!("runtime status: {}", status.message())))?;
        let features = status.runtime_handlers.iter().find(|known| known.name == handler);
        if features.and_then(|known| known.features.as_ref()).is_some_and(|features| features.user_namespaces)
        {
            return Ok(());
        }
        // Running it in the host's user namespace would be less than what the pod asks for.
        Err(SandboxFailure::Again(match handler {
            "" => "can't set `spec.hostUsers: false`, runtime does not support user namespaces".to_owned(),
            name => format!(
                "can't set `spec.hostUsers: false`, RuntimeClass handler {name:?} does not support user namespaces"
            ),
        }))
    }

    pub(super) async fn create_sandbox(&self, config: v1::PodSandboxConfig) -> Result<(), SandboxFailure> {
        for (reason, message) in pod_dns(&self.pod, &self.ctx.node_dns()).warnings {
            self.record(EventType::Warning, reason, message);
        }
        let handler = self.runtime_handler().await?;
        self.check_user_namespaces(&handler).await?;
        self.ctx.cgroups.ensure(&self.pod).map_err(SandboxFailure::Again)?;
        self.ctx.metrics.pods.started.inc();
        let log_dir = log_paths::of_pod(&self.ctx.config.log_dir, &self.pod);
        std::fs::create_dir_all(&log_dir)
            .map_err(|error| SandboxFailure::Again(format!("mkdir {}: {error}", log_dir.display())))?;
        match self.ctx.config.cri.run_pod_sandbox(config, handler.clone()).await {
            Ok(_) => Ok(()),
            Err(status) => {
                self.ctx.metrics.pods.start_errors.inc();
                let error = go_error(&status);
                // A runtime that says "not now" may leave the handler out of its list meanwhile.
                let for_good = status.code() != tonic::Code::Unavailable;
                if for_good && self.handler_is_unknown(&handler, status.message()).await {
                    Err(SandboxFailure::Never(error))
                } else {
                    Err(SandboxFailure::Again(error))
                }
            }
        }
    }

    /// The handler of the pod's runtime class; empty for the default one (RTC-16, RTC-17).
    async fn runtime_handler(&self) -> Result<String, SandboxFailure> {
        let name = pod_ref::spec(&self.pod).runtime_class_name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Ok(String::new());
        }
        let classes: Api<RuntimeClass> = Api::all(self.ctx.config.client.clone());
        match classes.get_opt(name).await {
            Ok(Some(class)) => Ok(class.handler),
            Ok(None) => Err(SandboxFailure::Never(format!("runtimeclass.node.k8s.io {name:?} not found"))),
            Err(error) => {
                Err(SandboxFailure::Again(format!("failed to get runtime class {name:?}: {error}")))
            }
        }
    }

    /// Whether the runtime lists its handlers and this is none of them, or says so in words (runtimes older than
    /// the list: containerd before 2.0, CRI-O before 1.31).
    async fn handler_is_unknown(&self, handler: &str, said: &str) -> bool {
        if !handler.is_empty()
            && [
                format!("no runtime for {handler:?} is configured"),
                format!("failed to find runtime handler {handler}"),
            ]
            .iter()
            .any(|words| said.contains(words.as_str()))
        {
            return true;
        }
        match self.ctx.config.cri.status().await {
            Ok(status) => {
                !handler.is_empty()
                    && !status.runtime_handlers.is_empty()
                    && !status.runtime_handlers.iter().any(|known| known.name == handler)
            }
            Err(_) => false,
        }
    }

    pub(super) fn sandbox_failed(&mut self, failure: SandboxFailure) -> Next {
        let (error, never) = match failure {
            SandboxFailure::Again(error) => (error, false),
            SandboxFailure::Never(error) => (error, true),
        };
        let message = format!("Failed to create pod sandbox: {error}");
        self.record(EventType::Warning, "FailedCreatePodSandBox", message.clone());
        if never {
            self.verdict = Some(Verdict { reason: "FailedCreatePodSandBox".to_owned(), message });
            self.life = Life::Terminating;
            return Next::Again;
        }
        self.publish(false);
        match self.set_back() {
            Next::Wait(Some(wait)) => Next::Wait(Some(wait.max(Duration::from_secs(1)))),
            next => next,
        }
    }

    /// Stops what is left of earlier sandboxes (POD-20); false when something of it still runs.
    pub(super) async fn replace_old_sandboxes(&mut self) -> bool {
        if self.runtime.sandboxes.is_empty() {
            return true;
        }
        self.record(
            EventType::Normal,
            "SandboxChanged",
            "Pod sandbox changed, it will be killed and re-created.",
        );
        let grace = pod_ref::spec(&self.pod).termination_grace_period_seconds.unwrap_or(30);
        let stops = self.runtime.running().map(|run| {
            let message = format!("Stopping container {}", run.name);
            (run.clone(), message, grace)
        });
        self.stop_containers(stops.collect()).await;
        self.stop_sandboxes().await;
        self.refresh().await && !self.runtime.containers.iter().any(|run| run.state == State::Running)
    }

    /// Removes sandboxes that were replaced and hold nothing any more. Ended runs that are kept keep theirs: status and
    /// restart counts are read from them.
    pub(super) async fn remove_replaced_sandboxes(&self) {
        let holds = |id: &str| self.runtime.containers.iter().any(|run| run.sandbox_id == id);
        let replaced: Vec<&str> = self
            .runtime
            .sandboxes
            .iter()
            .skip(1)
            .filter(|sandbox| !sandbox.ready && !holds(&sandbox.id))
            .map(|sandbox| sandbox.id.as_str())
            .collect();
        for id in replaced {
            if let Err(status) = self.ctx.config.cri.remove_pod_sandbox(id).await
                && status.code() != tonic::Code::NotFound
            {
                tracing::warn!(pod = %pod_ref::full_name(&self.pod), sandbox = id, %status, "replaced sandbox not removed");
            }
        }
    }

    /// Stops all sandboxes; true when none is left that can hold a container.
    pub(super) async fn stop_sandboxes(&self) -> bool {
        let mut all = true;
        for sandbox in &self.runtime.sandboxes {
            if let Err(status) = self.ctx.config.cri.stop_pod_sandbox(&sandbox.id).await
                && status.code() != tonic::Code::NotFound
            {
                all = false;
                if sandbox.ready {
                    self.record(
                        EventType::Warning,
                        "FailedKillPod",
                        format!(
                            "error killing pod: failed to {:?} for {:?} with KillPodSandboxError: {:?}",
                            "KillPodSandbox",
                            self.uid,
                            go_error(&status)
                        ),
                    );
                }
            }
        }
        all
    }
}

/// The primary address of a pod, once it has one.
pub(super) fn pod_ip(pod: &Pod, worker: &PodWorker) -> Option<String> {
    if pod_ref::is_host_network(pod) {
        return worker.ctx.host_ips.first().cloned();
    }
    worker.runtime.ready_sandbox()?.ips.first().cloned()
}

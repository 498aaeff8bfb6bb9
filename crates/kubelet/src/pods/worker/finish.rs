//! `Terminated`: removes what the pod leaves behind, and confirms its deletion to the API (POD-33).

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::inbox::{EVICTED, SHUTDOWN_REASON};
use super::{Next, PodWorker};
use crate::events::EventType;
use crate::log_paths;
use crate::pod_ref;
use crate::status::writer::is_gone;

/// How long the worker of a node that stops waits for the API to take the pod's last status.
const LAST_STATUS: Duration = Duration::from_secs(5);

impl PodWorker {
    /// Cleans up; the worker is done when the API object is gone.
    pub(super) async fn finish(&mut self) -> Next {
        self.release().await;
        self.set_pending(None);
        self.volumes.stop().await;
        let pod_dir = self.ctx.pod_dir(&self.uid);
        let stays = !self.inbox.is_gone() && self.pod.metadata.deletion_timestamp.is_none();
        let end = self.inbox.node_end();
        if self.inbox.node_stops() && stays && end.is_none() {
            // The pod is to run again when the node does: its files stay, nothing of it stays in the kernel.
            if let Err(error) = self.ctx.removals.unmount(pod_dir).await {
                tracing::warn!(pod = %pod_ref::full_name(&self.pod), error, "volumes of a stopped pod");
            }
            self.ctx.cgroups.remove(&self.pod).await;
            return Next::Done;
        }
        // What is bound from the volumes goes before them.
        for part in ["volume-subpaths", "volumes"] {
            if let Err(error) = self.ctx.removals.tear_down(pod_dir.join(part)).await {
                self.record(EventType::Warning, "FailedUnmount", error);
                return self.set_back();
            }
        }
        self.ctx.cgroups.remove(&self.pod).await;
        let deleted = self.pod.metadata.deletion_timestamp.is_some();
        if !self.inbox.is_gone() {
            if !deleted {
                if self.inbox.node_stops() || end.is_some_and(|end| end.reason == SHUTDOWN_REASON) {
                    // The next kubelet knows from the status that the pod has ended.
                    self.settle().await;
                    return Next::Done;
                }
                // Finished by itself, it stays until somebody deletes it, or until its room is needed.
                let room = self.is_evicted() || self.inbox.room_is_wanted();
                return if !room || self.make_room().await { Next::Wait(None) } else { self.set_back() };
            }
            self.settle().await;
            if !self.confirm_deletion().await {
                return if self.inbox.node_stops() { Next::Done } else { self.set_back() };
            }
        }
        if !self.remove_from_runtime().await {
            return self.set_back();
        }
        self.remove_logs().await;
        // The last thing: as long as it is there, a restarted daemon knows that the pod was its own.
        if let Err(error) = self.ctx.removals.tear_down(pod_dir).await {
            tracing::warn!(error, "pod directory not removed");
        }
        for container in pod_ref::init_containers(&self.pod).iter().chain(pod_ref::containers(&self.pod)) {
            self.ctx.metrics.probes.forget(&self.pod, &container.name);
        }
        self.ctx.status.forget(&self.uid);
        self.ctx.images.forget(&self.uid);
        self.ctx.user_namespaces.release(&self.uid);
        self.ctx.restarts().forget_prefix(&self.uid);
        Next::Done
    }

    /// Whether the node ended the pod for lack of something, under this kubelet or an earlier one.
    fn is_evicted(&self) -> bool {
        let before = self.pod.status.as_ref().filter(|_| self.history);
        self.inbox.node_end().is_some_and(|end| end.reason == EVICTED)
            || before.is_some_and(|status| status.reason.as_deref() == Some(EVICTED))
    }

    /// Removes the writable layers and logs of a pod that has ended. How it ended is then known from its status alone,
    /// so the API has it first.
    async fn make_room(&mut self) -> bool {
        self.settle().await;
        // Before the containers, which is what eviction waits for.
        self.remove_logs().await;
        self.remove_from_runtime().await
    }

    /// Waits until the API has the last status; a node that stops waits for a moment only, as the API may be gone before
    /// it.
    async fn settle(&self) {
        let stopping = async {
            while !self.inbox.node_stops() {
                self.inbox.changed().await;
            }
            tokio::time::sleep(LAST_STATUS).await;
        };
        tokio::select! {
            () = self.ctx.status.settled(&self.uid) => {}
            () = stopping => tracing::warn!(pod = %pod_ref::full_name(&self.pod), "the API was not told how it ended"),
        }
    }

    /// Deletes the API object for good: grace 0, and only this very pod.
    async fn confirm_deletion(&self) -> bool {
        let pods: Api<Pod> = Api::namespaced(self.ctx.config.client.clone(), pod_ref::namespace(&self.pod));
        let parameters = DeleteParams::default()
            .grace_period(0)
            .preconditions(Preconditions { uid: Some(self.uid.clone()), resource_version: None });
        match pods.delete(pod_ref::name(&self.pod), &parameters).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if is_gone(&status) => true,
            Err(error) => {
                tracing::warn!(pod = %pod_ref::full_name(&self.pod), %error, "deletion not confirmed yet");
                false
            }
        }
    }

    async fn remove_from_runtime(&mut self) -> bool {
        if !self.refresh().await {
            return false;
        }
        let cri = &self.ctx.config.cri;
        let gone = |result: Result<(), tonic::Status>| match result {
            Ok(()) => true,
            Err(status) if status.code() == tonic::Code::NotFound => true,
            Err(status) => {
                tracing::warn!(%status, "not removed from the runtime");
                false
            }
        };
        let containers = futures::future::join_all(
            self.runtime.containers.iter().map(|run| cri.remove_container(&run.id)),
        )
        .await;
        let mut all = containers.into_iter().map(gone).filter(|gone| !gone).count() == 0;
        for sandbox in &self.runtime.sandboxes {
            all &= gone(cri.stop_pod_sandbox(&sandbox.id).await)
                && gone(cri.remove_pod_sandbox(&sandbox.id).await);
        }
        // After the runtime let go of them.
        self.ctx.cgroups.remove(&self.pod).await;
        all
    }

    async fn remove_logs(&self) {
        let logs = log_paths::of_pod(&self.ctx.config.log_dir, &self.pod);
        if let Err(error) = self.ctx.removals.remove_logs(logs).await {
            tracing::warn!(error, "logs of a pod that has ended");
        }
        self.remove_log_links();
    }

    fn remove_log_links(&self) {
        let Some(dir) = &self.ctx.config.container_log_dir else { return };
        let prefix = log_paths::link_prefix(&self.pod);
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let dangling = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix))
                && std::fs::metadata(entry.path()).is_err();
            if dangling {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

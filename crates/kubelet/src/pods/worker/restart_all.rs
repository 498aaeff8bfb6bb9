//! `RestartAllContainers` (POD-29): a container's end that restarts the whole pod in place. Its containers are killed
//! without hooks and forgotten by the runtime; then everything begins again from the first init container, in the
//! same sandbox, with the same address and volumes.
//!
//! The container whose end asked for it is forgotten last: until then a daemon that dies in the middle finds the
//! rule matched again and goes on.

use std::path::Path;

use futures::future::join_all;

use super::{Next, PodWorker};
use crate::pod_ref::{self, ContainerKind};
use crate::pods::runtime_pod::State;
use crate::volumes::container_mounts;
use crate::{hooks, log_rotation};

impl PodWorker {
    pub(super) async fn restart_all(&mut self, trigger: &str) -> Next {
        let Some((kind, container)) = pod_ref::find_container(&self.pod, trigger) else { return Next::Again };
        let running: Vec<_> = self.runtime.running().cloned().collect();
        for run in &running {
            let message = format!("Stopping container {}, all containers will be restarted", run.name);
            self.announce(run, &message);
        }
        join_all(running.iter().map(|run| self.ctx.config.cri.stop_container(&run.id, 0))).await;
        if !running.is_empty() {
            if !self.refresh().await || self.runtime.running().next().is_some() {
                return self.set_back();
            }
            self.update_probers();
            self.publish(false);
        }
        if self.still_waits(trigger) {
            return self.next_look();
        }
        let waited = self.has_waited(trigger);
        if let Some(failure) = self.restart_backoff(kind, &container, waited) {
            self.note_failure(kind, &container, failure);
            return self.next_look();
        }
        self.forget_runs(trigger).await
    }

    async fn forget_runs(&mut self, trigger: &str) -> Next {
        // An ephemeral container is never started again: its run stays known.
        let restarted = |name: &str| {
            pod_ref::find_container(&self.pod, name).is_some_and(|(kind, _)| kind != ContainerKind::Ephemeral)
        };
        let (last, first): (Vec<_>, Vec<_>) = self
            .runtime
            .containers
            .iter()
            .filter(|run| run.state != State::Running && restarted(&run.name))
            .cloned()
            .partition(|run| run.name == trigger);
        for run in first.iter().chain(&last) {
            let newest = self.runtime.container(&run.name).is_some_and(|newest| newest.id == run.id);
            if let Err(status) = self.ctx.config.cri.remove_container(&run.id).await
                && status.code() != tonic::Code::NotFound
            {
                tracing::warn!(container = run.name, id = run.id, %status, "container not removed");
                return self.set_back();
            }
            container_mounts::remove_message_file(&self.ctx.pod_dir(&self.uid), &run.name, run.restart_count);
            if newest {
                // The log of the last run stays, and with it the count of runs.
                if let Some(logs) = Path::new(&run.log_path).parent() {
                    log_rotation::remove_runs_before(logs, run.restart_count);
                    hooks::log::remove_before(logs, run.restart_count);
                }
                self.reset.insert(run.name.clone());
            }
        }
        self.start_errors.clear();
        self.not_before.clear();
        self.setbacks = 0;
        Next::Again
    }
}

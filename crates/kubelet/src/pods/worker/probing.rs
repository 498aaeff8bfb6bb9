//! Starts and stops the probe tasks of a pod's containers.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::AbortHandle;

use super::PodWorker;
use super::sandbox::pod_ip;
use crate::pod_ref::{self, ContainerKind};
use crate::pods::runtime_pod::State;
use crate::probes::ProbeKind;
use crate::probes::prober::Prober;

/// The running probe tasks.
#[derive(Debug, Default)]
pub(super) struct Probers(HashMap<(ProbeKind, String), AbortHandle>);

impl Probers {
    /// While a pod terminates only readiness is probed (HOOK-22, POD-33).
    pub(super) fn stop_all_but_readiness(&mut self) {
        self.retain(|kind, _| kind == ProbeKind::Readiness);
    }

    pub(super) fn stop_all(&mut self) {
        self.retain(|_, _| false);
    }

    fn retain(&mut self, keep: impl Fn(ProbeKind, &str) -> bool) {
        self.0.retain(|(kind, id), task| {
            let keep = keep(*kind, id);
            if !keep {
                task.abort();
            }
            keep
        });
    }
}

impl Drop for Probers {
    fn drop(&mut self) {
        self.stop_all();
    }
}

impl PodWorker {
    /// One task per probe of each running container.
    pub(super) fn update_probers(&mut self) {
        self.probe(&ProbeKind::ALL);
    }

    /// The same in a pod that terminates, where a daemon that began since has no tasks yet.
    pub(super) fn update_terminating_probers(&mut self) {
        self.probers.stop_all_but_readiness();
        self.probe(&[ProbeKind::Readiness]);
    }

    fn probe(&mut self, kinds: &[ProbeKind]) {
        let running: Vec<String> = self
            .runtime
            .containers
            .iter()
            .filter(|run| run.state == State::Running)
            .map(|run| run.id.clone())
            .collect();
        self.probers.retain(|_, id| running.iter().any(|running| running == id));
        self.probes.retain(|id| running.iter().any(|running| running == id));
        let sidecars = pod_ref::init_containers(&self.pod)
            .iter()
            .filter(|container| pod_ref::is_sidecar(container))
            .map(|container| (ContainerKind::Init, container));
        let regular =
            pod_ref::containers(&self.pod).iter().map(|container| (ContainerKind::Regular, container));
        for (kind, container) in sidecars.chain(regular) {
            let Some(run) = self.runtime.container(&container.name).filter(|run| run.state == State::Running)
            else {
                continue;
            };
            // The probes of a container share their copy of it.
            let mut shared = None;
            for &probe_kind in kinds {
                let key = (probe_kind, run.id.clone());
                if probe_kind.of(container).is_none() || self.probers.0.contains_key(&key) {
                    continue;
                }
                let inbox = Arc::clone(&self.inbox);
                let prober = Prober {
                    ctx: Arc::clone(&self.ctx),
                    results: self.probes.clone(),
                    pod: Arc::clone(&self.pod),
                    kind,
                    container: Arc::clone(shared.get_or_insert_with(|| Arc::new(container.clone()))),
                    container_id: run.id.clone(),
                    pod_ip: pod_ip(&self.pod, self).unwrap_or_default(),
                    running_for: run.started_at.map(|at| self.ctx.config.clock.since(at)).unwrap_or_default(),
                    changed: Arc::new(move || inbox.wake()),
                };
                let task = tokio::spawn(prober.run(probe_kind));
                self.probers.0.insert(key, task.abort_handle());
            }
        }
    }
}

//! How long the way of a pod to Running took, for the metrics that upstream's service levels are measured by.

use std::time::Duration;

use tokio::time::Instant;

use super::PodWorker;
use crate::pod_ref;

/// The clock of one pod's start.
#[derive(Debug)]
pub(super) struct Timing {
    /// When this kubelet saw the pod for the first time.
    seen: Instant,
    /// Spent on pulls.
    pub(super) pulling: Duration,
    /// Rounds so far.
    rounds: u64,
    /// The start has been told, or began before this kubelet did.
    told: bool,
}

impl Timing {
    /// Starts now; `began` when the pod was started by an earlier kubelet.
    pub(super) fn start(began: bool) -> Self {
        Self { seen: Instant::now(), pulling: Duration::ZERO, rounds: 0, told: began }
    }
}

impl PodWorker {
    /// A round begins; its name in the metrics.
    pub(super) fn round_begins(&mut self) -> &'static str {
        self.timing.rounds += 1;
        if self.timing.rounds > 1 {
            return "sync";
        }
        self.ctx.metrics.pods.worker_start.observe(self.timing.seen.elapsed().as_secs_f64());
        "create"
    }

    /// Tells how long it took, once, when the pod is Running.
    pub(super) fn tell_start(&mut self) {
        if self.timing.told {
            return;
        }
        let phase = self.ctx.status.current(&self.uid).and_then(|status| status.phase);
        if phase.as_deref() != Some("Running") {
            return;
        }
        self.timing.told = true;
        let metrics = &self.ctx.metrics.pods;
        metrics.start_duration.observe(self.timing.seen.elapsed().as_secs_f64());
        let Some(created) = &self.pod.metadata.creation_timestamp else { return };
        let all = self.ctx.config.clock.since(created.0);
        let less = self.timing.pulling + self.initializing();
        metrics.start_total.observe(all.as_secs_f64());
        metrics.start_sli.observe(all.saturating_sub(less).as_secs_f64());
    }

    /// What the init containers took that end by themselves.
    fn initializing(&self) -> Duration {
        let init = pod_ref::init_containers(&self.pod).iter().filter(|c| !pod_ref::is_sidecar(c));
        let runs = init.flat_map(|container| {
            self.runtime.containers.iter().filter(move |run| run.name == container.name)
        });
        runs.filter_map(|run| Duration::try_from(run.finished_at?.duration_since(run.started_at?)).ok()).sum()
    }
}

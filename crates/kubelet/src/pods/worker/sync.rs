//! `Syncing`: makes the runtime match the pod's spec.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{Life, Next, PodWorker};
use crate::events::EventType;
use crate::images::{self, LookedUp};
use crate::pod_ref::{self, ContainerKind};
use crate::pods::actions::{PodActions, pod_actions};
use crate::pods::runtime_pod::State;
use crate::status::pod_status::Verdict;

/// Longer deadlines than this (in seconds, a century) are no instants any more.
const LONGEST_DEADLINE: u64 = 100 * 365 * 24 * 3600;

/// Failures of volumes in a row that nobody is told about: 350 ms.
const QUIET_SETBACKS: u32 = 3;
/// When a container that should have ended and did not is killed again.
const STUBBORN: Duration = Duration::from_secs(10);

impl PodWorker {
    /// One round: look, decide, do, report.
    pub(super) async fn sync(&mut self) -> Next {
        if !self.refresh().await {
            return self.set_back();
        }
        self.resume_post_starts().await;
        self.decide_resize().await;
        self.ask_for_recursive_read_only().await;
        let mut actions = pod_actions(&self.pod, &self.runtime, &self.probes);
        let updates = self.plan_resize(&mut actions);
        self.publish(false);
        self.watch_deadline();
        if self.inbox.must_end() {
            return Next::Again;
        }
        if actions.kill_pod && !actions.create_sandbox {
            // Nothing is left to run: the pod is finished.
            self.life = Life::Terminating;
            return Next::Again;
        }
        if let Some(trigger) = &actions.restart_all {
            return self.restart_all(trigger).await;
        }
        let looked_up = match self.prepare(&actions).await {
            Ok(looked_up) => looked_up,
            Err(next) => return next,
        };
        self.setbacks = 0;
        self.note_replaced(&actions);
        let all_ended = actions.kill.is_empty() || self.kill_for_restart(&actions).await;
        if !all_ended {
            self.start_none_twice(&mut actions);
        }
        if self.inbox.must_end() {
            return Next::Again;
        }
        self.actuate(updates).await;
        self.start_all(&actions, looked_up).await;
        if !self.refresh().await {
            return self.set_back();
        }
        self.settle_resize();
        self.update_probers();
        self.publish(false);
        self.remove_replaced_sandboxes().await;
        if all_ended { self.next_look() } else { Next::Wait(Some(STUBBORN)) }
    }

    /// Sandbox, volumes and image look-ups, all at once.
    async fn prepare(&mut self, actions: &PodActions) -> Result<HashMap<String, LookedUp>, Next> {
        if actions.create_sandbox && !self.replace_old_sandboxes().await {
            return Err(self.set_back());
        }
        let ctx = Arc::clone(&self.ctx);
        let pod = Arc::clone(&self.pod);
        // With a RuntimeClass the handler belongs to the question, and is not known yet.
        let ahead = actions.create_sandbox && pod_ref::spec(&pod).runtime_class_name.is_none();
        let images = if ahead { images_to_look_up(&pod, actions) } else { Vec::new() };
        let sandbox_config = self.sandbox_config(actions.attempt);
        let (volume_result, sandbox_result, looked_up) = tokio::join!(
            async {
                // What is there is the upkeep's business.
                let mut volumes = self.volumes.lock().await;
                if volumes.complete(&pod) { Ok(()) } else { volumes.sync(&ctx, &pod).await }
            },
            async {
                match &sandbox_config {
                    Ok(config) if actions.create_sandbox => self.create_sandbox(config.clone()).await,
                    Ok(_) => Ok(()),
                    Err(error) => Err(super::sandbox::SandboxFailure::Again(error.clone())),
                }
            },
            async {
                let look_ups = images.into_iter().map(|image| {
                    let spec = images::image_spec(&image, &pod, "");
                    let cri = &ctx.config.cri;
                    async move { (image, cri.image_status(spec).await) }
                });
                futures::future::join_all(look_ups).await.into_iter().collect::<HashMap<_, _>>()
            }
        );
        self.sandbox_config = sandbox_config.ok();
        self.volumes_ready = volume_result.is_ok();
        if actions.create_sandbox && sandbox_result.is_ok() && !self.refresh().await {
            return Err(self.set_back());
        }
        if let Err(failure) = sandbox_result {
            return Err(self.sandbox_failed(failure));
        }
        if let Err(errors) = volume_result {
            // What a controller is just about to make (a new namespace's root CA) is not worth an event.
            for error in errors.iter().filter(|_| self.setbacks >= QUIET_SETBACKS) {
                self.record(EventType::Warning, "FailedMount", error.event());
            }
            self.publish(false);
            return Err(self.set_back());
        }
        if actions.create_sandbox {
            // Watchers see the addresses without waiting for the containers.
            self.publish(false);
        }
        Ok(looked_up)
    }

    /// Starts what is to be started, in order.
    async fn start_all(&mut self, actions: &PodActions, mut looked_up: HashMap<String, LookedUp>) {
        let pod = Arc::clone(&self.pod);
        self.forget_waits_of_others(actions);
        for index in &actions.start_ephemeral {
            if let Some(ephemeral) = pod_ref::ephemeral_containers(&pod).get(*index) {
                let container = pod_ref::ephemeral_as_container(ephemeral);
                self.try_start(ContainerKind::Ephemeral, &container, &mut looked_up).await;
            }
        }
        for index in &actions.start_init {
            let Some(container) = pod_ref::init_containers(&pod).get(*index) else { continue };
            if !self.try_start(ContainerKind::Init, container, &mut looked_up).await {
                if pod_ref::is_sidecar(container) {
                    // Those that are planned beside it had their turn before: they do not depend on this run of it.
                    continue;
                }
                return;
            }
            if pod_ref::is_sidecar(container) {
                // Its successor may start right after it.
                self.inbox.wake();
            }
        }
        for index in &actions.start {
            if let Some(container) = pod_ref::containers(&pod).get(*index) {
                self.try_start(ContainerKind::Regular, container, &mut looked_up).await;
            }
            if self.inbox.must_end() {
                return;
            }
        }
    }

    /// Only containers that are to be started have something to wait for.
    fn forget_waits_of_others(&mut self, actions: &PodActions) {
        let pod = Arc::clone(&self.pod);
        let names = |list: &[Container], indexes: &[usize]| -> Vec<String> {
            indexes.iter().filter_map(|index| Some(list.get(*index)?.name.clone())).collect()
        };
        let mut wanted = names(pod_ref::init_containers(&pod), &actions.start_init);
        wanted.extend(names(pod_ref::containers(&pod), &actions.start));
        wanted.extend(
            actions
                .start_ephemeral
                .iter()
                .filter_map(|index| Some(pod_ref::ephemeral_containers(&pod).get(*index)?.name.clone())),
        );
        self.not_before.retain(|name, _| wanted.contains(name));
    }

    /// Stops containers that are to be replaced or that a probe condemned; whether all of them ended.
    async fn kill_for_restart(&mut self, actions: &PodActions) -> bool {
        let grace = pod_ref::spec(&self.pod).termination_grace_period_seconds.unwrap_or(30);
        let stops = actions.kill.iter().filter_map(|kill| {
            let run = self.runtime.containers.iter().find(|run| run.id == kill.id)?;
            // A probe may bring its own grace period (POD-42).
            let of_probe = kill.probe.and_then(|probe| {
                let (_, container) = pod_ref::find_container(&self.pod, &run.name)?;
                probe.of(&container)?.termination_grace_period_seconds
            });
            Some((run.clone(), kill.message.clone(), of_probe.unwrap_or(grace)))
        });
        self.stop_containers(stops.collect()).await;
        let seen = self.refresh().await;
        let runs = |id: &str| {
            let run = self.runtime.containers.iter().find(|run| run.id == id);
            run.is_some_and(|run| run.state == State::Running)
        };
        // What a probe said of a container that would not end stays said: the next round tries again.
        self.probes.retain(|id| !actions.kill.iter().any(|kill| kill.id == id) || runs(id));
        seen && !actions.kill.iter().any(|kill| runs(&kill.id))
    }

    /// A container that would not end has no successor yet.
    fn start_none_twice(&self, actions: &mut PodActions) {
        let runs = |list: &[Container], index: &usize| {
            let run = list.get(*index).and_then(|container| self.runtime.container(&container.name));
            run.is_some_and(|run| run.state == State::Running)
        };
        actions.start_init.retain(|index| !runs(pod_ref::init_containers(&self.pod), index));
        actions.start.retain(|index| !runs(pod_ref::containers(&self.pod), index));
    }

    /// Sees to `activeDeadlineSeconds` (POD-37), also while the worker waits for a hook or a pull.
    fn watch_deadline(&mut self) {
        let Some(left) = self.deadline() else { return };
        let at = Instant::now() + left;
        let inbox = Arc::clone(&self.inbox);
        self.deadline = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            inbox.expire();
        })));
        if left.is_zero() {
            self.inbox.expire();
        }
    }

    /// The pod was active for as long as it may be.
    pub(super) fn note_expiry(&mut self) {
        let message = "Pod was active on the node longer than the specified deadline";
        self.record(EventType::Normal, "DeadlineExceeded", message);
        self.verdict = Some(Verdict { reason: "DeadlineExceeded".to_owned(), message: message.to_owned() });
    }

    /// How long the pod may still be active.
    fn deadline(&self) -> Option<Duration> {
        let seconds = pod_ref::spec(&self.pod).active_deadline_seconds?;
        let started = self.ctx.status.current(&self.uid)?.start_time?.0;
        let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(LONGEST_DEADLINE));
        Some(allowed.saturating_sub(self.ctx.config.clock.since(started)))
    }

    /// When to look again without being told to.
    pub(super) fn next_look(&self) -> Next {
        let now = Instant::now();
        let mut wait = self.ctx.config.sync_frequency;
        if self.resize.error.is_some() {
            wait = wait.min(super::resize::RETRY);
        }
        for at in self.not_before.values() {
            wait = wait.min(at.saturating_duration_since(now));
        }
        Next::Wait(Some(wait.max(Duration::from_millis(5))))
    }
}

/// The local images that will be asked for right after the sandbox: looked up while it is being made.
fn images_to_look_up(pod: &k8s_openapi::api::core::v1::Pod, actions: &PodActions) -> Vec<String> {
    let pick = |containers: &[Container], indexes: &[usize]| -> Vec<Container> {
        indexes.iter().filter_map(|index| containers.get(*index).cloned()).collect()
    };
    let mut containers = pick(pod_ref::init_containers(pod), &actions.start_init);
    containers.extend(pick(pod_ref::containers(pod), &actions.start));
    let mut names: Vec<String> = containers
        .iter()
        .filter(|container| images::pull_policy(container) != "Always")
        .filter_map(|container| {
            crate::image_name::with_default_tag(container.image.as_deref().unwrap_or_default()).ok()
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

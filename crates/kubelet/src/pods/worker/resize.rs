//! Resize in place (KEP-1287): a new spec is a wish; the node judges it, writes down what it gives, and brings pod and
//! containers there. The pod that the rest of the worker sees has what was given, never what is only wished for.
//!
//! ```text
//! wish ──judge──▶ refused: PodResizePending (Deferred: again when something is free; Infeasible: never)
//!           └───▶ given: PodResizeInProgress ──▶ pod's cgroup up ▶ containers ▶ pod's cgroup down ──▶ has
//!                                        └──▶ PodResizeInProgress with the reason Error: tried again
//! ```

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodCondition, ResourceRequirements};
use sampan_api::resources;
use serde::Serialize;
use tokio::time::Instant;

use super::PodWorker;
use crate::cgroups::{Limits, as_value};
use crate::events::EventType;
use crate::generate::node_defaults;
use crate::generate::resources::{QosClass, container_resources, qos_class};
use crate::node::resize::{Refusal, Waiting, judge};
use crate::pod_ref;
use crate::pods::actions::{Kill, PodActions};
use crate::pods::allocation;
use crate::pods::runtime_pod::State;
use crate::quantities;

/// When a resize that failed is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(10);

/// How a resize stands that is not through.
#[derive(Debug, Default)]
pub(super) struct Resize {
    /// Why the wish of this generation is not taken.
    pending: Option<(i64, Refusal)>,
    /// Why what was given is not there yet.
    pub(super) error: Option<String>,
    /// The generation that the metrics know.
    counted: i64,
}

/// A running container that gets other resources.
#[derive(Debug)]
pub(super) struct Update {
    id: String,
    container: Container,
}

/// What events tell of a resize.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Given<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Given<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[derive(Serialize)]
struct Given<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

impl PodWorker {
    /// Judges the wish, if there is one.
    pub(super) async fn decide_resize(&mut self) {
        let desired = Arc::clone(&self.desired);
        let Some(allocation) = &self.allocation else { return };
        let ctx = Arc::clone(&self.ctx);
        if allocation.grants(&desired) || desired.metadata.deletion_timestamp.is_some() {
            if self.resize.pending.is_some() {
                // The wish was taken back; so is what may have been kept for it.
                ctx.admitted.waiting.forget(&self.uid);
                let has = resources::pod_requests(&as_value(&self.pod));
                ctx.admitted.pods.lock().await.insert(self.uid.clone(), has);
                self.set_pending(None);
            }
            return;
        }
        let generation = desired.metadata.generation.unwrap_or_default();
        if std::mem::replace(&mut self.resize.counted, generation) != generation {
            for labels in allocation.differences(&desired) {
                ctx.metrics.pods.resize_requested(labels);
            }
        }
        let requests = resources::pod_requests(&as_value(&desired));
        let mut pods = ctx.admitted.pods.lock().await;
        let allocatable = ctx.node_allocatable();
        if let Err(refusal) = judge(&self.uid, &requests, &pods, &allocatable) {
            pods.insert(self.uid.clone(), resources::pod_requests(&as_value(&self.pod)));
            match &refusal {
                Refusal::Infeasible(_) => ctx.admitted.waiting.forget(&self.uid),
                Refusal::Deferred(_) => {
                    let waiting = Waiting {
                        requests,
                        priority: pod_ref::spec(&desired).priority.unwrap_or(0),
                        guaranteed: qos_class(&desired) == QosClass::Guaranteed,
                        since: Instant::now(),
                        inbox: Arc::clone(&self.inbox),
                    };
                    ctx.admitted.waiting.wait(&self.uid, waiting);
                }
            }
            drop(pods);
            self.set_pending(Some((generation, refusal)));
            return;
        }
        let mut given = allocation.clone();
        given.accept(&desired);
        given.resizing = Some(generation);
        if let Err(error) = given.save(&ctx.pod_dir(&self.uid)) {
            tracing::warn!(pod = %pod_ref::full_name(&desired), error, "resize not taken yet");
            return;
        }
        pods.insert(self.uid.clone(), requests);
        ctx.admitted.waiting.forget(&self.uid);
        // What it gives back others may have.
        ctx.admitted.waiting.serve(&mut pods, &allocatable);
        drop(pods);
        self.allocation = Some(given);
        let before = std::mem::replace(&mut self.pod, desired);
        self.end_waits_of_changed(&before);
        self.resize.error = None;
        self.set_pending(None);
        self.resize_event(EventType::Normal, "ResizeStarted", "started", generation, "");
    }

    /// Remembers why the wish is not taken, and tells it once.
    pub(super) fn set_pending(&mut self, pending: Option<(i64, Refusal)>) {
        if self.resize.pending == pending {
            return;
        }
        let gauge = |pending: &(i64, Refusal)| {
            let labels = [("reason", pending.1.reason().to_lowercase())];
            self.ctx.metrics.pods.pending_resizes.get_or_create(&labels).clone()
        };
        if let Some(old) = &self.resize.pending {
            gauge(old).dec();
        }
        if let Some(new) = &pending {
            gauge(new).inc();
        }
        let told = self.resize.pending.as_ref().map(|(generation, old)| (*generation, old.reason()));
        self.resize.pending = pending;
        if let Some((generation, refusal)) = self.resize.pending.clone()
            && told != Some((generation, refusal.reason()))
        {
            let (event, what) = match refusal {
                Refusal::Deferred(_) => ("ResizeDeferred", "Deferred"),
                Refusal::Infeasible(_) => ("ResizeInfeasible", "Infeasible"),
            };
            self.resize_event(EventType::Warning, event, what, generation, refusal.message());
        }
    }

    /// Which running containers get other resources now; those whose `resizePolicy` says so are restarted.
    pub(super) fn plan_resize(&self, actions: &mut PodActions) -> Vec<Update> {
        let Some(allocation) = self.allocation.as_ref().filter(|allocation| allocation.resizing.is_some())
        else {
            return Vec::new();
        };
        if actions.kill_pod || actions.create_sandbox || actions.restart_all.is_some() {
            return Vec::new();
        }
        let mut updates = Vec::new();
        for container in allocation::resizable(&self.pod) {
            let name = &container.name;
            let Some(run) = self.runtime.container(name).filter(|run| run.state == State::Running) else {
                continue;
            };
            if allocation.is_actuated(name) || actions.kill.iter().any(|kill| kill.id == run.id) {
                continue;
            }
            let restarts = container.resize_policy.iter().flatten().any(|policy| {
                policy.restart_policy == "RestartContainer"
                    && allocation.changes(name).contains(&policy.resource_name.as_str())
            });
            if !restarts {
                updates.push(Update { id: run.id.clone(), container: container.clone() });
                continue;
            }
            actions.kill.push(Kill {
                id: run.id.clone(),
                name: name.clone(),
                message: format!("Container {name} resize requires restart"),
                probe: None,
            });
            let place = |list: &[Container]| list.iter().position(|other| other.name == *name);
            match place(pod_ref::containers(&self.pod)) {
                Some(index) => add(&mut actions.start, index),
                None => {
                    if let Some(index) = place(pod_ref::init_containers(&self.pod)) {
                        add(&mut actions.start_init, index);
                    }
                }
            }
        }
        updates
    }

    /// Brings pod and containers to what they were given, in an order in which no container ever has more than
    /// its pod.
    pub(super) async fn actuate(&mut self, updates: Vec<Update>) {
        let Some(allocation) = self.allocation.as_ref().filter(|allocation| allocation.resizing.is_some())
        else {
            return;
        };
        let before = self.ctx.cgroups.limits(&allocation.as_actuated(&self.pod));
        let after = self.ctx.cgroups.limits(&self.pod);
        let done = self.carry_out(&updates, &before, &after).await;
        let generation = self.allocation.as_ref().and_then(|allocation| allocation.resizing);
        let told = self.resize.error.is_some();
        self.resize.error = done.err();
        if let (Some(error), Some(generation), false) = (self.resize.error.clone(), generation, told) {
            self.resize_event(EventType::Warning, "ResizeError", "error", generation, &error);
        }
    }

    async fn carry_out(&mut self, updates: &[Update], before: &Limits, after: &Limits) -> Result<(), String> {
        let ctx = Arc::clone(&self.ctx);
        // First of all: containers that are about to be restarted need their room, too.
        ctx.cgroups.set(&self.pod, &before.at_least(after))?;
        self.check_memory(updates, before, after).await?;
        for Update { id, container } in updates {
            let mut linux = container_resources(&self.pod, container, ctx.memory_capacity);
            node_defaults::apply_to_resources(&ctx.config, &mut linux);
            ctx.config
                .cri
                .update_container_resources(id, linux)
                .await
                .map_err(|status| format!("container {:?}: {}", container.name, status.message()))?;
            self.actuated(container);
        }
        ctx.cgroups.set(&self.pod, after)?;
        if let Some(allocation) = &mut self.allocation
            && allocation.actuated_pod != allocation.pod
        {
            allocation.actuated_pod.clone_from(&allocation.pod);
            self.save_allocation();
        }
        Ok(())
    }

    /// Memory that is in use is not taken away: the kernel would kill somebody for it. As upstream, file cache counts as
    /// in use, though the kernel could drop it.
    async fn check_memory(&self, updates: &[Update], before: &Limits, after: &Limits) -> Result<(), String> {
        let mut errors = Vec::new();
        // Cgroups that are not the kubelet's are not limited by it either.
        if let Some((limit, usage)) =
            shrinks(before.memory, after.memory).zip(self.ctx.cgroups.usage(&self.pod))
        {
            match usage.memory {
                None => errors.push("missing pod memory usage".to_owned()),
                Some(used) if used >= limit => errors.push(format!(
                    "attempting to set pod memory limit ({limit}) below current usage ({used})"
                )),
                Some(_) => {}
            }
        }
        let limit_of = |resources: Option<&ResourceRequirements>| {
            Some(quantities::listed(resources.and_then(|r| r.limits.as_ref()), "memory").unwrap_or(-1))
        };
        let shrinking: Vec<(&Update, u64)> = updates
            .iter()
            .filter_map(|update| {
                let old = self.allocation.as_ref()?.actuated.get(&update.container.name);
                Some((update, shrinks(limit_of(old), limit_of(update.container.resources.as_ref()))?))
            })
            .collect();
        if !shrinking.is_empty() {
            let stats = self.ctx.config.cri.list_container_stats().await;
            let stats = stats.map_err(|status| format!("memory usage: {}", status.message()))?;
            for (update, limit) in shrinking {
                let used = stats
                    .iter()
                    .find(|stats| stats.attributes.as_ref().is_some_and(|a| a.id == update.id))
                    .and_then(|stats| Some(stats.memory.as_ref()?.usage_bytes.as_ref()?.value));
                let name = &update.container.name;
                match used {
                    None => errors.push(format!("missing container {name:?} memory usage")),
                    Some(used) if used >= limit => errors.push(format!(
                        "attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"
                    )),
                    Some(_) => {}
                }
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            many => Err(format!("cannot decrease memory limits: [{}]", many.join(", "))),
        }
    }

    /// The container has what it was given: it was started with it, or brought to it.
    pub(super) fn actuated(&mut self, container: &Container) {
        let given = container.resources.clone().unwrap_or_default();
        let has =
            self.allocation.as_mut().and_then(|allocation| allocation.actuated.get_mut(&container.name));
        if let Some(has) = has.filter(|has| **has != given) {
            *has = given;
            self.save_allocation();
        }
    }

    /// Tells the end of a resize when everything that runs has what it was given.
    pub(super) fn settle_resize(&mut self) {
        let Some(allocation) = &mut self.allocation else { return };
        let Some(generation) = allocation.resizing.filter(|_| self.resize.error.is_none()) else { return };
        let runs = |container: &&Container| {
            self.runtime.container(&container.name).is_some_and(|run| run.state == State::Running)
        };
        if !allocation::resizable(&self.pod).filter(runs).all(|c| allocation.is_actuated(&c.name)) {
            return;
        }
        allocation.resizing = None;
        self.save_allocation();
        self.resize_event(EventType::Normal, "ResizeCompleted", "completed", generation, "");
    }

    pub(super) fn save_allocation(&self) {
        let saved = self.allocation.as_ref().map(|allocation| allocation.save(&self.ctx.pod_dir(&self.uid)));
        if let Some(Err(error)) = saved {
            // The worst of it: a later daemon does again what was done.
            tracing::warn!(pod = %pod_ref::full_name(&self.pod), error, "what the pod has is not written down");
        }
    }

    /// The conditions that tell of it.
    pub(super) fn resize_conditions(&self) -> Vec<PodCondition> {
        let condition =
            |type_: &str, generation: i64, reason: Option<&str>, message: Option<&str>| PodCondition {
                type_: type_.to_owned(),
                status: "True".to_owned(),
                reason: reason.map(str::to_owned),
                message: message.map(str::to_owned),
                observed_generation: Some(generation),
                ..PodCondition::default()
            };
        let pending = self.resize.pending.as_ref().map(|(generation, refusal)| {
            condition("PodResizePending", *generation, Some(refusal.reason()), Some(refusal.message()))
        });
        let resizing =
            self.allocation.as_ref().and_then(|allocation| allocation.resizing).map(|generation| {
                let error = self.resize.error.as_deref();
                condition("PodResizeInProgress", generation, error.map(|_| "Error"), error)
            });
        pending.into_iter().chain(resizing).collect()
    }

    fn resize_event(&self, kind: EventType, reason: &str, what: &str, generation: i64, error: &str) {
        // A wish that is not taken is told as it is.
        let pod =
            if kind == EventType::Warning && reason != "ResizeError" { &self.desired } else { &self.pod };
        let sidecars = pod_ref::init_containers(pod).iter().filter(|c| pod_ref::is_sidecar(c));
        let summary = Summary {
            init_containers: sidecars.map(given).collect(),
            containers: pod_ref::containers(pod).iter().map(given).collect(),
            generation,
            error,
        };
        let json = serde_json::to_string(&summary).unwrap_or_default();
        self.record(kind, reason, format!("Pod resize {what}: {json}"));
    }

    /// Runs that are to be replaced whatever their exit code is: a daemon that is killed in the middle must not
    /// take the end of one for the end of its container.
    pub(super) fn note_replaced(&mut self, actions: &PodActions) {
        let Some(allocation) = &mut self.allocation else { return };
        let before = allocation.replaced.clone();
        let known = |id: &String| {
            self.runtime.containers.iter().any(|run| run.id == *id && run.state != State::Running)
        };
        allocation.replaced.retain(known);
        for kill in actions.kill.iter().filter(|kill| kill.probe.is_none()) {
            let starts = |list: &[Container], indexes: &[usize]| {
                indexes.iter().any(|index| list.get(*index).is_some_and(|c| c.name == kill.name))
            };
            if starts(pod_ref::containers(&self.pod), &actions.start) {
                allocation.replaced.insert(kill.id.clone());
            }
        }
        if allocation.replaced != before {
            self.save_allocation();
        }
    }
}

fn given(container: &Container) -> Given<'_> {
    Given { name: &container.name, resources: container.resources.clone().unwrap_or_default() }
}

/// The new limit when it is less than the old one; -1 is none.
fn shrinks(old: Option<i64>, new: Option<i64>) -> Option<u64> {
    let (old, new) = (old.unwrap_or(-1), new.unwrap_or(-1));
    (new >= 0 && (old < 0 || new < old)).then(|| new.unsigned_abs())
}

fn add(list: &mut Vec<usize>, index: usize) {
    if !list.contains(&index) {
        list.push(index);
        list.sort_unstable();
    }
}

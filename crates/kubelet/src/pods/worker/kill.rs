//! Stopping containers: the preStop hook, the stop signal, SIGKILL; alone or with the whole pod (POD-27,
//! HOOK-20 to HOOK-30).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use tokio::time::Instant;

use super::sandbox::pod_ip;
use super::{Life, Next, PodWorker};
use crate::events::EventType;
use crate::hooks::{self, HookTarget};
use crate::labels;
use crate::pod_ref::{self, ContainerKind};
use crate::pods::runtime_pod::{RuntimeContainer, State};

/// A container gets at least this long between signal and SIGKILL, in seconds (HOOK-27).
const MINIMUM_GRACE: i64 = 2;

impl PodWorker {
    /// Stops one container.
    pub(super) async fn stop_container(&mut self, run: &RuntimeContainer, message: &str, grace: i64) {
        self.announce(run, message);
        self.pre_stop_done.insert(run.id.clone());
        self.pre_stop_and_stop(run, grace, Duration::ZERO).await;
    }

    fn announce(&mut self, run: &RuntimeContainer, message: &str) {
        if self.announced_kills.insert(run.id.clone()) {
            let kind = pod_ref::find_container(&self.pod, &run.name)
                .map_or(ContainerKind::Regular, |(kind, _)| kind);
            let reference = pod_ref::container_reference(&self.pod, kind, &run.name);
            self.ctx.recorder.record(reference, EventType::Normal, "Killing", message);
        }
    }

    /// The preStop hook within the grace period, then the stop with what is left of it. `turn` is how long
    /// other containers were waited for before.
    async fn pre_stop_and_stop(&self, run: &RuntimeContainer, grace: i64, turn: Duration) {
        let began = Instant::now();
        if run.state == State::Running && grace > 0 {
            self.pre_stop(run, grace).await;
        }
        let used = i64::try_from((began.elapsed() + turn).as_secs()).unwrap_or(i64::MAX);
        self.stop_now(run, (grace - used).max(MINIMUM_GRACE)).await;
    }

    async fn stop_now(&self, run: &RuntimeContainer, timeout: i64) {
        if let Err(status) = self.ctx.config.cri.stop_container(&run.id, timeout).await
            && status.code() != tonic::Code::NotFound
        {
            tracing::warn!(container = run.name, id = run.id, %status, "container not stopped");
        }
    }

    /// Runs the preStop hook; at the end of the grace period it is left alone (HOOK-26).
    async fn pre_stop(&self, run: &RuntimeContainer, grace: i64) {
        let (kind, container) = pod_ref::find_container(&self.pod, &run.name).unwrap_or_else(|| {
            (ContainerKind::Regular, Container { name: run.name.clone(), ..Container::default() })
        });
        // The pod's object may be gone or changed: the container remembers its hook (HOOK-36).
        let remembered: Option<LifecycleHandler> =
            run.annotations.get(labels::PRE_STOP_HANDLER).and_then(|json| serde_json::from_str(json).ok());
        let handler =
            container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone()).or(remembered);
        let Some(handler) = handler else { return };
        let ip = pod_ip(&self.pod, self);
        let target = HookTarget {
            ctx: &self.ctx,
            pod: &self.pod,
            kind,
            container: &container,
            container_id: &run.id,
            pod_ip: ip.as_deref(),
        };
        let budget = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        match tokio::time::timeout(budget, hooks::run(&target, &handler)).await {
            Ok(Ok(())) => {}
            Ok(Err(message)) => {
                let reference = pod_ref::container_reference(&self.pod, kind, &run.name);
                tracing::info!(container = run.name, "preStop hook failed: {message}");
                // The documented text (DESIGN.md, instead of HOOK-29); what the hook printed is not in it.
                self.ctx.recorder.record(reference, EventType::Warning, "FailedPreStopHook", message);
            }
            Err(_) => tracing::info!(container = run.name, grace, "preStop hook cut by the grace period"),
        }
    }

    /// `Terminating`: stops everything, shortens its patience when a second deletion says so.
    pub(super) async fn terminate(&mut self) -> Next {
        self.probers.stop_all_but_readiness();
        if !self.refresh().await {
            return self.set_back();
        }
        let began = Instant::now();
        let mut grace = self.inbox.grace_seconds();
        let stopping: Vec<RuntimeContainer> = self.runtime.running().cloned().collect();
        for run in &stopping {
            self.announce(run, &format!("Stopping container {}", run.name));
        }
        if !self.inbox.node_stops() && !stopping.is_empty() {
            self.publish(false);
        }
        let with_hooks: Vec<bool> =
            stopping.iter().map(|run| self.pre_stop_done.insert(run.id.clone())).collect();
        let inbox = Arc::clone(&self.inbox);
        {
            let this = &*self;
            let mut work: std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> =
                Box::pin(this.stop_all(&stopping, &with_hooks, grace));
            loop {
                tokio::select! {
                    () = &mut work => break,
                    () = inbox.changed() => {
                        let shorter = inbox.grace_seconds();
                        let elapsed = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
                        if shorter < grace {
                            // A second deletion with less patience (POD-32): hooks already began.
                            grace = shorter;
                            let none = vec![false; stopping.len()];
                            drop(work);
                            work = Box::pin(this.stop_all_owned(&stopping, none, (shorter - elapsed).max(0)));
                        }
                    }
                }
            }
        }
        if !self.refresh().await {
            return self.set_back();
        }
        if self.runtime.running().next().is_some() {
            // Not gone yet: again, without hooks.
            return self.set_back();
        }
        if !self.stop_sandboxes().await {
            self.refresh().await;
            if self.runtime.sandboxes.iter().any(|sandbox| sandbox.ready) {
                return self.set_back();
            }
        }
        self.probers.stop_all();
        if !self.inbox.node_stops() {
            self.publish(true);
        }
        self.setbacks = 0;
        self.life = Life::Terminated;
        Next::Again
    }

    async fn stop_all_owned(&self, runs: &[RuntimeContainer], with_hooks: Vec<bool>, grace: i64) {
        self.stop_all(runs, &with_hooks, grace).await;
    }

    /// All at once, except that sidecars wait for the regular containers and then go in reverse order; when
    /// the grace period is over nobody waits any longer (POD-27). Hooks all begin at once (HOOK-31).
    async fn stop_all(&self, runs: &[RuntimeContainer], with_hooks: &[bool], grace: i64) {
        let sidecars: Vec<&str> = pod_ref::init_containers(&self.pod)
            .iter()
            .filter(|container| pod_ref::is_sidecar(container))
            .map(|container| container.name.as_str())
            .collect();
        let order = |run: &RuntimeContainer| sidecars.iter().position(|name| *name == run.name);
        let began = Instant::now();
        let budget = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let done: Vec<tokio_util::sync::CancellationToken> =
            runs.iter().map(|_| tokio_util::sync::CancellationToken::new()).collect();
        let stops = runs.iter().enumerate().map(|(index, run)| {
            // Whom this one has to wait for: regular containers (no order) and later sidecars.
            let before: Vec<_> = match order(run) {
                None => Vec::new(),
                Some(own) => runs
                    .iter()
                    .zip(&done)
                    .filter(|(other, _)| order(other).is_none_or(|position| position > own))
                    .map(|(_, done)| done.clone())
                    .collect(),
            };
            let finished = done[index].clone();
            let hook = with_hooks.get(index).copied().unwrap_or(false);
            async move {
                if hook && run.state == State::Running {
                    self.pre_stop(run, grace).await;
                }
                let turn = async {
                    for other in before {
                        other.cancelled().await;
                    }
                };
                let _ = tokio::time::timeout(budget.saturating_sub(began.elapsed()), turn).await;
                let used = i64::try_from(began.elapsed().as_secs()).unwrap_or(i64::MAX);
                self.stop_now(run, (grace - used).max(if grace == 0 { 0 } else { MINIMUM_GRACE })).await;
                finished.cancel();
            }
        });
        futures::future::join_all(stops).await;
    }
}

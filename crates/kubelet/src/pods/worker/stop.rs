//! Stopping containers: the preStop hook, the turn of sidecars, the stop signal, SIGKILL (HOOK-20 to HOOK-31,
//! POD-27). It owns what it needs, so that the worker can look and report while containers are being stopped.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::PodWorker;
use super::budget::Budget;
use super::inbox::Inbox;
use super::sandbox::pod_ip;
use crate::context::NodeContext;
use crate::events::EventType;
use crate::hooks::{self, Cut, Ended, HookKind, HookTarget, Patience};
use crate::labels;
use crate::pod_ref::{self, ContainerKind};
use crate::pods::runtime_pod::{RuntimeContainer, State};

/// Containers whose preStop hook has had its chance in this daemon's life: it is not run twice for one stop
/// (HOOK-34). A hook that was interrupted is not among them, so its stop runs it again (HOOK-33).
#[derive(Clone, Debug, Default)]
pub(super) struct HooksDone(Arc<Mutex<HashSet<String>>>);

impl HooksDone {
    fn contains(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// Forgets those that nobody knows any more.
    pub(super) fn retain(&self, knows: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| knows(id));
    }

    fn insert(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
    }
}

/// Stops containers of one pod.
#[derive(Clone)]
pub(super) struct Stopper {
    ctx: Arc<NodeContext>,
    inbox: Arc<Inbox>,
    pod: Arc<Pod>,
    pod_ip: Option<String>,
    done: HooksDone,
}

impl PodWorker {
    pub(super) fn stopper(&self) -> Stopper {
        Stopper {
            ctx: Arc::clone(&self.ctx),
            inbox: Arc::clone(&self.inbox),
            pod: Arc::clone(&self.pod),
            pod_ip: pod_ip(&self.pod, self),
            done: self.pre_stop_done.clone(),
        }
    }

    /// Records `Killing`, once per container.
    pub(super) fn announce(&mut self, run: &RuntimeContainer, message: &str) {
        if self.announced_kills.insert(run.id.clone()) {
            let kind = pod_ref::find_container(&self.pod, &run.name)
                .map_or(ContainerKind::Regular, |(kind, _)| kind);
            let reference = pod_ref::container_reference(&self.pod, kind, &run.name);
            self.ctx.recorder.record(reference, EventType::Normal, "Killing", message);
        }
    }

    /// Stops containers while the pod goes on. The end of the pod interrupts it: then its termination, which may
    /// have less patience, takes over.
    pub(super) async fn stop_containers(&mut self, stops: Vec<(RuntimeContainer, String, i64)>) {
        for (run, message, _) in &stops {
            self.announce(run, message);
        }
        let stopper = self.stopper();
        let all = futures::future::join_all(stops.iter().map(|(run, _, grace)| {
            stopper.stop(run, Budget::fixed(Instant::now(), *grace), std::future::ready(()))
        }));
        let ending = self.inbox.ending();
        tokio::select! {
            _ = self.while_telling(all) => {}
            () = ending.cancelled() => {}
        }
    }
}

impl Stopper {
    /// The hook, then the turn of others, then the signal, all within `budget`.
    async fn stop(&self, run: &RuntimeContainer, mut budget: Budget, turn: impl Future<Output = ()>) {
        if run.state == State::Running && budget.grace() > 0 && !self.done.contains(&run.id) {
            self.pre_stop(run, budget.clone()).await;
            self.done.insert(&run.id);
        }
        tokio::select! {
            () = turn => {}
            () = budget.over() => {}
        }
        self.signal(run, budget).await;
    }

    async fn signal(&self, run: &RuntimeContainer, mut budget: Budget) {
        let signalled = Instant::now();
        loop {
            let timeout = budget.left_for_signal(signalled.elapsed());
            tokio::select! {
                result = self.ctx.config.cri.stop_container(&run.id, timeout) => {
                    if let Err(status) = result
                        && status.code() != tonic::Code::NotFound
                    {
                        tracing::warn!(container = run.name, id = run.id, %status, "container not stopped");
                    }
                    return;
                }
                // The same again with less patience; the runtime does not send its signal twice.
                () = budget.shortened() => {}
            }
        }
    }

    async fn pre_stop(&self, run: &RuntimeContainer, mut budget: Budget) {
        let (kind, container) = pod_ref::find_container(&self.pod, &run.name).unwrap_or_else(|| {
            (ContainerKind::Regular, Container { name: run.name.clone(), ..Container::default() })
        });
        // The pod's object may be gone or changed: the container remembers its hook (HOOK-36).
        let remembered: Option<LifecycleHandler> =
            run.annotations.get(labels::PRE_STOP_HANDLER).and_then(|json| serde_json::from_str(json).ok());
        let handler =
            container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone()).or(remembered);
        let Some(handler) = handler else { return };
        let target = HookTarget {
            ctx: &self.ctx,
            pod: &self.pod,
            kind,
            hook: HookKind::PreStop,
            container: &container,
            container_id: &run.id,
            restart_count: run.restart_count,
            pod_ip: self.pod_ip.as_deref(),
        };
        let patience = Patience {
            seconds: budget.left(),
            over: async {
                tokio::select! {
                    () = budget.over() => Cut::GracePeriod,
                    () = container_ended(&self.ctx, &self.inbox, &run.id) => Cut::ContainerEnded,
                }
            },
        };
        let message = match hooks::run(&target, &handler, patience).await {
            Ended::Well | Ended::Cut(Cut::ContainerEnded, _) => return,
            Ended::Failed(message) | Ended::Cut(_, message) => message,
        };
        // The documented text (DESIGN.md, instead of HOOK-29); what the hook printed is not in it.
        let reference = pod_ref::container_reference(&self.pod, kind, &run.name);
        self.ctx.recorder.record(reference, EventType::Warning, "FailedPreStopHook", message);
    }

    /// All at once, except that sidecars wait for the regular containers and then go in reverse order; when
    /// the grace period is over nobody waits any longer (POD-27). Hooks all begin at once (HOOK-31).
    pub(super) async fn stop_all(self, runs: Vec<RuntimeContainer>, budget: Budget) {
        let sidecars: Vec<&str> = pod_ref::init_containers(&self.pod)
            .iter()
            .filter(|container| pod_ref::is_sidecar(container))
            .map(|container| container.name.as_str())
            .collect();
        let order = |run: &RuntimeContainer| sidecars.iter().position(|name| *name == run.name);
        let ended: Vec<CancellationToken> = runs.iter().map(|_| CancellationToken::new()).collect();
        let stops = runs.iter().zip(&ended).map(|(run, own)| {
            // Whom this one has to wait for: regular containers (no order) and later sidecars.
            let before: Vec<CancellationToken> = match order(run) {
                None => Vec::new(),
                Some(own) => runs
                    .iter()
                    .zip(&ended)
                    .filter(|(other, _)| order(other).is_none_or(|position| position > own))
                    .map(|(_, ended)| ended.clone())
                    .collect(),
            };
            let turn = async move {
                for other in before {
                    other.cancelled().await;
                }
            };
            let stop = self.stop(run, budget.clone(), turn);
            async move {
                stop.await;
                own.cancel();
            }
        });
        futures::future::join_all(stops).await;
    }
}

/// Resolves when the container has no process any more.
pub(super) async fn container_ended(ctx: &NodeContext, inbox: &Inbox, id: &str) {
    loop {
        let happened = inbox.happened();
        tokio::pin!(happened);
        happened.as_mut().enable();
        match ctx.config.cri.container_status(id).await {
            Ok(status) if status.state == sampan_cri::v1::ContainerState::ContainerRunning as i32 => {}
            Err(status) if status.code() != tonic::Code::NotFound => {}
            _ => {
                // Whoever runs in it hears of the end as well, and knows more about it.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                return;
            }
        }
        happened.await;
    }
}

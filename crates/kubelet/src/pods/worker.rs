//! The worker of one pod: an explicit state machine that is the only one to act on its pod.
//!
//! It wakes up when the pod's object changes, when the runtime or a probe reports something, and when a time
//! that it set itself is reached; then it looks at the truth again and does what is to be done.

mod admit;
mod awaited;
mod budget;
mod environment;
mod files;
mod finish;
mod image;
pub(crate) mod inbox;
mod kill;
mod post_start;
mod probing;
mod resize;
mod restart_all;
mod sandbox;
mod start;
mod stop;
mod sync;
mod timing;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::time::Instant;

use crate::context::NodeContext;
use crate::images::wait::CauseWatch;
use crate::pod_ref;
use crate::pods::allocation::Allocation;
use crate::pods::runtime_pod::RuntimePod;
use crate::probes::{ProbeKind, ProbeResults};
use crate::status::container_status::StartError;
use crate::status::pod_status::{StatusInputs, Verdict, pod_status};
use crate::volumes::upkeep::Upkeep;
use inbox::Inbox;

/// Where a pod is in its life on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// The pod shall run: its spec is made true, again and again. Moves on to `Terminating` when the pod is
    /// deleted, finished, past its deadline, rejected, or the node stops its pods.
    Syncing,
    /// Its containers are being stopped. Moves on to `Terminated` when none has a process any more.
    Terminating,
    /// Nothing of it runs. Volumes and cgroups are removed; the worker ends when the API object is gone (or
    /// waits for its deletion, when the pod finished by itself).
    Terminated,
}

/// What the worker does next.
enum Next {
    /// Look again at once.
    Again,
    /// Wait for something to happen, at most this long.
    Wait(Option<Duration>),
    /// The worker's work is over.
    Done,
}

/// See the module.
pub(crate) struct PodWorker {
    ctx: Arc<NodeContext>,
    inbox: Arc<Inbox>,
    /// The pod with what the node has given it.
    pod: Arc<Pod>,
    /// The pod as the API has it: it may ask for other resources.
    desired: Arc<Pod>,
    /// What the node has given it; known once the pod was admitted.
    allocation: Option<Allocation>,
    resize: resize::Resize,
    timing: timing::Timing,
    uid: String,
    life: Life,
    runtime: RuntimePod,
    volumes: Upkeep,
    volumes_ready: bool,
    /// Whether the runtime makes whole trees of mounts read-only, once it was asked.
    recursive_read_only: Option<bool>,
    start_errors: HashMap<String, StartError>,
    /// Containers that are not tried again before this time.
    not_before: HashMap<String, Instant>,
    /// News of what they lacked ends that wait.
    awaited: awaited::Awaited,
    /// What ends the waits of containers for their images.
    image_waits: HashMap<String, CauseWatch>,
    probes: ProbeResults,
    probers: probing::Probers,
    in_post_start: HashSet<String>,
    pre_stop_done: stop::HooksDone,
    /// Containers whose runs were forgotten to begin again, and that have not begun yet (POD-29).
    reset: HashSet<String>,
    /// Containers whose `Killing` event was recorded.
    announced_kills: HashSet<String>,
    /// When the termination began: its grace period counts from here.
    terminating_since: Option<Instant>,
    /// Watches over `activeDeadlineSeconds`.
    deadline: Option<tokio_util::task::AbortOnDropHandle<()>>,
    verdict: Option<Verdict>,
    /// Whether the node has judged the pod.
    admitted: bool,
    /// Whether it was not taken: then it has no containers to tell of.
    rejected: bool,
    /// Failed attempts in a row at something before the containers: the sandbox, volumes, the runtime itself.
    setbacks: u32,
    /// The pod finished before this daemon began: nothing is started, only cleaned up, and its status stays as it is.
    history: bool,
    sandbox_config: Option<sampan_cri::v1::PodSandboxConfig>,
}

impl PodWorker {
    pub(crate) fn new(ctx: Arc<NodeContext>, inbox: Arc<Inbox>, pod: Arc<Pod>) -> Self {
        let uid = pod_ref::uid(&pod).to_owned();
        let history =
            pod_ref::is_terminal_phase(pod.status.as_ref().and_then(|status| status.phase.as_deref()));
        let probes = ProbeResults::default();
        seed_probes(&probes, &pod);
        // What the last daemon had set up is still there: until a look says otherwise, so is its condition.
        let volumes_ready =
            pod.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| {
                condition.type_ == "PodReadyToStartContainers" && condition.status == "True"
            });
        let allocation = Allocation::load(&ctx.pod_dir(&uid)).unwrap_or_else(|error| {
            tracing::warn!(pod = %pod_ref::full_name(&pod), error, "what the pod was given is not known");
            None
        });
        let waiting = Arc::clone(&inbox);
        let volumes = Upkeep::start(Arc::clone(&ctx), inbox.pods(), move || waiting.wake());
        Self {
            desired: Arc::clone(&pod),
            allocation,
            resize: resize::Resize::default(),
            timing: timing::Timing::start(
                pod.status.as_ref().is_some_and(|status| status.start_time.is_some()),
            ),
            ctx,
            inbox,
            pod,
            uid,
            life: Life::Syncing,
            runtime: RuntimePod::default(),
            volumes,
            volumes_ready,
            recursive_read_only: None,
            start_errors: HashMap::new(),
            not_before: HashMap::new(),
            awaited: awaited::Awaited::default(),
            image_waits: HashMap::new(),
            probes,
            probers: probing::Probers::default(),
            in_post_start: HashSet::new(),
            pre_stop_done: stop::HooksDone::default(),
            reset: HashSet::new(),
            terminating_since: None,
            deadline: None,
            announced_kills: HashSet::new(),
            verdict: None,
            admitted: false,
            rejected: false,
            setbacks: 0,
            history,
            sandbox_config: None,
        }
    }

    /// Works until the pod is gone from the API and from the node.
    pub(crate) async fn run(mut self) {
        loop {
            self.take_news();
            let next = match self.life {
                Life::Syncing if self.inbox.must_end() || self.history => {
                    if self.inbox.is_expired() && self.verdict.is_none() && !self.history {
                        self.note_expiry();
                    }
                    self.life = Life::Terminating;
                    Next::Again
                }
                Life::Syncing if !self.admitted => {
                    self.admit().await;
                    Next::Again
                }
                Life::Syncing => {
                    let (began, operation) = (Instant::now(), self.round_begins());
                    let next = self.sync().await;
                    self.tell_start();
                    self.ctx.metrics.pods.round(operation, began.elapsed());
                    next
                }
                Life::Terminating => {
                    let began = Instant::now();
                    let next = self.terminate().await;
                    self.ctx.metrics.pods.round("kill", began.elapsed());
                    next
                }
                Life::Terminated => self.finish().await,
            };
            match next {
                Next::Again => {}
                Next::Wait(limit) => {
                    let limit = limit.unwrap_or(self.ctx.config.sync_frequency);
                    let _ = tokio::time::timeout(limit, self.inbox.changed()).await;
                }
                Next::Done => return,
            }
        }
    }

    /// The newest version of the pod.
    fn take_news(&mut self) {
        let pod = self.inbox.take();
        let before = Arc::clone(&self.pod);
        self.pod = match &self.allocation {
            Some(allocation) => allocation.apply(&pod),
            None => Arc::clone(&pod),
        };
        self.desired = pod;
        if let Some(end) = self.inbox.node_end() {
            self.verdict = Some(Verdict { reason: end.reason.to_owned(), message: end.message });
        }
        self.end_waits();
        self.end_waits_of_changed(&before);
    }

    /// The status as it is now.
    fn compute_status(&self, terminal: bool) -> PodStatus {
        let old = self.ctx.status.merged(&self.uid);
        let mut status = pod_status(&StatusInputs {
            pod: &self.pod,
            runtime: &self.runtime,
            old: &old,
            start_errors: &self.start_errors,
            probes: &self.probes,
            in_post_start: &self.in_post_start,
            reset: &self.reset,
            runtime_name: &self.ctx.runtime_name,
            terminal,
            volumes_ready: self.volumes_ready,
            allocation: self.allocation.as_ref(),
            resize: &if terminal { Vec::new() } else { self.resize_conditions() },
            recursive_read_only: self.recursive_read_only.unwrap_or(false),
            verdict: self.verdict.as_ref(),
            host_ips: &self.ctx.host_ips,
            now: self.ctx.config.clock.now_seconds(),
        });
        if self.rejected {
            status.init_container_statuses = None;
            status.container_statuses = None;
        }
        if let Some(end) = self.inbox.node_end() {
            note_disruption(&mut status, &end.message, &self.pod, self.ctx.config.clock.now_seconds());
        }
        status
    }

    /// Hands the status to the API writer.
    fn publish(&self, terminal: bool) {
        if !self.history {
            self.ctx.status.set(&self.uid, self.compute_status(terminal));
        }
    }

    /// Does `work`, which may take long, and meanwhile tells what the probes of other containers find: who is Ready is
    /// not a matter of the worker's turn (HOOK-22, POD-39).
    async fn while_telling<F: Future>(&self, work: F) -> F::Output {
        tokio::pin!(work);
        loop {
            let happened = self.inbox.happened();
            tokio::pin!(happened);
            happened.as_mut().enable();
            tokio::select! {
                done = &mut work => return done,
                () = happened => self.publish(false),
            }
        }
    }

    /// Looks at the runtime; false when it does not answer.
    async fn refresh(&mut self) -> bool {
        match self.runtime.refresh(&self.ctx.config.cri, &self.uid).await {
            Ok(()) => {
                if let Some(allocation) = &self.allocation {
                    for run in &mut self.runtime.containers {
                        run.replaced = allocation.replaced.contains(&run.id);
                    }
                }
                true
            }
            Err(status) => {
                tracing::warn!(pod = %pod_ref::full_name(&self.pod), %status, "the runtime does not answer");
                false
            }
        }
    }

    /// The wait after a failure: 50 ms, doubled up to 10 s.
    fn set_back(&mut self) -> Next {
        let millis = (50_u64 << self.setbacks).min(10_000);
        self.setbacks = (self.setbacks + 1).min(10);
        Next::Wait(Some(Duration::from_millis(millis)))
    }

    fn record(&self, event_type: crate::events::EventType, reason: &str, message: impl Into<String>) {
        self.ctx.recorder.record(pod_ref::object_reference(&self.pod), event_type, reason, message);
    }
}

/// Says that the node ended the pod, for whoever replaces it (POD-56).
fn note_disruption(status: &mut PodStatus, message: &str, pod: &Pod, now: jiff::Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    if !conditions.iter().any(|condition| condition.type_ == "DisruptionTarget") {
        conditions.push(k8s_openapi::api::core::v1::PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now)),
            observed_generation: pod.metadata.generation,
            ..Default::default()
        });
    }
}

/// A restart of the daemon makes no started container unstarted and no ready one unready: the last results
/// count until the probes have new ones.
fn seed_probes(probes: &ProbeResults, pod: &Pod) {
    let Some(status) = &pod.status else { return };
    let all = [&status.init_container_statuses, &status.container_statuses];
    for status in all.into_iter().flatten().flatten() {
        let Some((_, id)) = status.container_id.as_deref().and_then(|id| id.split_once("://")) else {
            continue;
        };
        if status.started == Some(true) {
            probes.set(ProbeKind::Startup, id, true);
        }
        if status.ready {
            probes.set(ProbeKind::Readiness, id, true);
        }
    }
}

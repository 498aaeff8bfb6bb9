//! The loop: look, tell the node's conditions, end one pod at a time until there is enough again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::observe::observe;
use super::rank::{Candidate, Files, bytes, excess, rank};
use super::state::{CALM, PressureState, TENSE};
use super::{Observation, Pressure, Signal, Threshold, limits};
use crate::context::NodeContext;
use crate::events::EventType;
use crate::labels;
use crate::node::admission::is_critical;
use crate::pod_ref;
use crate::pods::worker::inbox::{EVICTED, NodeEnd};
use crate::pods::workers::Workers;
use crate::stats;

/// How long the room that an eviction makes is waited for (upstream's bound).
const CLEANUP: Duration = Duration::from_secs(30);

/// Watches the node until it is aborted.
pub(crate) async fn run(ctx: Arc<NodeContext>, workers: Workers) {
    let mut state = PressureState::default();
    let mut images: Option<PathBuf> = None;
    loop {
        if images.is_none() {
            images = image_filesystem(&ctx).await;
        }
        let observed = look(&ctx, images.as_deref());
        let verdicts = state.update(&ctx.config.eviction, &observed, Instant::now());
        ctx.pressure.send_if_modified(|pressure| {
            let changed = *pressure != verdicts.pressure;
            pressure.clone_from(&verdicts.pressure);
            changed
        });
        // One pod a round: what its end brings shows in the next one.
        if !enforce_limits(&ctx, &workers).await
            && let Some((threshold, seen)) = verdicts.evict
        {
            reclaim(&ctx, &workers, images.as_deref(), threshold, seen).await;
        }
        tokio::time::sleep(if state.is_tense() { TENSE } else { CALM }).await;
    }
}

fn look(ctx: &NodeContext, images: Option<&Path>) -> BTreeMap<Signal, Observation> {
    match &ctx.config.signals {
        Some(signals) => signals(),
        None => observe(ctx, images),
    }
}

async fn image_filesystem(ctx: &NodeContext) -> Option<PathBuf> {
    let info = ctx.config.cri.image_fs_info().await.ok()?;
    Some(PathBuf::from(info.image_filesystems.into_iter().next()?.fs_id?.mountpoint))
}

fn has_ended(ctx: &NodeContext, uid: &str) -> bool {
    pod_ref::is_terminal_phase(ctx.status.current(uid).and_then(|status| status.phase).as_deref())
}

/// The pods that run or may start to, but those that must not go.
fn evictable(ctx: &NodeContext, workers: &Workers) -> Vec<Arc<Pod>> {
    let mut pods = workers.pods();
    pods.retain(|pod| {
        let uid = pod_ref::uid(pod);
        !is_critical(pod) && !has_ended(ctx, uid) && !workers.is_condemned(uid)
    });
    pods
}

/// Ends pods beyond limits of their own; true when there was one.
async fn enforce_limits(ctx: &Arc<NodeContext>, workers: &Workers) -> bool {
    let limited: Vec<Arc<Pod>> =
        evictable(ctx, workers).into_iter().filter(|pod| limits::has_limits(pod)).collect();
    if limited.is_empty() || !ctx.config.local_storage_isolation {
        return false;
    }
    let Ok(snapshot) = stats::collect(ctx, limited.clone()).await else { return false };
    let mut any = false;
    for pod in limited {
        let usage = snapshot.pods.iter().find(|usage| usage.uid == pod_ref::uid(&pod));
        if let Some(message) = usage.and_then(|usage| limits::exceeded(&pod, usage)) {
            evict(ctx, workers, &pod, message, 1, "ephemeral-storage.limit");
            any = true;
        }
    }
    any
}

/// Which of a pod's files are on the disk that `signal` is about, if it is about one.
fn files_on(ctx: &NodeContext, images: Option<&Path>, signal: Signal) -> Files {
    let device = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.dev());
    let shared = images.is_none_or(|images| device(images) == device(&ctx.config.data_dir));
    match signal {
        _ if shared => Files::All,
        Signal::NodeFsAvailable | Signal::NodeFsInodesFree => Files::LogsAndVolumes,
        _ => Files::Layers,
    }
}

/// Gets back what is short: from what nobody uses any more if that takes it, else from the pod that takes most of it.
async fn reclaim(
    ctx: &Arc<NodeContext>,
    workers: &Workers,
    images: Option<&Path>,
    threshold: Threshold,
    mut seen: Observation,
) {
    let signal = threshold.signal;
    let node = k8s_openapi::api::core::v1::ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(ctx.config.node_name.clone()),
        uid: Some(ctx.config.node_name.clone()),
        ..Default::default()
    };
    let attempt = format!("Attempting to reclaim {}", signal.resource());
    ctx.recorder.record(node, EventType::Warning, "EvictionThresholdMet", attempt);
    let files = files_on(ctx, images, signal);
    if signal.pressure() == Pressure::Disk && files != Files::LogsAndVolumes {
        let mut is_enough = || {
            if let Some(now) = look(ctx, images).get(&signal) {
                seen = *now;
            }
            seen.available >= threshold.least.of(seen.capacity)
        };
        // Nobody has to go when one of them was enough.
        if clear_ended(ctx, workers).await && is_enough() {
            tracing::info!(%signal, "what ended pods had left made room: no pod is evicted");
            return;
        }
        if ctx.room.make_room().await > 0 && is_enough() {
            tracing::info!(%signal, "unused images made room: no pod is evicted");
            return;
        }
    }
    let pods = evictable(ctx, workers);
    let Ok(snapshot) = stats::collect(ctx, pods.clone()).await else { return };
    let mut usages: BTreeMap<String, stats::PodUsage> =
        snapshot.pods.into_iter().map(|usage| (usage.uid.clone(), usage)).collect();
    let mut candidates: Vec<Candidate> = pods
        .into_iter()
        .filter_map(|pod| Some(Candidate { usage: usages.remove(pod_ref::uid(&pod))?, pod }))
        .collect();
    rank(&mut candidates, signal, files);
    let Some(first) = candidates.first() else {
        tracing::warn!(%signal, available = seen.available, "the node is short, and there is no pod to evict");
        return;
    };
    let message = format!(
        "The node was low on resource: {}. Threshold quantity: {}, available: {}. {}",
        signal.resource(),
        amount(signal, threshold.least.of(seen.capacity)),
        amount(signal, seen.available),
        excess(first, signal)
    );
    let own = pod_ref::spec(&first.pod).termination_grace_period_seconds.unwrap_or(30);
    let grace = match (threshold.soft, ctx.config.eviction.max_pod_grace_period) {
        (false, _) => 1,
        (true, most) if most < 0 => own,
        (true, most) => own.min(most),
    };
    evict(ctx, workers, &first.pod, message, grace, signal.as_str());
    cleaned_up(ctx, &BTreeSet::from([pod_ref::uid(&first.pod).to_owned()])).await;
}

/// Has pods that have ended remove what their containers wrote; whether there were any.
async fn clear_ended(ctx: &NodeContext, workers: &Workers) -> bool {
    let Ok(mut ended) = with_containers(ctx).await else { return false };
    ended.retain(|uid| workers.knows(uid) && has_ended(ctx, uid));
    for uid in &ended {
        workers.want_room(uid);
    }
    cleaned_up(ctx, &ended).await;
    !ended.is_empty()
}

/// The UIDs of the pods that have containers, running or not.
async fn with_containers(ctx: &NodeContext) -> Result<BTreeSet<String>, tonic::Status> {
    let containers = ctx.config.cri.list_containers(Default::default()).await?;
    Ok(containers.into_iter().filter_map(|mut container| container.labels.remove(labels::POD_UID)).collect())
}

/// Waits until nothing of these pods takes room any more: else a neighbour would have to go for what is about to be
/// free.
async fn cleaned_up(ctx: &NodeContext, uids: &BTreeSet<String>) {
    let gone = async {
        while take_room(ctx, uids).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let _ = tokio::time::timeout(CLEANUP, gone).await;
}

async fn take_room(ctx: &NodeContext, uids: &BTreeSet<String>) -> bool {
    let has_files = |uid: &String| ctx.pod_dir(uid).join("volumes").exists();
    if ctx.admitted.pods.lock().await.keys().any(|uid| uids.contains(uid)) || uids.iter().any(has_files) {
        return true;
    }
    with_containers(ctx).await.map_or(true, |left| !left.is_disjoint(uids))
}

fn amount(signal: Signal, amount: i64) -> String {
    match signal.resource() {
        "memory" | "ephemeral-storage" if amount % 1_024 != 0 => format!("{}Ki", amount / 1_024),
        "memory" | "ephemeral-storage" => bytes(amount),
        _ => amount.to_string(),
    }
}

fn evict(ctx: &NodeContext, workers: &Workers, pod: &Pod, message: String, grace: i64, signal: &str) {
    tracing::warn!(pod = %pod_ref::full_name(pod), message, "evicting");
    ctx.metrics.node.evictions.get_or_create(&[("eviction_signal", signal.to_owned())]).inc();
    ctx.recorder.record(pod_ref::object_reference(pod), EventType::Warning, "Evicted", message.clone());
    workers.end(pod_ref::uid(pod), NodeEnd { reason: EVICTED, message, grace_seconds: grace });
}

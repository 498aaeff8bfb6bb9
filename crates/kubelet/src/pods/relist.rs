//! What happens in the runtime: its events, and beside them lists that are compared with the last ones. Upstream calls
//! this the PLEG, the pod lifecycle event generator.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use sampan_cri::v1;

use super::workers::Workers;
use crate::context::NodeContext;
use crate::labels;

/// How often the runtime is asked for everything when it has no events, or they broke off.
const RELIST: Duration = Duration::from_secs(1);
/// How often it is asked although it has events: a safety net.
const SAFETY_RELIST: Duration = Duration::from_secs(30);

/// Wakes workers when the runtime reports something about their pods.
pub(crate) async fn watch_runtime(ctx: Arc<NodeContext>, workers: Workers) {
    let mut known = HashMap::new();
    loop {
        match ctx.config.cri.container_events().await {
            Ok(mut events) => {
                // What happened before the stream began.
                relist(&ctx, &workers, &mut known).await;
                let mut safety = tokio::time::interval(SAFETY_RELIST);
                loop {
                    tokio::select! {
                        event = events.next() => match event {
                            Some(Ok(event)) => wake_for(&workers, &event),
                            Some(Err(status)) => {
                                tracing::debug!(%status, "the runtime's events broke off");
                                break;
                            }
                            None => break,
                        },
                        _ = safety.tick() => relist(&ctx, &workers, &mut known).await,
                    }
                }
            }
            Err(status) => tracing::debug!(%status, "the runtime has no events: it is asked every second"),
        }
        relist(&ctx, &workers, &mut known).await;
        tokio::time::sleep(RELIST).await;
    }
}

fn wake_for(workers: &Workers, event: &v1::ContainerEventResponse) {
    let from_sandbox = event
        .pod_sandbox_status
        .as_ref()
        .and_then(|status| status.metadata.as_ref())
        .map(|metadata| metadata.uid.as_str());
    let from_container = event
        .containers_statuses
        .iter()
        .find_map(|status| status.labels.get(labels::POD_UID).map(String::as_str));
    if let Some(uid) = from_sandbox.or(from_container) {
        workers.wake(uid);
    }
}

type Known = HashMap<String, (String, i32)>;

/// Compares everything with what was there the last time.
async fn relist(ctx: &NodeContext, workers: &Workers, known: &mut Known) {
    let cri = &ctx.config.cri;
    let (sandboxes, containers) =
        tokio::join!(cri.list_pod_sandboxes(Default::default()), cri.list_containers(Default::default()));
    let (Ok(sandboxes), Ok(containers)) = (sandboxes, containers) else { return };
    let uid = |labels: &HashMap<String, String>| labels.get(labels::POD_UID).cloned().unwrap_or_default();
    let mut now: Known =
        sandboxes.into_iter().map(|sandbox| (sandbox.id, (uid(&sandbox.labels), sandbox.state))).collect();
    now.extend(
        containers.into_iter().map(|container| (container.id, (uid(&container.labels), container.state))),
    );
    for (id, (uid, state)) in &now {
        if known.get(id).is_none_or(|(_, before)| before != state) {
            workers.wake(uid);
        }
    }
    for (id, (uid, _)) in known.iter() {
        if !now.contains_key(id) {
            workers.wake(uid);
        }
    }
    *known = now;
}

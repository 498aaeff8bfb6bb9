//! What is left of pods that the API no longer knows: in the runtime, in the cgroups and on the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::runtime_pods::RuntimePods;
use super::workers::Workers;
use crate::context::NodeContext;
use crate::log_paths;

/// How often the runtime is asked until it answers, and how long between.
const ATTEMPTS: u32 = 30;
const RETRY: Duration = Duration::from_secs(1);

/// Removes sandboxes, containers and directories of pods that the API does not know.
pub(super) async fn remove_orphans(ctx: Arc<NodeContext>, workers: Workers) {
    let mut orphans = BTreeMap::new();
    for _ in 0..ATTEMPTS {
        match RuntimePods::read(&ctx).await {
            Ok(found) => {
                orphans = found.all();
                break;
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
    for (uid, pod) in orphans {
        if !workers.knows(&uid) {
            workers.adopt_orphan(pod);
        }
    }
    let known = workers.clone();
    ctx.cgroups.remove_orphans(move |uid| known.knows(uid)).await;
    let pods_dir = ctx.config.data_dir.join("pods");
    for entry in std::fs::read_dir(pods_dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(uid) = name.to_str().filter(|uid| !workers.knows(uid)) else { continue };
        remove_logs_of(&ctx, uid).await;
        if let Err(error) = ctx.removals.tear_down(entry.path()).await {
            tracing::warn!(error, "directory of a removed pod");
        }
    }
}

/// Removes a pod's logs; those of pods that this kubelet has no directory of are somebody else's.
async fn remove_logs_of(ctx: &NodeContext, uid: &str) {
    for entry in std::fs::read_dir(&ctx.config.log_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| log_paths::is_directory_of(name, uid))
            && let Err(error) = ctx.removals.remove_logs(entry.path()).await
        {
            tracing::warn!(error, "logs of a removed pod");
        }
    }
}

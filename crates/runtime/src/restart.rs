//! Taking over after a restart: what lives is kept running, what died is recorded, what is half made goes away.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::join_all;
use sampan_shim::client::Shim;
use sampan_shim::protocol::{ContainerState as ShimContainer, ExitRecord, ShimState, Status as ShimStatus};

use crate::container::{self, Container};
use crate::error::Error;
use crate::network::chain;
use crate::runtime::Runtime;
use crate::sandbox::{self, Sandbox};
use crate::state::{ContainerState, SandboxRecord, SandboxState, entries};
use crate::{exits, shims, time};

/// Reads the records and brings them and the world into agreement.
pub(crate) async fn take_over(runtime: &Arc<Runtime>) -> Result<(), Error> {
    let (half_made, sandboxes): (Vec<_>, Vec<_>) =
        runtime.state.sandboxes().into_iter().partition(|record| record.state == SandboxState::Creating);
    join_all(half_made.iter().map(|record| sandbox::undo(runtime, record))).await;

    let known: HashSet<String> = sandboxes.iter().map(|record| record.id.clone()).collect();
    for record in runtime.state.containers() {
        if known.contains(&record.sandbox_id) {
            let metadata = record.config.metadata.clone().unwrap_or_default();
            let name = format!("{}_{}_{}", metadata.name, metadata.attempt, record.sandbox_id);
            let _ = runtime.reserve(&name, &record.id);
            runtime.container_map().insert(record.id.clone(), Arc::new(Container::new(record)));
        } else {
            container::undo(runtime, &record).await;
        }
    }
    join_all(sandboxes.into_iter().map(|record| adopt(runtime, record))).await;
    collect_leftovers(runtime).await?;
    if let Err(error) = runtime.config.network.reconcile(&runtime.living()).await {
        tracing::warn!(error, "clearing up the networks of sandboxes that are gone");
    }
    Ok(())
}

/// One sandbox of an earlier process.
async fn adopt(runtime: &Arc<Runtime>, record: SandboxRecord) {
    let metadata = record.config.metadata.clone().unwrap_or_default();
    let name = format!("{}_{}_{}_{}", metadata.name, metadata.namespace, metadata.uid, metadata.attempt);
    let _ = runtime.reserve(&name, &record.id);
    let dir = runtime.shim_dir(&record.id);
    let ready = record.state == SandboxState::Ready;
    let shim = if ready { reconnect(&record.id, dir).await } else { None };
    let (shim, state) = shim.unzip();
    let dead = ready && shim.is_none();
    let sandbox = Arc::new(Sandbox::new(record, shim));
    runtime.sandbox_map().insert(sandbox.id.clone(), Arc::clone(&sandbox));
    if let Some(state) = state {
        agree(runtime, &sandbox, state).await;
        exits::watch(runtime, &sandbox);
    } else if dead {
        // After a boot this is every sandbox.
        exits::shim_died(runtime, &sandbox).await;
    } else {
        bury(runtime, &sandbox).await;
    }
}

async fn reconnect(id: &str, dir: PathBuf) -> Option<(Shim, ShimState)> {
    let attempt = async {
        let shim = Shim::connect(&dir).await?;
        let state = shim.state().await?;
        Ok::<_, sampan_shim::client::Error>((shim, state))
    };
    match attempt.await {
        Ok(found) => Some(found),
        Err(error) => {
            tracing::info!(sandbox = id, error = chain(&error), "the shim of an earlier run is gone");
            None
        }
    }
}

/// Brings our records of a living sandbox up to what its shim says.
async fn agree(runtime: &Arc<Runtime>, sandbox: &Arc<Sandbox>, state: ShimState) {
    let mut theirs: HashMap<String, ShimContainer> =
        state.containers.into_iter().map(|container| (container.id.clone(), container)).collect();
    for ours in runtime.containers_of(&sandbox.id) {
        let Some(their) = theirs.remove(&ours.id) else {
            if ours.status().state == ContainerState::Running {
                // It was deleted after it ended, just before we died.
                let exit = runtime.state.exit(&ours.id).unwrap_or_else(unknown_exit);
                exits::ended(runtime, sandbox, &ours, &exit).await;
            }
            continue;
        };
        match their.status {
            ShimStatus::Running => {
                ours.update(&runtime.state, |status| {
                    let started = their.started_at.unwrap_or(status.started_at);
                    let changed = status.state == ContainerState::Created;
                    if changed {
                        status.state = ContainerState::Running;
                        status.pid = their.pid;
                        status.started_at = started;
                    }
                    changed
                });
            }
            // StartContainer was cut short: the kubelet will call it again.
            ShimStatus::Creating | ShimStatus::Created => {
                discard(sandbox, &ours.id).await;
            }
            ShimStatus::Exited => {
                let exit =
                    their.exit.unwrap_or_else(|| runtime.state.exit(&ours.id).unwrap_or_else(unknown_exit));
                if let Some(started) = their.started_at {
                    ours.update(&runtime.state, |status| {
                        let missing = status.started_at == 0;
                        if missing {
                            status.started_at = started;
                        }
                        missing
                    });
                }
                exits::ended(runtime, sandbox, &ours, &exit).await;
            }
        }
    }
    // Containers of which we have no record are nobody's.
    for id in theirs.into_keys() {
        discard(sandbox, &id).await;
    }
}

async fn discard(sandbox: &Sandbox, id: &str) {
    if let Ok(shim) = sandbox.shim() {
        shims::discard(&shim, id).await;
    }
}

fn unknown_exit() -> ExitRecord {
    ExitRecord { code: 137, signal: 9, finished_at: time::now(), oom_killed: false }
}

/// Containers of a sandbox that was not ready cannot run.
async fn bury(runtime: &Arc<Runtime>, sandbox: &Arc<Sandbox>) {
    for container in runtime.containers_of(&sandbox.id) {
        if container.status().state == ContainerState::Running {
            let exit = runtime.state.exit(&container.id).unwrap_or_else(unknown_exit);
            exits::ended(runtime, sandbox, &container, &exit).await;
        }
    }
}

/// Snapshots, bundles and shims that no record names.
async fn collect_leftovers(runtime: &Arc<Runtime>) -> Result<(), Error> {
    let containers: HashSet<String> = runtime.container_map().keys().cloned().collect();
    let sandboxes: HashSet<String> = runtime.sandbox_map().keys().cloned().collect();
    let snapshots = Arc::clone(runtime.config.images.snapshots());
    let name =
        |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let run_dir = &runtime.config.run_dir;
    // What is still mounted keeps its layers.
    let mut kept = HashSet::new();
    for path in entries(&run_dir.join("containers")) {
        if !containers.contains(&name(&path))
            && let Err(error) = container::remove_bundle(&snapshots, &path)
        {
            tracing::warn!(bundle = %path.display(), error, "removing the bundle of a container that is gone");
            kept.insert(name(&path));
        }
    }
    for container in snapshots.containers()? {
        if !containers.contains(&container) && !kept.contains(&container) {
            let _ = snapshots.remove(&container);
        }
    }
    for path in entries(&run_dir.join("shims")) {
        let id = name(&path);
        if !sandboxes.contains(&id) {
            if let Ok(shim) = Shim::connect(&path).await
                && let Err(error) = shims::end(&shim).await
            {
                tracing::warn!(sandbox = id, error = chain(&error), "ending a shim that nobody knows");
            }
            let _ = sampan_shim::client::remove_remains(&path);
        }
    }
    for path in entries(&run_dir.join("sandboxes")) {
        if !sandboxes.contains(&name(&path)) {
            sandbox::remove_files(&path);
        }
    }
    Ok(())
}

//! StopPodSandbox and RemovePodSandbox. Teardown gathers errors and carries on; everything may be repeated.

use std::sync::Arc;

use futures::future::join_all;
use sampan_cri::v1::ContainerEventType;
use sampan_shim::client::Shim;
use tonic::Status;

use super::create::{own_cgroup, pause_cgroup};
use super::{Sandbox, files};
use crate::container;
use crate::network::chain;
use crate::runtime::Runtime;
use crate::shims;
use crate::state::{SandboxRecord, SandboxState};

/// Ends every process of the sandbox, gives its network back and ends its shim. A stopped one is left alone.
pub(crate) async fn stop(runtime: &Arc<Runtime>, sandbox: &Arc<Sandbox>) -> Result<(), Status> {
    let mut stopped = sandbox.stopped.lock().await;
    stop_locked(runtime, sandbox, &mut stopped).await
}

async fn stop_locked(
    runtime: &Arc<Runtime>,
    sandbox: &Arc<Sandbox>,
    is_stopped: &mut bool,
) -> Result<(), Status> {
    let containers = runtime.containers_of(&sandbox.id);
    let stopped = join_all(containers.iter().map(|container| container::stop(runtime, container, 0))).await;
    if let Some(Err(status)) = stopped.into_iter().find(Result::is_err) {
        return Err(status);
    }
    // The shim does not end before its containers are deleted.
    join_all(containers.iter().map(|container| container::clean(runtime, container))).await;
    if *is_stopped {
        return Ok(());
    }
    let record = sandbox.record().clone();
    let network = runtime.config.network.teardown(&sandbox.id, record.namespaces.net.as_deref()).await;
    end_shim(runtime, sandbox).await;
    files::remove(&runtime.sandbox_dir(&sandbox.id));
    let was_ready = mark_not_ready(runtime, sandbox);
    if was_ready {
        runtime.publish(sandbox, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
    }
    network.map_err(|error| {
        Status::internal(format!("failed to destroy network for sandbox {:?}: {error}", sandbox.id))
    })?;
    *is_stopped = true;
    Ok(())
}

/// Records that the sandbox is no longer ready; true when it was.
pub(crate) fn mark_not_ready(runtime: &Runtime, sandbox: &Sandbox) -> bool {
    let mut record = sandbox.record();
    let was_ready = std::mem::replace(&mut record.state, SandboxState::NotReady) == SandboxState::Ready;
    if was_ready && let Err(error) = runtime.state.save_sandbox(&record) {
        tracing::warn!(sandbox = sandbox.id, %error, "recording a stopped sandbox");
    }
    was_ready
}

async fn end_shim(runtime: &Runtime, sandbox: &Sandbox) {
    let dir = runtime.shim_dir(&sandbox.id);
    let shim = match sandbox.take_shim() {
        Some(shim) => Some(shim),
        // A pod whose pause process died has a shim that a restarted daemon does not hold.
        None => Shim::connect(&dir).await.ok(),
    };
    let containers: Vec<String> = runtime
        .containers_of(&sandbox.id)
        .iter()
        .map(|container| container.record().cgroup.clone())
        .collect();
    let record = sandbox.record().clone();
    end_processes(runtime, &record, shim, containers).await;
    if let Err(error) = sampan_shim::client::remove_remains(&dir) {
        tracing::warn!(sandbox = sandbox.id, error = chain(&error), "clearing up after a shim");
    }
    runtime.host.cgroups.remove(&pause_cgroup(&record));
}

/// Ends a shim with its containers. Where it cannot do so itself (it is dead, or stuck), the cgroups say what is left:
/// nothing may run on when the namespaces and mounts are taken away from around it.
async fn end_processes(
    runtime: &Runtime,
    record: &SandboxRecord,
    shim: Option<Shim>,
    mut cgroups: Vec<String>,
) {
    if let Some(shim) = shim {
        match shims::end(&shim).await {
            Ok(()) => return,
            Err(error) if error.is_gone() => {}
            Err(error) => tracing::warn!(sandbox = record.id, error = chain(&error), "ending a shim"),
        }
    }
    cgroups.push(pause_cgroup(record));
    // Any other parent may have sandboxes besides this one in it.
    if record.cgroup_parent == own_cgroup(&record.id) {
        cgroups.push(record.cgroup_parent.clone());
    }
    let host = runtime.host.cgroups.clone();
    let killed = tokio::task::spawn_blocking(move || cgroups.iter().for_each(|cgroup| host.kill(cgroup)));
    let _ = killed.await;
}

/// Stops and forgets the sandbox and its containers.
pub(crate) async fn remove(runtime: &Arc<Runtime>, sandbox: &Arc<Sandbox>) -> Result<(), Status> {
    let mut stopped = sandbox.stopped.lock().await;
    stop_locked(runtime, sandbox, &mut stopped).await?;
    for container in runtime.containers_of(&sandbox.id) {
        container::remove(runtime, &container).await?;
    }
    forget(runtime, sandbox);
    runtime.publish(sandbox, &sandbox.id, ContainerEventType::ContainerDeletedEvent);
    Ok(())
}

/// Removes the last traces of a stopped sandbox.
fn forget(runtime: &Runtime, sandbox: &Sandbox) {
    let record = sandbox.record().clone();
    runtime.sandbox_map().remove(&sandbox.id);
    leave_parent(runtime, &record);
    runtime.state.remove_sandbox(&sandbox.id);
    runtime.release(&sandbox.id);
}

/// Removes what we made of the parent's cgroup; the last sandbox in it does.
fn leave_parent(runtime: &Runtime, record: &SandboxRecord) {
    if record.own_cgroups.is_empty() {
        return;
    }
    let others: Vec<Arc<Sandbox>> = runtime.sandbox_map().values().cloned().collect();
    for other in others {
        let mut heir = other.record();
        if heir.id != record.id && heir.cgroup_parent == record.cgroup_parent {
            heir.own_cgroups.extend_from_slice(&record.own_cgroups);
            if let Err(error) = runtime.state.save_sandbox(&heir) {
                tracing::warn!(sandbox = heir.id, %error, "recording whose cgroup it is");
            }
            return;
        }
    }
    for directory in &record.own_cgroups {
        let _ = std::fs::remove_dir(directory);
    }
}

/// Takes back whatever of a sandbox was made before a failure or a crash.
pub(crate) async fn undo(runtime: &Arc<Runtime>, record: &SandboxRecord) {
    let dir = runtime.shim_dir(&record.id);
    let netns = dir.join("ns").join("net");
    if let Err(error) = runtime.config.network.teardown(&record.id, Some(&netns)).await {
        tracing::warn!(sandbox = record.id, error, "undoing a sandbox's network");
    }
    end_processes(runtime, record, Shim::connect(&dir).await.ok(), Vec::new()).await;
    let (runtime, record) = (Arc::clone(runtime), record.clone());
    let rest = tokio::task::spawn_blocking(move || {
        if let Err(error) = sampan_shim::client::remove_remains(&dir) {
            tracing::warn!(sandbox = record.id, error = chain(&error), "undoing a sandbox's namespaces");
        }
        files::remove(&runtime.sandbox_dir(&record.id));
        let pause = pause_cgroup(&record);
        runtime.host.cgroups.kill(&pause);
        runtime.host.cgroups.remove(&pause);
        // The record may be from before they were made.
        if record.cgroup_parent == own_cgroup(&record.id) {
            runtime.host.cgroups.remove(&record.cgroup_parent);
        }
        leave_parent(&runtime, &record);
        runtime.state.remove_sandbox(&record.id);
    });
    let _ = rest.await;
}

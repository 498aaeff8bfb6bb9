//! What is left of a container after its process, and RemoveContainer.

use std::path::Path;
use std::sync::Arc;

use sampan_cri::v1::ContainerEventType;
use sampan_shim::protocol::DeleteContainer;
use tonic::Status;

use super::{Container, create::image_mount_dir};
use crate::network::chain;
use crate::removal::remove_tree;
use crate::runtime::Runtime;
use crate::snapshots::Snapshots;
use crate::state::{ContainerRecord, ContainerState, entries};
use crate::{handlers, shims};

/// After the process has ended: the OCI runtime deletes the container (and its cgroup), the file systems are
/// unmounted. Does its work once.
pub(crate) async fn clean(runtime: &Arc<Runtime>, container: &Arc<Container>) {
    let mut cleaned = container.cleaned.lock().await;
    let record = container.record().clone();
    if *cleaned || record.status.state == ContainerState::Running {
        return;
    }
    if record.status.state == ContainerState::Exited {
        delete(runtime, &record).await;
        unmount(runtime, &record).await;
        *cleaned = true;
    }
}

async fn delete(runtime: &Arc<Runtime>, record: &ContainerRecord) {
    let known = record.oci.clone().or_else(|| runtime.handlers.find(&record.runtime_handler));
    let Some(oci) = known else { return };
    let shim = runtime.sandbox(&record.sandbox_id).and_then(|sandbox| sandbox.shim());
    let request = DeleteContainer { id: record.id.clone(), force: true, runtime: Some(oci.clone()) };
    let deleted = match shim {
        Ok(shim) => shims::delete(&shim, request).await,
        Err(_) => {
            handlers::delete_without_shim(&oci, &record.id).await;
            Ok(())
        }
    };
    match deleted {
        Err(error) if error.is_gone() => handlers::delete_without_shim(&oci, &record.id).await,
        Err(error) if !error.is_not_found() => {
            tracing::warn!(container = record.id, error = chain(&error), "deleting a container");
        }
        _ => {}
    }
    // The runtime has done this, unless it failed.
    runtime.host.cgroups.remove(&record.cgroup);
}

async fn unmount(runtime: &Arc<Runtime>, record: &ContainerRecord) {
    let (runtime, record) = (Arc::clone(runtime), record.clone());
    let _ = tokio::task::spawn_blocking(move || unmount_all(&runtime, &record)).await;
}

fn unmount_all(runtime: &Runtime, record: &ContainerRecord) {
    let bundle = runtime.bundle(&record.id);
    let snapshots = runtime.config.images.snapshots();
    let images = record.image_mounts.iter().map(|index| image_mount_dir(&bundle, *index));
    for target in images.chain([bundle.join("rootfs")]) {
        if let Err(error) = snapshots.unmount(&target) {
            tracing::warn!(container = record.id, error = error.chain(), "unmounting a container");
        }
    }
}

/// Stops (at once) and forgets a container.
pub(crate) async fn remove(runtime: &Arc<Runtime>, container: &Arc<Container>) -> Result<(), Status> {
    super::stop(runtime, container, 0).await?;
    let _guard = container.lock.lock().await;
    // Two removals at once: the second finds nothing.
    if !runtime.container_map().contains_key(&container.id) {
        return Ok(());
    }
    // Started between the stop and the lock.
    super::stop(runtime, container, 0).await?;
    clean(runtime, container).await;
    let record = container.record().clone();
    if record.status.state == ContainerState::Created {
        // Never started, as far as we know; but a StartContainer that died with an earlier daemon may have left an
        // init that waits.
        delete(runtime, &record).await;
    }
    undo(runtime, &record).await;
    runtime.container_map().remove(&container.id);
    runtime.release(&container.id);
    if let Ok(sandbox) = runtime.sandbox(&container.sandbox_id) {
        runtime.publish(&sandbox, &container.id, ContainerEventType::ContainerDeletedEvent);
    }
    Ok(())
}

/// Unmounts what is mounted in a bundle and removes it. What cannot be unmounted stays, with the reason.
pub(crate) fn remove_bundle(snapshots: &Snapshots, bundle: &Path) -> Result<(), String> {
    for target in entries(&bundle.join("images")).into_iter().chain([bundle.join("rootfs")]) {
        snapshots.unmount(&target).map_err(|error| error.chain())?;
    }
    remove_tree(bundle).map_err(|error| error.to_string())
}

/// Takes back everything on disk; also what a failed or interrupted CreateContainer left.
pub(crate) async fn undo(runtime: &Arc<Runtime>, record: &ContainerRecord) {
    let (runtime, record) = (Arc::clone(runtime), record.clone());
    let work = move || {
        let snapshots = runtime.config.images.snapshots();
        if let Err(error) = remove_bundle(snapshots, &runtime.bundle(&record.id)) {
            // Its record stays too: the next start of the daemon tries again.
            tracing::warn!(container = record.id, error, "removing a container's bundle");
            return;
        }
        if let Err(error) = snapshots.remove(&record.id) {
            tracing::warn!(container = record.id, error = error.chain(), "removing a snapshot");
        }
        runtime.host.cgroups.remove(&record.cgroup);
        runtime.state.remove_container(&record.id);
    };
    let _ = tokio::task::spawn_blocking(work).await;
}

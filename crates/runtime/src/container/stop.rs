//! StopContainer: the stop signal (once, however often it is called), then a grace period, then SIGKILL.

use std::sync::Arc;
use std::time::Duration;

use tonic::Status;

use super::Container;
use crate::network::chain;
use crate::runtime::Runtime;
use crate::signal;
use crate::state::ContainerState;

/// A process that outlives SIGKILL hangs in the kernel (a dead NFS server, for example).
const KILL_WAIT: Duration = Duration::from_secs(30);

/// Stops a container and waits until it has ended. One that does not run is left alone. `grace` in seconds;
/// 0 or less kills at once.
pub(crate) async fn stop(
    runtime: &Arc<Runtime>,
    container: &Arc<Container>,
    grace: i64,
) -> Result<(), Status> {
    // Not under the container's lock: a second StopContainer with a shorter grace period must get through, and
    // signals need no order.
    if container.status().state == ContainerState::Created {
        // Let a start under way finish, then look again.
        drop(container.starting.lock().await);
    }
    if container.status().state != ContainerState::Running {
        return Ok(());
    }
    let number = container.record().stop_signal;
    if grace > 0 && number != signal::KILL {
        // A task of its own: a caller that gives up must not leave a signal that was sent and not noted.
        let sent = tokio::spawn(signal_once(Arc::clone(runtime), Arc::clone(container), number));
        sent.await.unwrap_or_else(|error| Err(Status::internal(error.to_string())))?;
        let grace = Duration::from_secs(grace.unsigned_abs());
        if tokio::time::timeout(grace, container.exited()).await.is_ok() {
            return Ok(());
        }
    }
    send(runtime, container, signal::KILL, true).await?;
    tokio::time::timeout(KILL_WAIT, container.exited()).await.map_err(|_| {
        Status::deadline_exceeded(format!(
            "an error occurs during waiting for container {:?} to be killed: it did not end within {} s",
            container.id,
            KILL_WAIT.as_secs()
        ))
    })
}

/// Sends the stop signal, unless the container has had it: to many processes a second one means to quit at once. Noted
/// after it was sent, so a daemon that dies in between sends it again rather than never.
async fn signal_once(runtime: Arc<Runtime>, container: Arc<Container>, number: i32) -> Result<(), Status> {
    let _turn = container.signalling.lock().await;
    if container.status().stop_signalled {
        return Ok(());
    }
    send(&runtime, &container, number, false).await?;
    container.update(&runtime.state, |status| {
        // The record of one that has ended is on the disk, or gone, and needs no other.
        let running = status.state == ContainerState::Running;
        status.stop_signalled |= running;
        running
    });
    Ok(())
}

async fn send(runtime: &Runtime, container: &Container, number: i32, all: bool) -> Result<(), Status> {
    // Without a shim the container is about to be declared dead; waiting for that is all there is to do.
    let Ok(shim) = runtime.sandbox(&container.sandbox_id).and_then(|sandbox| sandbox.shim()) else {
        return Ok(());
    };
    match shim.kill(&container.id, None, number, all).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_not_found() || error.is_gone() => Ok(()),
        Err(error) => {
            Err(Status::internal(format!("failed to stop container {:?}: {}", container.id, chain(&error))))
        }
    }
}

//! Ending what a shim holds: containers that nobody wants, and the shim itself.

use std::time::Duration;

use sampan_shim::client::{Error, Shim};
use sampan_shim::protocol::{DeleteContainer, FailureCode};
use tokio::time::Instant;

use crate::network::chain;

/// A call of the OCI runtime under way is waited for this long; it is bounded itself, but for longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Deletes a container and whatever runs in it. While the OCI runtime is still making it the shim refuses; then it
/// is tried again.
pub(crate) async fn delete(shim: &Shim, request: DeleteContainer) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match shim.delete(request.clone()).await {
            Err(error) if is_busy(&error) && Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            other => return other.map(drop),
        }
    }
}

/// Deletes a container that nobody has a use for; failures are logged.
pub(crate) async fn discard(shim: &Shim, id: &str) {
    let request = DeleteContainer { id: id.to_owned(), force: true, runtime: None };
    if let Err(error) = delete(shim, request).await {
        tracing::warn!(container = id, error = chain(&error), "discarding a container");
    }
}

/// Ends a shim with all that it holds. One that cannot be ended so is killed: what was in its containers is then the
/// caller's to end, by their cgroups.
pub(crate) async fn end(shim: &Shim) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match shim.shutdown().await {
            // Containers that an interrupted call left, or a call under way.
            Err(error) if is_busy(&error) && Instant::now() < deadline => {
                for container in shim.state().await?.containers {
                    discard(shim, &container.id).await;
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) if !error.is_gone() => {
                kill(shim).await;
                return Err(error);
            }
            other => return other,
        }
    }
}

/// Kills a shim that still answers, so that its number is its own.
async fn kill(shim: &Shim) {
    if let Ok(state) = shim.state().await
        && let Some(pid) = rustix::process::Pid::from_raw(state.pid)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn is_busy(error: &Error) -> bool {
    error.code() == Some(FailureCode::FailedPrecondition)
}

//! The OCI runtime's `delete --force` without a shim: for containers whose shim died.

use std::process::Stdio;
use std::time::Duration;

use sampan_shim::protocol::OciRuntime;

/// How long a runtime may take to clean up after a container whose shim died.
const DELETE_TIMEOUT: Duration = Duration::from_secs(20);

/// Deletes a container and whatever still runs in it; failures are logged.
pub(crate) async fn delete_without_shim(runtime: &OciRuntime, id: &str) {
    let mut command = tokio::process::Command::new(&runtime.path);
    command
        .args(&runtime.args)
        .arg("--root")
        .arg(&runtime.root)
        .args(["delete", "--force", id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .kill_on_drop(true);
    match tokio::time::timeout(DELETE_TIMEOUT, command.status()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, container = id, "deleting a container without its shim"),
        Err(_) => tracing::warn!(container = id, "deleting a container without its shim took too long"),
    }
}

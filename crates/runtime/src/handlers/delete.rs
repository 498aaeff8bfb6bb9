//! The OCI runtime's `delete --force` without a shim: for containers whose shim died.

use std::process::Stdio;
use std::time::Duration;

use sampan_shim::client::runtime_command;
use sampan_shim::protocol::OciRuntime;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// How long a runtime may take to clean up after a container whose shim died.
const DELETE_TIMEOUT: Duration = Duration::from_secs(20);
/// What of its complaints is told, in bytes: the last ones.
const MAX_COMPLAINT: usize = 1 << 10;

/// Deletes a container and whatever still runs in it; failures are logged.
pub(crate) async fn delete_without_shim(runtime: &OciRuntime, id: &str) {
    if let Err(error) = delete(runtime, id).await {
        tracing::warn!(container = id, error, "deleting a container without its shim");
    }
}

pub(super) async fn delete(runtime: &OciRuntime, id: &str) -> Result<(), String> {
    let shown = runtime.path.display();
    let mut command = Command::from(runtime_command(runtime));
    command
        .args(["delete", "--force", id])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("{shown} cannot be run: {error}"))?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    let (mut stderr, mut said) = (child.stderr.take(), Vec::new());
    let work = async {
        let status = tokio::select! {
            status = child.wait() => status,
            () = listen(&mut stderr, &mut said) => child.wait().await,
        };
        // What came last; a helper that it left behind may hold the pipe for ever.
        let _ = tokio::time::timeout(Duration::ZERO, listen(&mut stderr, &mut said)).await;
        status
    };
    match tokio::time::timeout(DELETE_TIMEOUT, work).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{shown}: {status}: {}", String::from_utf8_lossy(&said).trim())),
        Ok(Err(error)) => Err(format!("{shown}: {error}")),
        Err(_) => {
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            Err(format!("{shown} did not end within {} s", DELETE_TIMEOUT.as_secs()))
        }
    }
}

/// Reads to the end; the last bytes are kept.
async fn listen(from: &mut Option<impl AsyncRead + Unpin>, said: &mut Vec<u8>) {
    let mut piece = [0; 4 << 10];
    while let Some(pipe) = from {
        match pipe.read(&mut piece).await {
            Ok(count) if count > 0 => {
                said.extend_from_slice(&piece[..count]);
                said.drain(..said.len().saturating_sub(MAX_COMPLAINT));
            }
            _ => *from = None,
        }
    }
}

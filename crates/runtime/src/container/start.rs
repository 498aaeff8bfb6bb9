//! StartContainer: the OCI runtime creates and starts the process, through the shim.

use std::sync::Arc;

use sampan_cri::v1::ContainerEventType;
use sampan_shim::client::Shim;
use sampan_shim::protocol::CreateContainer;
use tonic::Status;

use super::Container;
use crate::network::chain;
use crate::runtime::Runtime;
use crate::state::ContainerState;
use crate::time;

/// The exit code of a container whose process could not be started (as docker and containerd have it).
const START_ERROR: i32 = 128;

/// Starts a created container. A failure ends the container (POD-09: reason `StartError`).
pub(crate) async fn start(runtime: &Arc<Runtime>, container: &Arc<Container>) -> Result<(), Status> {
    let _guard = container.lock.lock().await;
    let status = container.status();
    if status.state != ContainerState::Created {
        return Err(Status::failed_precondition(format!(
            "container {} is in state {:?}, not Created",
            container.id, status.state
        )));
    }
    let sandbox = runtime.sandbox(&container.sandbox_id)?;
    let shim = sandbox.shim()?;
    runtime.moves.expect();
    let starting = container.starting.lock().await;
    let began = run(runtime, container, &shim).await;
    match began {
        Ok(pid) => {
            container.update(&runtime.state, |status| {
                status.state = ContainerState::Running;
                status.pid = pid;
                status.started_at = time::now();
                true
            });
            runtime.publish(&sandbox, &container.id, ContainerEventType::ContainerStartedEvent);
            drop(starting);
            Ok(())
        }
        Err(message) => {
            container.update(&runtime.state, |status| {
                status.state = ContainerState::Exited;
                status.exit_code = START_ERROR;
                status.finished_at = time::now();
                "StartError".clone_into(&mut status.reason);
                status.message.clone_from(&message);
                true
            });
            drop(starting);
            runtime.publish(&sandbox, &container.id, ContainerEventType::ContainerStoppedEvent);
            super::clean(runtime, container).await;
            Err(Status::unknown(message))
        }
    }
}

async fn run(runtime: &Runtime, container: &Container, shim: &Shim) -> Result<i32, String> {
    let request = {
        let record = container.record();
        let oci = record.oci.clone().or_else(|| runtime.handlers.find(&record.runtime_handler));
        let oci =
            oci.ok_or_else(|| format!("no runtime for {:?} is configured any more", record.runtime_handler))?;
        CreateContainer {
            id: container.id.clone(),
            bundle: runtime.bundle(&container.id),
            runtime: oci,
            log_path: record.log_path.clone(),
            tty: record.config.tty,
            stdin: record.config.stdin,
            stdin_once: record.config.stdin_once,
            memory_cgroup: runtime.host.cgroups.directory("memory", &record.cgroup),
            timeout_ms: None,
        }
    };
    // What the OCI runtime said is already called so by the shim.
    let failed = |error: sampan_shim::client::Error| format!("failed to start container: {}", chain(&error));
    let pid = shim.create(request).await.map_err(failed)?;
    shim.start(&container.id).await.map_err(failed)?;
    Ok(pid)
}

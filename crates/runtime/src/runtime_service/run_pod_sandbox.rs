//! RunPodSandbox: see [`crate::sandbox`].

use std::sync::Arc;

use sampan_cri::v1;
use tonic::Status;

use crate::runtime::Runtime;
use crate::sandbox;

pub(super) async fn run_pod_sandbox(
    runtime: Arc<Runtime>,
    request: v1::RunPodSandboxRequest,
) -> Result<v1::RunPodSandboxResponse, Status> {
    let config = request.config.ok_or_else(|| Status::invalid_argument("sandbox config is missing"))?;
    let pod_sandbox_id = sandbox::run(&runtime, config, request.runtime_handler).await?;
    Ok(v1::RunPodSandboxResponse { pod_sandbox_id })
}

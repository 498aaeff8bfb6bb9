//! StopPodSandbox: idempotent, also for a sandbox that is gone.

use std::sync::Arc;

use sampan_cri::v1;
use tonic::Status;

use crate::runtime::Runtime;
use crate::sandbox;

pub(super) async fn stop_pod_sandbox(
    runtime: Arc<Runtime>,
    request: v1::StopPodSandboxRequest,
) -> Result<v1::StopPodSandboxResponse, Status> {
    if let Ok(found) = runtime.sandbox(&request.pod_sandbox_id) {
        sandbox::stop(&runtime, &found).await?;
    }
    Ok(v1::StopPodSandboxResponse {})
}

//! RemovePodSandbox: idempotent; containers in it are removed too.

use std::sync::Arc;

use sampan_cri::v1;
use tonic::Status;

use crate::runtime::Runtime;
use crate::sandbox;

pub(super) async fn remove_pod_sandbox(
    runtime: Arc<Runtime>,
    request: v1::RemovePodSandboxRequest,
) -> Result<v1::RemovePodSandboxResponse, Status> {
    if let Ok(found) = runtime.sandbox(&request.pod_sandbox_id) {
        sandbox::remove(&runtime, &found).await?;
    }
    Ok(v1::RemovePodSandboxResponse {})
}

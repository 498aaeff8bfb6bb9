//! ReopenContainerLog: the kubelet moved the log file away (rotation).

use std::sync::Arc;

use sampan_cri::v1;
use tonic::Status;

use crate::container;
use crate::network::chain;
use crate::runtime::Runtime;

pub(super) async fn reopen_container_log(
    runtime: Arc<Runtime>,
    request: v1::ReopenContainerLogRequest,
) -> Result<v1::ReopenContainerLogResponse, Status> {
    let found = runtime.container(&request.container_id)?;
    let shim = container::running(&runtime, &found)
        .map_err(|_| Status::failed_precondition("container is not running"))?;
    shim.reopen_log(&found.id).await.map_err(|error| {
        Status::internal(format!("failed to reopen the container's log: {}", chain(&error)))
    })?;
    Ok(v1::ReopenContainerLogResponse {})
}

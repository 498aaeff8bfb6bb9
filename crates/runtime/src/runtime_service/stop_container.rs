//! StopContainer: idempotent, also for a container that is gone.

use std::sync::Arc;

use sampan_cri::v1;
use tonic::Status;

use crate::container;
use crate::runtime::Runtime;

pub(super) async fn stop_container(
    runtime: Arc<Runtime>,
    request: v1::StopContainerRequest,
) -> Result<v1::StopContainerResponse, Status> {
    if let Ok(found) = runtime.container(&request.container_id) {
        container::stop(&runtime, &found, request.timeout).await?;
    }
    Ok(v1::StopContainerResponse {})
}

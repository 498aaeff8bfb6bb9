//! RemoveContainer: idempotent; a running one is killed.

use std::sync::Arc;

use sampan_cri::v1;
use tonic::Status;

use crate::container;
use crate::runtime::Runtime;

pub(super) async fn remove_container(
    runtime: Arc<Runtime>,
    request: v1::RemoveContainerRequest,
) -> Result<v1::RemoveContainerResponse, Status> {
    if let Ok(found) = runtime.container(&request.container_id) {
        container::remove(&runtime, &found).await?;
    }
    Ok(v1::RemoveContainerResponse {})
}

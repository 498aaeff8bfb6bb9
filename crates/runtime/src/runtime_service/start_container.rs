//! StartContainer: see [`crate::container`].

use std::sync::Arc;

use sampan_cri::v1;
use tonic::Status;

use crate::container;
use crate::runtime::Runtime;

pub(super) async fn start_container(
    runtime: Arc<Runtime>,
    request: v1::StartContainerRequest,
) -> Result<v1::StartContainerResponse, Status> {
    let found = runtime.container(&request.container_id)?;
    container::start(&runtime, &found).await?;
    Ok(v1::StartContainerResponse {})
}

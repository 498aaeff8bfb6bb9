//! CreateContainer: see [`crate::container`].

use std::sync::Arc;

use sampan_cri::v1;
use tonic::Status;

use crate::container;
use crate::runtime::Runtime;

pub(super) async fn create_container(
    runtime: Arc<Runtime>,
    request: v1::CreateContainerRequest,
) -> Result<v1::CreateContainerResponse, Status> {
    let config = request.config.ok_or_else(|| Status::invalid_argument("container config is missing"))?;
    let sandbox = runtime.sandbox(&request.pod_sandbox_id)?;
    let container_id = container::create(&runtime, &sandbox, config).await?;
    Ok(v1::CreateContainerResponse { container_id })
}

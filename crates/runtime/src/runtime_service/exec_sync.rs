//! ExecSync: see [`crate::container`].

use std::sync::Arc;

use sampan_cri::v1;
use tonic::Status;

use crate::container;
use crate::runtime::Runtime;

pub(super) async fn exec_sync(
    runtime: Arc<Runtime>,
    request: v1::ExecSyncRequest,
) -> Result<v1::ExecSyncResponse, Status> {
    let found = runtime.container(&request.container_id)?;
    container::exec_sync(&runtime, &found, request).await
}

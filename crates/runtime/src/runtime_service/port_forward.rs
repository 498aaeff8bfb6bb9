//! PortForward: a URL of the streaming server.

use sampan_cri::v1;
use tonic::Status;

use crate::runtime::Runtime;

pub(super) fn port_forward(
    runtime: &Runtime,
    mut request: v1::PortForwardRequest,
) -> Result<v1::PortForwardResponse, Status> {
    let sandbox = runtime.sandbox(&request.pod_sandbox_id)?;
    if !sandbox.is_ready() {
        return Err(Status::failed_precondition(format!("sandbox {} is not running", sandbox.id)));
    }
    request.pod_sandbox_id.clone_from(&sandbox.id);
    let url = runtime.streaming()?.port_forward_url(request)?;
    Ok(v1::PortForwardResponse { url })
}

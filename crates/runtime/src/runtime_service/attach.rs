//! Attach: a URL of the streaming server, once the request makes sense.

use sampan_cri::v1;
use tonic::Status;

use crate::container;
use crate::runtime::Runtime;

pub(super) fn attach(
    runtime: &Runtime,
    mut request: v1::AttachRequest,
) -> Result<v1::AttachResponse, Status> {
    let found = runtime.container(&request.container_id)?;
    container::running(runtime, &found)?;
    super::check_streams(request.stdin, request.stdout, request.stderr, request.tty)?;
    request.container_id.clone_from(&found.id);
    let url = runtime.streaming()?.attach_url(request)?;
    Ok(v1::AttachResponse { url })
}

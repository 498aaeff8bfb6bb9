//! Exec: a URL of the streaming server, once the request makes sense.

use sampan_cri::v1;
use tonic::Status;

use crate::container;
use crate::runtime::Runtime;

pub(super) fn exec(runtime: &Runtime, mut request: v1::ExecRequest) -> Result<v1::ExecResponse, Status> {
    let found = runtime.container(&request.container_id)?;
    container::running(runtime, &found)?;
    super::check_streams(request.stdin, request.stdout, request.stderr, request.tty)?;
    request.container_id.clone_from(&found.id);
    let url = runtime.streaming()?.exec_url(request)?;
    Ok(v1::ExecResponse { url })
}

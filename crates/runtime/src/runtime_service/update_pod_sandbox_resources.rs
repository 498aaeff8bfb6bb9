//! UpdatePodSandboxResources: the kubelet resized the pod. It owns the pod's cgroup, so all we do is remember.

use std::sync::Arc;

use sampan_cri::v1;
use tonic::Status;

use crate::runtime::Runtime;

pub(super) fn update_pod_sandbox_resources(
    runtime: &Arc<Runtime>,
    request: v1::UpdatePodSandboxResourcesRequest,
) -> Result<v1::UpdatePodSandboxResourcesResponse, Status> {
    let sandbox = runtime.sandbox(&request.pod_sandbox_id)?;
    let mut record = sandbox.record();
    let linux = record.config.linux.get_or_insert_default();
    linux.overhead = request.overhead;
    linux.resources = request.resources;
    runtime
        .state
        .save_sandbox(&record)
        .map_err(|error| Status::internal(format!("failed to record sandbox {}: {error}", record.id)))?;
    Ok(v1::UpdatePodSandboxResourcesResponse {})
}

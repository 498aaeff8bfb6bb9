//! PodSandboxStatus: with the containers in it, so that one call tells a kubelet everything.

use std::collections::HashMap;

use sampan_cri::v1;
use serde_json::json;
use tonic::Status;

use crate::runtime::Runtime;
use crate::time;

pub(super) fn pod_sandbox_status(
    runtime: &Runtime,
    request: &v1::PodSandboxStatusRequest,
) -> Result<v1::PodSandboxStatusResponse, Status> {
    let sandbox = runtime.sandbox(&request.pod_sandbox_id)?;
    let mut info = HashMap::new();
    if request.verbose {
        let record = sandbox.record();
        let details = json!({
            "runtimeHandler": record.runtime_handler,
            "namespaces": record.namespaces,
            "cgroupParent": record.cgroup_parent,
            "pid": record.namespaces.pause_pid,
            "shim": runtime.shim_dir(&record.id),
            "config": record.config,
        });
        info.insert("info".to_owned(), details.to_string());
    }
    let containers = runtime.containers_of(&sandbox.id);
    Ok(v1::PodSandboxStatusResponse {
        status: Some(sandbox.status()),
        info,
        containers_statuses: containers.iter().map(|container| container.cri_status()).collect(),
        timestamp: time::now(),
    })
}

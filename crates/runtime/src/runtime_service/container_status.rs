//! ContainerStatus.

use std::collections::HashMap;

use sampan_cri::v1;
use serde_json::{Value, json};
use tonic::Status;

use crate::runtime::Runtime;

pub(super) fn container_status(
    runtime: &Runtime,
    request: &v1::ContainerStatusRequest,
) -> Result<v1::ContainerStatusResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    let mut info = HashMap::new();
    if request.verbose {
        let record = container.record().clone();
        let spec = std::fs::read(runtime.bundle(&record.id).join("config.json")).ok();
        let spec: Value = spec.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let details = json!({
            "sandboxID": record.sandbox_id,
            "pid": record.status.pid,
            "runtimeHandler": record.runtime_handler,
            "cgroup": record.cgroup,
            "config": record.config,
            "runtimeSpec": spec,
        });
        info.insert("info".to_owned(), details.to_string());
    }
    Ok(v1::ContainerStatusResponse { status: Some(container.cri_status()), info })
}

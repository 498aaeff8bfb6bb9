//! UpdateContainerResources: new cgroup limits, now for a running container, at its start for a created one.

use std::sync::Arc;

use sampan_cri::v1;
use serde_json::{Value, json};
use tonic::Status;

use crate::network::chain;
use crate::runtime::Runtime;
use crate::spec::resources;
use crate::state::{self, ContainerState};

pub(super) async fn update_container_resources(
    runtime: Arc<Runtime>,
    request: v1::UpdateContainerResourcesRequest,
) -> Result<v1::UpdateContainerResourcesResponse, Status> {
    let container = runtime.container(&request.container_id)?;
    let new = request.linux.ok_or_else(|| Status::invalid_argument("no linux resources in the request"))?;
    let _guard = container.lock.lock().await;
    let mut merged =
        container.record().config.linux.clone().unwrap_or_default().resources.unwrap_or_default();
    resources::merge(&mut merged, &new);
    let failed = |message: String| Status::internal(format!("failed to update resources: {message}"));
    match container.status().state {
        ContainerState::Running => {
            // Only what changes: the rest stays as the kernel has it.
            let change = resources::resources(&new, &runtime.host)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            let shim = runtime.sandbox(&container.sandbox_id)?.shim()?;
            shim.update(&container.id, Value::Object(change)).await.map_err(|error| failed(chain(&error)))?;
        }
        ContainerState::Created => {
            let mut all = resources::resources(&merged, &runtime.host)
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            let path = runtime.bundle(&container.id).join("config.json");
            let text = std::fs::read(&path).map_err(|error| failed(error.to_string()))?;
            let mut spec: Value = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
            all.insert("devices".to_owned(), spec["linux"]["resources"]["devices"].take());
            spec["linux"]["resources"] = json!(all);
            state::write(&path, &spec).map_err(|error| failed(error.to_string()))?;
        }
        ContainerState::Exited => {
            return Err(Status::failed_precondition(format!("container {} has ended", container.id)));
        }
    }
    let mut record = container.record();
    record.config.linux.get_or_insert_default().resources = Some(merged);
    runtime.state.save_container(&record).map_err(|error| failed(error.to_string()))?;
    Ok(v1::UpdateContainerResourcesResponse {})
}

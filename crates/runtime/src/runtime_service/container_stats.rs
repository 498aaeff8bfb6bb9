//! ContainerStats, ListContainerStats and its stream.

use std::sync::Arc;

use sampan_cri::v1;
use tonic::Status;

use crate::runtime::Runtime;
use crate::state::ContainerState;
use crate::stats;

use super::matches_labels;

pub(super) fn one(runtime: &Arc<Runtime>, id: &str) -> Result<v1::ContainerStats, Status> {
    let container = runtime.container(id)?;
    Ok(stats::container(runtime, &container))
}

/// Of running containers only, as the protocol says.
pub(super) fn list(
    runtime: &Arc<Runtime>,
    filter: Option<v1::ContainerStatsFilter>,
) -> Vec<v1::ContainerStats> {
    let filter = filter.unwrap_or_default();
    runtime
        .all_containers()
        .iter()
        .filter(|container| filter.id.is_empty() || container.id.starts_with(&filter.id))
        .filter(|container| container.sandbox_id.starts_with(&filter.pod_sandbox_id))
        .filter(|container| container.status().state == ContainerState::Running)
        .filter(|container| matches_labels(&filter.label_selector, &container.record().config.labels))
        .map(|container| stats::container(runtime, container))
        .collect()
}

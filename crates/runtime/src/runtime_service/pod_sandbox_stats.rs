//! PodSandboxStats, ListPodSandboxStats and its stream.

use std::sync::Arc;

use sampan_cri::v1;
use tonic::Status;

use crate::runtime::Runtime;
use crate::stats;

use super::matches_labels;

pub(super) fn one(runtime: &Arc<Runtime>, id: &str) -> Result<v1::PodSandboxStats, Status> {
    let sandbox = runtime.sandbox(id)?;
    Ok(stats::sandbox(runtime, &sandbox))
}

/// Of ready sandboxes only.
pub(super) fn list(
    runtime: &Arc<Runtime>,
    filter: Option<v1::PodSandboxStatsFilter>,
) -> Vec<v1::PodSandboxStats> {
    let filter = filter.unwrap_or_default();
    runtime
        .all_sandboxes()
        .iter()
        .filter(|sandbox| sandbox.id.starts_with(&filter.id) && sandbox.is_ready())
        .filter(|sandbox| matches_labels(&filter.label_selector, &sandbox.record().config.labels))
        .map(|sandbox| stats::sandbox(runtime, sandbox))
        .collect()
}

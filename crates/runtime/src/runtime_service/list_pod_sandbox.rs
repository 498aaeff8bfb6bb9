//! ListPodSandbox, and the same as a stream (KEP-5825).

use sampan_cri::v1;

use crate::runtime::Runtime;
use crate::sandbox::Sandbox;

use super::matches_labels;

/// The newest first, as `crictl pods` shows them.
pub(super) fn list_pod_sandbox(
    runtime: &Runtime,
    filter: Option<v1::PodSandboxFilter>,
) -> Vec<v1::PodSandbox> {
    let filter = filter.unwrap_or_default();
    let wanted = |sandbox: &Sandbox| {
        let record = sandbox.record();
        (filter.id.is_empty() || record.id.starts_with(&filter.id))
            && matches_labels(&filter.label_selector, &record.config.labels)
    };
    let mut items: Vec<v1::PodSandbox> = runtime
        .all_sandboxes()
        .iter()
        .filter(|sandbox| wanted(sandbox))
        .map(|sandbox| sandbox.summary())
        .filter(|item| filter.state.is_none_or(|wanted| wanted.state == item.state))
        .collect();
    items.sort_by_key(|item| std::cmp::Reverse(item.created_at));
    items
}

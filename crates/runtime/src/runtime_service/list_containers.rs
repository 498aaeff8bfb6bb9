//! ListContainers, and the same as a stream (KEP-5825).

use sampan_cri::v1;

use crate::runtime::Runtime;

use super::matches_labels;

/// The newest first, as `crictl ps` shows them.
pub(super) fn list_containers(runtime: &Runtime, filter: Option<v1::ContainerFilter>) -> Vec<v1::Container> {
    let filter = filter.unwrap_or_default();
    let mut items: Vec<v1::Container> = runtime
        .all_containers()
        .iter()
        .map(|container| container.summary())
        .filter(|item| filter.id.is_empty() || item.id.starts_with(&filter.id))
        .filter(|item| {
            filter.pod_sandbox_id.is_empty() || item.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
        })
        .filter(|item| filter.state.is_none_or(|wanted| wanted.state == item.state))
        .filter(|item| matches_labels(&filter.label_selector, &item.labels))
        .collect();
    items.sort_by_key(|item| std::cmp::Reverse(item.created_at));
    items
}

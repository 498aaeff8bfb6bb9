//! ListContainers, and the same as a stream (KEP-5825).

use sampan_cri::v1;

use crate::container::Container;
use crate::runtime::Runtime;

use super::matches_labels;

/// The newest first, as `crictl ps` shows them.
pub(super) fn list_containers(runtime: &Runtime, filter: Option<v1::ContainerFilter>) -> Vec<v1::Container> {
    let filter = filter.unwrap_or_default();
    // A kubelet asks for one pod's: the others are not copied to be dropped.
    let wanted = |container: &Container| {
        let record = container.record();
        (filter.id.is_empty() || record.id.starts_with(&filter.id))
            && (filter.pod_sandbox_id.is_empty() || record.sandbox_id.starts_with(&filter.pod_sandbox_id))
            && matches_labels(&filter.label_selector, &record.config.labels)
    };
    let mut items: Vec<v1::Container> = runtime
        .all_containers()
        .iter()
        .filter(|container| wanted(container))
        .map(|container| container.summary())
        .filter(|item| filter.state.is_none_or(|wanted| wanted.state == item.state))
        .collect();
    items.sort_by_key(|item| std::cmp::Reverse(item.created_at));
    items
}

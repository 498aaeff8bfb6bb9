//! Where the logs of pods are: `<root>/<ns>_<pod>_<uid>/<container>/<run>.log` (POD-54), and what the links to them are
//! called that log collectors read.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use sampan_cri::v1;

use crate::{labels, pod_ref};

/// The directory of a pod's logs.
pub(crate) fn of_pod(root: &Path, pod: &Pod) -> PathBuf {
    root.join(directory(pod_ref::namespace(pod), pod_ref::name(pod), pod_ref::uid(pod)))
}

/// The log of a container's run, below the directory of its pod's.
pub(crate) fn in_pod(container: &str, run: u32) -> String {
    format!("{container}/{run}.log")
}

/// The log of a container that the runtime lists, by what the kubelet gave it.
pub(crate) fn of_listed(root: &Path, container: &v1::Container) -> Option<PathBuf> {
    let label = |key: &str| container.labels.get(key);
    let pod = directory(label(labels::POD_NAMESPACE)?, label(labels::POD_NAME)?, label(labels::POD_UID)?);
    let run = container.annotations.get(labels::RESTART_COUNT)?.parse().ok()?;
    Some(root.join(pod).join(in_pod(label(labels::CONTAINER_NAME)?, run)))
}

/// Whether a directory of logs is that of the pod with this UID.
pub(crate) fn is_directory_of(name: &str, uid: &str) -> bool {
    name.strip_suffix(uid).is_some_and(|rest| rest.ends_with('_'))
}

/// The name of the link to a container's log.
pub(crate) fn link(pod: &Pod, container: &str, id: &str) -> String {
    format!("{}{container}-{id}.log", link_prefix(pod))
}

/// What the names of all links of a pod begin with.
pub(crate) fn link_prefix(pod: &Pod) -> String {
    format!("{}_{}_", pod_ref::name(pod), pod_ref::namespace(pod))
}

fn directory(namespace: &str, name: &str, uid: &str) -> String {
    format!("{namespace}_{name}_{uid}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn pod_54_the_spec_and_the_runtimes_list_lead_to_the_same_log() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u-1"}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let root = Path::new("/logs");
        let log = of_pod(root, &pod).join(in_pod("c", 3));
        assert_eq!(log, Path::new("/logs/n_p_u-1/c/3.log"));
        let listed = v1::Container {
            labels: labels::container_labels(&pod, "c"),
            annotations: HashMap::from([(labels::RESTART_COUNT.to_owned(), "3".to_owned())]),
            ..Default::default()
        };
        assert_eq!(of_listed(root, &listed), Some(log));
        assert_eq!(of_listed(root, &v1::Container::default()), None);
        assert!(is_directory_of("n_p_u-1", "u-1") && !is_directory_of("n_p_u-1", "1"));
        assert_eq!(link(&pod, "c", "id"), "p_n_c-id.log");
    }
}

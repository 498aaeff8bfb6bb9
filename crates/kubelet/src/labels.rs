//! The labels and annotations that the kubelet puts on sandboxes and containers. They are its memory: after
//! a restart of the daemon, pods, restart counts and grace periods are read back from them, and tools such
//! as `crictl` show them; so the names are upstream's.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, Pod};

/// The pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Hash of the container's name and image: a change restarts it.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// How often the container had been restarted when this one was made.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Where the container leaves its termination message.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// `File` or `FallbackToLogsOnError`.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// The preStop handler as JSON (HOOK-36).
pub const PRE_STOP_HANDLER: &str = "io.kubernetes.container.preStopHandler";
/// The container's ports as JSON, for hooks that name one.
pub const PORTS: &str = "io.kubernetes.container.ports";
/// Grace period of a deletion in progress, seconds.
pub const DELETION_GRACE_PERIOD: &str = "io.kubernetes.pod.deletionGracePeriod";
/// `terminationGracePeriodSeconds` of the pod.
pub const TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Labels of a pod's sandbox: the pod's own and the identity.
#[must_use]
pub fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> =
        pod.metadata.labels.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    labels.extend(identity(pod));
    labels
}

/// Annotations of a pod's sandbox: the pod's own and where the pod came from.
#[must_use]
pub fn sandbox_annotations(pod: &Pod) -> HashMap<String, String> {
    let mut annotations: HashMap<String, String> =
        pod.metadata.annotations.iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
    annotations.entry("kubernetes.io/config.source".to_owned()).or_insert_with(|| "api".to_owned());
    annotations
}

/// Labels of a container.
#[must_use]
pub fn container_labels(pod: &Pod, container: &str) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = identity(pod).into_iter().collect();
    labels.insert(CONTAINER_NAME.to_owned(), container.to_owned());
    labels
}

/// Annotations of a container.
#[must_use]
pub fn container_annotations(
    pod: &Pod,
    container: &Container,
    restart_count: u32,
) -> HashMap<String, String> {
    let mut annotations = HashMap::from([
        (CONTAINER_HASH.to_owned(), container_hash(container)),
        (RESTART_COUNT.to_owned(), restart_count.to_string()),
        (
            TERMINATION_MESSAGE_PATH.to_owned(),
            container.termination_message_path.clone().unwrap_or_else(|| "/dev/termination-log".to_owned()),
        ),
        (
            TERMINATION_MESSAGE_POLICY.to_owned(),
            container.termination_message_policy.clone().unwrap_or_else(|| "File".to_owned()),
        ),
    ]);
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        annotations.insert(DELETION_GRACE_PERIOD.to_owned(), grace.to_string());
    }
    if let Some(grace) = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds) {
        annotations.insert(TERMINATION_GRACE_PERIOD.to_owned(), grace.to_string());
    }
    if let Some(handler) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref())
        && let Ok(json) = serde_json::to_string(handler)
    {
        annotations.insert(PRE_STOP_HANDLER.to_owned(), json);
    }
    if let Some(ports) = container.ports.as_ref().filter(|ports| !ports.is_empty())
        && let Ok(json) = serde_json::to_string(ports)
    {
        annotations.insert(PORTS.to_owned(), json);
    }
    annotations
}

/// The hash that says whether a running container is still the one in the spec: of name and image, as
/// upstream's, since those are what can change in a running pod and needs a restart (POD-44, POD-45).
#[must_use]
pub fn container_hash(container: &Container) -> String {
    let picked = BTreeMap::from([
        ("image", container.image.as_deref().unwrap_or_default()),
        ("name", container.name.as_str()),
    ]);
    let json = serde_json::to_string(&picked).unwrap_or_default();
    format!("{:x}", fnv32a(json.as_bytes()))
}

/// FNV-1a, 32 bits: stable across versions of this program, which Rust's own hashers are not.
fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn identity(pod: &Pod) -> [(String, String); 3] {
    [
        (POD_NAME.to_owned(), pod.metadata.name.clone().unwrap_or_default()),
        (POD_NAMESPACE.to_owned(), pod.metadata.namespace.clone().unwrap_or_default()),
        (POD_UID.to_owned(), pod.metadata.uid.clone().unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_45_only_name_and_image_are_hashed() {
        let one = Container { name: "c".into(), image: Some("a:1".into()), ..Default::default() };
        let same = Container { tty: Some(true), ..one.clone() };
        let other = Container { image: Some("a:2".into()), ..one.clone() };
        assert_eq!(container_hash(&one), container_hash(&same));
        assert_ne!(container_hash(&one), container_hash(&other));
    }
}

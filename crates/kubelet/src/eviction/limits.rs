//! Limits of a pod's own: of ephemeral storage, per container and for all of it, and of emptyDir volumes.

use k8s_openapi::api::core::v1::Pod;

use crate::pod_ref;
use crate::quantities::{listed, value};
use crate::stats::PodUsage;

/// Whether there is anything to watch.
pub(super) fn has_limits(pod: &Pod) -> bool {
    let storage = pod_ref::containers(pod).iter().chain(pod_ref::init_containers(pod)).any(|container| {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        limits.is_some_and(|limits| limits.contains_key("ephemeral-storage"))
    });
    storage
        || pod_ref::spec(pod)
            .volumes
            .iter()
            .flatten()
            .any(|volume| volume.empty_dir.as_ref().is_some_and(|empty_dir| empty_dir.size_limit.is_some()))
}

/// Upstream's message when the pod takes more than one of its limits allows.
pub(super) fn exceeded(pod: &Pod, usage: &PodUsage) -> Option<String> {
    let used = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    for volume in pod_ref::spec(pod).volumes.iter().flatten() {
        let limit = volume.empty_dir.as_ref().and_then(|empty_dir| empty_dir.size_limit.as_ref());
        let Some(limit) = limit else { continue };
        let bytes = usage.volumes.iter().find(|one| one.name == volume.name).map_or(0, |one| one.used.bytes);
        if value(&limit.0).is_some_and(|most| most > 0 && used(bytes) > most) {
            return Some(format!(
                "Usage of EmptyDir volume {:?} exceeds the limit {:?}. ",
                volume.name, limit.0
            ));
        }
    }
    let mut total = 0;
    let mut all_limited = true;
    for container in pod_ref::containers(pod) {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        match listed(limits, "ephemeral-storage") {
            Some(limit) => total += limit,
            None => all_limited = false,
        }
    }
    if all_limited && total > 0 && used(usage.ephemeral().bytes) > total {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            super::rank::bytes(total)
        ));
    }
    for container in &usage.containers {
        let Some((_, spec)) = pod_ref::find_container(pod, &container.name) else { continue };
        let limits = spec.resources.as_ref().and_then(|resources| resources.limits.clone());
        let Some(limit) = listed(limits.as_ref(), "ephemeral-storage") else { continue };
        if used(container.rootfs.bytes + container.logs.bytes) > limit {
            let text = limits
                .and_then(|limits| Some(limits.get("ephemeral-storage")?.0.clone()))
                .unwrap_or_default();
            return Some(format!(
                "Container {} exceeded its local ephemeral storage limit {text:?}. ",
                container.name
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::stats::{ContainerUsage, Disk, Filesystem, VolumeUsage};

    #[test]
    fn pod_56_limits_of_storage_are_the_pods_own() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a", "resources": {"limits": {"ephemeral-storage": "1Mi"}}}, {"name": "b"}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "2Mi"}}]}}))
        .unwrap();
        assert!(has_limits(&pod));
        let usage = |layer: u64, volume: u64| PodUsage {
            containers: vec![ContainerUsage {
                name: "a".into(),
                rootfs: Disk { bytes: layer, inodes: 1 },
                ..ContainerUsage::default()
            }],
            volumes: vec![VolumeUsage {
                name: "v".into(),
                used: Disk { bytes: volume, inodes: 1 },
                filesystem: Filesystem::default(),
                local: true,
            }],
            ..PodUsage::default()
        };
        assert_eq!(exceeded(&pod, &usage(1 << 20, 2 << 20)), None);
        assert_eq!(
            exceeded(&pod, &usage(2 << 20, 0)).unwrap(),
            "Container a exceeded its local ephemeral storage limit \"1Mi\". "
        );
        assert_eq!(
            exceeded(&pod, &usage(0, 3 << 20)).unwrap(),
            "Usage of EmptyDir volume \"v\" exceeds the limit \"2Mi\". "
        );
    }
}

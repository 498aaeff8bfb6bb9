//! What this node does not do with volumes: it says so, and what to do instead, rather than to pretend (ENV-48).

use k8s_openapi::api::core::v1::{Volume, VolumeProjection};

/// Sources that are file systems of somewhere else.
const ELSEWHERE: [&str; 19] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "iscsi",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

/// Names the type of a volume that this node does not do, and what to do.
pub(super) fn volume(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let kind =
        value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).find(|key| *key != "name");
    let Some(kind) = kind else {
        return "the volume has no source: give it one, emptyDir for instance".to_owned();
    };
    let instead = match kind {
        "persistentVolumeClaim" | "ephemeral" => {
            "there is no storage to claim here, use emptyDir (which ends with the pod) or hostPath"
        }
        "csi" => "it runs no CSI drivers, use emptyDir or hostPath, or a projected volume for secrets",
        "gitRepo" => "clone it in an init container into an emptyDir volume",
        kind if ELSEWHERE.contains(&kind) => "mount it on the node and use a hostPath volume",
        _ => "use one of emptyDir, configMap, secret, downwardAPI, projected, hostPath and image",
    };
    format!("volumes of type {kind:?} are not supported by this node: {instead}")
}

/// The same for a source of a projected volume.
pub(super) fn projection(source: &VolumeProjection) -> String {
    let value = serde_json::to_value(source).unwrap_or_default();
    let kind =
        value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).next().unwrap_or_default();
    let instead = match kind {
        "podCertificate" => "put key and certificate into a secret",
        "" => "the source is empty, give it one",
        _ => "use one of configMap, secret, downwardAPI, serviceAccountToken and clusterTrustBundle",
    };
    format!("sources of type {kind:?} in a projected volume are not supported by this node: {instead}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn env_48_a_type_that_is_not_done_is_named() {
        let text = |kind: &str, source: serde_json::Value| {
            volume(&serde_json::from_value(json!({"name": "v", kind: source})).unwrap())
        };
        let nfs = text("nfs", json!({"server": "s", "path": "/p"}));
        assert_eq!(
            nfs,
            "volumes of type \"nfs\" are not supported by this node: mount it on the node and use a hostPath volume"
        );
        let claim = text("persistentVolumeClaim", json!({"claimName": "c"}));
        assert!(claim.starts_with("volumes of type \"persistentVolumeClaim\"") && claim.contains("emptyDir"));
        let certificate = json!({"podCertificate": {"signerName": "example.com/s", "keyType": "ED25519"}});
        assert!(projection(&serde_json::from_value(certificate).unwrap()).contains("into a secret"));
    }
}

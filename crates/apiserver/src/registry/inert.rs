//! Kinds that are stored like upstream's and that nothing acts on yet: who creates one is told so, instead of waiting
//! for pods that nobody will make or trusting a rule that nobody enforces.

use sampan_api::Resource;

/// The warning for a new object of a kind that nothing acts on.
pub(super) fn warning(resource: &Resource) -> Option<String> {
    let inert = match resource.group {
        "" => matches!(resource.kind, "PersistentVolume" | "PersistentVolumeClaim" | "ReplicationController"),
        "apps" => resource.kind != "ControllerRevision",
        "networking.k8s.io" => matches!(resource.kind, "Ingress" | "NetworkPolicy"),
        "certificates.k8s.io" => resource.kind == "CertificateSigningRequest",
        "admissionregistration.k8s.io" | "autoscaling" | "batch" => true,
        _ => false,
    };
    inert.then(|| format!("sampan stores {}, but nothing acts on them yet", resource.group_resource()))
}

//! Which columns each kind has. A table.

use super::Column;
use crate::scheme::Resource;

const fn text(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 0 }
}

const fn number(name: &'static str) -> Column {
    Column { name, kind: "integer", priority: 0 }
}

const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 1 }
}

const NAME: Column = text("Name");
const AGE: Column = text("Age");
const CREATED: Column = Column { name: "Created At", kind: "date", priority: 0 };

macro_rules! columns {
    ($($column:expr),* $(,)?) => {{
        static COLUMNS: &[Column] = &[$($column),*];
        COLUMNS
    }};
}

pub(super) fn of(resource: &Resource) -> &'static [Column] {
    match (resource.group, resource.kind) {
        ("", "Pod") => columns![
            NAME,
            text("Ready"),
            text("Status"),
            text("Restarts"),
            AGE,
            wide("IP"),
            wide("Node"),
            wide("Nominated Node"),
            wide("Readiness Gates"),
        ],
        ("", "PodTemplate") => columns![NAME, text("Containers"), text("Images"), text("Pod Labels")],
        ("policy", "PodDisruptionBudget") => {
            columns![NAME, text("Min Available"), text("Max Unavailable"), number("Allowed Disruptions"), AGE]
        }
        ("", "ReplicationController") | ("apps", "ReplicaSet") => columns![
            NAME,
            number("Desired"),
            number("Current"),
            number("Ready"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        ("apps", "DaemonSet") => columns![
            NAME,
            number("Desired"),
            number("Current"),
            number("Ready"),
            number("Up-to-date"),
            number("Available"),
            text("Node Selector"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        ("apps", "Deployment") => columns![
            NAME,
            text("Ready"),
            text("Up-to-date"),
            text("Available"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        ("apps", "StatefulSet") => columns![NAME, text("Ready"), AGE, wide("Containers"), wide("Images")],
        ("apps", "ControllerRevision") => columns![NAME, text("Controller"), text("Revision"), AGE],
        ("batch", "Job") => columns![
            NAME,
            text("Status"),
            text("Completions"),
            text("Duration"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        ("batch", "CronJob") => columns![
            NAME,
            text("Schedule"),
            text("Timezone"),
            text("Suspend"),
            number("Active"),
            text("Last Schedule"),
            AGE,
            wide("Containers"),
            wide("Images"),
            wide("Selector"),
        ],
        ("", "Service") => columns![
            NAME,
            text("Type"),
            text("Cluster-IP"),
            text("External-IP"),
            text("Port(s)"),
            AGE,
            wide("Selector"),
        ],
        ("", "Endpoints") => columns![NAME, text("Endpoints"), AGE],
        ("discovery.k8s.io", _) => columns![NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE],
        ("", "Node") => columns![
            NAME,
            text("Status"),
            text("Roles"),
            AGE,
            text("Version"),
            wide("Internal-IP"),
            wide("External-IP"),
            wide("OS-Image"),
            wide("Kernel-Version"),
            wide("Container-Runtime"),
        ],
        (_, "Event") => columns![
            text("Last Seen"),
            text("Type"),
            text("Reason"),
            text("Object"),
            wide("Subobject"),
            wide("Source"),
            text("Message"),
            wide("First Seen"),
            wide("Count"),
            Column { name: "Name", kind: "string", priority: 1 },
        ],
        ("", "Namespace") => columns![NAME, text("Status"), AGE],
        ("", "Secret") => columns![NAME, text("Type"), number("Data"), AGE],
        ("", "ServiceAccount") => columns![NAME, text("Secrets"), AGE],
        ("", "ConfigMap") => columns![NAME, text("Data"), AGE],
        ("", "ResourceQuota") => columns![NAME, text("Request"), text("Limit"), AGE],
        ("", "ComponentStatus") => columns![NAME, text("Status"), text("Message"), text("Error")],
        ("", "PersistentVolume") => columns![
            NAME,
            text("Capacity"),
            text("Access Modes"),
            text("Reclaim Policy"),
            text("Status"),
            text("Claim"),
            text("StorageClass"),
            text("VolumeAttributesClass"),
            text("Reason"),
            AGE,
            wide("VolumeMode"),
        ],
        ("", "PersistentVolumeClaim") => columns![
            NAME,
            text("Status"),
            text("Volume"),
            text("Capacity"),
            text("Access Modes"),
            text("StorageClass"),
            text("VolumeAttributesClass"),
            AGE,
            wide("VolumeMode"),
        ],
        ("autoscaling", "HorizontalPodAutoscaler") => columns![
            NAME,
            text("Reference"),
            text("Targets"),
            text("MinPods"),
            text("MaxPods"),
            text("Replicas"),
            AGE
        ],
        ("networking.k8s.io", "Ingress") => {
            columns![NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), AGE]
        }
        ("networking.k8s.io", "IngressClass") => columns![NAME, text("Controller"), text("Parameters"), AGE],
        ("networking.k8s.io", "NetworkPolicy") => columns![NAME, text("Pod-Selector"), AGE],
        ("networking.k8s.io", "ServiceCIDR") => columns![NAME, text("CIDRs"), AGE],
        ("networking.k8s.io", "IPAddress") => columns![NAME, text("ParentRef"), AGE],
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            columns![NAME, text("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")]
        }
        ("certificates.k8s.io", "ClusterTrustBundle") => columns![NAME, text("SignerName")],
        ("certificates.k8s.io", _) => columns![
            NAME,
            AGE,
            text("SignerName"),
            text("Requestor"),
            text("RequestedDuration"),
            text("Condition")
        ],
        ("coordination.k8s.io", _) => columns![NAME, text("Holder"), AGE],
        ("storage.k8s.io", "StorageClass") => columns![
            NAME,
            text("Provisioner"),
            text("ReclaimPolicy"),
            text("VolumeBindingMode"),
            text("AllowVolumeExpansion"),
            AGE
        ],
        ("storage.k8s.io", "VolumeAttributesClass") => columns![NAME, text("DriverName"), AGE],
        ("storage.k8s.io", "VolumeAttachment") => {
            columns![NAME, text("Attacher"), text("PV"), text("Node"), text("Attached"), AGE]
        }
        ("storage.k8s.io", "CSINode") => columns![NAME, number("Drivers"), AGE],
        ("storage.k8s.io", "CSIDriver") => columns![
            NAME,
            text("AttachRequired"),
            text("PodInfoOnMount"),
            text("StorageCapacity"),
            text("TokenRequests"),
            text("RequiresRepublish"),
            text("Modes"),
            AGE,
        ],
        ("scheduling.k8s.io", _) => {
            columns![
                NAME,
                number("Value"),
                Column { name: "Global-Default", kind: "boolean", priority: 0 },
                AGE,
                text("PreemptionPolicy")
            ]
        }
        ("node.k8s.io", _) => columns![NAME, text("Handler"), AGE],
        (
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration",
        ) => {
            columns![NAME, number("Webhooks"), AGE]
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            columns![NAME, number("Validations"), text("ParamKind"), AGE]
        }
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => {
            columns![NAME, number("Mutations"), text("ParamKind"), AGE]
        }
        ("admissionregistration.k8s.io", _) => columns![NAME, text("PolicyName"), text("ParamRef"), AGE],
        _ => columns![NAME, CREATED],
    }
}

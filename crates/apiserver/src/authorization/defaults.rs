//! The roles and bindings that every cluster has: upstream's bootstrap policy, as a table.
//!
//! Source: Kubernetes v1.36 `kubectl get clusterroles,clusterrolebindings,roles,rolebindings -A` of a fresh cluster.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::PolicyRule;

type Words = &'static [&'static str];

/// One rule of the table.
#[derive(Clone, Copy)]
struct Rule {
    verbs: Words,
    groups: Words,
    resources: Words,
    names: Words,
    urls: Words,
}

const fn on(groups: Words, resources: Words, verbs: Words) -> Rule {
    Rule { verbs, groups, resources, names: &[], urls: &[] }
}

const fn named(groups: Words, resources: Words, names: Words, verbs: Words) -> Rule {
    Rule { verbs, groups, resources, names, urls: &[] }
}

const fn urls(urls: Words, verbs: Words) -> Rule {
    Rule { verbs, groups: &[], resources: &[], names: &[], urls }
}

const ALL: Words = &["*"];
const READ: Words = &["get", "list", "watch"];
const LIST: Words = &["list", "watch"];
const WRITE: Words = &["create", "delete", "deletecollection", "patch", "update"];
const READ_WRITE: Words =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const MANAGE: Words = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: Words = &["create"];
const UPDATE: Words = &["update"];
const CHANGE: Words = &["patch", "update"];

const CORE: Words = &[""];
const APPS: Words = &["apps"];
const APPS_EXT: Words = &["apps", "extensions"];
const AUTHN: Words = &["authentication.k8s.io"];
const AUTHZ: Words = &["authorization.k8s.io"];
const AUTOSCALING: Words = &["autoscaling"];
const BATCH: Words = &["batch"];
const CERTIFICATES: Words = &["certificates.k8s.io"];
const COORDINATION: Words = &["coordination.k8s.io"];
const DISCOVERY: Words = &["discovery.k8s.io"];
const EXTENSIONS: Words = &["extensions"];
const NETWORKING: Words = &["networking.k8s.io"];
const NODE: Words = &["node.k8s.io"];
const POLICY: Words = &["policy"];
const RBAC: Words = &["rbac.authorization.k8s.io"];
const RESOURCE: Words = &["resource.k8s.io"];
const STORAGE: Words = &["storage.k8s.io"];

/// Writing events, which nearly everybody does.
const EVENTS: Rule = on(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]);

const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// A ClusterRole of the table: name, to which role it is aggregated (or empty), which label it aggregates (or
/// empty), rules.
struct ClusterRole(&'static str, &'static str, &'static str, &'static [Rule]);

#[rustfmt::skip]
const CLUSTER_ROLES: &[ClusterRole] = &[
    ClusterRole("cluster-admin", "", "", &[on(ALL, ALL, ALL), urls(ALL, ALL)]),
    ClusterRole("admin", "", "admin", &[]),
    ClusterRole("edit", "admin", "edit", &[]),
    ClusterRole("view", "edit", "view", &[]),
    ClusterRole("system:aggregated-metrics-reader", "view", "", &[on(&["metrics.k8s.io"], &["nodes", "pods"], READ)]),
    ClusterRole("system:aggregate-to-admin", "admin", "", &[
        on(AUTHZ, &["localsubjectaccessreviews"], CREATE),
        on(RBAC, &["rolebindings", "roles"], READ_WRITE),
    ]),
    ClusterRole("system:aggregate-to-edit", "edit", "", &[
        on(CORE, &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"], READ),
        on(CORE, &["serviceaccounts"], &["impersonate"]),
        on(CORE, &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"], WRITE),
        on(CORE, &["pods/eviction"], CREATE),
        on(CORE, &["configmaps", "events", "persistentvolumeclaims", "replicationcontrollers", "replicationcontrollers/scale", "secrets", "serviceaccounts", "services", "services/proxy"], WRITE),
        on(CORE, &["serviceaccounts/token"], CREATE),
        on(APPS, &["daemonsets", "deployments", "deployments/rollback", "deployments/scale", "replicasets", "replicasets/scale", "statefulsets", "statefulsets/scale"], WRITE),
        on(AUTOSCALING, &["horizontalpodautoscalers"], WRITE),
        on(BATCH, &["cronjobs", "jobs"], WRITE),
        on(EXTENSIONS, &["daemonsets", "deployments", "deployments/rollback", "deployments/scale", "ingresses", "networkpolicies", "replicasets", "replicasets/scale", "replicationcontrollers/scale"], WRITE),
        on(POLICY, &["poddisruptionbudgets"], WRITE),
        on(NETWORKING, &["ingresses", "networkpolicies"], WRITE),
        on(COORDINATION, &["leases"], READ_WRITE),
        on(RESOURCE, &["resourceclaims", "resourceclaimtemplates"], WRITE),
    ]),
    ClusterRole("system:aggregate-to-view", "view", "", &[
        on(CORE, &["configmaps", "endpoints", "persistentvolumeclaims", "persistentvolumeclaims/status", "pods", "replicationcontrollers", "replicationcontrollers/scale", "serviceaccounts", "services", "services/status"], READ),
        on(CORE, &["bindings", "events", "limitranges", "namespaces/status", "pods/log", "pods/status", "replicationcontrollers/status", "resourcequotas", "resourcequotas/status"], READ),
        on(CORE, &["namespaces"], READ),
        on(DISCOVERY, &["endpointslices"], READ),
        on(APPS, &["controllerrevisions", "daemonsets", "daemonsets/status", "deployments", "deployments/scale", "deployments/status", "replicasets", "replicasets/scale", "replicasets/status", "statefulsets", "statefulsets/scale", "statefulsets/status"], READ),
        on(AUTOSCALING, &["horizontalpodautoscalers", "horizontalpodautoscalers/status"], READ),
        on(BATCH, &["cronjobs", "cronjobs/status", "jobs", "jobs/status"], READ),
        on(EXTENSIONS, &["daemonsets", "daemonsets/status", "deployments", "deployments/scale", "deployments/status", "ingresses", "ingresses/status", "networkpolicies", "replicasets", "replicasets/scale", "replicasets/status", "replicationcontrollers/scale"], READ),
        on(POLICY, &["poddisruptionbudgets", "poddisruptionbudgets/status"], READ),
        on(NETWORKING, &["ingresses", "ingresses/status", "networkpolicies"], READ),
        on(RESOURCE, &["resourceclaims", "resourceclaims/status", "resourceclaimtemplates"], READ),
    ]),
    ClusterRole("system:auth-delegator", "", "", &[on(AUTHN, &["tokenreviews"], CREATE), on(AUTHZ, &["subjectaccessreviews"], CREATE)]),
    ClusterRole("system:basic-user", "", "", &[
        on(AUTHZ, &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], CREATE),
        on(AUTHN, &["selfsubjectreviews"], CREATE),
    ]),
    ClusterRole("system:certificates.k8s.io:certificatesigningrequests:nodeclient", "", "", &[on(CERTIFICATES, &["certificatesigningrequests/nodeclient"], CREATE)]),
    ClusterRole("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "", "", &[on(CERTIFICATES, &["certificatesigningrequests/selfnodeclient"], CREATE)]),
    ClusterRole("system:certificates.k8s.io:kube-apiserver-client-approver", "", "", &[named(CERTIFICATES, &["signers"], &["kubernetes.io/kube-apiserver-client"], &["approve"])]),
    ClusterRole("system:certificates.k8s.io:kube-apiserver-client-kubelet-approver", "", "", &[named(CERTIFICATES, &["signers"], &["kubernetes.io/kube-apiserver-client-kubelet"], &["approve"])]),
    ClusterRole("system:certificates.k8s.io:kubelet-serving-approver", "", "", &[named(CERTIFICATES, &["signers"], &["kubernetes.io/kubelet-serving"], &["approve"])]),
    ClusterRole("system:certificates.k8s.io:legacy-unknown-approver", "", "", &[named(CERTIFICATES, &["signers"], &["kubernetes.io/legacy-unknown"], &["approve"])]),
    ClusterRole("system:cluster-trust-bundle-discovery", "", "", &[on(CERTIFICATES, &["clustertrustbundles"], READ)]),
    ClusterRole("system:discovery", "", "", &[urls(&["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"], &["get"])]),
    ClusterRole("system:heapster", "", "", &[on(CORE, &["events", "namespaces", "nodes", "pods"], READ), on(EXTENSIONS, &["deployments"], READ)]),
    ClusterRole("system:kube-aggregator", "", "", &[on(CORE, &["endpoints", "services"], READ)]),
    ClusterRole("system:kube-controller-manager", "", "", &[
        EVENTS,
        on(COORDINATION, &["leases"], CREATE),
        named(COORDINATION, &["leases"], &["kube-controller-manager"], &["get", "update"]),
        on(CORE, &["secrets", "serviceaccounts"], CREATE),
        on(CORE, &["secrets"], &["delete"]),
        on(CORE, &["configmaps", "namespaces", "secrets", "serviceaccounts"], &["get"]),
        on(CORE, &["secrets", "serviceaccounts"], UPDATE),
        on(AUTHN, &["tokenreviews"], CREATE),
        on(AUTHZ, &["subjectaccessreviews"], CREATE),
        on(ALL, ALL, LIST),
        on(CORE, &["serviceaccounts/token"], CREATE),
    ]),
    ClusterRole("system:kube-dns", "", "", &[on(CORE, &["endpoints", "services"], LIST), on(DISCOVERY, &["endpointslices"], LIST)]),
    ClusterRole("system:kube-scheduler", "", "", &[
        EVENTS,
        on(COORDINATION, &["leases"], CREATE),
        named(COORDINATION, &["leases"], &["kube-scheduler"], &["get", "update"]),
        on(CORE, &["nodes"], READ),
        on(CORE, &["pods"], &["delete", "get", "list", "watch"]),
        on(CORE, &["bindings", "pods/binding"], CREATE),
        on(CORE, &["pods/status"], CHANGE),
        on(CORE, &["replicationcontrollers", "services"], READ),
        on(APPS_EXT, &["replicasets"], READ),
        on(APPS, &["statefulsets"], READ),
        on(POLICY, &["poddisruptionbudgets"], READ),
        on(CORE, &["persistentvolumeclaims", "persistentvolumes"], READ),
        on(AUTHN, &["tokenreviews"], CREATE),
        on(AUTHZ, &["subjectaccessreviews"], CREATE),
        on(STORAGE, &["csinodes"], READ),
        on(CORE, &["namespaces"], READ),
        on(STORAGE, &["csidrivers"], READ),
        on(STORAGE, &["csistoragecapacities"], READ),
        on(STORAGE, &["volumeattachments"], READ),
    ]),
    ClusterRole("system:kubelet-api-admin", "", "", &[
        on(CORE, &["nodes"], READ),
        on(CORE, &["nodes"], &["proxy"]),
        on(CORE, &["nodes/log", "nodes/metrics", "nodes/proxy", "nodes/stats"], ALL),
    ]),
    ClusterRole("system:monitoring", "", "", &[urls(&["/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*"], &["get"])]),
    ClusterRole("system:node", "", "", NODE_RULES),
    ClusterRole("system:node-bootstrapper", "", "", &[on(CERTIFICATES, &["certificatesigningrequests"], &["create", "get", "list", "watch"])]),
    ClusterRole("system:node-problem-detector", "", "", &[on(CORE, &["nodes"], &["get"]), on(CORE, &["nodes/status"], &["patch"]), EVENTS]),
    ClusterRole("system:node-proxier", "", "", &[
        on(CORE, &["endpoints", "services"], LIST),
        on(CORE, &["nodes"], READ),
        EVENTS,
        on(DISCOVERY, &["endpointslices"], LIST),
        on(NETWORKING, &["servicecidrs"], LIST),
    ]),
    ClusterRole("system:persistent-volume-provisioner", "", "", &[
        on(CORE, &["persistentvolumes"], &["create", "delete", "get", "list", "watch"]),
        on(CORE, &["persistentvolumeclaims"], &["get", "list", "update", "watch"]),
        on(STORAGE, &["storageclasses"], READ),
        on(CORE, &["events"], &["watch"]),
        EVENTS,
    ]),
    ClusterRole("system:public-info-viewer", "", "", &[urls(&["/healthz", "/livez", "/readyz", "/version", "/version/"], &["get"])]),
    ClusterRole("system:service-account-issuer-discovery", "", "", &[urls(&["/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/"], &["get"])]),
    ClusterRole("system:volume-scheduler", "", "", &[
        on(CORE, &["persistentvolumes"], &["get", "list", "patch", "update", "watch"]),
        on(STORAGE, &["storageclasses"], READ),
        on(CORE, &["persistentvolumeclaims"], &["get", "list", "patch", "update", "watch"]),
    ]),
    ClusterRole("system:controller:clusterrole-aggregation-controller", "", "", &[on(RBAC, &["clusterroles"], &["escalate", "get", "list", "patch", "update", "watch"])]),
    ClusterRole("system:controller:cronjob-controller", "", "", &[
        on(BATCH, &["cronjobs"], &["get", "list", "update", "watch"]),
        on(BATCH, &["jobs"], MANAGE),
        on(BATCH, &["cronjobs/status"], UPDATE),
        on(BATCH, &["cronjobs/finalizers"], UPDATE),
        on(CORE, &["pods"], &["delete", "list", "watch"]),
        EVENTS,
    ]),
    ClusterRole("system:controller:daemon-set-controller", "", "", &[
        on(APPS_EXT, &["daemonsets"], READ),
        on(APPS_EXT, &["daemonsets/status"], UPDATE),
        on(APPS_EXT, &["daemonsets/finalizers"], UPDATE),
        on(CORE, &["nodes"], LIST),
        on(CORE, &["pods"], &["create", "delete", "list", "patch", "watch"]),
        on(CORE, &["pods/binding"], CREATE),
        on(APPS, &["controllerrevisions"], MANAGE),
        EVENTS,
    ]),
    ClusterRole("system:controller:deployment-controller", "", "", &[
        on(APPS_EXT, &["deployments"], &["get", "list", "update", "watch"]),
        on(APPS_EXT, &["deployments/status"], UPDATE),
        on(APPS_EXT, &["deployments/finalizers"], UPDATE),
        on(APPS_EXT, &["replicasets"], MANAGE),
        on(CORE, &["pods"], &["get", "list", "update", "watch"]),
        EVENTS,
    ]),
    ClusterRole("system:controller:disruption-controller", "", "", &[
        on(APPS_EXT, &["deployments"], READ),
        on(APPS_EXT, &["replicasets"], READ),
        on(CORE, &["replicationcontrollers"], READ),
        on(POLICY, &["poddisruptionbudgets"], READ),
        on(APPS, &["statefulsets"], READ),
        on(POLICY, &["poddisruptionbudgets/status"], UPDATE),
        on(CORE, &["pods/status"], CHANGE),
        on(ALL, &["*/scale"], &["get"]),
        EVENTS,
    ]),
    ClusterRole("system:controller:endpoint-controller", "", "", &[
        on(CORE, &["pods", "services"], READ),
        on(CORE, &["endpoints"], &["create", "delete", "get", "list", "update", "watch"]),
        on(CORE, &["endpoints/restricted"], CREATE),
        EVENTS,
    ]),
    ClusterRole("system:controller:endpointslice-controller", "", "", &[
        on(CORE, &["nodes", "pods", "services"], READ),
        on(CORE, &["services/finalizers"], UPDATE),
        on(DISCOVERY, &["endpointslices"], &["create", "delete", "get", "list", "update", "watch"]),
        EVENTS,
    ]),
    ClusterRole("system:controller:endpointslicemirroring-controller", "", "", &[
        on(CORE, &["endpoints", "services"], READ),
        on(CORE, &["services/finalizers"], UPDATE),
        on(CORE, &["endpoints/finalizers"], UPDATE),
        on(DISCOVERY, &["endpointslices"], &["create", "delete", "get", "list", "update", "watch"]),
        EVENTS,
    ]),
    ClusterRole("system:controller:ephemeral-volume-controller", "", "", &[
        on(CORE, &["pods"], READ),
        on(CORE, &["pods/finalizers"], UPDATE),
        on(CORE, &["persistentvolumeclaims"], &["create", "get", "list", "watch"]),
        EVENTS,
    ]),
    ClusterRole("system:controller:generic-garbage-collector", "", "", &[
        on(ALL, ALL, &["delete", "get", "list", "patch", "update", "watch"]),
        EVENTS,
    ]),
    ClusterRole("system:controller:horizontal-pod-autoscaler", "", "", &[
        on(AUTOSCALING, &["horizontalpodautoscalers"], READ),
        on(AUTOSCALING, &["horizontalpodautoscalers/status"], UPDATE),
        on(ALL, &["*/scale"], &["get", "update"]),
        on(CORE, &["pods"], LIST),
        on(&["metrics.k8s.io"], &["pods"], LIST),
        on(&["custom.metrics.k8s.io"], ALL, READ),
        on(&["external.metrics.k8s.io"], ALL, READ),
        EVENTS,
    ]),
    ClusterRole("system:controller:job-controller", "", "", &[
        on(BATCH, &["jobs"], &["get", "list", "patch", "update", "watch"]),
        on(BATCH, &["jobs/status"], UPDATE),
        on(BATCH, &["jobs/finalizers"], UPDATE),
        on(CORE, &["pods"], &["create", "delete", "list", "patch", "watch"]),
        EVENTS,
    ]),
    ClusterRole("system:controller:namespace-controller", "", "", &[
        on(CORE, &["namespaces"], &["delete", "get", "list", "watch"]),
        on(CORE, &["namespaces/finalize", "namespaces/status"], UPDATE),
        on(ALL, ALL, &["delete", "deletecollection", "get", "list", "watch"]),
    ]),
    ClusterRole("system:controller:node-controller", "", "", &[
        on(CORE, &["nodes"], &["delete", "get", "list", "patch", "update", "watch"]),
        on(CORE, &["nodes/status"], CHANGE),
        on(CORE, &["pods/status"], CHANGE),
        on(CORE, &["pods"], &["delete", "get", "list", "watch"]),
        EVENTS,
    ]),
    ClusterRole("system:controller:persistent-volume-binder", "", "", &[
        on(CORE, &["persistentvolumes"], &["create", "delete", "get", "list", "update", "watch"]),
        on(CORE, &["persistentvolumes/status"], UPDATE),
        on(CORE, &["persistentvolumeclaims"], &["get", "list", "update", "watch"]),
        on(CORE, &["persistentvolumeclaims/status"], UPDATE),
        on(CORE, &["pods"], &["create", "delete", "get", "list", "watch"]),
        on(STORAGE, &["storageclasses"], READ),
        on(CORE, &["nodes"], LIST),
        EVENTS,
        on(CORE, &["events"], &["watch"]),
    ]),
    ClusterRole("system:controller:pod-garbage-collector", "", "", &[
        on(CORE, &["pods"], &["delete", "list", "watch"]),
        on(CORE, &["nodes"], READ),
        on(CORE, &["pods/status"], &["patch"]),
    ]),
    ClusterRole("system:controller:pv-protection-controller", "", "", &[on(CORE, &["persistentvolumes"], &["get", "list", "update", "watch"]), EVENTS]),
    ClusterRole("system:controller:pvc-protection-controller", "", "", &[
        on(CORE, &["persistentvolumeclaims"], &["get", "list", "update", "watch"]),
        on(CORE, &["persistentvolumeclaims/status"], UPDATE),
        on(CORE, &["pods"], READ),
        EVENTS,
    ]),
    ClusterRole("system:controller:replicaset-controller", "", "", &[
        on(APPS_EXT, &["replicasets"], &["get", "list", "update", "watch"]),
        on(APPS_EXT, &["replicasets/status"], UPDATE),
        on(APPS_EXT, &["replicasets/finalizers"], UPDATE),
        on(CORE, &["pods"], &["create", "delete", "list", "patch", "watch"]),
        EVENTS,
    ]),
    ClusterRole("system:controller:replication-controller", "", "", &[
        on(CORE, &["replicationcontrollers"], &["get", "list", "update", "watch"]),
        on(CORE, &["replicationcontrollers/status"], UPDATE),
        on(CORE, &["replicationcontrollers/finalizers"], UPDATE),
        on(CORE, &["pods"], &["create", "delete", "list", "patch", "watch"]),
        EVENTS,
    ]),
    ClusterRole("system:controller:resourcequota-controller", "", "", &[
        on(ALL, ALL, LIST),
        on(CORE, &["resourcequotas/status"], UPDATE),
        EVENTS,
    ]),
    ClusterRole("system:controller:root-ca-cert-publisher", "", "", &[on(CORE, &["configmaps"], &["create", "update"]), EVENTS]),
    ClusterRole("system:controller:service-account-controller", "", "", &[on(CORE, &["serviceaccounts"], CREATE), EVENTS]),
    ClusterRole("system:controller:service-controller", "", "", &[
        on(CORE, &["services"], READ),
        on(CORE, &["services/status"], CHANGE),
        on(CORE, &["nodes"], LIST),
        EVENTS,
    ]),
    ClusterRole("system:controller:statefulset-controller", "", "", &[
        on(CORE, &["pods"], LIST),
        on(APPS, &["statefulsets"], READ),
        on(APPS, &["statefulsets/status"], UPDATE),
        on(APPS, &["statefulsets/finalizers"], UPDATE),
        on(CORE, &["pods"], &["create", "delete", "get", "patch", "update"]),
        on(APPS, &["controllerrevisions"], MANAGE),
        on(CORE, &["persistentvolumeclaims"], &["create", "get", "list", "watch"]),
        on(CORE, &["persistentvolumeclaims"], &["delete", "update"]),
        on(CORE, &["pods/finalizers"], UPDATE),
        EVENTS,
    ]),
    ClusterRole("system:controller:ttl-after-finished-controller", "", "", &[on(BATCH, &["jobs"], &["delete", "get", "list", "watch"]), EVENTS]),
    ClusterRole("system:controller:ttl-controller", "", "", &[on(CORE, &["nodes"], &["list", "patch", "update", "watch"]), EVENTS]),
];

/// What a kubelet may do apart from what the node authorizer judges one by one.
#[rustfmt::skip]
const NODE_RULES: &[Rule] = &[
    on(AUTHN, &["tokenreviews"], CREATE),
    on(AUTHZ, &["localsubjectaccessreviews", "subjectaccessreviews"], CREATE),
    on(CORE, &["services"], READ),
    on(CORE, &["nodes"], &["create", "get", "list", "watch"]),
    on(CORE, &["nodes/status"], CHANGE),
    on(CORE, &["nodes"], CHANGE),
    on(CORE, &["events"], &["create", "patch", "update"]),
    on(CORE, &["pods"], READ),
    on(CORE, &["pods"], &["create", "delete"]),
    on(CORE, &["pods/status"], CHANGE),
    on(CORE, &["pods/eviction"], CREATE),
    on(CORE, &["configmaps", "secrets"], READ),
    on(CORE, &["persistentvolumeclaims", "persistentvolumes"], &["get"]),
    on(CORE, &["endpoints"], &["get"]),
    on(CERTIFICATES, &["certificatesigningrequests"], &["create", "get", "list", "watch"]),
    on(CERTIFICATES, &["clustertrustbundles"], READ),
    on(COORDINATION, &["leases"], &["create", "delete", "get", "patch", "update"]),
    on(STORAGE, &["volumeattachments"], &["get"]),
    on(CORE, &["serviceaccounts/token"], CREATE),
    on(CORE, &["persistentvolumeclaims/status"], &["get", "patch", "update"]),
    on(STORAGE, &["csidrivers"], READ),
    on(STORAGE, &["csinodes"], &["create", "delete", "get", "patch", "update"]),
    on(NODE, &["runtimeclasses"], READ),
    on(RESOURCE, &["resourceclaims"], &["get"]),
    on(RESOURCE, &["resourceslices"], &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
];

/// Namespace, name, rules.
#[rustfmt::skip]
const ROLES: &[(&str, &str, &[Rule])] = &[
    ("kube-public", "system:controller:bootstrap-signer", &[
        on(CORE, &["configmaps"], READ), named(CORE, &["configmaps"], &["cluster-info"], UPDATE), EVENTS,
    ]),
    ("kube-system", "extension-apiserver-authentication-reader", &[
        named(CORE, &["configmaps"], &["extension-apiserver-authentication"], READ),
    ]),
    ("kube-system", "system::leader-locking-kube-controller-manager", LEADER),
    ("kube-system", "system::leader-locking-kube-scheduler", LEADER),
    ("kube-system", "system:controller:bootstrap-signer", &[on(CORE, &["secrets"], READ)]),
    ("kube-system", "system:controller:cloud-provider", &[on(CORE, &["configmaps"], &["create", "get", "list", "watch"])]),
    ("kube-system", "system:controller:token-cleaner", &[on(CORE, &["secrets"], &["delete", "get", "list", "watch"]), EVENTS]),
];

const LEADER: &[Rule] = &[
    on(COORDINATION, &["leases"], &["create", "get", "list", "update", "watch"]),
    on(COORDINATION, &["leasecandidates"], &["create", "get", "list", "update", "watch"]),
];

/// A subject: `u:NAME` a user, `g:NAME` a group, `s:NAMESPACE/NAME` a ServiceAccount.
type Subjects = &'static [&'static str];

/// ClusterRoleBindings: name (and role), subjects. Those of the controllers are made from their roles' names.
const CLUSTER_ROLE_BINDINGS: &[(&str, Subjects)] = &[
    ("cluster-admin", &["g:system:masters"]),
    ("system:basic-user", &["g:system:authenticated"]),
    ("system:cluster-trust-bundle-discovery", &["g:system:serviceaccounts"]),
    ("system:discovery", &["g:system:authenticated"]),
    ("system:kube-controller-manager", &["u:system:kube-controller-manager"]),
    ("system:kube-dns", &["s:kube-system/kube-dns"]),
    ("system:kube-scheduler", &["u:system:kube-scheduler"]),
    ("system:monitoring", &["g:system:monitoring"]),
    ("system:node", &[]),
    // Nodes write the rules of Services themselves: there is no kube-proxy with an identity of its own.
    ("system:node-proxier", &["u:system:kube-proxy", "g:system:nodes"]),
    ("system:public-info-viewer", &["g:system:authenticated", "g:system:unauthenticated"]),
    ("system:service-account-issuer-discovery", &["g:system:serviceaccounts"]),
    ("system:volume-scheduler", &["u:system:kube-scheduler"]),
];

/// RoleBindings: namespace, name, role, subjects.
#[rustfmt::skip]
const ROLE_BINDINGS: &[(&str, &str, &str, Subjects)] = &[
    ("kube-public", "system:controller:bootstrap-signer", "system:controller:bootstrap-signer", &["s:kube-system/bootstrap-signer"]),
    ("kube-system", "system:extension-apiserver-authentication-reader", "extension-apiserver-authentication-reader", &["u:system:kube-controller-manager", "u:system:kube-scheduler"]),
    ("kube-system", "system::leader-locking-kube-controller-manager", "system::leader-locking-kube-controller-manager", &["u:system:kube-controller-manager", "s:kube-system/kube-controller-manager"]),
    ("kube-system", "system::leader-locking-kube-scheduler", "system::leader-locking-kube-scheduler", &["u:system:kube-scheduler", "s:kube-system/kube-scheduler"]),
    ("kube-system", "system:controller:bootstrap-signer", "system:controller:bootstrap-signer", &["s:kube-system/bootstrap-signer"]),
    ("kube-system", "system:controller:cloud-provider", "system:controller:cloud-provider", &["s:kube-system/cloud-provider"]),
    ("kube-system", "system:controller:token-cleaner", "system:controller:token-cleaner", &["s:kube-system/token-cleaner"]),
];

fn policy(rule: &Rule) -> PolicyRule {
    let words = |words: Words| words.iter().map(|word| (*word).to_owned()).collect();
    PolicyRule {
        verbs: words(rule.verbs),
        api_groups: words(rule.groups),
        resources: words(rule.resources),
        resource_names: words(rule.names),
        non_resource_urls: words(rule.urls),
    }
}

/// The rules by which the node authorizer judges what is the same for every node.
pub(super) fn node_rules() -> &'static [PolicyRule] {
    static RULES: OnceLock<Vec<PolicyRule>> = OnceLock::new();
    RULES.get_or_init(|| NODE_RULES.iter().map(policy).collect())
}

/// An object of the table: resource, namespace, name, and the object without uid and times.
pub(super) struct DefaultObject {
    pub(super) resource: &'static str,
    pub(super) namespace: &'static str,
    pub(super) name: String,
    pub(super) object: Value,
}

fn default(
    resource: &'static str,
    kind: &str,
    namespace: &'static str,
    name: &str,
    fields: Value,
) -> DefaultObject {
    let mut metadata = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    let mut object = Map::new();
    object.insert("apiVersion".into(), "rbac.authorization.k8s.io/v1".into());
    object.insert("kind".into(), kind.into());
    object.insert("metadata".into(), metadata);
    if let Value::Object(fields) = fields {
        object.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
    }
    DefaultObject { resource, namespace, name: name.to_owned(), object: Value::Object(object) }
}

fn subjects(list: Subjects) -> Value {
    let group = "rbac.authorization.k8s.io";
    let subject = |text: &&str| match text.split_once(':') {
        Some(("u", name)) => json!({"apiGroup": group, "kind": "User", "name": name}),
        Some(("g", name)) => json!({"apiGroup": group, "kind": "Group", "name": name}),
        Some((_, account)) => {
            let (namespace, name) = account.split_once('/').unwrap_or(("", account));
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
        None => Value::Null,
    };
    if list.is_empty() { Value::Null } else { list.iter().map(subject).collect() }
}

fn role_ref(kind: &str, name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name})
}

/// All objects of the table.
pub(super) fn all() -> Vec<DefaultObject> {
    let rules = |rules: &[Rule]| {
        serde_json::to_value(rules.iter().map(policy).collect::<Vec<_>>()).unwrap_or_default()
    };
    let mut out = Vec::new();
    for ClusterRole(name, to, by, list) in CLUSTER_ROLES {
        let mut fields = json!({"rules": rules(list)});
        if !by.is_empty() {
            let selector = json!({"matchLabels": {format!("{AGGREGATE}{by}"): "true"}});
            fields["aggregationRule"] = json!({"clusterRoleSelectors": [selector]});
        }
        let mut role = default("clusterroles", "ClusterRole", "", name, fields);
        if !to.is_empty() {
            role.object["metadata"]["labels"][format!("{AGGREGATE}{to}")] = "true".into();
        }
        out.push(role);
        if let Some(controller) = name.strip_prefix("system:controller:") {
            let account = json!([{"kind": "ServiceAccount", "name": controller, "namespace": "kube-system"}]);
            let fields = json!({"roleRef": role_ref("ClusterRole", name), "subjects": account});
            out.push(default("clusterrolebindings", "ClusterRoleBinding", "", name, fields));
        }
    }
    for (name, list) in CLUSTER_ROLE_BINDINGS {
        let fields = json!({"roleRef": role_ref("ClusterRole", name), "subjects": subjects(list)});
        out.push(default("clusterrolebindings", "ClusterRoleBinding", "", name, fields));
    }
    for (namespace, name, list) in ROLES {
        out.push(default("roles", "Role", namespace, name, json!({"rules": rules(list)})));
    }
    for (namespace, name, role, list) in ROLE_BINDINGS {
        let fields = json!({"roleRef": role_ref("Role", role), "subjects": subjects(list)});
        out.push(default("rolebindings", "RoleBinding", namespace, name, fields));
    }
    out
}

#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::scheme;

fn defaulted(group: &str, plural: &str, mut object: Value) -> Value {
    let resource = scheme::resources().iter().find(|r| r.group == group && r.plural == plural).unwrap();
    apply_defaults(resource, &mut object);
    let once = object.clone();
    apply_defaults(resource, &mut object);
    assert_eq!(once, object, "defaulting twice changes nothing");
    object
}

#[test]
fn img_19_templates_and_init_containers_get_the_policy_too() {
    let template = json!({"spec": {"template": {"spec": {"containers": [{"image": "a:1"}], "initContainers": [{"image": "b"}]}}}});
    let object = defaulted("apps", "deployments", template);
    let spec = &object["spec"]["template"]["spec"];
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(spec["initContainers"][0]["imagePullPolicy"], "Always");
    assert_eq!(object["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    assert!(spec.get("enableServiceLinks").is_none());
    assert_eq!(spec["dnsPolicy"], "ClusterFirst");
}

#[test]
fn img_20_a_policy_that_is_set_stays() {
    let object = defaulted(
        "",
        "pods",
        json!({"spec": {"containers": [{"image": "a:latest", "imagePullPolicy": "Never"}]}}),
    );
    assert_eq!(object["spec"]["containers"][0]["imagePullPolicy"], "Never");
}

#[test]
fn pod_38_probe_defaults_and_requests_from_limits() {
    let object = defaulted(
        "",
        "pods",
        json!({"spec": {"hostNetwork": true, "containers": [{"image": "a",
            "livenessProbe": {"httpGet": {"port": 80}}, "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}]}}),
    );
    let c = &object["spec"]["containers"][0];
    assert_eq!(c["livenessProbe"]["periodSeconds"], 10);
    assert_eq!(c["livenessProbe"]["httpGet"], json!({"port": 80, "path": "/", "scheme": "HTTP"}));
    assert_eq!(c["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
    assert_eq!(c["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
    assert_eq!(object["spec"]["volumes"][0]["emptyDir"], json!({}));
    assert_eq!(object["spec"]["volumes"][1]["secret"]["defaultMode"], 420);
}

#[test]
fn services_jobs_and_the_rest() {
    let service = defaulted("", "services", json!({"spec": {"ports": [{"port": 80}]}}));
    assert_eq!(service["spec"]["ports"][0], json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
    assert_eq!(service["spec"]["internalTrafficPolicy"], "Cluster");
    let job = defaulted("batch", "jobs", json!({"spec": {}}));
    assert_eq!((&job["spec"]["backoffLimit"], &job["spec"]["completions"]), (&json!(6), &json!(1)));
    let ns = defaulted("", "namespaces", json!({"metadata": {"name": "a"}}));
    assert_eq!(ns["metadata"]["labels"]["kubernetes.io/metadata.name"], "a");
    let binding = defaulted(
        "rbac.authorization.k8s.io",
        "rolebindings",
        json!({"roleRef": {"kind": "Role"}, "subjects": [{"kind": "User"}, {"kind": "ServiceAccount"}]}),
    );
    assert_eq!(binding["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    assert!(binding["subjects"][1].get("apiGroup").is_none());
    let policy = defaulted("networking.k8s.io", "networkpolicies", json!({"spec": {"podSelector": {}}}));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
}

#[test]
fn defaults_never_panic_on_empty_objects() {
    for resource in scheme::resources() {
        apply_defaults(resource, &mut json!({}));
        apply_defaults(resource, &mut Value::Null);
    }
}

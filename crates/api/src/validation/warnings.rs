//! What is accepted but deserves a `Warning` header.

use serde_json::Value;

use crate::{
    field::Path,
    meta::{self, items, str_of},
    scheme::Resource,
};

/// (key, text) of node labels that nobody sets any more.
const DEPRECATED_NODE_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];

/// The texts of `Warning` headers for an object that is created or updated.
pub fn warnings(resource: &Resource, object: &Value) -> Vec<String> {
    let mut out = Vec::new();
    match (resource.group, resource.kind) {
        ("", "ComponentStatus") => out.push("v1 ComponentStatus is deprecated in v1.19+".into()),
        ("", "Endpoints") => {
            out.push("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".into());
        }
        ("", "Pod") => pod(&object["spec"], &Path::new("spec"), object, &mut out),
        ("", "ReplicationController")
        | ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job") => {
            let template = object.pointer("/spec/template").unwrap_or(&Value::Null);
            pod(&template["spec"], &Path::new("spec").child("template").child("spec"), template, &mut out);
        }
        ("batch", "CronJob") => {
            let template = object.pointer("/spec/jobTemplate/spec/template").unwrap_or(&Value::Null);
            let path = Path::new("spec").child("jobTemplate").child("spec").child("template").child("spec");
            pod(&template["spec"], &path, template, &mut out);
        }
        ("node.k8s.io", _) => {
            // RTC-06: unlike for pods, the key is not part of the path.
            for text in deprecated_labels(object.pointer("/scheduling/nodeSelector")).map(|(_, text)| text) {
                out.push(format!("scheduling.nodeSelector: {text}"));
            }
        }
        ("", "Service") => {
            let sessions = meta::str_at(object, "/spec/sessionAffinity") == "ClientIP";
            if sessions && meta::str_at(object, "/spec/clusterIP") == "None" {
                out.push("spec.SessionAffinity is ignored for headless services".into());
            }
        }
        _ => {}
    }
    out
}

/// (key, text) of each deprecated label in a selector.
fn deprecated_labels(selector: Option<&Value>) -> impl Iterator<Item = (&str, &'static str)> {
    selector.and_then(Value::as_object).into_iter().flatten().filter_map(|(key, _)| {
        DEPRECATED_NODE_LABELS.iter().find(|(label, _)| label == key).map(|(_, text)| (key.as_str(), *text))
    })
}

fn node_selector(selector: Option<&Value>, path: &Path, out: &mut Vec<String>) {
    out.extend(deprecated_labels(selector).map(|(key, text)| format!("{}: {text}", path.key(key))));
}

fn pod(spec: &Value, path: &Path, object: &Value, out: &mut Vec<String>) {
    node_selector(spec.get("nodeSelector"), &path.child("nodeSelector"), out);
    let secrets = items(spec, "imagePullSecrets");
    for (i, secret) in secrets.iter().enumerate() {
        let (name, at) = (str_of(secret, "name"), path.child("imagePullSecrets").index(i).child("name"));
        if name.is_empty() {
            out.push(format!("{at}: invalid empty name \"\""));
        } else if secrets[..i].iter().any(|s| str_of(s, "name") == name) {
            let at = path.child("imagePullSecrets").index(i).child("name");
            out.push(format!("{at}: duplicate name \"{name}\""));
        }
    }
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|n| n < 0) {
        let at = path.child("terminationGracePeriodSeconds");
        out.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for field in ["containers", "initContainers"] {
        for (i, container) in items(spec, field).iter().enumerate() {
            let path = path.child(field).index(i);
            let env = items(container, "env");
            for (j, variable) in env.iter().enumerate() {
                let name = str_of(variable, "name");
                if env[..j].iter().any(|v| str_of(v, "name") == name) {
                    let at = path.child("env").index(j);
                    out.push(format!(
                        "{at}: hides previous definition of \"{name}\", which may be dropped when using apply"
                    ));
                }
            }
            let ports = items(container, "ports");
            for (j, port) in ports.iter().enumerate() {
                let number = port.get("containerPort");
                let same = |p: &&Value| {
                    p.get("containerPort") == number && str_of(p, "protocol") == str_of(port, "protocol")
                };
                if let Some(first) = ports[..j].iter().position(|p| same(&p)) {
                    let at = path.child("ports").index(j);
                    out.push(format!(
                        "{at}: duplicate port definition with {}",
                        path.child("ports").index(first)
                    ));
                }
            }
        }
    }
    for (i, alias) in items(spec, "hostAliases").iter().enumerate() {
        let ip = str_of(alias, "ip");
        if items(spec, "hostAliases")[..i].iter().any(|a| str_of(a, "ip") == ip) {
            out.push(format!("{}: duplicate ip \"{ip}\"", path.child("hostAliases").index(i).child("ip")));
        }
    }
    for (i, volume) in items(spec, "volumes").iter().enumerate() {
        let at = path.child("volumes").index(i);
        if volume.get("gitRepo").is_some() {
            out.push(format!(
                "{}: deprecated in v1.11, and disabled by default in v1.33+",
                at.child("gitRepo")
            ));
        }
    }
    for key in meta::annotations(object).into_iter().flatten().map(|(key, _)| key) {
        if key.starts_with("container.seccomp.security.alpha.kubernetes.io/")
            || key == "seccomp.security.alpha.kubernetes.io/pod"
        {
            out.push(format!("metadata.annotations[{key}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"));
        }
    }
}

//! Pods and the pod templates of workloads: containers, probes, volumes.

use serde_json::{Value, json};

use super::{default_pull_policy, each, field_mut, set, set_text};
use crate::meta::str_of;

/// A Pod: its spec, and what is only for pods (not for templates).
pub(super) fn pod(object: &mut Value) {
    let spec = field_mut(object, "spec");
    set(spec, "enableServiceLinks", true);
    pod_spec(spec);
    for list in ["containers", "initContainers"] {
        each(spec, list).for_each(requests_from_limits);
    }
    if spec.get("resources").is_some() {
        pod_requests_from_limits(spec);
    }
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        for list in ["containers", "initContainers"] {
            for port in each(spec, list).flat_map(|c| each(c, "ports")) {
                host_port(port);
            }
        }
    }
    if let Some(status) = object.get_mut("status").filter(|s| s.is_object()) {
        set_text(status, "phase", "Pending");
    }
}

/// A pod template within a workload.
pub(super) fn template(template: &mut Value) {
    pod_spec(field_mut(template, "spec"));
}

/// The template in `spec.template`.
pub(super) fn template_of(object: &mut Value) {
    template(field_mut(field_mut(object, "spec"), "template"));
}

fn pod_spec(spec: &mut Value) {
    set_text(spec, "dnsPolicy", "ClusterFirst");
    set_text(spec, "restartPolicy", "Always");
    set(spec, "securityContext", json!({}));
    set(spec, "terminationGracePeriodSeconds", 30);
    set_text(spec, "schedulerName", "default-scheduler");
    mirror_service_account(spec);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        each(spec, list).for_each(container);
    }
    each(spec, "volumes").for_each(volume);
}

/// `serviceAccount` is the old name of `serviceAccountName`: both are always there.
pub(crate) fn mirror_service_account(spec: &mut Value) {
    let (new, old) =
        (str_of(spec, "serviceAccountName").to_owned(), str_of(spec, "serviceAccount").to_owned());
    if !new.is_empty() {
        spec["serviceAccount"] = new.into();
    } else if !old.is_empty() {
        spec["serviceAccountName"] = old.into();
    }
}

fn container(container: &mut Value) {
    if str_of(container, "imagePullPolicy").is_empty() {
        let policy = default_pull_policy(str_of(container, "image"));
        container["imagePullPolicy"] = policy.into();
    }
    set_text(container, "terminationMessagePath", "/dev/termination-log");
    set_text(container, "terminationMessagePolicy", "File");
    set(container, "resources", json!({}));
    for port in each(container, "ports") {
        set_text(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        let Some(from) = variable.get_mut("valueFrom") else { continue };
        if let Some(field) = from.get_mut("fieldRef") {
            set_text(field, "apiVersion", "v1");
        }
        if let Some(resource) = from.get_mut("resourceFieldRef") {
            set(resource, "divisor", "0");
        }
        if let Some(file) = from.get_mut("fileKeyRef") {
            set(file, "optional", false);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe) else { continue };
        for (field, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            if probe.get(field).and_then(Value::as_i64).unwrap_or(0) == 0 {
                probe[field] = value.into();
            }
        }
        handler(probe);
        if let Some(grpc) = probe.get_mut("grpc") {
            set(grpc, "service", "");
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = container.pointer_mut(&format!("/lifecycle/{hook}")) {
            handler(hook);
        }
    }
}

fn handler(handler: &mut Value) {
    if let Some(http) = handler.get_mut("httpGet") {
        set_text(http, "path", "/");
        set_text(http, "scheme", "HTTP");
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container.pointer("/resources/limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let requests = crate::meta::object_mut(field_mut(field_mut(container, "resources"), "requests"));
    for (name, quantity) in limits {
        requests.entry(name).or_insert(quantity);
    }
}

/// Pod-level requests (KEP-2837): from the containers' sums, else from the pod's limits.
fn pod_requests_from_limits(spec: &mut Value) {
    let Some(limits) = spec.pointer("/resources/limits").and_then(Value::as_object).cloned() else { return };
    let bare = json!({"spec": {"containers": spec["containers"], "initContainers": spec["initContainers"]}});
    let sums = crate::resources::pod_requests(&bare);
    let requests = crate::meta::object_mut(field_mut(field_mut(spec, "resources"), "requests"));
    for (name, quantity) in limits.into_iter().filter(|(name, _)| crate::resources::is_pod_level(name)) {
        let value = sums.get(&name).map_or(quantity, |sum| sum.to_value());
        requests.entry(name).or_insert(value);
    }
}

fn host_port(port: &mut Value) {
    let unset = port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0;
    if let (true, Some(n)) = (unset, port.get("containerPort").cloned()) {
        port["hostPort"] = n;
    }
}

fn volume(volume: &mut Value) {
    let Some(map) = volume.as_object() else { return };
    if map.keys().all(|k| k == "name") {
        volume["emptyDir"] = json!({});
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            set(source, "defaultMode", 420);
        }
    }
    if let Some(down) = volume.get_mut("downwardAPI") {
        each(down, "items").for_each(downward_item);
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in each(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                set(token, "expirationSeconds", 3600);
            }
            if let Some(down) = source.get_mut("downwardAPI") {
                each(down, "items").for_each(downward_item);
            }
        }
    }
    if let Some(path) = volume.get_mut("hostPath") {
        set(path, "type", "");
    }
    if let Some(image) = volume.get_mut("image") {
        let policy = default_pull_policy(str_of(image, "reference"));
        set_text(image, "pullPolicy", policy);
    }
    if let Some(iscsi) = volume.get_mut("iscsi") {
        set_text(iscsi, "iscsiInterface", "default");
    }
    if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate") {
        set(field_mut(claim, "spec"), "volumeMode", "Filesystem");
    }
}

fn downward_item(item: &mut Value) {
    if let Some(field) = item.get_mut("fieldRef") {
        set_text(field, "apiVersion", "v1");
    }
    if let Some(resource) = item.get_mut("resourceFieldRef") {
        set(resource, "divisor", "0");
    }
}

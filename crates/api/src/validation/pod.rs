//! Pods and pod templates (`ValidatePodSpec`): the whole spec, in upstream's order.

mod container;
mod env;
mod network;
mod probe;
mod projected;
mod resize;
mod resources;
mod restart;
mod scheduling;
mod security;
mod update;
mod volume;

use serde_json::Value;

use super::{Errors, invalid_all, labels, one_of};
use crate::{
    FieldError,
    field::Path,
    meta::{items, str_of},
    names,
};

pub(super) use resize::validate_resize;
pub(super) use resources::resource_name;
pub(super) use scheduling::tolerations;
pub(super) use update::{validate_ephemeral_update, validate_status_update, validate_update};

pub(super) fn validate(object: &Value, out: &mut Errors) {
    spec(&object["spec"], &Path::new("spec"), true, out);
}

/// A pod spec; `pod` is false within templates, where some checks wait for the pod.
pub(super) fn spec(spec: &Value, path: &Path, pod: bool, out: &mut Errors) {
    let volumes = volume::volumes(items(spec, "volumes"), &path.child("volumes"), pod, out);
    let known = container::Known {
        volumes,
        grace: spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30),
        os: spec.get("os").map(|os| str_of(os, "name").to_owned()).unwrap_or_default(),
        pod,
        restart_policy: str_of(spec, "restartPolicy").to_owned(),
        host_network: spec.get("hostNetwork").and_then(Value::as_bool) == Some(true),
        own_users: spec.get("hostUsers").and_then(Value::as_bool) == Some(false),
    };
    container::containers(spec, path, &known, out);
    container::init_containers(spec, path, &known, out);
    container::ephemeral_containers(spec, path, &known, out);
    env::files(spec, path, out);

    let required = |field: &str, supported: &[&str], out: &mut Errors| match str_of(spec, field) {
        "" => out.push(FieldError::required(path.child(field), "")),
        value => one_of(value, supported, &path.child(field), out),
    };
    required("restartPolicy", &["Always", "OnFailure", "Never"], out);
    required("dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], out);
    labels(spec.get("nodeSelector"), &path.child("nodeSelector"), out);
    security::pod(spec, path, out);
    scheduling::affinity(&spec["affinity"], &path.child("affinity"), out);
    network::dns_config(spec, path, out);
    for (i, gate) in items(spec, "readinessGates").iter().enumerate() {
        let kind = str_of(gate, "conditionType");
        let at = path.child("readinessGates").index(i).child("conditionType");
        invalid_all(names::qualified_name(kind), kind, &at, out);
    }
    scheduling::gates(items(spec, "schedulingGates"), &path.child("schedulingGates"), out);
    scheduling::spread(
        items(spec, "topologySpreadConstraints"),
        &path.child("topologySpreadConstraints"),
        out,
    );
    for (field, check) in [
        ("serviceAccountName", names::dns1123_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns1123_subdomain),
        ("priorityClassName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
    ] {
        let value = str_of(spec, field);
        if !value.is_empty() {
            invalid_all(check(value), value, &path.child(field), out);
        }
    }
    if let Some(n) = spec.get("activeDeadlineSeconds").and_then(Value::as_i64)
        && !(1..=i64::from(i32::MAX)).contains(&n)
    {
        let message = "must be between 1 and 2147483647, inclusive";
        out.push(FieldError::invalid(path.child("activeDeadlineSeconds"), n, message));
    }
    tolerations(items(spec, "tolerations"), &path.child("tolerations"), out);
    network::host_aliases(spec, path, out);
    network::hostname_override(spec, path, out);
    let preemption = str_of(spec, "preemptionPolicy");
    if !preemption.is_empty() {
        one_of(preemption, &["Never", "PreemptLowerPriority"], &path.child("preemptionPolicy"), out);
    }
    super::quantities(spec.get("overhead"), &path.child("overhead"), out);
    if let Some(os) = spec.get("os") {
        let at = path.child("os").child("name");
        match str_of(os, "name") {
            "" => out.push(FieldError::required(at, "")),
            name => one_of(name, &["linux", "windows"], &at, out),
        }
    }
    if let Some(own) = spec.get("resources") {
        resources::requirements(own, &path.child("resources"), true, out);
    }
}

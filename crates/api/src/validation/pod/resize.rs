//! What a write through `/resize` may change (KEP-1287): cpu and memory of containers and sidecars, and of the pod
//! as a whole (KEP-5419); the quality-of-service class stays, and what was asked for once is asked for ever.

use serde_json::{Map, Value};

use crate::{
    FieldError,
    field::Path,
    meta::{self, items, list, object_mut, str_of},
    resources::is_sidecar,
    validation::{Errors, one_of},
};

/// The annotation of the API's picture of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";
const PARTS: [&str; 2] = ["requests", "limits"];

/// The findings on the new spec and on the way from the old one, in upstream's words.
pub(in crate::validation) fn validate_resize(new: &Value, old: &Value, out: &mut Errors) {
    let spec = Path::new("spec");
    super::spec(&new["spec"], &spec, true, out);
    if meta::annotation(old, MIRROR).is_some() {
        out.push(FieldError::forbidden("", "static pods cannot be resized"));
        return;
    }
    if meta::str_at(old, "/spec/os/name") == "windows" {
        out.push(FieldError::forbidden("", "windows pods cannot be resized"));
        return;
    }
    if crate::qos::of(new) != crate::qos::recorded_or_computed(old) {
        let class = crate::qos::of(new).as_str();
        out.push(FieldError::invalid(&spec, class, "Pod QOS Class may not change as a result of resizing"));
    }
    if !is_supported(old) {
        out.push(FieldError::forbidden(&spec, "Pod running on node without support for resize"));
    }
    pod_level(new, old, &spec, out);
    if !same_containers(new, old, &spec, out) {
        return;
    }
    let found = out.len();
    for field in ["initContainers", "containers"] {
        let pairs = list(old, &format!("/spec/{field}")).iter().zip(list(new, &format!("/spec/{field}")));
        for (index, (before, after)) in pairs.enumerate() {
            let at = spec.child(field).index(index);
            removals(
                before.get("resources"),
                after.get("resources"),
                &at.child("resources"),
                "resource",
                out,
            );
            if without_amounts(after) == without_amounts(before) {
                let frozen = field == "initContainers" && !is_sidecar(before) && after != before;
                if frozen {
                    let text = "resources for non-sidecar init containers are immutable";
                    out.push(FieldError::forbidden(&at, text));
                }
            } else if field == "initContainers" {
                let text = "only cpu and memory resources for sidecar containers are mutable";
                out.push(FieldError::forbidden(&at, text));
            } else {
                out.push(FieldError::forbidden(&spec, "only cpu and memory resources are mutable"));
            }
        }
    }
    let rest = |pod: &Value| {
        let mut rest = pod["spec"].clone();
        for field in ["resources", "initContainers", "containers"] {
            object_mut(&mut rest).remove(field);
        }
        rest
    };
    if out.len() == found && rest(new) != rest(old) {
        out.push(FieldError::forbidden(&spec, "only cpu and memory resources are mutable"));
    }
}

/// `resizePolicy` of a container that is restarted as `restarts` says.
pub(super) fn policies(container: &Value, restarts: &str, path: &Path, out: &mut Errors) {
    let mut seen = Vec::new();
    for (index, policy) in items(container, "resizePolicy").iter().enumerate() {
        let name = str_of(policy, "resourceName");
        if seen.contains(&name) {
            out.push(FieldError::duplicate(path.index(index), name));
        }
        seen.push(name);
        let action = str_of(policy, "restartPolicy");
        for (value, supported) in [(name, ["cpu", "memory"]), (action, ["NotRequired", "RestartContainer"])] {
            match value {
                "" => out.push(FieldError::required(path, "")),
                value => one_of(value, &supported, path, out),
            }
        }
        if restarts == "Never" && action != "NotRequired" {
            let text = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            out.push(FieldError::invalid(path, action, text));
        }
    }
}

/// A node that resizes says what its containers have.
fn is_supported(pod: &Value) -> bool {
    let mut running = list(pod, "/status/containerStatuses")
        .iter()
        .filter(|status| status.pointer("/state/running").is_some_and(|running| !running.is_null()));
    running.next().is_none_or(|status| status.get("resources").is_some())
}

fn pod_level(new: &Value, old: &Value, spec: &Path, out: &mut Errors) {
    let (before, after) = (old.pointer("/spec/resources"), new.pointer("/spec/resources"));
    let at = spec.child("resources");
    if before.is_some() && after.is_none() {
        out.push(FieldError::forbidden(&at, "pod-level resources cannot be removed"));
        return;
    }
    removals(before, after, &at, "pod-level resource", out);
    let rest = |resources: Option<&Value>| -> Map<String, Value> {
        let holder = serde_json::json!({ "resources": resources });
        without_amounts(&holder)["resources"].as_object().cloned().unwrap_or_default()
    };
    if rest(before) != rest(after) {
        out.push(FieldError::forbidden(spec, "only cpu and memory resources are mutable at pod-level"));
    }
}

/// Whether the containers are the same ones, in the same order.
fn same_containers(new: &Value, old: &Value, spec: &Path, out: &mut Errors) -> bool {
    let found = out.len();
    for field in ["containers", "initContainers"] {
        let names = |pod: &'_ Value| -> Vec<String> {
            list(pod, &format!("/spec/{field}")).iter().map(|c| str_of(c, "name").to_owned()).collect()
        };
        let (have, had) = (names(new), names(old));
        let at = spec.child(field);
        if have.len() != had.len() {
            let text = format!("{field} may not be added or removed on resize");
            out.push(FieldError::forbidden(&at, text));
            continue;
        }
        for index in (0..had.len()).filter(|index| have[*index] != had[*index]) {
            let text = format!("{field} may not be renamed or reordered on resize");
            out.push(FieldError::forbidden(at.index(index).child("name"), text));
        }
    }
    out.len() == found
}

/// A request or limit that was there cannot go away.
fn removals(before: Option<&Value>, after: Option<&Value>, at: &Path, what: &str, out: &mut Errors) {
    for part in PARTS {
        let of = |resources: Option<&Value>| {
            resources.and_then(|r| r.get(part)).and_then(Value::as_object).cloned().unwrap_or_default()
        };
        let (had, have) = (of(before), of(after));
        if had.keys().any(|name| !have.contains_key(name)) {
            out.push(FieldError::forbidden(at.child(part), format!("{what} {part} cannot be removed")));
        }
    }
}

/// A container without what may change in it, and without lists that this leaves empty.
fn without_amounts(container: &Value) -> Value {
    let mut container = container.clone();
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else {
        return container;
    };
    for part in PARTS {
        let Some(amounts) = resources.get_mut(part).and_then(Value::as_object_mut) else { continue };
        amounts.remove("cpu");
        amounts.remove("memory");
        if amounts.is_empty() {
            resources.remove(part);
        }
    }
    container
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        let both = json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}});
        let container = |name: &str| {
            json!({"name": name, "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
                "resources": both})
        };
        let mut sidecar = container("s");
        sidecar["restartPolicy"] = "Always".into();
        json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [container("c"), container("d")], "initContainers": [container("i"), sidecar],
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst"},
            "status": {"qosClass": "Burstable"},
        })
    }

    /// What is said about a change.
    fn said(change: impl Fn(&mut Value)) -> Vec<String> {
        let old = pod();
        let mut new = pod();
        change(&mut new);
        let mut out = Errors::new();
        validate_resize(&new, &old, &mut out);
        out.iter().map(ToString::to_string).collect()
    }

    fn set(pod: &mut Value, pointer: &str, value: &str) {
        *pod.pointer_mut(pointer).unwrap() = value.into();
    }

    #[test]
    fn cpu_and_memory_of_containers_and_sidecars_may_change() {
        let found = said(|pod| {
            set(pod, "/spec/containers/0/resources/limits/cpu", "1");
            set(pod, "/spec/containers/1/resources/requests/memory", "32Mi");
            set(pod, "/spec/initContainers/1/resources/limits/memory", "1Gi");
        });
        assert_eq!(found, [] as [String; 0]);
    }

    type Change = fn(&mut Value);

    #[test]
    fn what_else_changes_is_refused_in_upstreams_words() {
        let cases: [(Change, &str); 8] = [
            (
                |pod| set(pod, "/spec/containers/0/image", "j"),
                "spec: Forbidden: only cpu and memory resources are mutable",
            ),
            (
                |pod| pod["spec"]["containers"][0]["resources"]["limits"]["ephemeral-storage"] = "1Gi".into(),
                "spec: Forbidden: only cpu and memory resources are mutable",
            ),
            (
                |pod| set(pod, "/spec/initContainers/0/resources/limits/cpu", "1"),
                "spec.initContainers[0]: Forbidden: resources for non-sidecar init containers are immutable",
            ),
            (
                |pod| {
                    object_mut(&mut pod["spec"]["containers"][1]["resources"]["requests"]).remove("memory");
                },
                "spec.containers[1].resources.requests: Forbidden: resource requests cannot be removed",
            ),
            (
                |pod| {
                    object_mut(&mut pod["spec"]["containers"][1]["resources"]).remove("limits");
                },
                "spec.containers[1].resources.limits: Forbidden: resource limits cannot be removed",
            ),
            (
                |pod| pod["spec"]["containers"].as_array_mut().unwrap().reverse(),
                "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
            ),
            (
                |pod| drop(pod["spec"]["containers"].as_array_mut().unwrap().pop()),
                "spec.containers: Forbidden: containers may not be added or removed on resize",
            ),
            (
                |pod| set(pod, "/spec/containers/0/resources/requests/cpu", "1"),
                "must be less than or equal to cpu limit of 200m",
            ),
        ];
        for (change, text) in cases {
            let found = said(change);
            assert!(found.iter().any(|finding| finding.contains(text)), "{text}: {found:#?}");
        }
    }

    #[test]
    fn a_policy_is_one_of_two_for_one_of_two_resources() {
        let found = |policy: Value, restarts: &str| {
            let mut out = Errors::new();
            policies(&json!({"resizePolicy": [policy]}), restarts, &Path::new("p"), &mut out);
            out.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let restart = json!({"resourceName": "memory", "restartPolicy": "RestartContainer"});
        assert_eq!(found(restart.clone(), "Always"), "");
        assert!(found(restart, "Never").contains("must be 'NotRequired' when `restartPolicy` is 'Never'"));
        let other = json!({"resourceName": "pods", "restartPolicy": "NotRequired"});
        assert!(found(other, "Always").contains(r#"Unsupported value: "pods""#));
    }

    #[test]
    fn the_class_stays_and_static_pods_are_their_files() {
        let found = said(|pod| {
            for list in ["containers", "initContainers"] {
                for container in pod["spec"][list].as_array_mut().unwrap() {
                    container["resources"]["requests"]["cpu"] = "200m".into();
                }
            }
        });
        let text =
            "spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing";
        assert!(found.iter().any(|finding| finding == text), "{found:#?}");
        let mut old = pod();
        old["metadata"]["annotations"] = json!({MIRROR: "x"});
        let mut out = Errors::new();
        validate_resize(&old, &old, &mut out);
        assert!(out.iter().any(|finding| finding.to_string().contains("static pods cannot be resized")));
    }
}

//! Containers of all three kinds: what they share, and what each may not have.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{env, network, probe, resources, restart, security, volume::VolumeNames};
use crate::{
    FieldError,
    field::Path,
    meta::{items, str_of},
    names,
    validation::{Errors, invalid_all, one_of},
};

/// What containers are checked against.
pub(super) struct Known {
    /// The pod's volumes.
    pub volumes: VolumeNames,
    /// terminationGracePeriodSeconds.
    pub grace: i64,
    /// os.name.
    pub os: String,
    /// False within a template.
    pub pod: bool,
    /// hostNetwork.
    pub host_network: bool,
    /// hostUsers is false.
    pub own_users: bool,
}

pub(super) fn containers(spec: &Value, path: &Path, known: &Known, out: &mut Errors) {
    let list = items(spec, "containers");
    let path = path.child("containers");
    if list.is_empty() {
        out.push(FieldError::required(&path, ""));
    }
    let mut names = BTreeSet::new();
    for (i, container) in list.iter().enumerate() {
        let path = path.index(i);
        common(container, &path, known, out);
        unique(container, &path, &mut names, out);
        probe::lifecycle(container, &path, known.grace, out);
        restart::stop_signal(container, &known.os, &path, out);
        probe::probes(container, &path, out);
    }
    network::host_port_conflicts(list, &path, out);
}

fn unique<'a>(container: &'a Value, path: &Path, names: &mut BTreeSet<&'a str>, out: &mut Errors) {
    let name = str_of(container, "name");
    if !name.is_empty() && !names.insert(name) {
        out.push(FieldError::duplicate(path.child("name"), name));
    }
}

pub(super) fn init_containers(spec: &Value, path: &Path, known: &Known, out: &mut Errors) {
    const MESSAGE: &str = "may not be set for init containers without restartPolicy=Always";
    let mut names: BTreeSet<&str> = items(spec, "containers").iter().map(|c| str_of(c, "name")).collect();
    let list = items(spec, "initContainers");
    let path = path.child("initContainers");
    for (i, container) in list.iter().enumerate() {
        let path = path.index(i);
        common(container, &path, known, out);
        unique(container, &path, &mut names, out);
        if crate::resources::is_sidecar(container) {
            probe::lifecycle(container, &path, known.grace, out);
            restart::stop_signal(container, &known.os, &path, out);
            probe::probes(container, &path, out);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if container.get(field).is_some() {
                out.push(FieldError::forbidden(path.child(field), MESSAGE));
            }
        }
    }
    network::host_port_conflicts(list, &path, out);
}

/// POD-47, HOOK-01.
pub(super) fn ephemeral_containers(spec: &Value, path: &Path, known: &Known, out: &mut Errors) {
    const MESSAGE: &str = "cannot be set for an Ephemeral Container";
    let others = || items(spec, "containers").iter().chain(items(spec, "initContainers"));
    let mut names: BTreeSet<&str> = others().map(|c| str_of(c, "name")).collect();
    for (i, container) in items(spec, "ephemeralContainers").iter().enumerate() {
        let path = path.child("ephemeralContainers").index(i);
        common(container, &path, known, out);
        unique(container, &path, &mut names, out);
        let target = str_of(container, "targetContainerName");
        if !target.is_empty() && !others().any(|c| str_of(c, "name") == target) {
            out.push(FieldError::not_found(path.child("targetContainerName"), target));
        }
        for field in [
            "ports",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "resources",
            "resizePolicy",
            "restartPolicy",
            "restartPolicyRules",
        ] {
            let set = match container.get(field) {
                Some(Value::Object(map)) => !map.is_empty() || field != "resources",
                Some(Value::Array(list)) => !list.is_empty(),
                Some(_) => true,
                None => false,
            };
            if set {
                out.push(FieldError::forbidden(path.child(field), MESSAGE));
            }
        }
        for (i, mount) in items(container, "volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !str_of(mount, field).is_empty() {
                    out.push(FieldError::forbidden(
                        path.child("volumeMounts").index(i).child(field),
                        MESSAGE,
                    ));
                }
            }
        }
    }
}

/// What every container has.
fn common(container: &Value, path: &Path, known: &Known, out: &mut Errors) {
    let name = str_of(container, "name");
    if name.is_empty() {
        out.push(FieldError::required(path.child("name"), ""));
    } else {
        invalid_all(names::dns1123_label(name), name, &path.child("name"), out);
    }
    // IMG-22: nothing more is known about images here.
    let image = str_of(container, "image");
    if image.is_empty() {
        if known.pod {
            out.push(FieldError::required(path.child("image"), ""));
        }
    } else if known.pod && image.trim() != image {
        let message = "must not have leading or trailing whitespace";
        out.push(FieldError::invalid(path.child("image"), image, message));
    }
    let policy = str_of(container, "terminationMessagePolicy");
    if policy.is_empty() {
        out.push(FieldError::required(path.child("terminationMessagePolicy"), ""));
    } else {
        one_of(policy, &["FallbackToLogsOnError", "File"], &path.child("terminationMessagePolicy"), out);
    }
    network::ports(container, &path.child("ports"), known.host_network, out);
    env::variables(container, path, out);
    env::sources(container, path, out);
    known.volumes.mounts(container, path, out);
    // IMG-21
    let pull = str_of(container, "imagePullPolicy");
    if pull.is_empty() {
        out.push(FieldError::required(path.child("imagePullPolicy"), ""));
    } else {
        one_of(pull, &["Always", "IfNotPresent", "Never"], &path.child("imagePullPolicy"), out);
    }
    resources::requirements(&container["resources"], &path.child("resources"), false, out);
    security::container(container, &path.child("securityContext"), known.own_users, out);
    restart::policy(container, path, out);
}

//! Security contexts of pods and containers.

use serde_json::Value;

use crate::{
    FieldError,
    field::Path,
    meta::{items, str_of},
    validation::{Errors, one_of},
};

const ID_RANGE: &str = "must be between 0 and 2147483647, inclusive";

fn id(context: &Value, field: &str, path: &Path, out: &mut Errors) {
    if let Some(n) =
        context.get(field).and_then(Value::as_i64).filter(|n| !(0..=i64::from(i32::MAX)).contains(n))
    {
        out.push(FieldError::invalid(path.child(field), n, ID_RANGE));
    }
}

fn on(object: &Value, field: &str) -> bool {
    object.get(field).and_then(Value::as_bool) == Some(true)
}

/// The pod's `securityContext` and the host namespaces.
pub(super) fn pod(spec: &Value, path: &Path, out: &mut Errors) {
    let context = &spec["securityContext"];
    let path_context = path.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(context, field, &path_context, out);
    }
    for (i, group) in items(context, "supplementalGroups").iter().enumerate() {
        let n = group.as_i64().unwrap_or(0);
        if !(0..=i64::from(i32::MAX)).contains(&n) {
            out.push(FieldError::invalid(path_context.child("supplementalGroups").index(i), n, ID_RANGE));
        }
    }
    if on(spec, "shareProcessNamespace") && on(spec, "hostPID") {
        let message = "ShareProcessNamespace and HostPID cannot both be enabled";
        out.push(FieldError::invalid(path.child("shareProcessNamespace"), true, message));
    }
    if spec.get("hostUsers").and_then(Value::as_bool) == Some(false) {
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if on(spec, field) {
                out.push(FieldError::forbidden(path.child(field), "when `hostUsers` is false"));
            }
        }
    }
    sysctls(
        items(context, "sysctls"),
        &path_context.child("sysctls"),
        on(spec, "hostNetwork"),
        on(spec, "hostIPC"),
        out,
    );
    for (field, supported) in [
        ("fsGroupChangePolicy", ["Always", "OnRootMismatch"].as_slice()),
        ("supplementalGroupsPolicy", &["Merge", "Strict"]),
        ("seLinuxChangePolicy", &["MountOption", "Recursive"]),
    ] {
        let value = str_of(context, field);
        if !value.is_empty() {
            one_of(value, supported, &path_context.child(field), out);
        }
    }
    profiles(context, &path_context, out);
}

fn sysctls(list: &[Value], path: &Path, host_network: bool, host_ipc: bool, out: &mut Errors) {
    for (i, sysctl) in list.iter().enumerate() {
        let (at, name) = (path.index(i).child("name"), str_of(sysctl, "name"));
        if name.is_empty() {
            out.push(FieldError::required(&at, ""));
            continue;
        }
        if !sysctl_name(name) {
            let message = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            out.push(FieldError::invalid(&at, name, message));
        } else if list[..i].iter().any(|s| str_of(s, "name") == name) {
            out.push(FieldError::duplicate(&at, name));
        }
        let dotted = name.replace('/', ".");
        let ipc =
            ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|p| dotted.starts_with(p));
        if host_network && dotted.starts_with("net.") {
            out.push(FieldError::invalid(&at, name, "may not be specified when 'hostNetwork' is true"));
        }
        if host_ipc && ipc {
            out.push(FieldError::invalid(&at, name, "may not be specified when 'hostIPC' is true"));
        }
    }
}

fn sysctl_name(name: &str) -> bool {
    let alnum = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253
        && name.split(['.', '/']).all(|segment| {
            let b = segment.as_bytes();
            b.first().is_some_and(|c| alnum(*c))
                && b.last().is_some_and(|c| alnum(*c))
                && b.iter().all(|c| alnum(*c) || matches!(c, b'-' | b'_'))
        })
}

/// Seccomp and AppArmor profiles, alike in both contexts.
fn profiles(context: &Value, path: &Path, out: &mut Errors) {
    for field in ["seccompProfile", "appArmorProfile"] {
        let Some(profile) = context.get(field) else { continue };
        let path = path.child(field);
        let (kind, local) = (str_of(profile, "type"), str_of(profile, "localhostProfile"));
        if kind.is_empty() {
            out.push(FieldError::required(path.child("type"), "type is required when seccompProfile is set"));
            continue;
        }
        one_of(kind, &["Localhost", "RuntimeDefault", "Unconfined"], &path.child("type"), out);
        let at = path.child("localhostProfile");
        if kind == "Localhost" {
            if local.is_empty() {
                out.push(FieldError::required(at, "must be set when type is Localhost"));
            } else if field == "seccompProfile" {
                super::volume::descending(local, &at, out);
            }
        } else if profile.get("localhostProfile").is_some() {
            let message = match field {
                "seccompProfile" => "can only be set when seccomp type is Localhost",
                _ => "can only be set when type is Localhost",
            };
            out.push(FieldError::invalid(at, local, message));
        }
    }
}

/// A container's `securityContext`.
pub(super) fn container(container: &Value, path: &Path, own_users: bool, out: &mut Errors) {
    let Some(context) = container.get("securityContext") else { return };
    for field in ["runAsUser", "runAsGroup"] {
        id(context, field, path, out);
    }
    let mount = str_of(context, "procMount");
    if !mount.is_empty() {
        one_of(mount, &["Default", "Unmasked"], &path.child("procMount"), out);
    }
    if mount == "Unmasked" && !own_users {
        // Nothing but a user namespace keeps the files in /proc from the container then.
        let message = "`hostUsers` must be false to use `Unmasked`";
        out.push(FieldError::invalid(path.child("procMount"), mount, message));
    }
    profiles(context, path, out);
    if context.get("allowPrivilegeEscalation").and_then(Value::as_bool) == Some(false) {
        if on(context, "privileged") {
            let message = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            out.push(FieldError::invalid(path, context.clone(), message));
        }
        let adds = items(&context["capabilities"], "add");
        if adds.iter().any(|c| c.as_str() == Some("CAP_SYS_ADMIN")) {
            let message =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            out.push(FieldError::invalid(path, context.clone(), message));
        }
    }
}

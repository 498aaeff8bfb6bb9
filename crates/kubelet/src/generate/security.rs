//! Security contexts: the pod's and the container's merged, as the CRI wants them, and the check that a
//! container which must not run as root does not (ENV-03).

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile, SecurityContext};
use sampan_cri::v1;

use crate::pod_ref;

/// What the runtime masks in `/proc` and `/sys` unless `procMount: Unmasked`.
const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// What it makes read-only.
const READONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The namespaces that the pod shares with the host or between its containers; `user` is its own user namespace.
#[must_use]
pub fn namespace_options(pod: &Pod, user: Option<v1::UserNamespace>) -> v1::NamespaceOption {
    let spec = pod_ref::spec(pod);
    let host = |wanted: Option<bool>, otherwise: v1::NamespaceMode| {
        if wanted == Some(true) { v1::NamespaceMode::Node as i32 } else { otherwise as i32 }
    };
    let pid = if spec.share_process_namespace == Some(true) {
        v1::NamespaceMode::Pod
    } else {
        v1::NamespaceMode::Container
    };
    v1::NamespaceOption {
        network: host(spec.host_network, v1::NamespaceMode::Pod),
        pid: host(spec.host_pid, pid),
        ipc: host(spec.host_ipc, v1::NamespaceMode::Pod),
        userns_options: user,
        ..Default::default()
    }
}

/// Where Localhost seccomp profiles are, below the kubelet's root directory.
fn seccomp_profile(profile: Option<&SeccompProfile>, seccomp_root: &str) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let (profile_type, localhost_ref) = match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, String::new()),
        Some("Localhost") => {
            let file = profile.and_then(|profile| profile.localhost_profile.as_deref()).unwrap_or_default();
            (ProfileType::Localhost, format!("{seccomp_root}/{file}"))
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    v1::SecurityProfile { profile_type: profile_type as i32, localhost_ref }
}

fn selinux(options: Option<&k8s_openapi::api::core::v1::SELinuxOptions>) -> Option<v1::SeLinuxOption> {
    options.map(|options| v1::SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    })
}

fn int64(value: Option<i64>) -> Option<v1::Int64Value> {
    value.map(|value| v1::Int64Value { value })
}

fn groups_policy(pod: &Pod) -> i32 {
    let policy = pod_ref::spec(pod)
        .security_context
        .as_ref()
        .and_then(|context| context.supplemental_groups_policy.as_deref());
    match policy {
        Some("Strict") => v1::SupplementalGroupsPolicy::Strict as i32,
        _ => v1::SupplementalGroupsPolicy::Merge as i32,
    }
}

/// `fsGroup` and `supplementalGroups`.
fn supplemental_groups(pod: &Pod) -> Vec<i64> {
    let context = pod_ref::spec(pod).security_context.as_ref();
    let mut groups: Vec<i64> =
        context.and_then(|context| context.supplemental_groups.clone()).unwrap_or_default();
    if let Some(fs_group) = context.and_then(|context| context.fs_group)
        && !groups.contains(&fs_group)
    {
        groups.push(fs_group);
    }
    groups
}

/// The sandbox's context.
#[must_use]
pub fn sandbox(
    pod: &Pod,
    seccomp_root: &str,
    user_namespace: Option<v1::UserNamespace>,
) -> v1::LinuxSandboxSecurityContext {
    let spec = pod_ref::spec(pod);
    let context = spec.security_context.as_ref();
    let privileged = pod_ref::containers(pod).iter().chain(pod_ref::init_containers(pod)).any(|container| {
        container.security_context.as_ref().and_then(|context| context.privileged) == Some(true)
    });
    // The sandbox itself is always confined as tightly as the runtime can, whatever its containers ask for,
    // unless the pod asks for something else.
    let seccomp = match context.and_then(|context| context.seccomp_profile.as_ref()) {
        Some(profile) => seccomp_profile(Some(profile), seccomp_root),
        None => v1::SecurityProfile {
            profile_type: v1::security_profile::ProfileType::RuntimeDefault as i32,
            localhost_ref: String::new(),
        },
    };
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespace_options(pod, user_namespace)),
        selinux_options: selinux(context.and_then(|context| context.se_linux_options.as_ref())),
        run_as_user: int64(context.and_then(|context| context.run_as_user)),
        run_as_group: int64(context.and_then(|context| context.run_as_group)),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        privileged,
        seccomp: Some(seccomp),
        ..Default::default()
    }
}

/// The container's context; `image_user` decides where nothing else does.
#[must_use]
pub fn container(
    pod: &Pod,
    container: &Container,
    target_id: Option<&str>,
    seccomp_root: &str,
    user_namespace: Option<v1::UserNamespace>,
) -> v1::LinuxContainerSecurityContext {
    let pod_context = pod_ref::spec(pod).security_context.as_ref();
    let context = container.security_context.as_ref();
    let run_as_user = run_as_user(pod, container);
    let run_as_group = context
        .and_then(|context| context.run_as_group)
        .or_else(|| pod_context.and_then(|context| context.run_as_group));
    let seccomp = context
        .and_then(|context| context.seccomp_profile.as_ref())
        .or_else(|| pod_context.and_then(|context| context.seccomp_profile.as_ref()));
    let selinux_options = context
        .and_then(|context| context.se_linux_options.as_ref())
        .or_else(|| pod_context.and_then(|context| context.se_linux_options.as_ref()));
    let privileged = context.and_then(|context| context.privileged).unwrap_or(false);
    let unmasked = context.and_then(|context| context.proc_mount.as_deref()) == Some("Unmasked");
    let paths = |paths: &[&str]| -> Vec<String> {
        if unmasked || privileged {
            Vec::new()
        } else {
            paths.iter().map(|path| (*path).to_owned()).collect()
        }
    };
    let mut namespaces = namespace_options(pod, user_namespace);
    if let Some(target) = target_id {
        namespaces.pid = v1::NamespaceMode::Target as i32;
        namespaces.target_id = target.to_owned();
    }
    v1::LinuxContainerSecurityContext {
        capabilities: capabilities(context),
        privileged,
        namespace_options: Some(namespaces),
        selinux_options: selinux(selinux_options),
        run_as_user: int64(run_as_user),
        run_as_group: int64(run_as_group),
        readonly_rootfs: context.and_then(|context| context.read_only_root_filesystem).unwrap_or(false),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: no_new_privileges(context),
        masked_paths: paths(MASKED_PATHS),
        readonly_paths: paths(READONLY_PATHS),
        seccomp: Some(if privileged {
            seccomp_profile(None, seccomp_root)
        } else {
            seccomp_profile(seccomp, seccomp_root)
        }),
        apparmor: apparmor(pod, context, privileged),
        ..Default::default()
    }
}

fn apparmor(pod: &Pod, context: Option<&SecurityContext>, privileged: bool) -> Option<v1::SecurityProfile> {
    use v1::security_profile::ProfileType;
    if privileged {
        return None;
    }
    let profile = context.and_then(|context| context.app_armor_profile.as_ref()).or_else(|| {
        pod_ref::spec(pod).security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref())
    })?;
    let profile_type = match profile.type_.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    let localhost_ref = profile.localhost_profile.clone().unwrap_or_default();
    Some(v1::SecurityProfile { profile_type: profile_type as i32, localhost_ref })
}

fn capabilities(context: Option<&SecurityContext>) -> Option<v1::Capability> {
    let capabilities = context?.capabilities.as_ref()?;
    Some(v1::Capability {
        add_capabilities: capabilities.add.clone().unwrap_or_default(),
        drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
        ..Default::default()
    })
}

/// `allowPrivilegeEscalation: false`; unset allows it.
fn no_new_privileges(context: Option<&SecurityContext>) -> bool {
    context.and_then(|context| context.allow_privilege_escalation) == Some(false)
}

fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    container
        .security_context
        .as_ref()
        .and_then(|context| context.run_as_user)
        .or_else(|| pod_ref::spec(pod).security_context.as_ref().and_then(|context| context.run_as_user))
}

/// Checks `runAsNonRoot` against what the container will run as.
///
/// # Errors
/// The message of `CreateContainerConfigError`.
pub fn verify_run_as_non_root(
    pod: &Pod,
    container: &Container,
    image_uid: Option<i64>,
    image_username: &str,
) -> Result<(), String> {
    let pod_context = pod_ref::spec(pod).security_context.as_ref();
    let required = container
        .security_context
        .as_ref()
        .and_then(|context| context.run_as_non_root)
        .or_else(|| pod_context.and_then(|context| context.run_as_non_root));
    if required != Some(true) {
        return Ok(());
    }
    let subject = format!("(pod: {:?}, container: {})", pod_ref::full_name(pod), container.name);
    match run_as_user(pod, container) {
        Some(0) => return Err(format!("container's runAsUser breaks non-root policy {subject}")),
        Some(_) => return Ok(()),
        None => {}
    }
    match (image_uid, image_username) {
        (Some(0), _) | (None, "") => {
            Err(format!("container has runAsNonRoot and image will run as root {subject}"))
        }
        (None, user) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root {subject}"
        )),
        (Some(_), _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod(pod_context: serde_json::Value, context: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod_context, "containers": [{"name": "c", "securityContext": context}]}}))
        .unwrap()
    }

    #[test]
    fn env_03_run_as_non_root() {
        let check = |pod_context, context, uid, user: &str| {
            let pod = pod(pod_context, context);
            verify_run_as_non_root(&pod, &pod_ref::containers(&pod)[0], uid, user)
        };
        let non_root = json!({"runAsNonRoot": true});
        assert_eq!(check(json!({}), json!({}), Some(0), ""), Ok(()));
        assert_eq!(
            check(non_root.clone(), json!({}), Some(0), "").unwrap_err(),
            "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)"
        );
        assert_eq!(
            check(non_root.clone(), json!({"runAsUser": 0}), Some(5), "").unwrap_err(),
            "container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)"
        );
        assert_eq!(
            check(non_root.clone(), json!({}), None, "app").unwrap_err(),
            "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root (pod: \"p_n(u)\", container: c)"
        );
        assert_eq!(check(non_root.clone(), json!({"runAsUser": 7}), Some(0), ""), Ok(()));
        assert_eq!(check(non_root.clone(), json!({}), Some(7), ""), Ok(()));
        assert_eq!(check(non_root, json!({"runAsNonRoot": false}), Some(0), ""), Ok(()));
    }

    #[test]
    fn the_container_overrides_the_pod() {
        let pod = pod(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"runAsUser": 4, "allowPrivilegeEscalation": false, "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}),
        );
        let context = container(&pod, &pod_ref::containers(&pod)[0], None, "/seccomp", None);
        assert_eq!(context.run_as_user.unwrap().value, 4);
        assert_eq!(context.run_as_group.unwrap().value, 2);
        assert_eq!(context.supplemental_groups, [3]);
        assert!(context.no_new_privs);
        assert_eq!(context.seccomp.unwrap().localhost_ref, "/seccomp/a.json");
        assert!(context.masked_paths.contains(&"/proc/kcore".to_owned()));
    }
}

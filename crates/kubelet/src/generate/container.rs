//! A container's configuration: what to run, with which environment, mounts and limits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use sampan_cri::v1;

use super::expansion::expand;
use super::{resources, security};
use crate::{labels, log_paths};

/// What a container's configuration needs beside pod and container.
pub struct ContainerInputs<'a> {
    /// The image as the runtime knows it.
    pub image_ref: &'a str,
    /// How often it was restarted before.
    pub restart_count: u32,
    /// The complete environment.
    pub environment: BTreeMap<String, String>,
    /// Volumes, hosts file, termination message.
    pub mounts: Vec<v1::Mount>,
    /// The node's memory, for OOM scores.
    pub memory_capacity: i64,
    /// The container whose PID namespace an ephemeral one joins.
    pub target_id: Option<&'a str>,
    /// Where Localhost seccomp profiles are.
    pub seccomp_root: &'a str,
    /// The ids of the pod's own user namespace, if it has one.
    pub user_namespace: Option<v1::UserNamespace>,
}

/// The configuration of `container`.
#[must_use]
pub fn container_config(
    pod: &Pod,
    container: &Container,
    inputs: ContainerInputs<'_>,
) -> v1::ContainerConfig {
    let expand_all = |list: Option<&Vec<String>>| -> Vec<String> {
        list.into_iter()
            .flatten()
            .map(|text| expand(text, |name| inputs.environment.get(name).cloned()))
            .collect()
    };
    let command = expand_all(container.command.as_ref());
    let args = expand_all(container.args.as_ref());
    let image = container.image.clone().unwrap_or_default();
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: inputs.restart_count }),
        image: Some(v1::ImageSpec {
            image: inputs.image_ref.to_owned(),
            user_specified_image: image,
            ..Default::default()
        }),
        command,
        args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        labels: labels::container_labels(pod, &container.name),
        annotations: labels::container_annotations(pod, container, inputs.restart_count),
        log_path: log_paths::in_pod(&container.name, inputs.restart_count),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources::container_resources(pod, container, inputs.memory_capacity)),
            security_context: Some(security::container(
                pod,
                container,
                inputs.target_id,
                inputs.seccomp_root,
                inputs.user_namespace.clone(),
            )),
        }),
        mounts: with_ids(inputs.mounts, inputs.user_namespace.as_ref()),
        stop_signal: stop_signal(container).into(),
        envs: inputs.environment.into_iter().map(|(key, value)| v1::KeyValue { key, value }).collect(),
        ..Default::default()
    }
}

/// Files of the pod look inside its user namespace as they do outside: what root owns is root's.
fn with_ids(mut mounts: Vec<v1::Mount>, user: Option<&v1::UserNamespace>) -> Vec<v1::Mount> {
    if let Some(user) = user {
        for mount in &mut mounts {
            mount.uid_mappings.clone_from(&user.uids);
            mount.gid_mappings.clone_from(&user.gids);
        }
    }
    mounts
}

/// The stop signal that the pod asks for; without one it is the image's, which the runtime knows (HOOK-32).
fn stop_signal(container: &Container) -> v1::Signal {
    let name = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    // The CRI's names have words for signs: `SIGRTMIN+1` is `SIGRTMINPLUS1`.
    name.and_then(|name| v1::Signal::from_str_name(&name.replace('+', "PLUS").replace('-', "MINUS")))
        .unwrap_or(v1::Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn hook_32_the_pods_stop_signal_by_its_name() {
        let of = |name: Option<&str>| {
            let lifecycle = json!({"stopSignal": name});
            stop_signal(&serde_json::from_value(json!({"name": "c", "lifecycle": lifecycle})).unwrap())
        };
        assert_eq!(of(None), v1::Signal::RuntimeDefault);
        assert_eq!(of(Some("SIGUSR1")), v1::Signal::Sigusr1);
        assert_eq!(of(Some("SIGRTMIN+3")), v1::Signal::Sigrtminplus3);
        assert_eq!(of(Some("SIGRTMAX-1")), v1::Signal::Sigrtmaxminus1);
    }

    #[test]
    fn env_02_40_command_and_args_are_expanded_and_kept_apart() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "i", "args": ["$(X) $$(X) $(Y)"]}]}}))
            .unwrap();
        let inputs = ContainerInputs {
            image_ref: "sha256:1",
            restart_count: 3,
            environment: BTreeMap::from([("X".to_owned(), "1".to_owned())]),
            mounts: Vec::new(),
            memory_capacity: 1 << 30,
            target_id: None,
            seccomp_root: "/",
            user_namespace: None,
        };
        let config = container_config(&pod, &pod.spec.as_ref().unwrap().containers[0], inputs);
        assert!(config.command.is_empty());
        assert_eq!(config.args, ["1 $(X) $(Y)"]);
        assert_eq!(config.log_path, "c/3.log");
        assert_eq!(config.annotations[labels::RESTART_COUNT], "3");
        assert_eq!(config.metadata.unwrap().attempt, 3);
    }
}

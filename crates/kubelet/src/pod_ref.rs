//! Short ways to say which pod and which container: names, uid, "full name", field paths.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, ObjectReference, Pod, PodSpec};

/// The pod's UID, empty when it has none.
#[must_use]
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The pod's name.
#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod's namespace.
#[must_use]
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `<name>_<namespace>(<uid>)`, as upstream's messages name a pod.
#[must_use]
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// The pod's spec; a pod without one does not come from an API server.
#[must_use]
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// Whether the pod uses the host's network.
#[must_use]
pub fn is_host_network(pod: &Pod) -> bool {
    spec(pod).host_network.unwrap_or(false)
}

/// The pod's restart policy: `Always`, `OnFailure` or `Never`.
#[must_use]
pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

/// Whether the pod is finished for good.
#[must_use]
pub fn is_terminal_phase(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// A sidecar: an init container that keeps running (POD-25).
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The init containers, sidecars included.
pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

/// The regular containers.
#[must_use]
pub fn containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

/// The ephemeral containers.
pub fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// An ephemeral container as a container: the fields are the same but for `targetContainerName`.
#[must_use]
pub fn ephemeral_as_container(ephemeral: &EphemeralContainer) -> Container {
    Container {
        name: ephemeral.name.clone(),
        image: ephemeral.image.clone(),
        command: ephemeral.command.clone(),
        args: ephemeral.args.clone(),
        working_dir: ephemeral.working_dir.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        resources: ephemeral.resources.clone(),
        volume_mounts: ephemeral.volume_mounts.clone(),
        volume_devices: ephemeral.volume_devices.clone(),
        termination_message_path: ephemeral.termination_message_path.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        security_context: ephemeral.security_context.clone(),
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        tty: ephemeral.tty,
        ..Container::default()
    }
}

/// Which of the three lists a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// `spec.initContainers`, sidecars included.
    Init,
    /// `spec.containers`.
    Regular,
    /// `spec.ephemeralContainers`.
    Ephemeral,
}

impl ContainerKind {
    /// `spec.containers{c}` and so on (IMG-41).
    #[must_use]
    pub fn field_path(self, container: &str) -> String {
        let list = match self {
            Self::Init => "initContainers",
            Self::Regular => "containers",
            Self::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{container}}}")
    }
}

/// Finds a container of any kind by its name.
#[must_use]
pub fn find_container(pod: &Pod, name: &str) -> Option<(ContainerKind, Container)> {
    let by_name = |list: &[Container]| list.iter().find(|container| container.name == name).cloned();
    by_name(containers(pod))
        .map(|container| (ContainerKind::Regular, container))
        .or_else(|| by_name(init_containers(pod)).map(|container| (ContainerKind::Init, container)))
        .or_else(|| {
            let found = ephemeral_containers(pod).iter().find(|ephemeral| ephemeral.name == name)?;
            Some((ContainerKind::Ephemeral, ephemeral_as_container(found)))
        })
}

/// What an event about the pod refers to.
#[must_use]
pub fn object_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// What an event about a container refers to.
#[must_use]
pub fn container_reference(pod: &Pod, kind: ContainerKind, container: &str) -> ObjectReference {
    ObjectReference { field_path: Some(kind.field_path(container)), ..object_reference(pod) }
}

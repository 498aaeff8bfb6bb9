//! From a CRI `ContainerConfig` to an OCI `config.json`: what the container sees and may do.
//!
//! One file per part; each takes what it needs and gives JSON of the OCI runtime specification. The version
//! written is 1.0.2 because crun 1.8 refuses 1.1; nothing newer is needed.

use std::path::{Path, PathBuf};

use sampan_cri::v1;
use sampan_oci::manifest::ImageConfig;
use serde_json::{Map, Value, json};

use crate::{handlers, user_namespace};

pub(crate) mod apparmor;
mod capabilities;
mod devices;
pub(crate) mod host;
mod mounts;
mod namespaces;
mod process;
mod propagation;
pub(crate) mod resources;
mod seccomp;
pub(crate) mod users;

pub(crate) use host::Host;
pub(crate) use namespaces::SandboxNamespaces;

/// What cannot be turned into a specification.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    /// The request contradicts itself or asks for what does not exist.
    #[error("{0}")]
    Invalid(String),
    /// A file that the specification needs cannot be used.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// A verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl SpecError {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }
}

/// Everything a specification is made from.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    /// What the kubelet asked for.
    pub(crate) config: &'a v1::ContainerConfig,
    /// The sandbox's configuration.
    pub(crate) sandbox: &'a v1::PodSandboxConfig,
    /// The sandbox's id.
    pub(crate) sandbox_id: &'a str,
    /// What the image says.
    pub(crate) image: &'a ImageConfig,
    /// The mounted root file system: users are looked up in it.
    pub(crate) rootfs: &'a Path,
    /// Where the sandbox's namespaces are.
    pub(crate) namespaces: &'a SandboxNamespaces,
    /// Directory with the sandbox's `hostname`, `hosts`, `resolv.conf` and `shm`.
    pub(crate) sandbox_dir: &'a Path,
    /// The container's cgroup, absolute.
    pub(crate) cgroups_path: &'a str,
    /// Image volumes: the directory that stands for `config.mounts[index]`.
    pub(crate) image_mounts: &'a [(usize, PathBuf)],
    /// Annotations of the pod that the handler wants to see.
    pub(crate) passed_annotations: &'a [String],
    /// The ids of the pod's own user namespace; none is the host's.
    pub(crate) user_namespace: Option<&'a v1::UserNamespace>,
    /// What this machine and process can do.
    pub(crate) host: &'a Host,
}

/// A specification and what came out on the way.
#[derive(Debug)]
pub(crate) struct Spec {
    /// `config.json`.
    pub(crate) json: Value,
    /// Who the first process is.
    pub(crate) user: v1::LinuxContainerUser,
}

impl Inputs<'_> {
    fn security(&self) -> v1::LinuxContainerSecurityContext {
        self.config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default()
    }

    fn resources(&self) -> v1::LinuxContainerResources {
        self.config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default()
    }
}

/// Makes the specification. Reads the image's user files and a seccomp profile, so it belongs on a blocking
/// thread.
pub(crate) fn generate(inputs: &Inputs<'_>) -> Result<Spec, SpecError> {
    let security = inputs.security();
    let sandbox_privileged = inputs
        .sandbox
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref())
        .is_some_and(|context| context.privileged);
    if security.privileged && !sandbox_privileged {
        return Err(SpecError::invalid("no privileged container allowed in sandbox"));
    }
    let user = users::resolve(inputs.rootfs, &security, &inputs.image.config.user)?;
    let process = process::process(inputs, &security, &user)?;
    let mounts = mounts::mounts(inputs, &security)?;
    let (devices, device_rules) = devices::devices(&inputs.config.devices, security.privileged)?;
    let mut resources = resources::resources(&inputs.resources(), inputs.host)?;
    resources.insert("devices".to_owned(), Value::Array(device_rules));

    // On v2 the whole hierarchy is mounted into a container: an unprivileged one sees only its own part of it (as with
    // containerd). On v1 the runtime mounts just that part, and programs expect the host's paths.
    let own_cgroups = inputs.host.cgroups.is_v2() && !security.privileged;
    let mut linux = Map::new();
    linux.insert("namespaces".to_owned(), namespaces::namespaces(inputs.namespaces, own_cgroups));
    linux.insert("resources".to_owned(), Value::Object(resources));
    linux.insert("cgroupsPath".to_owned(), json!(inputs.cgroups_path));
    linux.insert("devices".to_owned(), Value::Array(devices));
    linux.insert("rootfsPropagation".to_owned(), json!(mounts.rootfs_propagation));
    let (masked, readonly) = hidden_paths(inputs, &security);
    linux.insert("maskedPaths".to_owned(), json!(masked));
    linux.insert("readonlyPaths".to_owned(), json!(readonly));
    let capabilities = process["capabilities"]["bounding"].clone();
    if let Some(profile) = seccomp::profile(&security, &capabilities)? {
        linux.insert("seccomp".to_owned(), profile);
    }
    let mut linux = Value::Object(linux);
    if let Some(user) = inputs.user_namespace {
        user_namespace::put(user, &mut linux);
    }

    let json = json!({
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs", "readonly": security.readonly_rootfs},
        "mounts": mounts.list,
        "annotations": annotations(inputs),
        "linux": linux,
    });
    let groups = user.additional_gids.iter().map(|gid| i64::from(*gid)).collect();
    let user = v1::LinuxContainerUser {
        uid: i64::from(user.uid),
        gid: i64::from(user.gid),
        supplemental_groups: groups,
    };
    Ok(Spec { json, user })
}

/// Kubernetes' lists go through as they are (an empty list is `procMount: Unmasked`); only a request without
/// any security context gets the usual ones.
fn hidden_paths(
    inputs: &Inputs<'_>,
    security: &v1::LinuxContainerSecurityContext,
) -> (Vec<String>, Vec<String>) {
    const MASKED: &[&str] = &[
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
    const READONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    if security.privileged {
        return (Vec::new(), Vec::new());
    }
    if inputs.config.linux.as_ref().is_some_and(|linux| linux.security_context.is_some()) {
        return (security.masked_paths.clone(), security.readonly_paths.clone());
    }
    let owned = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect();
    (owned(MASKED), owned(READONLY))
}

/// Who the container is, for people and tools that look at the bundle. None of the keys that make runsc join
/// a sandbox container: there is none.
fn annotations(inputs: &Inputs<'_>) -> Map<String, Value> {
    let pods = inputs.sandbox.annotations.iter();
    let passed = pods.filter(|(name, _)| handlers::passes(inputs.passed_annotations, name));
    let mut all: Map<String, Value> = passed.map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut put = |key: &str, value: &str| {
        all.insert(format!("io.kubernetes.cri.{key}"), json!(value));
    };
    put("sandbox-id", inputs.sandbox_id);
    if let Some(metadata) = &inputs.config.metadata {
        put("container-name", &metadata.name);
    }
    if let Some(image) = &inputs.config.image {
        let name =
            if image.user_specified_image.is_empty() { &image.image } else { &image.user_specified_image };
        put("image-name", name);
    }
    if let Some(metadata) = &inputs.sandbox.metadata {
        put("sandbox-name", &metadata.name);
        put("sandbox-namespace", &metadata.namespace);
        put("sandbox-uid", &metadata.uid);
    }
    all
}

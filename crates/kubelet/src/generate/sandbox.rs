//! The sandbox's configuration: names, DNS, ports, cgroup, security.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use sampan_cri::v1;

use super::dns::DnsConfig;
use super::hostname::HostName;
use super::{resources, security};
use crate::{labels, log_paths, pod_ref};

/// What the sandbox's configuration needs beside the pod.
pub struct SandboxInputs<'a> {
    /// The pod's names.
    pub host_name: &'a HostName,
    /// Its resolver configuration.
    pub dns: DnsConfig,
    /// Root of the pod logs.
    pub log_dir: &'a Path,
    /// The cgroup above `kubepods`.
    pub cgroup_root: &'a str,
    /// Whether the runtime wants systemd slices.
    pub systemd_cgroups: bool,
    /// Where Localhost seccomp profiles are.
    pub seccomp_root: &'a str,
    /// The ids of the pod's own user namespace, if it has one.
    pub user_namespace: Option<v1::UserNamespace>,
}

/// The configuration of `pod`'s sandbox; `attempt` counts the sandboxes made before it.
#[must_use]
pub fn sandbox_config(pod: &Pod, attempt: u32, inputs: SandboxInputs<'_>) -> v1::PodSandboxConfig {
    let spec = pod_ref::spec(pod);
    let sysctls = spec.security_context.as_ref().and_then(|context| context.sysctls.as_ref());
    let (pod_resources, overhead) = resources::pod_resources(pod);
    // On the host's network the kernel name is the node's (ENV-12).
    let hostname =
        if pod_ref::is_host_network(pod) { String::new() } else { inputs.host_name.kernel.clone() };
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: pod_ref::name(pod).to_owned(),
            uid: pod_ref::uid(pod).to_owned(),
            namespace: pod_ref::namespace(pod).to_owned(),
            attempt,
        }),
        hostname,
        log_directory: log_paths::of_pod(inputs.log_dir, pod).to_string_lossy().into_owned(),
        dns_config: Some(inputs.dns.into()),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations: labels::sandbox_annotations(pod),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: resources::cgroup_parent(pod, inputs.cgroup_root, inputs.systemd_cgroups),
            security_context: Some(security::sandbox(pod, inputs.seccomp_root, inputs.user_namespace)),
            sysctls: sysctls
                .into_iter()
                .flatten()
                .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
                .collect(),
            overhead: Some(overhead),
            resources: Some(pod_resources),
        }),
        ..Default::default()
    }
}

/// The pod's ports, of all its long-running containers.
fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    if pod_ref::is_host_network(pod) {
        return Vec::new();
    }
    let sidecars = pod_ref::init_containers(pod).iter().filter(|container| pod_ref::is_sidecar(container));
    pod_ref::containers(pod)
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| v1::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp as i32,
                Some("SCTP") => v1::Protocol::Sctp as i32,
                _ => v1::Protocol::Tcp as i32,
            },
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

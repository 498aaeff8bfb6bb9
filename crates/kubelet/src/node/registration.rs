//! Registers the Node and keeps its status true: looked at every 10 s, written when it changed and every five
//! minutes (`nodeStatusUpdateFrequency`, `nodeStatusReportFrequency`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::capacity::{allocatable, capacity};
use super::conditions::NodeHealth;
use super::images::node_images;
use crate::config::KubeletConfig;
use crate::context::NodeContext;
use crate::events::EventType;
use crate::eviction::Pressure;

const RETRY: Duration = Duration::from_millis(200);

/// Registers the node and keeps it up to date until it is aborted. `port` is the kubelet's HTTPS port.
pub(crate) async fn keep_registered(
    ctx: Arc<NodeContext>,
    port: u16,
    registered: tokio::sync::watch::Sender<bool>,
) {
    let nodes: Api<Node> = Api::all(ctx.config.client.clone());
    let name = ctx.config.node_name.clone();
    let mut reported: Option<(NodeStatus, Instant)> = None;
    let mut announced = false;
    let mut pressure = ctx.pressure.subscribe();
    loop {
        let old = reported.as_ref().map(|(status, _)| status.conditions.clone().unwrap_or_default());
        let status = node_status(&ctx, port, old.as_deref().unwrap_or_default()).await;
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        let due = match &reported {
            None => true,
            Some((before, at)) => {
                at.elapsed() >= ctx.config.node_status_report_frequency
                    || comparable(before) != comparable(&status)
            }
        };
        if due {
            match write(&ctx, &nodes, &name, &status, reported.is_none()).await {
                Ok(written) => {
                    reported = Some((written, Instant::now()));
                    registered.send_replace(true);
                    if !announced && ready {
                        announced = true;
                        event(&ctx, "NodeReady", format!("Node {name} status is now: NodeReady"));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "node status not written yet");
                    if matches!(&error, kube::Error::Api(answer) if answer.code == 404) {
                        // Somebody deleted it: it is made again.
                        reported = None;
                    }
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        // A runtime that is not ready yet is looked at often: pods wait for it.
        let pause = if ready { ctx.config.node_status_update_frequency } else { RETRY };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = pressure.changed() => {}
        }
    }
}

fn event(ctx: &NodeContext, reason: &str, message: String) {
    let reference = k8s_openapi::api::core::v1::ObjectReference {
        kind: Some("Node".to_owned()),
        name: Some(ctx.config.node_name.clone()),
        uid: Some(ctx.config.node_name.clone()),
        ..Default::default()
    };
    ctx.recorder.record(reference, EventType::Normal, reason, message);
}

/// A status without its heartbeats.
fn comparable(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    status
}

/// Creates the Node with its status at the first time; afterwards, and when it exists, patches it.
async fn write(
    ctx: &NodeContext,
    nodes: &Api<Node>,
    name: &str,
    status: &NodeStatus,
    first: bool,
) -> Result<NodeStatus, kube::Error> {
    if first {
        let node = new_node(ctx, status.clone());
        match nodes.create(&PostParams::default(), &node).await {
            Ok(created) => {
                event(ctx, "Starting", "Starting kubelet.".to_owned());
                if created.status.is_some_and(|status| status.conditions.is_some()) {
                    return Ok(status.clone());
                }
                // An API server that takes no status here gets it by the patch below.
            }
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                let labels = json!({"metadata": {"labels": node.metadata.labels}});
                nodes.patch(name, &PatchParams::default(), &Patch::Merge(labels)).await?;
            }
            Err(error) => return Err(error),
        }
    }
    let mut status = status.clone();
    if first {
        // Transition times of the node's earlier life are kept.
        let known = nodes.get(name).await?.status.and_then(|status| status.conditions).unwrap_or_default();
        for condition in status.conditions.iter_mut().flatten() {
            let before = known
                .iter()
                .find(|before| before.type_ == condition.type_ && before.status == condition.status);
            if let Some(before) = before {
                condition.last_transition_time.clone_from(&before.last_transition_time);
            }
        }
    }
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(status_patch(&status))).await?;
    Ok(status)
}

/// Lists that are merged by key are replaced whole where the kubelet alone owns them.
fn status_patch(status: &NodeStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(addresses) = value.get_mut("addresses").and_then(Value::as_array_mut) {
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    json!({"status": value})
}

/// The labels of the Node as this kubelet sets them.
pub(crate) fn labels(config: &KubeletConfig) -> BTreeMap<String, String> {
    let arch = go_arch();
    let mut labels = config.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ] {
        labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    labels
}

fn new_node(ctx: &NodeContext, status: NodeStatus) -> Node {
    let taints = &ctx.config.register_with_taints;
    Node {
        metadata: ObjectMeta {
            name: Some(ctx.config.node_name.clone()),
            labels: Some(labels(&ctx.config)),
            annotations: Some(
                [("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())]
                    .into(),
            ),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: ctx.config.pod_cidr.clone(),
            pod_cidrs: ctx.config.pod_cidr.clone().map(|cidr| vec![cidr]),
            provider_id: ctx.config.provider_id.clone(),
            taints: (!taints.is_empty()).then(|| taints.clone()),
            ..NodeSpec::default()
        }),
        status: Some(status),
    }
}

async fn node_status(
    ctx: &NodeContext,
    port: u16,
    old: &[k8s_openapi::api::core::v1::NodeCondition],
) -> NodeStatus {
    let cri = &ctx.config.cri;
    let (runtime, images, version) = tokio::join!(cri.status(), cri.list_images(), cri.version());
    let capacity = capacity(&ctx.config);
    let pressure = ctx.pressure.borrow().clone();
    let health = NodeHealth {
        runtime_problem: NodeHealth::of_runtime(runtime.as_ref()),
        memory_pressure: pressure.contains(&Pressure::Memory),
        disk_pressure: pressure.contains(&Pressure::Disk),
        pid_pressure: pressure.contains(&Pressure::Pid),
    };
    let mut addresses: Vec<NodeAddress> = ctx
        .host_ips
        .iter()
        .map(|ip| NodeAddress { type_: "InternalIP".to_owned(), address: ip.clone() })
        .collect();
    addresses.push(NodeAddress { type_: "Hostname".to_owned(), address: ctx.config.node_name.clone() });
    let runtime = runtime.unwrap_or_default();
    let handlers: Vec<NodeRuntimeHandler> = runtime
        .runtime_handlers
        .iter()
        .map(|handler| NodeRuntimeHandler {
            name: Some(handler.name.clone()),
            features: handler.features.as_ref().map(|features| NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
                user_namespaces: Some(features.user_namespaces),
            }),
        })
        .collect();
    let version = version
        .map(|version| format!("{}://{}", version.runtime_name, version.runtime_version))
        .unwrap_or_else(|_| format!("{}://unknown", ctx.runtime_name));
    NodeStatus {
        allocatable: Some(allocatable(&ctx.config, &capacity)),
        capacity: Some(capacity),
        conditions: Some(health.conditions(old, ctx.config.clock.now_seconds())),
        addresses: Some(addresses),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        node_info: Some(system_info(&ctx.config.version, version)),
        images: images.ok().map(|images| node_images(images, ctx.config.images.node_status_max_images)),
        runtime_handlers: (!handlers.is_empty()).then_some(handlers),
        features: runtime.features.map(|features| NodeFeatures {
            supplemental_groups_policy: Some(features.supplemental_groups_policy),
        }),
        ..NodeStatus::default()
    }
}

fn system_info(kubelet_version: &str, container_runtime_version: String) -> NodeSystemInfo {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let os = std::fs::read_to_string("/etc/os-release")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
            Some(line.trim_matches('"').to_owned())
        })
        .unwrap_or_else(|| "Linux".to_owned());
    NodeSystemInfo {
        architecture: go_arch().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version,
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: kubelet_version.to_owned(),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".to_owned(),
        os_image: os,
        system_uuid: {
            let uuid = read("/sys/class/dmi/id/product_uuid");
            if uuid.is_empty() { read("/etc/machine-id") } else { uuid }
        },
        ..NodeSystemInfo::default()
    }
}

/// The architecture as Go names it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

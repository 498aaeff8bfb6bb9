//! Takes a snapshot: the runtime's numbers, and those of our own directories.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use sampan_cri::v1;

use super::{
    ContainerUsage, Cpu, Disk, Interface, Memory, PodUsage, Snapshot, VolumeUsage, directory, filesystem,
    machine,
};
use crate::clock::from_cri;
use crate::context::NodeContext;
use crate::labels;
use crate::log_paths;
use crate::pod_ref;

/// Asks the runtime and looks at the disks.
///
/// # Errors
/// What the runtime says when it has no numbers.
pub(crate) async fn collect(ctx: &Arc<NodeContext>, pods: Vec<Arc<Pod>>) -> Result<Snapshot, tonic::Status> {
    let cri = &ctx.config.cri;
    let (sandboxes, containers, image_fs) = tokio::join!(
        cri.list_pod_sandbox_stats(),
        cri.list_containers(Default::default()),
        cri.image_fs_info()
    );
    let mut usages: HashMap<String, PodUsage> = HashMap::new();
    match sandboxes {
        Ok(sandboxes) => sandboxes.into_iter().for_each(|stats| add_sandbox(&mut usages, stats)),
        // Runtimes that are older than the call know containers only.
        Err(status) if status.code() == tonic::Code::Unimplemented => {
            for stats in cri.list_container_stats().await? {
                add_container(&mut usages, stats);
            }
        }
        Err(status) => return Err(status),
    }
    for container in containers.unwrap_or_default() {
        let uid = container.labels.get(labels::POD_UID).map(String::as_str).unwrap_or_default();
        let found = usages
            .get_mut(uid)
            .and_then(|pod| pod.containers.iter_mut().find(|usage| usage.id == container.id));
        if let Some(usage) = found {
            usage.started = from_cri(container.created_at);
            usage.image = container.image.map(|image| image.image).unwrap_or_default();
        }
    }
    let image_fs =
        image_fs.ok().and_then(|info| info.image_filesystems.into_iter().next()).and_then(|usage| {
            let used = Disk { bytes: number(usage.used_bytes), inodes: number(usage.inodes_used) };
            Some((filesystem(Path::new(&usage.fs_id?.mountpoint))?, used))
        });
    let ctx = Arc::clone(ctx);
    let work = move || {
        for pod in pods {
            let usage = usages.entry(pod_ref::uid(&pod).to_owned()).or_default();
            usage.uid = pod_ref::uid(&pod).to_owned();
            usage.name = pod_ref::name(&pod).to_owned();
            usage.namespace = pod_ref::namespace(&pod).to_owned();
            usage.started = ctx.status.current(&usage.uid).and_then(|status| Some(status.start_time?.0));
            add_disks(&ctx, &pod, usage);
            if usage.containers.iter().any(|container| container.cpu.at.is_some()) {
                fill_pod(usage);
            }
            usage.processes = usage.processes.or_else(|| ctx.cgroups.usage(&pod)?.processes);
        }
        let mut pods: Vec<PodUsage> = usages.into_values().filter(|usage| !usage.name.is_empty()).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Snapshot {
            at: ctx.config.clock.now(),
            machine: machine(&ctx.config.clock),
            node_fs: filesystem(&ctx.config.data_dir),
            image_fs,
            pods,
        }
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| tonic::Status::internal(error.to_string()))
}

fn number(value: Option<v1::UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

fn cpu(usage: Option<v1::CpuUsage>) -> Cpu {
    let Some(usage) = usage else { return Cpu::default() };
    Cpu {
        at: from_cri(usage.timestamp),
        total_nanos: number(usage.usage_core_nano_seconds),
        rate: usage.usage_nano_cores.map(|value| value.value),
    }
}

fn memory(usage: Option<v1::MemoryUsage>, swap: Option<v1::SwapUsage>) -> Memory {
    let Some(usage) = usage else { return Memory::default() };
    let working_set = number(usage.working_set_bytes);
    Memory {
        at: from_cri(usage.timestamp),
        usage: number(usage.usage_bytes),
        working_set,
        rss: number(usage.rss_bytes),
        page_faults: number(usage.page_faults),
        major_page_faults: number(usage.major_page_faults),
        swap: swap.map_or(0, |swap| number(swap.swap_usage_bytes)),
        limit: usage.available_bytes.map(|available| available.value + working_set),
    }
}

fn add_container(usages: &mut HashMap<String, PodUsage>, stats: v1::ContainerStats) {
    let attributes = stats.attributes.unwrap_or_default();
    let uid = attributes.labels.get(labels::POD_UID).cloned().unwrap_or_default();
    usages.entry(uid).or_default().containers.push(ContainerUsage {
        name: attributes.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default(),
        id: attributes.id,
        cpu: cpu(stats.cpu),
        memory: memory(stats.memory, stats.swap),
        rootfs: stats
            .writable_layer
            .map(|layer| Disk { bytes: number(layer.used_bytes), inodes: number(layer.inodes_used) })
            .unwrap_or_default(),
        ..ContainerUsage::default()
    });
}

fn add_sandbox(usages: &mut HashMap<String, PodUsage>, stats: v1::PodSandboxStats) {
    let uid = stats
        .attributes
        .and_then(|attributes| attributes.metadata)
        .map(|metadata| metadata.uid)
        .unwrap_or_default();
    let Some(linux) = stats.linux else { return };
    for container in linux.containers {
        add_container(usages, container);
    }
    let usage = usages.entry(uid).or_default();
    usage.cpu = cpu(linux.cpu);
    usage.memory = memory(linux.memory, None);
    usage.processes = linux.process.and_then(|process| process.process_count).map(|count| count.value);
    let network = linux.network.unwrap_or_default();
    usage.network = network
        .default_interface
        .into_iter()
        .chain(network.interfaces)
        .map(|interface| Interface {
            name: interface.name,
            rx_bytes: number(interface.rx_bytes),
            rx_errors: number(interface.rx_errors),
            tx_bytes: number(interface.tx_bytes),
            tx_errors: number(interface.tx_errors),
        })
        .collect();
}

/// Where the runtime does not count the pod, its containers make it up.
fn fill_pod(usage: &mut PodUsage) {
    let rates = usage.containers.iter().map(|container| container.cpu.rate);
    if usage.cpu.rate.is_none() {
        usage.cpu.rate = rates.sum();
    }
    if usage.cpu.at.is_none() {
        usage.cpu.at = usage.containers.iter().filter_map(|container| container.cpu.at).max();
        usage.cpu.total_nanos = usage.containers.iter().map(|container| container.cpu.total_nanos).sum();
    }
    if usage.memory.at.is_none() {
        usage.memory.at = usage.containers.iter().filter_map(|container| container.memory.at).max();
        usage.memory.usage = usage.containers.iter().map(|container| container.memory.usage).sum();
        usage.memory.working_set =
            usage.containers.iter().map(|container| container.memory.working_set).sum();
        usage.memory.rss = usage.containers.iter().map(|container| container.memory.rss).sum();
    }
}

fn add_disks(ctx: &NodeContext, pod: &Pod, usage: &mut PodUsage) {
    let logs = log_paths::of_pod(&ctx.config.log_dir, pod);
    let all = pod_ref::containers(pod).iter().chain(pod_ref::init_containers(pod));
    for name in all.map(|container| &container.name) {
        let used = directory::usage(&logs.join(name));
        match usage.containers.iter_mut().find(|container| container.name == *name) {
            Some(container) => container.logs = used,
            // What has ended still has logs.
            None if used.inodes > 0 => usage.containers.push(ContainerUsage {
                name: name.clone(),
                logs: used,
                ..ContainerUsage::default()
            }),
            None => {}
        }
    }
    let volumes = ctx.pod_dir(pod_ref::uid(pod)).join("volumes");
    for volume in pod_ref::spec(pod).volumes.iter().flatten() {
        let Some((path, local)) = volume_directory(&volumes, volume) else { continue };
        let Some(filesystem) = filesystem(&path) else { continue };
        usage.volumes.push(VolumeUsage {
            name: volume.name.clone(),
            used: directory::usage(&path),
            filesystem,
            local,
        });
    }
}

/// Where a volume of ours is, and whether it takes the node's disk.
fn volume_directory(volumes: &Path, volume: &k8s_openapi::api::core::v1::Volume) -> Option<(PathBuf, bool)> {
    let (plugin, local) = if let Some(empty_dir) = &volume.empty_dir {
        ("empty-dir", empty_dir.medium.as_deref().unwrap_or_default().is_empty())
    } else if volume.config_map.is_some() {
        ("configmap", true)
    } else if volume.secret.is_some() {
        ("secret", false)
    } else if volume.projected.is_some() {
        ("projected", false)
    } else if volume.downward_api.is_some() {
        ("downward-api", false)
    } else {
        return None;
    };
    Some((volumes.join(format!("kubernetes.io~{plugin}")).join(&volume.name), local))
}

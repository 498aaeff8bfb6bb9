//! `/stats/summary`, in the words of upstream's stats/v1alpha1.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{ContainerUsage, Cpu, Disk, Filesystem, Memory, PodUsage, Snapshot};
use crate::clock::truncate_to_seconds;

/// The summary of `snapshot`; with `only_cpu_and_memory` nothing about disks and networks.
pub(crate) fn summary(
    node: &str,
    started: Timestamp,
    snapshot: &Snapshot,
    only_cpu_and_memory: bool,
) -> Value {
    let at = time(snapshot.at);
    let machine = &snapshot.machine;
    let mut memory = memory_value(&machine.memory);
    memory["availableBytes"] = json!(machine.memory_available());
    let mut node = json!({
        "nodeName": node,
        "startTime": time(started),
        "cpu": cpu_value(&machine.cpu),
        "memory": memory,
    });
    if !only_cpu_and_memory {
        node["rlimit"] = json!({"time": at, "maxpid": machine.max_pids, "curproc": machine.pids});
        if let Some(fs) = &snapshot.node_fs {
            let used = Disk { bytes: fs.used, inodes: fs.inodes.saturating_sub(fs.inodes_free) };
            node["fs"] = filesystem_value(fs, used, &at);
        }
        if let Some((fs, used)) = &snapshot.image_fs {
            let image = filesystem_value(fs, *used, &at);
            node["runtime"] = json!({"imageFs": image, "containerFs": image});
        }
    }
    let pods: Vec<Value> =
        snapshot.pods.iter().map(|pod| pod_value(pod, snapshot, only_cpu_and_memory)).collect();
    json!({"node": node, "pods": pods})
}

fn pod_value(pod: &PodUsage, snapshot: &Snapshot, only_cpu_and_memory: bool) -> Value {
    let at = time(snapshot.at);
    let running = pod.containers.iter().filter(|container| container.cpu.at.is_some());
    let containers: Vec<Value> =
        running.map(|container| container_value(container, snapshot, only_cpu_and_memory)).collect();
    let mut value = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": pod.started.map(time),
        "containers": containers,
    });
    if pod.cpu.at.is_some() {
        value["cpu"] = cpu_value(&pod.cpu);
        value["memory"] = memory_value(&pod.memory);
    }
    if only_cpu_and_memory {
        return value;
    }
    let interfaces: Vec<Value> = pod
        .network
        .iter()
        .map(|interface| {
            json!({"name": interface.name, "rxBytes": interface.rx_bytes, "rxErrors": interface.rx_errors,
                "txBytes": interface.tx_bytes, "txErrors": interface.tx_errors})
        })
        .collect();
    if let Some(first) = interfaces.first() {
        value["network"] = first.clone();
        value["network"]["time"] = json!(at);
        value["network"]["interfaces"] = json!(interfaces);
    }
    let volumes: Vec<Value> = pod
        .volumes
        .iter()
        .map(|volume| {
            let mut value = filesystem_value(&volume.filesystem, volume.used, &at);
            value["name"] = json!(volume.name);
            value
        })
        .collect();
    if !volumes.is_empty() {
        value["volume"] = json!(volumes);
    }
    if let Some(fs) = &snapshot.node_fs {
        value["ephemeral-storage"] = filesystem_value(fs, pod.ephemeral(), &at);
    }
    if let Some(processes) = pod.processes {
        value["process_stats"] = json!({"process_count": processes});
    }
    value
}

fn container_value(container: &ContainerUsage, snapshot: &Snapshot, only_cpu_and_memory: bool) -> Value {
    let at = time(snapshot.at);
    let mut value = json!({
        "name": container.name,
        "startTime": container.started.map(time),
        "cpu": cpu_value(&container.cpu),
        "memory": memory_value(&container.memory),
        "swap": {"time": container.memory.at.map(time), "swapUsageBytes": container.memory.swap},
    });
    if let (Some((image_fs, _)), false) = (&snapshot.image_fs, only_cpu_and_memory) {
        value["rootfs"] = filesystem_value(image_fs, container.rootfs, &at);
    }
    if let (Some(node_fs), false) = (&snapshot.node_fs, only_cpu_and_memory) {
        value["logs"] = filesystem_value(node_fs, container.logs, &at);
    }
    value
}

fn cpu_value(cpu: &Cpu) -> Value {
    let mut value = json!({"time": cpu.at.map(time), "usageCoreNanoSeconds": cpu.total_nanos});
    if let Some(rate) = cpu.rate {
        value["usageNanoCores"] = json!(rate);
    }
    value
}

fn memory_value(memory: &Memory) -> Value {
    let mut value = json!({
        "time": memory.at.map(time),
        "usageBytes": memory.usage,
        "workingSetBytes": memory.working_set,
        "rssBytes": memory.rss,
        "pageFaults": memory.page_faults,
        "majorPageFaults": memory.major_page_faults,
    });
    if let Some(limit) = memory.limit {
        value["availableBytes"] = json!(limit.saturating_sub(memory.working_set));
    }
    value
}

fn filesystem_value(fs: &Filesystem, used: Disk, at: &str) -> Value {
    json!({
        "time": at,
        "availableBytes": fs.available,
        "capacityBytes": fs.capacity,
        "usedBytes": used.bytes,
        "inodesFree": fs.inodes_free,
        "inodes": fs.inodes,
        "inodesUsed": used.inodes,
    })
}

/// Whole seconds would make rates of short windows wrong: milliseconds are kept.
fn time(at: Timestamp) -> String {
    let millis = at.as_millisecond();
    Timestamp::from_millisecond(millis).unwrap_or_else(|_| truncate_to_seconds(at)).to_string()
}

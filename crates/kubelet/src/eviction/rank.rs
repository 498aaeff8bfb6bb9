//! Who goes first: who uses more than it asked for, then the lower priority, then the greater excess.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};

use sampan_api::resources::pod_requests;

use super::Signal;
use crate::cgroups::as_value;
use crate::pod_ref;
use crate::quantities::listed;
use crate::stats::{ContainerUsage, Disk, PodUsage};

/// A pod that may go, and what it uses.
pub(super) struct Candidate {
    pub(super) pod: Arc<Pod>,
    pub(super) usage: PodUsage,
}

/// Which of a pod's files are on the disk that is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// All: the runtime and the kubelet share a disk.
    All,
    /// The runtime's: writable layers, which are where the images are.
    Layers,
    /// The kubelet's.
    LogsAndVolumes,
}

impl Files {
    fn of(self, usage: &PodUsage) -> Disk {
        let containers = usage.containers.iter();
        let volumes = usage.volumes.iter().filter(|volume| volume.local);
        match self {
            Self::All => usage.ephemeral(),
            Self::Layers => sum(containers.map(|container| container.rootfs)),
            Self::LogsAndVolumes => {
                sum(containers.map(|container| container.logs).chain(volumes.map(|volume| volume.used)))
            }
        }
    }
}

fn sum(parts: impl Iterator<Item = Disk>) -> Disk {
    let mut sum = Disk::default();
    parts.for_each(|part| sum += part);
    sum
}

/// What a pod uses of what `signal` is about; of a disk, what its `files` take.
fn used(usage: &PodUsage, signal: Signal, files: Files) -> i64 {
    let amount = match signal.resource() {
        "memory" => usage.memory.working_set,
        "pids" => usage.processes.unwrap_or(0),
        "inodes" => files.of(usage).inodes,
        _ => files.of(usage).bytes,
    };
    i64::try_from(amount).unwrap_or(i64::MAX)
}

/// What the whole pod asked for: sidecars, overhead and requests of the pod's own included, as its use includes them.
fn requested(pod: &Pod, signal: Signal) -> i64 {
    pod_requests(&as_value(pod)).get(signal.resource()).map_or(0, |amount| amount.value())
}

fn request(container: &Container, resource: &str) -> i64 {
    listed(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()), resource)
        .unwrap_or(0)
}

/// Sorts: the first one goes first.
pub(super) fn rank(candidates: &mut [Candidate], signal: Signal, files: Files) {
    candidates.sort_by_cached_key(|candidate| {
        let used = used(&candidate.usage, signal, files);
        let requested = requested(&candidate.pod, signal);
        let priority = pod_ref::spec(&candidate.pod).priority.unwrap_or(0);
        // Nobody asks for process ids or inodes.
        let counted = matches!(signal.resource(), "memory" | "ephemeral-storage");
        (
            Reverse(counted && used > requested),
            priority,
            Reverse(if counted { used - requested } else { used }),
        )
    });
}

/// The containers that use more than they asked for, in the words of upstream's message.
pub(super) fn excess(candidate: &Candidate, signal: Signal) -> String {
    let resource = signal.resource();
    if !matches!(resource, "memory" | "ephemeral-storage") {
        return String::new();
    }
    let amount = |container: &ContainerUsage| match resource {
        "memory" => container.memory.working_set,
        _ => container.rootfs.bytes + container.logs.bytes,
    };
    let mut text = String::new();
    for usage in &candidate.usage.containers {
        let found = pod_ref::find_container(&candidate.pod, &usage.name);
        let asked = found.map_or(0, |(_, container)| request(&container, resource));
        let used = i64::try_from(amount(usage)).unwrap_or(i64::MAX);
        if used > asked {
            text.push_str(&format!(
                "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
                usage.name,
                bytes(used),
                bytes(asked)
            ));
        }
    }
    text
}

/// An amount as upstream's quantities are written: whole binary units where they are exact, else in Ki.
pub(super) fn bytes(amount: i64) -> String {
    if amount == 0 {
        return "0".to_owned();
    }
    for (unit, suffix) in [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")] {
        if amount % unit == 0 {
            return format!("{}{suffix}", amount / unit);
        }
    }
    amount.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::stats::{Filesystem, Memory, VolumeUsage};

    fn candidate(name: &str, priority: i32, request: &str, used: u64) -> Candidate {
        let pod = serde_json::from_value(
            json!({"metadata": {"name": name}, "spec": {"priority": priority, "containers":
            [{"name": "c", "resources": {"requests": {"memory": request}}}]}}),
        )
        .unwrap();
        let memory = Memory { working_set: used, ..Memory::default() };
        let container = ContainerUsage { name: "c".into(), memory, ..ContainerUsage::default() };
        let usage =
            PodUsage { memory, containers: vec![container], processes: Some(used), ..PodUsage::default() };
        Candidate { pod: Arc::new(pod), usage }
    }

    fn names(all: &[Candidate]) -> Vec<String> {
        all.iter().map(|candidate| pod_ref::name(&candidate.pod).to_owned()).collect()
    }

    #[test]
    fn pod_56_who_exceeds_goes_first_then_the_unimportant_then_the_greedy() {
        let mut all = [
            candidate("within", 0, "1Gi", 1 << 20),
            candidate("important", 9, "1Mi", 1 << 29),
            candidate("greedy", 0, "1Mi", 1 << 28),
            candidate("modest", 0, "1Mi", 2 << 20),
        ];
        rank(&mut all, Signal::MemoryAvailable, Files::All);
        assert_eq!(names(&all), ["greedy", "modest", "important", "within"]);
        assert_eq!(
            excess(&all[0], Signal::MemoryAvailable),
            "Container c was using 256Mi, request is 1Mi, has larger consumption of memory. "
        );
        rank(&mut all, Signal::PidAvailable, Files::All);
        assert_eq!(names(&all), ["greedy", "modest", "within", "important"]);
    }

    #[test]
    fn pod_56_only_what_is_on_the_disk_that_is_short_counts() {
        let disk = |mebibytes: u64| Disk { bytes: mebibytes << 20, inodes: mebibytes };
        let pod = |name: &str, layer: u64, logs: u64, volume: u64| {
            let mut candidate = candidate(name, 0, "0", 0);
            let container = &mut candidate.usage.containers[0];
            (container.rootfs, container.logs) = (disk(layer), disk(logs));
            candidate.usage.volumes.push(VolumeUsage {
                name: "v".into(),
                used: disk(volume),
                filesystem: Filesystem::default(),
                local: true,
            });
            candidate
        };
        let mut all = [pod("layer", 50, 0, 0), pod("logs", 0, 40, 0), pod("all", 20, 20, 15)];
        for (signal, files, order) in [
            (Signal::NodeFsAvailable, Files::All, ["all", "layer", "logs"]),
            (Signal::NodeFsAvailable, Files::LogsAndVolumes, ["logs", "all", "layer"]),
            (Signal::NodeFsInodesFree, Files::LogsAndVolumes, ["logs", "all", "layer"]),
            (Signal::ImageFsAvailable, Files::Layers, ["layer", "all", "logs"]),
            (Signal::ContainerFsInodesFree, Files::Layers, ["layer", "all", "logs"]),
        ] {
            rank(&mut all, signal, files);
            assert_eq!(names(&all), order, "{signal} {files:?}");
        }
    }
}

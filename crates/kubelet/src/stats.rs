//! What node, pods and containers use now: one snapshot, from which the summary API, the metrics pages and
//! eviction all tell.

mod collect;
mod directory;
mod exposition;
mod filesystem;
mod machine;
mod summary;

use jiff::Timestamp;

pub(crate) use collect::collect;
pub(crate) use exposition::{cadvisor, resource};
pub(crate) use filesystem::{Filesystem, filesystem};
pub(crate) use machine::{Machine, machine};
pub(crate) use summary::summary;

/// CPU time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    /// When it was read.
    pub(crate) at: Option<Timestamp>,
    /// Nanoseconds since the beginning.
    pub(crate) total_nanos: u64,
    /// Nanoseconds per second lately, when two samples were taken.
    pub(crate) rate: Option<u64>,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) at: Option<Timestamp>,
    pub(crate) usage: u64,
    /// Without file cache that can be dropped at once.
    pub(crate) working_set: u64,
    pub(crate) rss: u64,
    pub(crate) page_faults: u64,
    pub(crate) major_page_faults: u64,
    pub(crate) swap: u64,
    /// The limit, if there is one.
    pub(crate) limit: Option<u64>,
}

/// What files take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
}

impl std::ops::AddAssign for Disk {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// One running container.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContainerUsage {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) image: String,
    pub(crate) started: Option<Timestamp>,
    pub(crate) cpu: Cpu,
    pub(crate) memory: Memory,
    /// The writable layer.
    pub(crate) rootfs: Disk,
    pub(crate) logs: Disk,
}

/// One interface of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) rx_bytes: u64,
    pub(crate) rx_errors: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_errors: u64,
}

/// One volume of a pod.
#[derive(Clone, Debug)]
pub(crate) struct VolumeUsage {
    pub(crate) name: String,
    pub(crate) used: Disk,
    pub(crate) filesystem: Filesystem,
    /// Whether it is on the node's disk, so that it counts as the pod's ephemeral storage.
    pub(crate) local: bool,
}

/// One pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodUsage {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) started: Option<Timestamp>,
    pub(crate) cpu: Cpu,
    pub(crate) memory: Memory,
    pub(crate) processes: Option<u64>,
    pub(crate) network: Vec<Interface>,
    pub(crate) containers: Vec<ContainerUsage>,
    pub(crate) volumes: Vec<VolumeUsage>,
}

impl PodUsage {
    /// Writable layers, logs and local volumes.
    pub(crate) fn ephemeral(&self) -> Disk {
        let mut sum = Disk::default();
        for container in &self.containers {
            sum += container.rootfs;
            sum += container.logs;
        }
        for volume in self.volumes.iter().filter(|volume| volume.local) {
            sum += volume.used;
        }
        sum
    }
}

/// Everything at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) at: Timestamp,
    pub(crate) machine: Machine,
    /// The file system of the kubelet's directory.
    pub(crate) node_fs: Option<Filesystem>,
    /// That of the images, and what they take.
    pub(crate) image_fs: Option<(Filesystem, Disk)>,
    pub(crate) pods: Vec<PodUsage>,
}

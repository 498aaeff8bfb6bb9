//! How much there is of each signal now.

use std::collections::BTreeMap;
use std::path::Path;

use super::Signal;
use crate::context::NodeContext;
use crate::stats::{filesystem, machine};

/// What there is and what there could be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Bytes, inodes or process ids that are left.
    pub available: i64,
    /// All there are.
    pub capacity: i64,
}

/// Reads a few files of the kernel. `images` is a path on the file system of images.
pub(super) fn observe(ctx: &NodeContext, images: Option<&Path>) -> BTreeMap<Signal, Observation> {
    let mut all = BTreeMap::new();
    let mut note = |signal, available: u64, capacity: u64| {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        all.insert(signal, Observation { available: number(available), capacity: number(capacity) });
    };
    let machine = machine(&ctx.config.clock);
    note(Signal::MemoryAvailable, machine.memory_available(), machine.memory_capacity);
    if machine.max_pids > 0 {
        note(Signal::PidAvailable, machine.max_pids.saturating_sub(machine.pids), machine.max_pids);
    }
    if let Some(used) = ctx.cgroups.usage_of_all().working_set {
        let capacity = u64::try_from(ctx.memory_capacity).unwrap_or(0);
        note(Signal::AllocatableMemoryAvailable, capacity.saturating_sub(used), capacity);
    }
    if let Some(fs) = filesystem(&ctx.config.data_dir) {
        note(Signal::NodeFsAvailable, fs.available, fs.capacity);
        // Some file systems do not count inodes.
        if fs.inodes > 0 {
            note(Signal::NodeFsInodesFree, fs.inodes_free, fs.inodes);
        }
    }
    if let Some(fs) = images.and_then(filesystem) {
        for signal in [Signal::ImageFsAvailable, Signal::ContainerFsAvailable] {
            note(signal, fs.available, fs.capacity);
        }
        for signal in [Signal::ImageFsInodesFree, Signal::ContainerFsInodesFree] {
            if fs.inodes > 0 {
                note(signal, fs.inodes_free, fs.inodes);
            }
        }
    }
    all
}

//! What the machine has, and what of it pods may use.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::config::KubeletConfig;
use crate::eviction::{EvictionConfig, Signal};
use crate::quantities;

/// Resources by name.
pub(crate) type Resources = BTreeMap<String, Quantity>;

/// The machine's memory in bytes: what is installed, or what the cgroup of this process allows.
pub(crate) fn memory_bytes() -> i64 {
    let installed = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
            line.split_whitespace().nth(1)?.parse::<i64>().ok()
        })
        .map_or(0, |kib| kib * 1_024);
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    limits
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<i64>().ok())
        .filter(|limit| *limit > 0)
        .fold(installed, i64::min)
}

/// Whether the kernel enforces AppArmor profiles.
pub(crate) fn apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y")
}

/// Capacity of the node.
pub(crate) fn capacity(config: &KubeletConfig) -> Resources {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut resources = Resources::from([
        ("cpu".to_owned(), Quantity(cpus.to_string())),
        ("memory".to_owned(), Quantity(format!("{}Ki", memory_bytes() / 1_024))),
        ("pods".to_owned(), Quantity(max_pods(config, cpus).to_string())),
    ]);
    if let Some(bytes) = filesystem_bytes(&config.data_dir) {
        resources.insert("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", bytes / 1_024)));
    }
    for (size, pages) in huge_pages() {
        resources.insert(format!("hugepages-{}", binary(size)), Quantity(binary(size * pages)));
    }
    resources
}

/// How many pods may run here.
fn max_pods(config: &KubeletConfig, cpus: usize) -> u32 {
    match config.pods_per_core {
        0 => config.max_pods,
        per_core => config.max_pods.min(per_core.saturating_mul(u32::try_from(cpus).unwrap_or(u32::MAX))),
    }
}

/// The capacity without what is reserved: the limit of all pods together.
pub(crate) fn unreserved(config: &KubeletConfig, capacity: &Resources) -> Resources {
    let config = KubeletConfig { eviction: EvictionConfig::none(), ..config.clone() };
    allocatable(&config, capacity)
}

/// What pods may use: the capacity without what is reserved and what the hard thresholds of eviction protect.
pub(crate) fn allocatable(config: &KubeletConfig, capacity: &Resources) -> Resources {
    let mut resources = capacity.clone();
    let reserved = |name: &str, read: fn(&str) -> Option<i64>| -> i64 {
        let lists = [&config.system_reserved, &config.kube_reserved];
        lists.into_iter().filter_map(|list| read(list.get(name)?)).sum()
    };
    let protected =
        |signal: Signal, all: i64| config.eviction.hard_threshold(signal).map_or(0, |t| t.of(all));
    if let Some(all) = quantities::listed_milli(Some(capacity), "cpu") {
        let milli = reserved("cpu", quantities::milli_value);
        if milli > 0 {
            resources.insert("cpu".to_owned(), Quantity(format!("{}m", (all - milli).max(0))));
        }
    }
    if let Some(all) = quantities::listed(Some(capacity), "memory") {
        let held = reserved("memory", quantities::value) + protected(Signal::MemoryAvailable, all);
        resources.insert("memory".to_owned(), Quantity(format!("{}Ki", (all - held).max(0) / 1_024)));
    }
    if let Some(all) = quantities::listed(Some(capacity), "ephemeral-storage") {
        let held = reserved("ephemeral-storage", quantities::value) + protected(Signal::NodeFsAvailable, all);
        resources.insert("ephemeral-storage".to_owned(), Quantity((all - held).max(0).to_string()));
    }
    resources
}

fn filesystem_bytes(path: &Path) -> Option<i64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    i64::try_from(stat.f_blocks.checked_mul(stat.f_frsize)?).ok()
}

/// (page size, number of pages) in bytes.
pub(crate) fn huge_pages() -> Vec<(i64, i64)> {
    std::fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let kib: i64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let pages =
                std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            Some((kib * 1_024, pages))
        })
        .collect()
}

/// `2Mi`, `1Gi`, `0`.
fn binary(bytes: i64) -> String {
    match bytes {
        0 => "0".to_owned(),
        bytes if bytes % (1 << 30) == 0 => format!("{}Gi", bytes >> 30),
        bytes if bytes % (1 << 20) == 0 => format!("{}Mi", bytes >> 20),
        bytes => format!("{}Ki", bytes >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_sizes_read_well() {
        assert!(memory_bytes() > 0);
        assert_eq!([0, 2 << 20, 1 << 30, 64 << 10].map(binary), ["0", "2Mi", "1Gi", "64Ki"]);
    }
}

//! The cgroups that the kubelet itself owns: `kubepods`, one per class below it, one per pod below that. The
//! runtime makes those of the containers.
//!
//! v1 (one tree per controller) and v2 (one tree) are told apart by `cgroup.controllers` in the mount.

mod pods;

use std::io;
use std::path::{Path, PathBuf};

pub(crate) use pods::{PodCgroups, as_value};

/// The trees of this machine.
#[derive(Clone, Debug)]
pub(crate) enum Hierarchy {
    /// One tree for everything.
    V2(PathBuf),
    /// A tree per controller: its names (`cpu`, `cpuacct`) and where it is.
    V1(Vec<(Vec<String>, PathBuf)>),
}

/// Limits of one cgroup, in v1's units; `None` leaves a value as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Relative weight, 2 to 262,144.
    pub(crate) cpu_shares: Option<i64>,
    /// Microseconds per period; -1 for no limit.
    pub(crate) cpu_quota: Option<i64>,
    /// The period in microseconds.
    pub(crate) cpu_period: i64,
    /// Bytes; -1 for no limit.
    pub(crate) memory: Option<i64>,
    /// Process ids; -1 for no limit.
    pub(crate) pids: Option<i64>,
    /// Bytes by size of huge pages (`2MB`).
    pub(crate) hugepages: Vec<(String, i64)>,
}

impl Limits {
    /// These limits, where `others` are not wider.
    pub(crate) fn at_least(&self, others: &Self) -> Self {
        let wider = |one: Option<i64>, other: Option<i64>| match (one, other) {
            (Some(one), Some(other)) if one < 0 || other < 0 => Some(-1),
            (one, other) => one.max(other),
        };
        Self {
            cpu_shares: wider(self.cpu_shares, others.cpu_shares),
            cpu_quota: wider(self.cpu_quota, others.cpu_quota),
            cpu_period: others.cpu_period,
            memory: wider(self.memory, others.memory),
            pids: others.pids,
            hugepages: others.hugepages.clone(),
        }
    }
}

/// What a cgroup and those below it use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Bytes of memory, file cache and all: what a limit counts.
    pub(crate) memory: Option<u64>,
    /// Bytes of memory, without file cache that can be dropped at once.
    pub(crate) working_set: Option<u64>,
    /// Number of tasks.
    pub(crate) processes: Option<u64>,
}

impl Hierarchy {
    /// Looks at what is mounted at `mount`.
    pub(crate) fn detect(mount: &Path) -> Self {
        if mount.join("cgroup.controllers").exists() {
            return Self::V2(mount.to_owned());
        }
        let mut trees: Vec<(Vec<String>, PathBuf)> = std::fs::read_dir(mount)
            .into_iter()
            .flatten()
            .flatten()
            // Links such as `cpu -> cpu,cpuacct` are the same tree once more.
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| {
                let names = entry.file_name().to_str()?.split(',').map(str::to_owned).collect();
                Some((names, entry.path()))
            })
            .collect();
        trees.sort();
        Self::V1(trees)
    }

    /// The directory of `cgroup` in the tree of `controller`.
    pub(crate) fn directory(&self, controller: &str, cgroup: &str) -> Option<PathBuf> {
        let relative = cgroup.trim_start_matches('/');
        match self {
            Self::V2(root) => Some(root.join(relative)),
            Self::V1(trees) => {
                let (_, tree) =
                    trees.iter().find(|(names, _)| names.iter().any(|name| name == controller))?;
                Some(tree.join(relative))
            }
        }
    }

    fn directories(&self, cgroup: &str) -> Vec<PathBuf> {
        let relative = cgroup.trim_start_matches('/');
        match self {
            Self::V2(root) => vec![root.join(relative)],
            Self::V1(trees) => trees.iter().map(|(_, tree)| tree.join(relative)).collect(),
        }
    }

    /// Makes `cgroup` and those above it, in every tree.
    pub(crate) fn create(&self, cgroup: &str) -> io::Result<()> {
        let parts: Vec<&str> = cgroup.split('/').filter(|part| !part.is_empty()).collect();
        let roots = self.directories("/");
        for root in roots {
            let mut current = root;
            for part in &parts {
                if matches!(self, Self::V2(_)) {
                    enable_controllers(&current);
                }
                let parent = current.clone();
                current.push(part);
                match std::fs::create_dir(&current) {
                    Ok(()) => inherit_cpuset(&parent, &current),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    // A tree that takes no groups (a read-only `name=systemd`) is not needed for limits.
                    Err(error) if matches!(self, Self::V1(_)) => {
                        tracing::debug!(cgroup = %current.display(), %error, "cgroup not made");
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Sets limits; the first file that does not take its value is named.
    pub(crate) fn set(&self, cgroup: &str, limits: &Limits) -> Result<(), String> {
        let mut values: Vec<(&str, &str, String)> = Vec::new();
        let v2 = matches!(self, Self::V2(_));
        let limit = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
        if let Some(shares) = limits.cpu_shares {
            match v2 {
                true => values.push(("cpu", "cpu.weight", cpu_weight(shares).to_string())),
                false => values.push(("cpu", "cpu.shares", shares.to_string())),
            }
        }
        if let Some(quota) = limits.cpu_quota {
            match v2 {
                true => values.push(("cpu", "cpu.max", format!("{} {}", limit(quota), limits.cpu_period))),
                false => {
                    values.push(("cpu", "cpu.cfs_period_us", limits.cpu_period.to_string()));
                    values.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
                }
            }
        }
        if let Some(memory) = limits.memory {
            match v2 {
                true => values.push(("memory", "memory.max", limit(memory))),
                false => values.push(("memory", "memory.limit_in_bytes", memory.to_string())),
            }
        }
        if let Some(pids) = limits.pids {
            values.push(("pids", "pids.max", limit(pids)));
        }
        for (controller, file, value) in values {
            let Some(directory) = self.directory(controller, cgroup) else { continue };
            put(&directory.join(file), &value)?;
        }
        let Some(directory) = self.directory("hugetlb", cgroup) else { return Ok(()) };
        let last = if v2 { "max" } else { "limit_in_bytes" };
        for (size, bytes) in &limits.hugepages {
            // With the second one a program is refused the pages when it asks for them, not killed when it uses them.
            for file in [format!("hugetlb.{size}.{last}"), format!("hugetlb.{size}.rsvd.{last}")] {
                let path = directory.join(file);
                // Not every kernel counts them.
                if path.exists() {
                    put(&path, &bytes.to_string())?;
                }
            }
        }
        Ok(())
    }

    /// What `cgroup` uses.
    pub(crate) fn usage(&self, cgroup: &str) -> Usage {
        let number = |controller: &str, file: &str| {
            let path = self.directory(controller, cgroup)?.join(file);
            std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
        };
        let v2 = matches!(self, Self::V2(_));
        let (used, cache) = if v2 {
            ("memory.current", "inactive_file ")
        } else {
            ("memory.usage_in_bytes", "total_inactive_file ")
        };
        let cached = self
            .directory("memory", cgroup)
            .and_then(|directory| std::fs::read_to_string(directory.join("memory.stat")).ok())
            .and_then(|text| text.lines().find_map(|line| line.strip_prefix(cache)?.parse::<u64>().ok()))
            .unwrap_or(0);
        let memory = number("memory", used);
        Usage {
            memory,
            working_set: memory.map(|bytes| bytes.saturating_sub(cached)),
            processes: number("pids", "pids.current"),
        }
    }

    /// The groups directly below `cgroup`, by name, of all trees.
    pub(crate) fn children(&self, cgroup: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .directories(cgroup)
            .into_iter()
            .flat_map(|directory| std::fs::read_dir(directory).into_iter().flatten().flatten())
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether any process is in `cgroup` or below.
    pub(crate) fn is_populated(&self, cgroup: &str) -> bool {
        self.directories(cgroup).iter().any(|directory| populated(directory, 0))
    }

    /// Removes `cgroup` and what is below it in every tree; what still has processes stays.
    pub(crate) fn remove(&self, cgroup: &str) {
        if !cgroup.contains("kubepods") {
            return;
        }
        for directory in self.directories(cgroup) {
            if directory.is_dir() {
                remove_tree(&directory);
            }
        }
    }

    /// Removes `cgroup` from every tree where nothing is in it.
    pub(crate) fn remove_empty(&self, cgroup: &str) {
        for directory in self.directories(cgroup) {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

fn put(path: &Path, value: &str) -> Result<(), String> {
    std::fs::write(path, value).map_err(|error| format!("{} = {value}: {error}", path.display()))
}

/// v2's weight of v1's shares, by the linear formula that upstream's kubelet uses.
fn cpu_weight(shares: i64) -> i64 {
    (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142 + 1
}

/// What a cgroup may use, its children may.
fn enable_controllers(directory: &Path) {
    let Ok(available) = std::fs::read_to_string(directory.join("cgroup.controllers")) else { return };
    for controller in available.split_whitespace() {
        let _ = std::fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A v1 cpuset without CPUs takes no processes.
fn inherit_cpuset(parent: &Path, child: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let empty = std::fs::read_to_string(child.join(file)).is_ok_and(|text| text.trim().is_empty());
        if let (true, Ok(value)) = (empty, std::fs::read_to_string(parent.join(file))) {
            let _ = std::fs::write(child.join(file), value.trim());
        }
    }
}

fn populated(directory: &Path, depth: usize) -> bool {
    let own =
        std::fs::read_to_string(directory.join("cgroup.procs")).is_ok_and(|text| !text.trim().is_empty());
    own || (depth < 8
        && std::fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| {
            entry.file_type().is_ok_and(|kind| kind.is_dir()) && populated(&entry.path(), depth + 1)
        }))
}

fn remove_tree(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // A cgroup directory goes by rmdir although files seem to be in it.
    for _ in 0..3 {
        match std::fs::remove_dir(directory) {
            Err(error) if error.raw_os_error() == Some(16) => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn limits_are_written_in_the_words_of_each_version() {
        let limits = Limits {
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            cpu_period: 100_000,
            memory: Some(1 << 20),
            pids: Some(-1),
            hugepages: vec![("2MB".to_owned(), 0), ("1GB".to_owned(), 1 << 30)],
        };
        let v2 = tempfile::tempdir().unwrap();
        std::fs::write(v2.path().join("cgroup.controllers"), "cpu memory pids").unwrap();
        let tree = Hierarchy::detect(v2.path());
        tree.create("/a/kubepods").unwrap();
        for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
            std::fs::write(v2.path().join("a/kubepods").join(file), "max").unwrap();
        }
        tree.set("/a/kubepods", &limits).unwrap();
        let read = |path: &str| std::fs::read_to_string(v2.path().join(path)).unwrap();
        assert_eq!(read("a/kubepods/cpu.weight"), "20");
        assert_eq!(read("a/kubepods/cpu.max"), "50000 100000");
        assert_eq!(read("a/kubepods/memory.max"), "1048576");
        assert_eq!(read("a/kubepods/pids.max"), "max");
        assert_eq!(read("a/kubepods/hugetlb.2MB.max"), "0");
        assert_eq!(read("a/kubepods/hugetlb.2MB.rsvd.max"), "0");
        assert!(!v2.path().join("a/kubepods/hugetlb.1GB.max").exists());

        let v1 = tempfile::tempdir().unwrap();
        for tree in ["cpu,cpuacct", "memory", "pids"] {
            std::fs::create_dir(v1.path().join(tree)).unwrap();
        }
        let trees = Hierarchy::detect(v1.path());
        trees.create("/kubepods").unwrap();
        trees.set("/kubepods", &limits).unwrap();
        let read = |path: &str| std::fs::read_to_string(v1.path().join(path)).unwrap();
        assert_eq!(read("cpu,cpuacct/kubepods/cpu.shares"), "512");
        assert_eq!(read("cpu,cpuacct/kubepods/cpu.cfs_quota_us"), "50000");
        assert_eq!(read("memory/kubepods/memory.limit_in_bytes"), "1048576");
        assert_eq!(trees.children("/"), ["kubepods"]);
    }

    #[test]
    fn the_wider_of_two_limits_is_the_one_that_allows_more() {
        let limits =
            |quota, memory| Limits { cpu_quota: Some(quota), memory: Some(memory), ..Limits::default() };
        assert_eq!(limits(5, -1).at_least(&limits(7, 9)), limits(7, -1));
        assert_eq!(limits(8, 1).at_least(&limits(-1, 0)), limits(-1, 1));
    }

    #[test]
    fn weights_have_the_kernels_bounds() {
        assert_eq!([2, 1_024, 262_144, 0].map(cpu_weight), [1, 39, 10_000, 1]);
    }
}

//! cgroup limits: CRI's numbers as OCI's, which mean the same on v1 and v2.

use sampan_cri::v1;
use serde_json::{Map, Value, json};

use super::{Host, SpecError};

/// The bounds of the kernel for `cpu.shares`.
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

/// `linux.resources` without devices. A 0 or an empty text means not given.
pub(crate) fn resources(
    wanted: &v1::LinuxContainerResources,
    host: &Host,
) -> Result<Map<String, Value>, SpecError> {
    let mut resources = Map::new();
    let mut cpu = Map::new();
    if wanted.cpu_shares > 0 {
        cpu.insert("shares".to_owned(), json!(wanted.cpu_shares.clamp(MIN_SHARES, MAX_SHARES)));
    }
    if wanted.cpu_quota != 0 {
        cpu.insert("quota".to_owned(), json!(wanted.cpu_quota));
    }
    if wanted.cpu_period > 0 {
        cpu.insert("period".to_owned(), json!(wanted.cpu_period));
    }
    for (key, value) in [("cpus", &wanted.cpuset_cpus), ("mems", &wanted.cpuset_mems)] {
        if !value.is_empty() {
            cpu.insert(key.to_owned(), json!(value));
        }
    }
    if !cpu.is_empty() {
        resources.insert("cpu".to_owned(), Value::Object(cpu));
    }

    let mut memory = Map::new();
    if wanted.memory_limit_in_bytes != 0 {
        memory.insert("limit".to_owned(), json!(wanted.memory_limit_in_bytes));
    }
    let swap = match (wanted.memory_swap_limit_in_bytes, wanted.memory_limit_in_bytes) {
        // A limit without a word about swap means no swap, as in containerd.
        (0, limit) if limit > 0 => limit,
        (swap, _) => swap,
    };
    if swap != 0 && host.cgroups.counts_swap() {
        memory.insert("swap".to_owned(), json!(swap));
    }
    if !memory.is_empty() {
        resources.insert("memory".to_owned(), Value::Object(memory));
    }

    let hugepages: Vec<Value> = wanted
        .hugepage_limits
        .iter()
        .filter(|limit| host.cgroups.has_hugepages(&limit.page_size))
        .map(|limit| json!({"pageSize": limit.page_size, "limit": limit.limit}))
        .collect();
    if !hugepages.is_empty() {
        resources.insert("hugepageLimits".to_owned(), Value::Array(hugepages));
    }

    if !wanted.unified.is_empty() && host.cgroups.is_v2() {
        for key in wanted.unified.keys() {
            let name = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte));
            if !name || !key.contains('.') || key.starts_with("cgroup.") {
                return Err(SpecError::invalid(format!("{key:?} is not a cgroup v2 setting")));
            }
        }
        resources.insert("unified".to_owned(), json!(wanted.unified));
    }
    Ok(resources)
}

/// An update changes what it names and leaves the rest.
pub(crate) fn merge(old: &mut v1::LinuxContainerResources, new: &v1::LinuxContainerResources) {
    macro_rules! take {
        ($($field:ident),*) => {$(
            if new.$field != 0 {
                old.$field = new.$field;
            }
        )*};
    }
    take!(
        cpu_period,
        cpu_quota,
        cpu_shares,
        memory_limit_in_bytes,
        oom_score_adj,
        memory_swap_limit_in_bytes
    );
    for (old, new) in [(&mut old.cpuset_cpus, &new.cpuset_cpus), (&mut old.cpuset_mems, &new.cpuset_mems)] {
        if !new.is_empty() {
            old.clone_from(new);
        }
    }
    if !new.hugepage_limits.is_empty() {
        old.hugepage_limits.clone_from(&new.hugepage_limits);
    }
    old.unified.extend(new.unified.clone());
}

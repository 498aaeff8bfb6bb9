//! Usage of containers and sandboxes, from their cgroups.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sampan_cri::v1::{self, UInt64Value};

use crate::cgroups::read::CgroupUsage;
use crate::container::Container;
use crate::runtime::Runtime;
use crate::sandbox::Sandbox;
use crate::time;

/// Walking a writable layer is slow; its size may be this old.
const DISK_AGE: Duration = Duration::from_secs(10);
/// A rate over less than this is noise.
const RATE_WINDOW: Duration = Duration::from_millis(100);

fn value(number: Option<u64>) -> Option<UInt64Value> {
    number.map(|value| UInt64Value { value })
}

/// One container's stats; numbers that nobody counts are absent. Blocking.
pub(crate) fn container(runtime: &Runtime, container: &Container) -> v1::ContainerStats {
    let (attributes, cgroup) = {
        let record = container.record();
        let attributes = v1::ContainerAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        };
        (attributes, record.cgroup.clone())
    };
    let usage = runtime.host.cgroups.usage(&cgroup);
    let timestamp = time::now();
    let rate = usage.cpu_nanos.and_then(|nanos| cpu_rate(container, nanos));
    v1::ContainerStats {
        attributes: Some(attributes),
        cpu: Some(cpu(&usage, timestamp, rate)),
        memory: Some(memory(&usage, timestamp)),
        writable_layer: disk(runtime, container, timestamp),
        swap: Some(v1::SwapUsage {
            timestamp,
            swap_available_bytes: value(
                usage.swap_limit.map(|limit| limit.saturating_sub(usage.swap.unwrap_or(0))),
            ),
            swap_usage_bytes: value(usage.swap),
        }),
        io: Some(v1::IoUsage { timestamp, psi: usage.io_psi }),
    }
}

/// One sandbox's stats: its containers, and their parent cgroup as the sum. Blocking.
pub(crate) fn sandbox(runtime: &Arc<Runtime>, sandbox: &Sandbox) -> v1::PodSandboxStats {
    let record = sandbox.record().clone();
    let usage = runtime.host.cgroups.usage(&record.cgroup_parent);
    let timestamp = time::now();
    let containers = runtime
        .containers_of(&sandbox.id)
        .into_iter()
        .filter(|container| container.status().state == crate::state::ContainerState::Running)
        .map(|each| container(runtime, &each))
        .collect();
    v1::PodSandboxStats {
        attributes: Some(v1::PodSandboxAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }),
        linux: Some(v1::LinuxPodSandboxStats {
            cpu: Some(cpu(&usage, timestamp, None)),
            memory: Some(memory(&usage, timestamp)),
            network: network(&record, timestamp),
            process: Some(v1::ProcessUsage { timestamp, process_count: value(usage.processes) }),
            containers,
            io: Some(v1::IoUsage { timestamp, psi: usage.io_psi }),
        }),
        windows: None,
    }
}

fn cpu(usage: &CgroupUsage, timestamp: i64, rate: Option<u64>) -> v1::CpuUsage {
    v1::CpuUsage {
        timestamp,
        usage_core_nano_seconds: value(usage.cpu_nanos),
        usage_nano_cores: value(rate),
        psi: usage.cpu_psi,
    }
}

fn memory(usage: &CgroupUsage, timestamp: i64) -> v1::MemoryUsage {
    let available = usage.limit.zip(usage.working_set).map(|(limit, used)| limit.saturating_sub(used));
    v1::MemoryUsage {
        timestamp,
        working_set_bytes: value(usage.working_set),
        available_bytes: value(available),
        usage_bytes: value(usage.memory),
        rss_bytes: value(usage.rss),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
        psi: usage.memory_psi,
    }
}

/// CPU nanoseconds per second since the last sample that is old enough.
fn cpu_rate(container: &Container, nanos: u64) -> Option<u64> {
    let mut sample = container.cpu_sample.lock().expect("no panic under this lock");
    let now = Instant::now();
    let Some((then, before)) = *sample else {
        *sample = Some((now, nanos));
        return None;
    };
    let elapsed = now.duration_since(then);
    if elapsed < RATE_WINDOW {
        return None;
    }
    *sample = Some((now, nanos));
    let rate = u128::from(nanos.saturating_sub(before)) * 1_000_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(rate).ok()
}

fn disk(runtime: &Runtime, container: &Container, timestamp: i64) -> Option<v1::FilesystemUsage> {
    let mut cached = container.disk_usage.lock().expect("no panic under this lock");
    if cached.is_none_or(|(at, _, _)| at.elapsed() > DISK_AGE) {
        let usage = runtime.config.images.snapshots().usage(&container.id).ok()?;
        *cached = Some((Instant::now(), usage.bytes, usage.inodes));
    }
    let (_, bytes, inodes) = (*cached)?;
    let mountpoint = runtime.config.images.snapshots().dir().display().to_string();
    Some(v1::FilesystemUsage {
        timestamp,
        fs_id: Some(v1::FilesystemIdentifier { mountpoint }),
        used_bytes: value(Some(bytes)),
        inodes_used: value(Some(inodes)),
    })
}

/// Counters of the sandbox's interfaces, read through one of its processes.
fn network(record: &crate::state::SandboxRecord, timestamp: i64) -> Option<v1::NetworkUsage> {
    let netns = record.namespaces.net.clone()?;
    let (sender, receiver) = std::sync::mpsc::channel();
    // /proc/net follows the thread that reads it.
    std::thread::spawn(move || {
        let read = || -> std::io::Result<String> {
            let namespace = std::fs::File::open(netns)?;
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )?;
            std::fs::read_to_string("/proc/thread-self/net/dev")
        };
        let _ = sender.send(read());
    });
    let text = receiver.recv().ok()?.ok()?;
    let (default, others): (Vec<_>, Vec<_>) =
        interfaces(&text).into_iter().partition(|interface| interface.name == "eth0");
    Some(v1::NetworkUsage { timestamp, default_interface: default.into_iter().next(), interfaces: others })
}

/// `/proc/net/dev` without the loopback.
fn interfaces(text: &str) -> Vec<v1::NetworkInterfaceUsage> {
    text.lines()
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let counters: Vec<u64> =
                counters.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
            let name = name.trim();
            (name != "lo").then(|| v1::NetworkInterfaceUsage {
                name: name.to_owned(),
                rx_bytes: value(counters.first().copied()),
                rx_errors: value(counters.get(2).copied()),
                tx_bytes: value(counters.get(8).copied()),
                tx_errors: value(counters.get(10).copied()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters_are_found() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n\
                    \x20 eth0: 100 2 3 0 0 0 0 0 200 4 5 0 0 0 0 0\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].tx_bytes, value(Some(200)));
        assert_eq!(found[0].tx_errors, value(Some(5)));
    }
}

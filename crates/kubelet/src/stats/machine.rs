//! The machine: CPU time, memory, process ids.

use std::path::Path;

use super::{Cpu, Memory};
use crate::clock::Clock;
use crate::node::capacity::memory_bytes;

/// The kernel's clock ticks per second in `/proc/stat`.
const TICK_NANOS: u64 = 10_000_000;

/// The node as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) cpu: Cpu,
    pub(crate) memory: Memory,
    /// All memory there is, in bytes.
    pub(crate) memory_capacity: u64,
    /// Process ids: how many there may be and how many are taken.
    pub(crate) max_pids: u64,
    pub(crate) pids: u64,
}

impl Machine {
    /// Memory that pods can still have.
    pub(crate) fn memory_available(&self) -> u64 {
        self.memory_capacity.saturating_sub(self.memory.working_set)
    }
}

/// Reads a few small files of the kernel.
pub(crate) fn machine(clock: &Clock) -> Machine {
    let now = Some(clock.now());
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let number = |path: &str| read(path).trim().parse::<u64>().ok();
    let mut memory = memory_of(&read("/proc/meminfo"));
    // In a container that has a limit the machine is that container.
    for (usage, stat, cache) in [
        ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file "),
        (
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
            "/sys/fs/cgroup/memory/memory.stat",
            "total_inactive_file ",
        ),
    ] {
        if let Some(usage) = number(usage) {
            let cached = read(stat)
                .lines()
                .find_map(|line| line.strip_prefix(cache)?.parse::<u64>().ok())
                .unwrap_or(0);
            memory.usage = usage;
            memory.working_set = usage.saturating_sub(cached);
            break;
        }
    }
    memory.at = now;
    let max_pids = number("/proc/sys/kernel/pid_max")
        .unwrap_or(0)
        .min(number("/proc/sys/kernel/threads-max").unwrap_or(u64::MAX));
    Machine {
        cpu: Cpu { at: now, total_nanos: busy_nanos(&read("/proc/stat")), rate: None },
        memory,
        memory_capacity: u64::try_from(memory_bytes()).unwrap_or(0),
        max_pids: [Path::new("/sys/fs/cgroup/pids.max"), Path::new("/sys/fs/cgroup/pids/pids.max")]
            .into_iter()
            .filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
            .fold(max_pids, u64::min),
        pids: tasks(&read("/proc/loadavg")),
    }
}

/// The fourth field of `/proc/loadavg` is running/all tasks.
fn tasks(loadavg: &str) -> u64 {
    loadavg.split_whitespace().nth(3).and_then(|field| field.split_once('/')?.1.parse().ok()).unwrap_or(0)
}

/// The first line of `/proc/stat`: all but idle and waiting for I/O. Guests are in user already.
fn busy_nanos(stat: &str) -> u64 {
    let Some(line) = stat.lines().find_map(|line| line.strip_prefix("cpu ")) else { return 0 };
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).take(8).collect();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (ticks.iter().sum::<u64>() - idle) * TICK_NANOS
}

fn memory_of(meminfo: &str) -> Memory {
    let bytes = |name: &str| -> u64 {
        meminfo
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse::<u64>().ok()
            })
            .map_or(0, |kib| kib * 1_024)
    };
    let usage = bytes("MemTotal").saturating_sub(bytes("MemFree"));
    Memory {
        usage,
        working_set: usage.saturating_sub(bytes("Inactive(file)")),
        rss: bytes("AnonPages"),
        swap: bytes("SwapTotal").saturating_sub(bytes("SwapFree")),
        ..Memory::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_files_are_read() {
        assert_eq!(busy_nanos("cpu  10 0 5 100 7 1 2 0 0 0\ncpu0 1\n"), 18 * TICK_NANOS);
        assert_eq!(tasks("0.1 0.2 0.3 2/345 999"), 345);
        let memory = memory_of("MemTotal: 100 kB\nMemFree: 40 kB\nInactive(file): 10 kB\n");
        assert_eq!((memory.usage, memory.working_set), (60 << 10, 50 << 10));
        let now = machine(&Clock::System);
        assert!(now.memory_capacity > 0 && now.memory.working_set > 0 && now.max_pids > 0 && now.pids > 0);
    }
}

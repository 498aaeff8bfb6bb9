//! What a cgroup used: the numbers behind CRI's stats, read from v1 or v2 files.

use std::fs;
use std::path::Path;

use sampan_cri::v1;

use super::Cgroups;

/// Usage of a cgroup and everything below it; what the machine does not count is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CgroupUsage {
    /// CPU time in nanoseconds.
    pub(crate) cpu_nanos: Option<u64>,
    /// Bytes in use.
    pub(crate) memory: Option<u64>,
    /// Without the file cache that can be dropped at once.
    pub(crate) working_set: Option<u64>,
    /// Anonymous memory.
    pub(crate) rss: Option<u64>,
    /// The limit; none when unlimited.
    pub(crate) limit: Option<u64>,
    pub(crate) page_faults: Option<u64>,
    pub(crate) major_page_faults: Option<u64>,
    /// Swap in use and its limit.
    pub(crate) swap: Option<u64>,
    pub(crate) swap_limit: Option<u64>,
    pub(crate) processes: Option<u64>,
    pub(crate) cpu_psi: Option<v1::PsiStats>,
    pub(crate) memory_psi: Option<v1::PsiStats>,
    pub(crate) io_psi: Option<v1::PsiStats>,
}

/// v1 writes this (a page-aligned i64::MAX) for no limit.
const NO_LIMIT: u64 = 1 << 62;

impl Cgroups {
    /// Reads a cgroup's usage. A handful of small files of the kernel: quick, but blocking.
    pub(crate) fn usage(&self, cgroup: &str) -> CgroupUsage {
        match self {
            Self::V2 { root } => v2(&root.join(cgroup.trim_start_matches('/'))),
            Self::V1 { .. } => self.v1(cgroup),
        }
    }

    fn v1(&self, cgroup: &str) -> CgroupUsage {
        let mut usage = CgroupUsage::default();
        if let Some(dir) = self.directory("cpuacct", cgroup) {
            usage.cpu_nanos = number(&dir, "cpuacct.usage");
        }
        if let Some(dir) = self.directory("memory", cgroup) {
            let stat = Stat::read(&dir, "memory.stat");
            usage.memory = number(&dir, "memory.usage_in_bytes");
            let inactive = stat.get("total_inactive_file").unwrap_or(0);
            usage.working_set = usage.memory.map(|bytes| bytes.saturating_sub(inactive));
            usage.rss = stat.get("total_rss");
            usage.limit = number(&dir, "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT);
            usage.page_faults = stat.get("total_pgfault");
            usage.major_page_faults = stat.get("total_pgmajfault");
            usage.swap = stat.get("total_swap");
            let both = number(&dir, "memory.memsw.limit_in_bytes").filter(|limit| *limit < NO_LIMIT);
            usage.swap_limit = both.zip(usage.limit).map(|(both, memory)| both.saturating_sub(memory));
        }
        if let Some(dir) = self.directory("pids", cgroup) {
            usage.processes = number(&dir, "pids.current");
        }
        usage
    }
}

fn v2(dir: &Path) -> CgroupUsage {
    let stat = Stat::read(dir, "memory.stat");
    let memory = number(dir, "memory.current");
    let inactive = stat.get("inactive_file").unwrap_or(0);
    CgroupUsage {
        cpu_nanos: Stat::read(dir, "cpu.stat").get("usage_usec").map(|micros| micros.saturating_mul(1000)),
        memory,
        working_set: memory.map(|bytes| bytes.saturating_sub(inactive)),
        rss: stat.get("anon"),
        limit: number(dir, "memory.max"),
        page_faults: stat.get("pgfault"),
        major_page_faults: stat.get("pgmajfault"),
        swap: number(dir, "memory.swap.current"),
        swap_limit: number(dir, "memory.swap.max"),
        processes: number(dir, "pids.current"),
        cpu_psi: pressure(dir, "cpu.pressure"),
        memory_psi: pressure(dir, "memory.pressure"),
        io_psi: pressure(dir, "io.pressure"),
    }
}

/// A file with one number; `max` is none.
fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

/// A file with lines of a name and a number.
struct Stat(String);

impl Stat {
    fn read(dir: &Path, file: &str) -> Self {
        Self(fs::read_to_string(dir.join(file)).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}

fn pressure(dir: &Path, file: &str) -> Option<v1::PsiStats> {
    fs::read_to_string(dir.join(file)).ok().map(|text| parse_pressure(&text))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn parse_pressure(text: &str) -> v1::PsiStats {
    let line = |kind: &str| {
        let fields = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let value = |name: &str| {
            fields.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        Some(v1::PsiData {
            total: value("total")?.parse::<u64>().ok()?.saturating_mul(1000),
            avg10: value("avg10")?.parse().ok()?,
            avg60: value("avg60")?.parse().ok()?,
            avg300: value("avg300")?.parse().ok()?,
        })
    };
    v1::PsiStats { full: line("full"), some: line("some") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_in_nanoseconds() {
        let text = "some avg10=1.50 avg60=0.20 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
        let psi = parse_pressure(text);
        assert_eq!(psi.some.map(|some| (some.total, some.avg10)), Some((12_000, 1.5)));
        assert_eq!(psi.full.map(|full| full.total), Some(3000));
    }
}

//! What this machine and this process can give to containers; read once at start.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::apparmor::AppArmor;
use super::capabilities::{self, CapabilitySet};
use crate::cgroups::Cgroups;

/// The usual bound of open files; more makes programs that close every possible descriptor crawl.
const MAX_OPEN_FILES: u64 = 1_048_576;

/// What containers can be given here.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// Our own bounding set: nothing outside it can be given away.
    pub(crate) capabilities: CapabilitySet,
    /// Our own score; without CAP_SYS_RESOURCE nobody gets a lower one.
    pub(crate) oom_score_adj: i32,
    /// RLIMIT_NOFILE for containers.
    pub(crate) open_files: u64,
    /// The machine's cgroups.
    pub(crate) cgroups: Cgroups,
    /// The kernel's AppArmor profiles.
    pub(crate) apparmor: AppArmor,
    /// The kernel's hostname: that of pods in the host's network.
    pub(crate) hostname: String,
}

impl Host {
    pub(crate) fn read() -> Self {
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(MAX_OPEN_FILES);
        Self {
            capabilities: capabilities::own(),
            oom_score_adj: read_number("/proc/self/oom_score_adj"),
            open_files: hard.min(MAX_OPEN_FILES),
            cgroups: Cgroups::detect(),
            apparmor: AppArmor::detect(),
            hostname: fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
        }
    }

    /// The score that can be set. Many containers and machines lack the right to lower it: no pod fails for that.
    pub(crate) fn clamp_oom_score_adj(&self, wanted: i64) -> i32 {
        let wanted = i32::try_from(wanted.clamp(-1000, 1000)).unwrap_or(0);
        if self.capabilities.contains("CAP_SYS_RESOURCE") { wanted } else { wanted.max(self.oom_score_adj) }
    }
}

fn read_number(path: &str) -> i32 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

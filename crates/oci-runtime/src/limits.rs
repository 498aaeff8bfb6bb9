//! Limits that this process may not raise: clamped, never a reason not to start a container.
//!
//! Without CAP_SYS_RESOURCE (machines that are containers themselves) the kernel refuses to lower an oom
//! score below where it was and to raise hard limits. containerd calls it `restrict_oom_score_adj`.

use std::fs;

use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

/// CAP_SYS_RESOURCE's bit.
const SYS_RESOURCE: u32 = 24;

fn may_raise() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|caps| caps >> SYS_RESOURCE & 1 == 1)
}

/// Sets this process's oom score (what it starts inherits it), as near as the kernel allows.
pub(crate) fn set_oom_score(score: i64) {
    let path = "/proc/self/oom_score_adj";
    if fs::write(path, score.to_string()).is_ok() {
        return;
    }
    // Refused: below the least that this process has had. That is then the nearest.
    let now = fs::read_to_string(path).ok();
    let mut low = score;
    let mut high = now.and_then(|n| n.trim().parse().ok()).unwrap_or(0_i64);
    while low + 1 < high {
        let middle = low.midpoint(high);
        if fs::write(path, middle.to_string()).is_ok() {
            high = middle;
        } else {
            low = middle;
        }
    }
}

/// Lowers a process's `rlimits` to what this process may set.
pub(crate) fn clamp_rlimits(process: &mut Value) {
    if may_raise() {
        return;
    }
    let Some(limits) = process.get_mut("rlimits").and_then(Value::as_array_mut) else {
        return;
    };
    for limit in limits {
        let kind = limit.get("type").and_then(Value::as_str).and_then(resource);
        let Some(most) = kind.and_then(|kind| getrlimit(kind).maximum) else {
            continue;
        };
        for bound in ["hard", "soft"] {
            if limit.get(bound).and_then(Value::as_u64).is_some_and(|n| n > most) {
                limit[bound] = json!(most);
            }
        }
    }
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        _ => return None,
    })
}

//! The names of what a test makes, and how all of it goes when the test fails: by force.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, getpid, kill_process};

use super::node::cgroup_directories;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A directory and a bridge of this process's own; `cargo xtask leaks` knows whose they are.
pub fn names() -> (PathBuf, String) {
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    (std::env::temp_dir().join(format!("smpt-{process}-{count}")), format!("smpt{process}p{count}"))
}

/// The cgroup of the pods of what lives in this directory.
pub fn cgroup(dir: &Path) -> String {
    format!("/{}", dir.file_name().unwrap_or_default().to_string_lossy())
}

/// Ends the processes that name the directory, then what is in the cgroup; unmounts what is below the directory;
/// removes all of it, and the bridge with its rules.
pub fn remove(dir: &Path, bridge: Option<&str>, cgroup: &str) {
    let marker = dir.display().to_string();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(&marker) {
            kill(&entry.file_name().to_string_lossy());
        }
    }
    for directory in cgroup_directories(cgroup) {
        // What was killed leaves its cgroup a moment later.
        for _ in 0..100 {
            if remove_cgroup(Path::new(&directory)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4));
    for target in targets.filter(|target| target.starts_with(&marker)) {
        let _ = unmount(target, UnmountFlags::DETACH);
    }
    if let Some(bridge) = bridge {
        let _ = Command::new("ip").args(["link", "delete", bridge]).output();
        let _ = Command::new("nft").args(["delete", "table", "ip", bridge]).output();
    }
    let _ = std::fs::remove_dir_all(dir);
}

fn kill(pid: &str) {
    let pid = pid.parse().ok().and_then(Pid::from_raw);
    if let Some(pid) = pid.filter(|pid| *pid != getpid()) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Ends what is in a cgroup and below it and removes it; false while something still ends.
fn remove_cgroup(directory: &Path) -> bool {
    std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default().lines().for_each(kill);
    let below = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let gone = below.filter(|path| path.is_dir()).all(|path| remove_cgroup(&path));
    gone && std::fs::remove_dir(directory).is_ok()
}

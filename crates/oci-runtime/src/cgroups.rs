//! The cgroup hierarchies that libcgroups leaves out, and removing a container's cgroups everywhere.
//!
//! With v1, systemd keeps its own books in `name=systemd`, and a hybrid set-up has a v2 hierarchy beside the
//! others. A container that stays in its engine's group there is killed when systemd stops the engine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// How long killed processes may take to leave their cgroup.
const PATIENCE: Duration = Duration::from_secs(10);

/// A mounted hierarchy.
#[derive(Debug)]
struct Hierarchy {
    mount: PathBuf,
    /// v2, or v1 with a name and no controllers.
    plain: bool,
    v2: bool,
}

fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let kind = right.next()?;
        let options = right.nth(1).unwrap_or_default();
        let mut left = left.split(' ').skip(3);
        let (root, mount) = (left.next()?, left.next()?);
        // Only whole hierarchies, where the engine sees them.
        if !kind.starts_with("cgroup") || !mount.starts_with("/sys/fs/cgroup") || root.contains("..") {
            return None;
        }
        let v2 = kind == "cgroup2";
        Some(Hierarchy {
            mount: PathBuf::from(mount),
            plain: v2 || options.split(',').any(|option| option.starts_with("name=")),
            v2,
        })
    });
    mounts.collect()
}

/// The container's directory in each hierarchy.
fn directories(path: &Path) -> Vec<PathBuf> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let hierarchies = hierarchies().into_iter();
    hierarchies.map(|h| h.mount.join(relative)).collect()
}

/// Where this process was before it joined a container's cgroup.
#[derive(Debug, Default)]
pub(crate) struct Before(Vec<PathBuf>);

impl Before {
    /// Goes back, so that the container's cgroup can be removed.
    pub(crate) fn restore(&self) {
        for dir in &self.0 {
            let _ = fs::write(dir.join("cgroup.procs"), "0");
        }
    }
}

/// Joins this process to the container's cgroup in the hierarchies that libcgroups leaves out.
pub(crate) fn join_plain(path: &Path) -> Result<Before> {
    let hierarchies = hierarchies();
    let mut before = Before::default();
    if hierarchies.iter().all(|hierarchy| hierarchy.v2) {
        return Ok(before);
    }
    let relative = path.strip_prefix("/").unwrap_or(path);
    for hierarchy in hierarchies.iter().filter(|hierarchy| hierarchy.plain) {
        let dir = hierarchy.mount.join(relative);
        fs::create_dir_all(&dir).map_err(Error::file("make cgroup", &dir))?;
        before.0.push(hierarchy.mount.join(current(hierarchy.v2)));
        let procs = dir.join("cgroup.procs");
        fs::write(&procs, "0").map_err(Error::file("join cgroup", &procs))?;
    }
    Ok(before)
}

/// This process's cgroup in the v2 hierarchy or in the named v1 one, relative to the mount.
fn current(v2: bool) -> PathBuf {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let found = lines.find(|(name, _)| if v2 { name.is_empty() } else { name.starts_with("name=") });
    PathBuf::from(found.map_or("", |(_, path)| path.trim_start_matches('/')))
}

/// All processes in the container's cgroups and below.
pub(crate) fn processes(path: &Path) -> Vec<i32> {
    let mut pids = Vec::new();
    for dir in directories(path) {
        collect(&dir, &mut pids);
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn collect(dir: &Path, pids: &mut Vec<i32>) {
    let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
    for child in children(dir) {
        collect(&child, pids);
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Thaws a v1 freezer: frozen processes do not take signals.
pub(crate) fn thaw(path: &Path) {
    for dir in directories(path) {
        let state = dir.join("freezer.state");
        if state.exists() {
            let _ = fs::write(state, "THAWED");
        }
    }
}

/// Removes the container's cgroups; waits for processes that are ending.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if path == Path::new("/") {
        return Ok(());
    }
    let deadline = Instant::now() + PATIENCE;
    for dir in directories(path) {
        let mut pause = Duration::from_micros(500);
        loop {
            match remove_tree(&dir) {
                Ok(()) => break,
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(error) => return Err(Error::file("remove cgroup", &dir)(error)),
            }
        }
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let again = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    match again(fs::remove_dir(dir)) {
        Ok(()) => return Ok(()),
        Err(error) if error.raw_os_error() != Some(libc::EBUSY) => return Err(error),
        Err(_) => {}
    }
    for child in children(dir) {
        remove_tree(&child)?;
    }
    again(fs::remove_dir(dir))
}

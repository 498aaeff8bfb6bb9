//! The machine's control groups, v1, v2 or both: where they are mounted, and the few things that the runtime
//! itself does with them (the OCI runtime does the rest).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) mod moves;
pub(crate) mod read;

/// `statfs` type of a v2 mount.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const ROOT: &str = "/sys/fs/cgroup";

/// The hierarchies of this machine.
#[derive(Clone, Debug)]
pub(crate) enum Cgroups {
    /// One for everything.
    V2 {
        /// Where it is mounted.
        root: PathBuf,
    },
    /// One or more controllers each.
    V1 {
        /// Controller (or `name=x`, or `unified` for a v2 hierarchy beside them) to its mount.
        mounts: BTreeMap<String, PathBuf>,
    },
}

impl Cgroups {
    /// Looks at `/sys/fs/cgroup` and the mount table.
    pub(crate) fn detect() -> Self {
        let root = PathBuf::from(ROOT);
        let magic = rustix::fs::statfs(&root).map(|stat| stat.f_type as u64).unwrap_or(0);
        if magic == CGROUP2_MAGIC {
            return Self::V2 { root };
        }
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").map(|text| v1_mounts(&text)).unwrap_or_default();
        Self::V1 { mounts }
    }

    pub(crate) fn is_v2(&self) -> bool {
        matches!(self, Self::V2 { .. })
    }

    /// The directory of a cgroup for one controller (v2: the only one).
    pub(crate) fn directory(&self, controller: &str, cgroup: &str) -> Option<PathBuf> {
        let relative = cgroup.trim_start_matches('/');
        match self {
            Self::V2 { root } => Some(root.join(relative)),
            Self::V1 { mounts } => mounts.get(controller).map(|mount| mount.join(relative)),
        }
    }

    /// The directory that a line of `/proc/PID/cgroup` means: `4:memory:/…`, `9:name=systemd:/…`, `0::/…`. None where
    /// that is not mounted, or lies above what this process may see.
    pub(crate) fn directory_of(&self, line: &str) -> Option<PathBuf> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, cgroup) = (fields.next()?, fields.next()?);
        let first = controllers.split(',').next().filter(|name| !name.is_empty()).unwrap_or("unified");
        if cgroup.starts_with("/..") { None } else { self.directory(first, cgroup) }
    }

    /// All directories of a cgroup, each once.
    pub(crate) fn directories(&self, cgroup: &str) -> Vec<PathBuf> {
        let relative = cgroup.trim_start_matches('/');
        match self {
            Self::V2 { root } => vec![root.join(relative)],
            Self::V1 { mounts } => {
                let mut all: Vec<PathBuf> = mounts.values().map(|mount| mount.join(relative)).collect();
                all.sort();
                all.dedup();
                all
            }
        }
    }

    /// Makes a cgroup where it is missing; says which of its directories were. v1's cpuset needs its parent's
    /// values, v2's children need their controllers switched on.
    pub(crate) fn create(&self, cgroup: &str) -> io::Result<Vec<PathBuf>> {
        let relative = Path::new(cgroup.trim_start_matches('/'));
        let mut made = Vec::new();
        match self {
            Self::V2 { root } => {
                let (mut current, mut new) = (root.clone(), false);
                for part in relative.components() {
                    enable_controllers(&current);
                    current.push(part);
                    new = make(&current)?;
                }
                made.extend(new.then_some(current));
            }
            Self::V1 { mounts } => {
                let mut seen = Vec::new();
                for (controller, mount) in mounts {
                    if seen.contains(&mount) {
                        continue;
                    }
                    seen.push(mount);
                    let (mut current, mut new) = (mount.clone(), false);
                    for part in relative.components() {
                        let parent = current.clone();
                        current.push(part);
                        new = make(&current)?;
                        if controller.contains("cpuset") {
                            inherit_cpuset(&parent, &current);
                        }
                    }
                    made.extend(new.then_some(current));
                }
            }
        }
        Ok(made)
    }

    /// Removes a cgroup's directories; what is gone or still in use is left alone.
    pub(crate) fn remove(&self, cgroup: &str) {
        if cgroup.trim_matches('/').is_empty() {
            return;
        }
        for directory in self.directories(cgroup) {
            let _ = fs::remove_dir(directory);
        }
    }

    /// Kills every process in a cgroup and below, and waits (at most two seconds) until it is empty. Blocking.
    pub(crate) fn kill(&self, cgroup: &str) {
        if cgroup.trim_matches('/').is_empty() {
            return;
        }
        for _ in 0..100 {
            let mut pids = Vec::new();
            for directory in self.directories(cgroup) {
                let _ = fs::write(directory.join("cgroup.kill"), "1");
                processes(&directory, 0, &mut pids);
            }
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether a swap limit can be set.
    pub(crate) fn counts_swap(&self) -> bool {
        match self {
            Self::V2 { .. } => Path::new("/proc/swaps").exists(),
            Self::V1 { mounts } => {
                mounts.get("memory").is_some_and(|mount| mount.join("memory.memsw.limit_in_bytes").exists())
            }
        }
    }

    /// Whether huge pages of this size (`2MB`) can be limited.
    pub(crate) fn has_hugepages(&self, size: &str) -> bool {
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return false;
        }
        match self {
            Self::V2 { root } => {
                fs::read_to_string(root.join("cgroup.controllers")).is_ok_and(|text| text.contains("hugetlb"))
            }
            Self::V1 { mounts } => mounts
                .get("hugetlb")
                .is_some_and(|mount| mount.join(format!("hugetlb.{size}.limit_in_bytes")).exists()),
        }
    }
}

/// Lines such as `30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu`.
fn v1_mounts(mountinfo: &str) -> BTreeMap<String, PathBuf> {
    const NOT_CONTROLLERS: &[&str] = &["rw", "ro", "xattr", "clone_children", "noprefix"];
    let mut mounts = BTreeMap::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let mut after = after.split(' ');
        let kind = after.next();
        let Some(path) = before.split(' ').nth(4) else { continue };
        if kind == Some("cgroup2") {
            // Beside v1 it has no controllers, but OCI runtimes make their cgroups there too.
            mounts.entry("unified".to_owned()).or_insert_with(|| PathBuf::from(path));
        }
        if kind != Some("cgroup") {
            continue;
        }
        for controller in after.nth(1).unwrap_or_default().split(',') {
            let known = NOT_CONTROLLERS.contains(&controller) || controller.starts_with("release_agent");
            if !known && !controller.is_empty() {
                mounts.entry(controller.to_owned()).or_insert_with(|| PathBuf::from(path));
            }
        }
    }
    mounts
}

fn make(path: &Path) -> io::Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// A v1 cpuset without CPUs takes no processes.
fn inherit_cpuset(parent: &Path, child: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let empty = fs::read_to_string(child.join(file)).is_ok_and(|text| text.trim().is_empty());
        if let (true, Ok(value)) = (empty, fs::read_to_string(parent.join(file))) {
            let _ = fs::write(child.join(file), value.trim());
        }
    }
}

/// v2: what a cgroup may use, its children may.
fn enable_controllers(directory: &Path) {
    let Ok(available) = fs::read_to_string(directory.join("cgroup.controllers")) else { return };
    for controller in available.split_whitespace() {
        let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn processes(directory: &Path, depth: usize, pids: &mut Vec<i32>) {
    if depth > 8 {
        return;
    }
    if let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) {
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 1));
    }
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes(&entry.path(), depth + 1, pids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_says_where_it_is() {
        let mount = |name: &str| (name.to_owned(), PathBuf::from("/cg").join(name));
        let v1 = Cgroups::V1 { mounts: [mount("cpu"), mount("name=systemd"), mount("unified")].into() };
        assert_eq!(v1.directory_of("1:cpu,cpuacct:/a:b"), Some("/cg/cpu/a:b".into()));
        assert_eq!(v1.directory_of("9:name=systemd:/"), Some("/cg/name=systemd/".into()));
        assert_eq!(v1.directory_of("0::/a"), Some("/cg/unified/a".into()));
        assert_eq!(v1.directory_of("2:memory:/a"), None);
        assert_eq!(v1.directory_of("1:cpu:/../a"), None);
        let v2 = Cgroups::V2 { root: "/cg".into() };
        assert_eq!(v2.directory_of("0::/a"), Some("/cg/a".into()));
    }

    #[test]
    fn what_somebody_else_has_made_is_not_ours() {
        let dir = tempfile::tempdir().expect("a directory");
        let mount = |name: &str| (name.to_owned(), dir.path().join(name));
        for name in ["cpu", "unified"] {
            fs::create_dir(dir.path().join(name)).expect("a mount");
        }
        // As upstream's kubelet does, which makes its cgroups for the controllers only.
        fs::create_dir_all(dir.path().join("cpu/kubepods/pod1")).expect("a cgroup");
        let cgroups = Cgroups::V1 { mounts: [mount("cpu"), mount("unified")].into() };
        let made = cgroups.create("/kubepods/pod1").expect("a cgroup");
        assert_eq!(made, [dir.path().join("unified/kubepods/pod1")]);
        assert!(cgroups.create("/kubepods/pod1").expect("a cgroup").is_empty());
        assert_eq!(cgroups.create("/kubepods/pod2").expect("a cgroup").len(), 2);
    }

    #[test]
    fn the_mount_table_names_the_controllers() {
        let table = "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                     31 25 0:27 / /sys/fs/cgroup/systemd rw shared:9 - cgroup none rw,xattr,name=systemd\n\
                     32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let mounts = v1_mounts(table);
        assert_eq!(mounts.len(), 4);
        assert_eq!(mounts["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(mounts["name=systemd"], Path::new("/sys/fs/cgroup/systemd"));
    }
}

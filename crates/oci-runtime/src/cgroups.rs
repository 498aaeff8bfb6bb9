//! The cgroup hierarchies that libcgroups leaves out, and removing a container's cgroups everywhere.
//!
//! With v1, systemd keeps its own books in `name=systemd`, and a hybrid set-up has a v2 hierarchy beside the
//! others. A container that stays in its engine's group there is killed when systemd stops the engine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Error, Result};

/// How long killed processes may take to leave their cgroup.
const PATIENCE: Duration = Duration::from_secs(10);

/// The kernel's numbers of the file systems (linux/magic.h).
const CGROUP_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The v1 controllers that libcgroups knows.
const CONTROLLERS: [&str; 12] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

/// A mounted hierarchy.
#[derive(Debug)]
struct Hierarchy {
    mount: PathBuf,
    /// v2, or v1 with a name and no controllers.
    plain: bool,
    v2: bool,
}

/// All of them, by what this process is in: a short list, where the table of mounts has several for each pod of the
/// node, and is read on the way to each container.
fn hierarchies() -> Vec<Hierarchy> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        // `4:memory:/…`, `9:name=systemd:/…`, `0::/…`.
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        // Only whole hierarchies: not one whose root lies above what this process may see.
        (!path.starts_with("/..")).then_some(controllers)
    });
    lines.filter_map(Hierarchy::find).collect()
}

impl Hierarchy {
    /// Where it is mounted, if it is. No controllers: v2.
    fn find(controllers: &str) -> Option<Self> {
        let top = Path::new("/sys/fs/cgroup");
        let v2 = controllers.is_empty();
        let name = controllers.strip_prefix("name=");
        let mounts: Vec<PathBuf> = match name {
            _ if v2 => vec![top.join("unified"), top.to_owned()],
            Some(name) => vec![top.join(name)],
            None => {
                [controllers].into_iter().chain(controllers.split(',')).map(|name| top.join(name)).collect()
            }
        };
        let kind = if v2 { CGROUP2_MAGIC } else { CGROUP_MAGIC };
        let is_one = |mount: &PathBuf| rustix::fs::statfs(mount).is_ok_and(|stat| stat.f_type == kind);
        let mount = mounts.into_iter().find(is_one)?;
        Some(Self { mount, plain: v2 || name.is_some(), v2 })
    }
}

/// Whether controllers are on v1 hierarchies here.
pub(crate) fn are_v1() -> bool {
    hierarchies().iter().any(|hierarchy| !hierarchy.plain)
}

/// A container's directory in the v2 hierarchy, where there is one.
pub(crate) fn v2_directory(path: &Path) -> Option<PathBuf> {
    let hierarchy = hierarchies().into_iter().find(|hierarchy| hierarchy.v2)?;
    Some(hierarchy.mount.join(path.strip_prefix("/").unwrap_or(path)))
}

/// The mounts that show a container its own cgroups, in the place of one of type `cgroup`: a directory for each v1
/// hierarchy. libcontainer would look for the container's process in the host's `/proc` by its number in the container,
/// which is anybody's or nobody's in a pid namespace that is joined; and it would leave out `ro`.
pub(crate) fn v1_mounts(path: &Path, mount: &Value) -> Vec<Value> {
    let destination = Path::new(mount["destination"].as_str().unwrap_or("/sys/fs/cgroup"));
    let relative = path.strip_prefix("/").unwrap_or(path);
    let read_only = mount["options"].as_array().is_some_and(|options| options.contains(&json!("ro")));
    let options = ["rbind", "nosuid", "nodev", "noexec", if read_only { "ro" } else { "rw" }];
    let mut mounts = vec![json!({
        "destination": destination, "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "nodev", "noexec", "mode=755"],
    })];
    // Those that a container has a directory in.
    let has = |hierarchy: &Hierarchy| {
        let name = hierarchy.mount.file_name().unwrap_or_default().to_string_lossy();
        !hierarchy.v2 && (hierarchy.plain || name.split(',').any(|part| CONTROLLERS.contains(&part)))
    };
    for hierarchy in hierarchies().into_iter().filter(has) {
        let name = hierarchy.mount.file_name().unwrap_or_default().to_string_lossy();
        // `cpu,cpuacct` is known as each of them, too.
        let parts = name.split(',').filter(|part| *part != name);
        for name in [&*name].into_iter().chain(parts) {
            mounts.push(json!({
                "destination": destination.join(name), "type": "bind",
                "source": hierarchy.mount.join(relative), "options": options,
            }));
        }
    }
    mounts
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

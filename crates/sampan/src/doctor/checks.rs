//! The checks themselves.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::{process::geteuid, system::uname};
use sampan_kubelet::generate::dns::node_resolv_conf;
use sampan_runtime::handlers::{KNOWN_ENGINES, identify};

use super::Check;
use crate::output::human_bytes;

pub(super) fn root() -> Check {
    match geteuid().as_raw() {
        0 => Check::good("root", "running as root"),
        uid => Check::missing(
            "root",
            format!("running as user {uid}"),
            "run it with sudo: namespaces, mounts and cgroups need root",
        ),
    }
}

pub(super) fn kernel() -> Check {
    let release = uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    // openat2 and pidfd_open came with 5.6, `lowerdir+` with 6.7 (there is a fallback for that one).
    match version {
        v if v >= (6, 7) => Check::good("kernel", release),
        v if v >= (5, 6) => {
            Check::good("kernel", format!("{release} (images of more than about 60 layers need 6.7)"))
        }
        _ => Check::missing("kernel", release, "Linux 5.6 or newer is needed (openat2, pidfds)"),
    }
}

pub(super) fn namespaces() -> Check {
    let missing: Vec<_> = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    match missing.as_slice() {
        [] => Check::good("namespaces", "cgroup, ipc, mnt, net, pid, user and uts"),
        ["user"] => Check::warning(
            "namespaces",
            "no user namespaces",
            "pods with hostUsers: false need CONFIG_USER_NS",
        ),
        _ => Check::missing(
            "namespaces",
            format!("no {}", missing.join(", ")),
            "build the kernel with CONFIG_NAMESPACES and these kinds",
        ),
    }
}

pub(super) fn cgroups() -> Check {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers");
    if let Ok(controllers) = fs::read_to_string(unified) {
        let missing: Vec<_> = ["cpu", "memory", "pids"]
            .into_iter()
            .filter(|c| !controllers.split_whitespace().any(|have| have == *c))
            .collect();
        return match missing.as_slice() {
            [] => Check::good("cgroups", format!("version 2 with {}", controllers.trim())),
            _ => Check::missing(
                "cgroups",
                format!("version 2 without {}", missing.join(", ")),
                "enable these controllers for the group that sampan runs in (Delegate=yes under systemd)",
            ),
        };
    }
    let missing: Vec<_> = ["cpu", "memory", "pids", "devices"]
        .into_iter()
        .filter(|c| !Path::new("/sys/fs/cgroup").join(c).join("cgroup.procs").exists())
        .collect();
    match missing.as_slice() {
        [] => Check::good("cgroups", "version 1 (limits work; version 2 is better at memory)"),
        _ => Check::missing(
            "cgroups",
            format!("version 1 without {}", missing.join(", ")),
            "mount cgroup2 on /sys/fs/cgroup, or these version 1 controllers below it",
        ),
    }
}

pub(super) fn overlay() -> Check {
    match listed("/proc/filesystems", "overlay") {
        true => Check::good("overlayfs", "available"),
        false => {
            Check::missing("overlayfs", "not in /proc/filesystems", "modprobe overlay (CONFIG_OVERLAY_FS)")
        }
    }
}

pub(super) fn bridge() -> Check {
    // A built-in driver is no module, but has a directory when it has parameters; a bridge may exist too.
    let known = module("bridge") || any_interface_with("bridge");
    match known {
        true => Check::good("bridge and veth", "available"),
        false => Check::warning(
            "bridge and veth",
            "cannot tell (no such module is listed)",
            "modprobe bridge veth, unless they are built in (CONFIG_BRIDGE, CONFIG_VETH)",
        ),
    }
}

pub(super) fn nftables() -> Check {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};
    let netfilter = Some(netlink::NETFILTER);
    match socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, netfilter) {
        Ok(_) => Check::good("nftables", "netfilter answers over netlink"),
        Err(errno) => Check::missing(
            "nftables",
            format!("no netfilter socket: {errno}"),
            "modprobe nf_tables nft_nat nft_masq (CONFIG_NF_TABLES)",
        ),
    }
}

pub(super) fn forwarding() -> Check {
    let path = "/proc/sys/net/ipv4/ip_forward";
    let on = fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
    let writable = fs::metadata(path).is_ok_and(|file| !file.permissions().readonly());
    match (on, writable) {
        (true, _) => Check::good("IP forwarding", "on"),
        (false, true) => Check::good("IP forwarding", "off; the server turns it on"),
        (false, false) => Check::missing(
            "IP forwarding",
            "off, and /proc/sys is read-only",
            "sysctl net.ipv4.ip_forward=1 on the host",
        ),
    }
}

/// What pods with `dnsPolicy: Default` ask.
pub(super) fn resolver(path: &Path) -> Check {
    let config = node_resolv_conf(path);
    let servers = config.servers.join(", ");
    match (config.servers.is_empty(), config.is_reachable_from_pods()) {
        (true, _) => Check::warning(
            "name servers",
            format!("{} names none", path.display()),
            "name one there: pods with dnsPolicy Default find no names",
        ),
        (_, true) => Check::good("name servers", servers),
        (_, false) => Check::warning(
            "name servers",
            format!("{} names only the machine's loopback ({servers})", path.display()),
            "pods with dnsPolicy Default cannot reach it: set resolvConf in the kubelet's configuration to a file that \
             names the servers behind it",
        ),
    }
}

pub(super) fn seccomp() -> Check {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("errno") => Check::good("seccomp", "filters are available"),
        _ => Check::missing("seccomp", "no filters", "build the kernel with CONFIG_SECCOMP_FILTER"),
    }
}

/// Without this capability a container's out-of-memory score and limits are clamped to what the process has.
pub(super) fn resources() -> Check {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    match effective.is_some_and(|bits| bits >> CAP_SYS_RESOURCE & 1 == 1) {
        true => Check::good("CAP_SYS_RESOURCE", "held"),
        false => Check::warning(
            "CAP_SYS_RESOURCE",
            "not held",
            "pods run; negative out-of-memory scores and higher file limits are clamped",
        ),
    }
}

/// The OCI runtimes that are handlers under their own names, and why one is not (RTC-20).
pub(super) fn engines() -> Check {
    let path = std::env::var("PATH").unwrap_or_default();
    let find = |name: &str| path.split(':').map(|dir| Path::new(dir).join(name)).find(|file| file.is_file());
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Check::warning("runtime handlers", "unknown", "no event loop can be made");
    };
    let (mut usable, mut broken) = (vec!["sampan (embedded)".to_owned()], Vec::new());
    for file in KNOWN_ENGINES.iter().filter_map(|name| find(name)) {
        match runtime.block_on(identify(&file)) {
            Ok(identity) => usable.push(identity.to_string()),
            Err(reason) => broken.push(reason),
        }
    }
    let usable = usable.join(", ");
    if broken.is_empty() {
        return Check::good("runtime handlers", usable);
    }
    Check::warning("runtime handlers", usable, format!("not usable: {}", broken.join("; ")))
}

pub(super) fn inotify() -> Check {
    let path = "/proc/sys/fs/inotify/max_user_instances";
    match fs::read_to_string(path).ok().and_then(|value| value.trim().parse::<u64>().ok()) {
        Some(value) if value < 512 => Check::warning(
            "inotify",
            format!("{value} instances a user"),
            "sysctl fs.inotify.max_user_instances=8192, or programs in many pods run out",
        ),
        Some(value) => Check::good("inotify", format!("{value} instances a user")),
        None => Check::warning("inotify", "unknown", format!("{path} cannot be read")),
    }
}

pub(super) fn disk(data_dir: &Path) -> Check {
    // The directory may not exist yet: its nearest parent is on the same disk.
    let existing: PathBuf = data_dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/")).into();
    match rustix::fs::statvfs(&existing) {
        Ok(stat) => {
            let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
            let found =
                format!("{} of {} free for {}", human_bytes(free), human_bytes(total), data_dir.display());
            // 15 % is where upstream's image garbage collection begins (IMG-83).
            match free < 1 << 30 || free * 100 < total * 15 {
                true => Check::warning(
                    "disk",
                    found,
                    "images are collected below 15 % free; make room or move --data-dir",
                ),
                false => Check::good("disk", found),
            }
        }
        Err(errno) => {
            Check::missing("disk", format!("{}: {errno}", existing.display()), "choose another --data-dir")
        }
    }
}

fn listed(file: &str, word: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.split_whitespace().any(|found| found == word))
}

fn module(name: &str) -> bool {
    Path::new("/sys/module").join(name).exists()
}

fn any_interface_with(kind: &str) -> bool {
    let Ok(interfaces) = fs::read_dir("/sys/class/net") else { return false };
    interfaces.flatten().any(|interface| interface.path().join(kind).exists())
}

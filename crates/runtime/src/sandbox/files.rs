//! A sandbox's files: what containers see as `/etc/resolv.conf`, `/etc/hosts`, `/etc/hostname`, `/dev/shm`.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sampan_cri::v1;

/// Docker's and Kubernetes' size of a pod's shared memory.
const SHM_OPTIONS: &CStr = c"mode=1777,size=65536k";

/// Makes the directory of a sandbox. Blocking; on the way of every pod start.
pub(super) fn create(
    dir: &Path,
    config: &v1::PodSandboxConfig,
    resolv_conf: &Path,
    hostname: &str,
    own_ipc: bool,
) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("hostname"), format!("{hostname}\n"))?;
    // Without a kubelet (crictl) the host's names are better than none.
    copy_or_empty(Path::new("/etc/hosts"), &dir.join("hosts"))?;
    match &config.dns_config {
        Some(dns) => fs::write(dir.join("resolv.conf"), resolver(dns))?,
        None => copy_or_empty(resolv_conf, &dir.join("resolv.conf"))?,
    }
    if own_ipc {
        let shm = dir.join("shm");
        fs::create_dir_all(&shm)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("shm", &shm, "tmpfs", flags, SHM_OPTIONS)?;
    }
    Ok(())
}

/// Removes it; what is not there is no error.
pub(crate) fn remove(dir: &Path) {
    let shm = dir.join("shm");
    while unmount(&shm, UnmountFlags::DETACH).is_ok() {}
    let _ = fs::remove_dir_all(dir);
}

/// resolv.conf(5).
fn resolver(dns: &v1::DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

fn copy_or_empty(from: &Path, to: &Path) -> io::Result<()> {
    match fs::read(from) {
        Ok(content) => fs::write(to, content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::write(to, ""),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_file_has_upstreams_order() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let dns = v1::DnsConfig {
            servers: list(&["10.0.0.10", "8.8.8.8"]),
            searches: list(&["default.svc.cluster.local", "cluster.local"]),
            options: list(&["ndots:5"]),
        };
        assert_eq!(
            resolver(&dns),
            "search default.svc.cluster.local cluster.local\nnameserver 10.0.0.10\nnameserver 8.8.8.8\n\
             options ndots:5\n"
        );
    }
}

//! A pod's own user namespace (`hostUsers: false`, KEP-127): what is asked for, and how files are seen from inside.
//!
//! The kubelet chooses the ids. The shim makes the namespace, which then owns the pod's others; layers and volumes
//! are mounted with their ids mapped, so that nothing on disk changes its owner.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use sampan_cri::v1::{self, NamespaceMode};
use sampan_shim::protocol::{IdMapping, IdMappings};
use serde_json::{Value, json};

use crate::sandbox::namespace_options;

/// The first Linux that maps the ids of tmpfs; overlays and the usual disk file systems came before.
const KERNEL: (u32, u32) = (6, 3);

/// The ids that a sandbox's configuration asks for; none for the host's.
pub(crate) fn wanted(config: &v1::PodSandboxConfig) -> Option<v1::UserNamespace> {
    let user = namespace_options(config).userns_options?;
    (user.mode() == NamespaceMode::Pod).then_some(user)
}

/// Refuses what cannot be: namespaces of the host (which a user namespace of the pod's own has no rights in), ids
/// that are missing or no ids.
pub(crate) fn validate(config: &v1::PodSandboxConfig) -> Result<(), String> {
    let Some(user) = wanted(config) else { return Ok(()) };
    let options = namespace_options(config);
    for (name, mode) in [("network", options.network()), ("pid", options.pid()), ("ipc", options.ipc())] {
        if mode == NamespaceMode::Node {
            return Err(format!("a pod with a user namespace cannot use the host's {name} namespace"));
        }
    }
    for (name, ranges) in [("uids", &user.uids), ("gids", &user.gids)] {
        let root = ranges.iter().any(|range| range.container_id == 0 && range.length > 0);
        if !root {
            return Err(format!("the user namespace's {name} do not map id 0"));
        }
        let host_root = ranges.iter().any(|range| range.host_id == 0);
        if host_root {
            return Err(format!("the user namespace's {name} would give the host's id 0 away"));
        }
    }
    Ok(())
}

/// What the shim is told.
pub(crate) fn mappings(user: &v1::UserNamespace) -> IdMappings {
    let ranges = |ranges: &[v1::IdMapping]| {
        let range = |range: &v1::IdMapping| IdMapping {
            container_id: range.container_id,
            host_id: range.host_id,
            size: range.length,
        };
        ranges.iter().map(range).collect()
    };
    IdMappings { uids: ranges(&user.uids), gids: ranges(&user.gids) }
}

/// `uidMappings` and `gidMappings` of an OCI specification, for the container and for its mounts.
pub(crate) fn put(user: &v1::UserNamespace, object: &mut Value) {
    let ranges = |ranges: &[v1::IdMapping]| -> Value {
        ranges
            .iter()
            .map(|range| {
                json!({"containerID": range.container_id, "hostID": range.host_id, "size": range.length})
            })
            .collect()
    };
    object["uidMappings"] = ranges(&user.uids);
    object["gidMappings"] = ranges(&user.gids);
}

/// Whether this machine can do it.
pub(crate) fn is_supported() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let most = std::fs::read_to_string("/proc/sys/user/max_user_namespaces");
    version >= KERNEL && most.is_ok_and(|most| most.trim() != "0")
}

/// How files are to be seen from inside a user namespace.
#[derive(Debug)]
pub struct MappedIds {
    pub(crate) namespace: File,
    /// The host's id of its root.
    pub uid: u32,
    /// The host's id of its root's group.
    pub gid: u32,
}

impl MappedIds {
    /// Those of the namespace pinned at `path`.
    pub(crate) fn open(path: &Path, user: &v1::UserNamespace) -> io::Result<Self> {
        let root = |ranges: &[v1::IdMapping]| {
            let range = ranges.iter().find(|range| range.container_id == 0);
            range.map(|range| range.host_id).ok_or_else(|| io::Error::other("id 0 is not mapped"))
        };
        Ok(Self { namespace: File::open(path)?, uid: root(&user.uids)?, gid: root(&user.gids)? })
    }

    /// Attaches the view of a directory at `target`.
    pub(crate) fn attach(&self, dir: &Path, target: &Path) -> io::Result<()> {
        let view = self.view(dir)?;
        Ok(move_mount(view, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }

    /// A directory with its ids mapped, read-only: a mount that is attached nowhere.
    pub(crate) fn view(&self, dir: &Path) -> io::Result<OwnedFd> {
        let tree = open_tree(CWD, dir, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
        let attributes = libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_RDONLY,
            attr_clr: 0,
            propagation: 0,
            userns_fd: self.namespace.as_fd().as_raw_fd().unsigned_abs().into(),
        };
        // SAFETY: open descriptors, a string that ends in NUL, and a structure of the size said.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                tree.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const attributes,
                size_of::<libc::mount_attr>(),
            )
        };
        if result == 0 { Ok(tree) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(host_id: u32, network: NamespaceMode) -> v1::PodSandboxConfig {
        let range = v1::IdMapping { host_id, container_id: 0, length: 65_536 };
        let user =
            v1::UserNamespace { mode: NamespaceMode::Pod.into(), uids: vec![range], gids: vec![range] };
        let namespace_options = Some(v1::NamespaceOption {
            network: network.into(),
            userns_options: Some(user),
            ..Default::default()
        });
        let security_context =
            Some(v1::LinuxSandboxSecurityContext { namespace_options, ..Default::default() });
        v1::PodSandboxConfig {
            linux: Some(v1::LinuxPodSandboxConfig { security_context, ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn the_hosts_namespaces_and_root_are_refused() {
        assert_eq!(validate(&config(65_536, NamespaceMode::Pod)), Ok(()));
        assert!(validate(&config(65_536, NamespaceMode::Node)).is_err_and(|text| text.contains("network")));
        assert!(validate(&config(0, NamespaceMode::Pod)).is_err_and(|text| text.contains("id 0")));
        assert_eq!(validate(&v1::PodSandboxConfig::default()), Ok(()));
    }

    #[test]
    fn a_specification_gets_the_same_ids() {
        let user = wanted(&config(65_536, NamespaceMode::Pod)).unwrap_or_default();
        let mut mount = json!({});
        put(&user, &mut mount);
        assert_eq!(mount["gidMappings"], json!([{"containerID": 0, "hostID": 65_536, "size": 65_536}]));
        assert_eq!(mappings(&user).uids[0].host_id, 65_536);
    }
}

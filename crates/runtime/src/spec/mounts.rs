//! What is mounted where: the kernel's file systems, the sandbox's files, the pod's volumes.

use std::fs;
use std::path::{Component, Path};

use sampan_cri::v1::{self, MountPropagation};
use serde_json::{Value, json};

use super::{Inputs, SpecError};
use crate::user_namespace;

/// `mounts` and `linux.rootfsPropagation`.
#[derive(Debug)]
pub(super) struct Mounts {
    pub(super) list: Vec<Value>,
    pub(super) rootfs_propagation: &'static str,
}

/// Kernel file systems first, then the sandbox's files, then the pod's mounts with parents before children.
pub(super) fn mounts(
    inputs: &Inputs<'_>,
    security: &v1::LinuxContainerSecurityContext,
) -> Result<Mounts, SpecError> {
    let given: Vec<&str> = inputs.config.mounts.iter().map(|mount| mount.container_path.as_str()).collect();
    let taken = |path: &str| given.iter().any(|have| clean(have) == path);
    let mut list: Vec<Value> = kernel(inputs, security)
        .into_iter()
        .filter(|mount| !taken(mount["destination"].as_str().unwrap_or_default()))
        .collect();
    list.extend(sandbox_files(inputs, security.readonly_rootfs, &taken));

    let mut rootfs_propagation = "rprivate";
    let mut ordered: Vec<(usize, &v1::Mount)> = inputs.config.mounts.iter().enumerate().collect();
    ordered.sort_by_key(|(_, mount)| clean(&mount.container_path).matches('/').count());
    for (index, mount) in ordered {
        match (mount.propagation(), rootfs_propagation) {
            (MountPropagation::PropagationBidirectional, _) => rootfs_propagation = "rshared",
            (MountPropagation::PropagationHostToContainer, "rprivate") => rootfs_propagation = "rslave",
            _ => {}
        }
        list.push(volume(inputs, index, mount)?);
    }
    Ok(Mounts { list, rootfs_propagation })
}

/// `/a/../b/` means `/b`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir => {
                parts.pop();
            }
            Component::Normal(part) => parts.extend(part.to_str()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    format!("/{}", parts.join("/"))
}

fn kernel(inputs: &Inputs<'_>, security: &v1::LinuxContainerSecurityContext) -> Vec<Value> {
    let access = if security.privileged { "rw" } else { "ro" };
    let mut list = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", access]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", access]}),
    ];
    // With the host's ipc namespace its /dev/shm belongs to it.
    let shm = if inputs.namespaces.ipc.is_some() {
        inputs.sandbox_dir.join("shm")
    } else {
        Path::new("/dev/shm").to_owned()
    };
    list.push(mapped(
        inputs,
        json!({"destination": "/dev/shm", "type": "bind", "source": shm,
            "options": ["rbind", "nosuid", "noexec", "nodev", "rw"]}),
    ));
    list
}

/// A bind mount whose files the container is to own as the host's root does.
fn mapped(inputs: &Inputs<'_>, mut mount: Value) -> Value {
    if let Some(user) = inputs.user_namespace {
        user_namespace::put(user, &mut mount);
    }
    mount
}

/// The sandbox's own files, unless the pod mounts something there (the kubelet does for /etc/hosts).
fn sandbox_files(inputs: &Inputs<'_>, readonly: bool, taken: &dyn Fn(&str) -> bool) -> Vec<Value> {
    let access = if readonly { "ro" } else { "rw" };
    [("/etc/hostname", "hostname"), ("/etc/hosts", "hosts"), ("/etc/resolv.conf", "resolv.conf")]
        .into_iter()
        .filter(|(destination, _)| !taken(destination))
        .map(|(destination, file)| (destination, inputs.sandbox_dir.join(file)))
        .filter(|(_, source)| source.exists())
        .map(|(destination, source)| {
            let mount = json!({"destination": destination, "type": "bind", "source": source,
                "options": ["rbind", "rprivate", access]});
            mapped(inputs, mount)
        })
        .collect()
}

fn volume(inputs: &Inputs<'_>, index: usize, mount: &v1::Mount) -> Result<Value, SpecError> {
    let wants_ids = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    let as_the_pods =
        |user: &v1::UserNamespace| mount.uid_mappings == user.uids && mount.gid_mappings == user.gids;
    if wants_ids && !inputs.user_namespace.is_some_and(as_the_pods) {
        return Err(SpecError::invalid(format!(
            "the ids of {:?} can only be mapped as those of the pod's user namespace",
            mount.container_path
        )));
    }
    let destination = clean(&mount.container_path);
    if destination == "/" {
        return Err(SpecError::invalid(format!("invalid mount path {:?}", mount.container_path)));
    }
    let image = inputs.image_mounts.iter().find(|(of, _)| *of == index).map(|(_, path)| path);
    let source = match image {
        Some(path) => path.clone(),
        None => host_directory(&mount.host_path)?,
    };
    let mut options = vec!["rbind"];
    options.push(match mount.propagation() {
        MountPropagation::PropagationPrivate => "rprivate",
        MountPropagation::PropagationHostToContainer => "rslave",
        MountPropagation::PropagationBidirectional => "rshared",
    });
    if mount.recursive_read_only {
        if !mount.readonly || mount.propagation() != MountPropagation::PropagationPrivate {
            return Err(SpecError::invalid(
                "recursive read-only mount needs readonly and private propagation",
            ));
        }
        options.push("rro");
    }
    options.push(if mount.readonly || image.is_some() { "ro" } else { "rw" });
    if image.is_some() {
        // IMG-87: an image volume is read-only, and nothing in it is run.
        options.extend(["noexec", "nosuid", "nodev"]);
    }
    let bound = json!({"destination": destination, "type": "bind", "source": source, "options": options});
    // An image's layers are mapped before they are mounted.
    Ok(if wants_ids && image.is_none() { mapped(inputs, bound) } else { bound })
}

/// The real path behind a host path; a missing one is made as a directory, which kubelets rely on.
fn host_directory(path: &str) -> Result<std::path::PathBuf, SpecError> {
    let path = Path::new(path);
    if !path.is_absolute() {
        return Err(SpecError::invalid(format!("mount source {:?} is not absolute", path.display())));
    }
    let failed = |operation| move |source| SpecError::Io { operation, path: path.to_owned(), source };
    if let Err(error) = fs::symlink_metadata(path) {
        if error.kind() != std::io::ErrorKind::NotFound {
            return Err(failed("stat")(error));
        }
        fs::create_dir_all(path).map_err(failed("create"))?;
    }
    fs::canonicalize(path).map_err(failed("resolve"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        assert_eq!(clean("/a//b/../c/"), "/a/c");
        assert_eq!(clean("/../.."), "/");
        assert_eq!(clean("relative"), "/relative");
    }
}

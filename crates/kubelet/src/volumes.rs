//! A pod's volumes: made before its containers, kept up to date while it lives, removed with it.
//!
//! They are in `<data>/pods/<uid>/volumes/kubernetes.io~<plugin>/<name>`; a `hostPath` volume is where it says.

mod atomic_writer;
pub(crate) mod container_mounts;
pub(crate) mod env_file;
mod host_path;
pub(crate) mod kernel_mounts;
mod ownership;
mod payload;
mod sub_path;
mod token;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::context::NodeContext;
use crate::pod_ref;
use crate::quantities;

/// One pod's volumes as far as they are set up.
#[derive(Debug, Default)]
pub(crate) struct PodVolumes {
    /// Volume name to its directory (or file) on the host.
    paths: BTreeMap<String, PathBuf>,
    tokens: token::Tokens,
}

/// A volume that could not be set up.
#[derive(Debug)]
pub(crate) struct VolumeError {
    pub(crate) volume: String,
    pub(crate) message: String,
}

impl PodVolumes {
    /// Where a volume is on the host.
    pub(crate) fn path(&self, volume: &str) -> Option<&Path> {
        self.paths.get(volume).map(PathBuf::as_path)
    }

    /// Whether all volumes of the pod are there.
    pub(crate) fn complete(&self, pod: &Pod) -> bool {
        own_volumes(pod).all(|volume| self.paths.contains_key(&volume.name))
    }

    /// Sets up what is missing and brings the content of the others up to date.
    pub(crate) async fn sync(&mut self, ctx: &Arc<NodeContext>, pod: &Pod) -> Result<(), Vec<VolumeError>> {
        let mut errors = Vec::new();
        for volume in own_volumes(pod) {
            match set_up(ctx, pod, volume, &mut self.tokens).await {
                Ok(path) => {
                    self.paths.insert(volume.name.clone(), path);
                }
                Err(message) => errors.push(VolumeError { volume: volume.name.clone(), message }),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// The volumes that the kubelet itself sets up; those that are images are the runtime's (IMG-87).
fn own_volumes(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod_ref::spec(pod).volumes.iter().flatten().filter(|volume| volume.image.is_none())
}

async fn set_up(
    ctx: &Arc<NodeContext>,
    pod: &Pod,
    volume: &Volume,
    tokens: &mut token::Tokens,
) -> Result<PathBuf, String> {
    let plugin_dir = |plugin: &str| {
        ctx.pod_dir(pod_ref::uid(pod))
            .join("volumes")
            .join(format!("kubernetes.io~{plugin}"))
            .join(&volume.name)
    };
    let fs_group = pod_ref::spec(pod).security_context.as_ref().and_then(|context| context.fs_group);
    if let Some(host_path) = &volume.host_path {
        return host_path::check(&host_path.path, host_path.type_.as_deref().unwrap_or_default())
            .map(|()| PathBuf::from(&host_path.path));
    }
    if let Some(empty_dir) = &volume.empty_dir {
        let dir = plugin_dir("empty-dir");
        let existed = dir.exists();
        make_dir(&dir, 0o777)?;
        if empty_dir.medium.as_deref() == Some("Memory") {
            let wanted = empty_dir.size_limit.as_ref().and_then(|limit| quantities::value(&limit.0));
            kernel_mounts::mount_tmpfs(&dir, memory_limit(ctx, pod, wanted), 0o777)?;
        } else if let Some(medium) = empty_dir.medium.as_deref().filter(|medium| !medium.is_empty()) {
            return Err(format!("unsupported medium {medium:?} of an emptyDir volume"));
        }
        if !existed {
            set_mode(&dir, 0o777)?;
            ownership::apply_fs_group(&dir, fs_group, false)?;
        }
        return Ok(dir);
    }
    let (plugin, tmpfs) = match () {
        () if volume.config_map.is_some() => ("configmap", false),
        () if volume.secret.is_some() => ("secret", true),
        () if volume.projected.is_some() => ("projected", true),
        () if volume.downward_api.is_some() => ("downward-api", true),
        () => return Err(unsupported(volume)),
    };
    let files = payload::of_volume(ctx, pod, volume, tokens).await?;
    let dir = plugin_dir(plugin);
    make_dir(&dir, 0o777)?;
    if tmpfs {
        kernel_mounts::mount_tmpfs(&dir, None, 0o777)?;
    }
    if atomic_writer::write(&dir, &files).map_err(|error| format!("{}: {error}", dir.display()))? {
        ownership::apply_fs_group(&dir, fs_group, true)?;
    }
    Ok(dir)
}

/// The least of the volume's own limit, the pod's memory limit and the node's memory (ENV-46).
fn memory_limit(ctx: &NodeContext, pod: &Pod, own: Option<i64>) -> Option<i64> {
    let (resources, _) = crate::generate::resources::pod_resources(pod);
    let pod_limit = Some(resources.memory_limit_in_bytes);
    let node = Some(ctx.memory_capacity);
    [own, pod_limit, node].into_iter().flatten().filter(|limit| *limit > 0).min()
}

/// Says which kind of volume this node does not do, instead of pretending.
fn unsupported(volume: &Volume) -> String {
    let kind = serde_json::to_value(volume)
        .ok()
        .and_then(|value| value.as_object()?.keys().find(|key| *key != "name").cloned())
        .unwrap_or_else(|| "empty".to_owned());
    format!("volumes of type {kind:?} are not supported by this node")
}

fn make_dir(dir: &Path, mode: u32) -> Result<(), String> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(dir).map_err(|error| format!("mkdir {}: {error}", dir.display()))?;
    set_mode(dir, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), String> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(|error| format!("chmod {}: {error}", path.display()))
}

/// Unmounts everything of a pod and keeps the files, as a reboot does.
pub(crate) fn unmount(pod_dir: &Path) -> Result<(), String> {
    let left = kernel_mounts::unmount_below(pod_dir);
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("still mounted: {}", left.join(", "))),
    }
}

/// Unmounts and removes everything of the pod `uid`. What is in use stays and is reported.
pub(crate) fn tear_down(pod_dir: &Path) -> Result<(), String> {
    unmount(pod_dir)?;
    match std::fs::remove_dir_all(pod_dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("remove {}: {error}", pod_dir.display())),
    }
}
